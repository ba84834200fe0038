"""DDP and FSDP2 learn the same to the last bit, whatever a recipe asks for; and what one process does, but for rounding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("variants.py")
VARIANTS = {
    "accumulation": ["train.micro_batch_size=1"],
    "no JEPA loss": ["train.jepa_weight=0"],  # a head without gradients
    "no JEPA loss, accumulation": ["train.jepa_weight=0", "train.micro_batch_size=2"],
    "flow, rotary": ["model.streams.image.head={kind: flow, depth: 2, width: 32}", "model.position=rotary"],
    "recomputed": ["train.activation_checkpointing=full", "model.encoder_depth=2"],
    "odd widths": ["model.width=30", "model.streams.image.head.width=31", "model.conditions.label.num_tokens=3"],
    "bfloat16": ["train.precision=bfloat16"],
}


def trained(folder, variants, num_processes):
    """Weights of every variant: averaged, and raw where one file holds them."""
    how = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)] if num_processes > 1 else []
    done = subprocess.run([sys.executable, *how, SCRIPT, folder, json.dumps(variants)], capture_output=True, text=True,
                          timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return {name: load_file(folder / name / "checkpoints" / "step_00000004" / "model.safetensors") for name in variants}


@pytest.mark.slow
def test_every_variant_three_ways(tmp_path, tiny):
    same = [*tiny, "train.steps=4", "model.dropout=0", "train.warmup_steps=0", "train.lr=1e-4"]
    recipes = {f"{kind} {name}": [*same, *more, f"train.parallel={kind}"] for name, more in VARIANTS.items()
               for kind in ("ddp", "fsdp")}
    together = trained(tmp_path / "two", recipes, 2)
    alone = trained(tmp_path / "one", {name: [*same, *more] for name, more in VARIANTS.items()}, 1)
    for name in VARIANTS:
        ddp, fsdp, one = together[f"ddp {name}"], together[f"fsdp {name}"], alone[name]
        assert ddp.keys() == fsdp.keys() == one.keys()
        rounded = name == "bfloat16"  # sharded weights travel in it
        for key, tensor in ddp.items():
            torch.testing.assert_close(fsdp[key], tensor, atol=2e-4 if rounded else 0.0, rtol=0.0, msg=f"{name}: {key}")
            torch.testing.assert_close(one[key], tensor, atol=2e-4 if rounded else 2e-6, rtol=0.0, msg=f"{name}: {key}")


@pytest.mark.slow
def test_replicas_of_a_sharded_model(tmp_path, tiny):
    same = [*tiny, "train.steps=4", "train.micro_batch_size=2"]
    recipes = {"ddp": [*same, "train.parallel=ddp"], "hybrid": [*same, "train.parallel={kind: fsdp, replicas: 2}"]}
    weights = trained(tmp_path, recipes, 4)
    for key, tensor in weights["ddp"].items():
        torch.testing.assert_close(weights["hybrid"][key], tensor, atol=1e-6, rtol=0)
    names = {path.name for path in (tmp_path / "hybrid" / "checkpoints" / "step_00000004").glob("training*")}
    assert names == {f"training-0000{number}-of-00004.safetensors" for number in (1, 2, 3, 4)}
