"""What the recipe says about how to compute: it may take more time or less memory, but teaches the same."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from djepa import Trainer
from djepa.errors import RecipeError
from djepa.nn.transformer import Block
from djepa.recipe import TrainSpec
from djepa.train.engine import prepare_blocks


def weights(recipe, run):
    folder = Trainer(recipe, device="cpu").fit(run)
    return load_file(folder / "model.safetensors") | load_file(folder / "training.safetensors")


@pytest.mark.parametrize("which", ["full", 2])
def test_what_is_recomputed_comes_out_the_same_to_the_last_bit(tmp_path, make_recipe, which):
    same = ["train.steps=3", "model.dropout=0.3", "model.encoder_depth=2", "train.micro_batch_size=4"]
    kept = weights(make_recipe(*same), tmp_path / "kept")
    again = weights(make_recipe(*same, f"train.activation_checkpointing={which}"), tmp_path / "again")
    assert kept.keys() == again.keys() and all(torch.equal(tensor, again[name]) for name, tensor in kept.items())


@pytest.mark.parametrize(("which", "expected"), [
    ("none", [False] * 6), ("full", [True] * 6), (1, [True] * 6), (2, [True, False] * 3),
    (4, [True, False, False, False, True, False]),
])
def test_which_blocks_are_recomputed(which, expected):
    model = torch.nn.ModuleList(Block(8, 2, 1.0, False, 0.0, None) for _ in range(6))
    prepare_blocks(model, TrainSpec(activation_checkpointing=which))
    assert [block.recompute for block in model] == expected


def test_recomputing_keeps_less():
    kept = []
    for recompute in (False, True):
        block, size = Block(16, 2, 4.0, True, 0.0, None), 0
        block.recompute = recompute

        def pack(tensor):
            nonlocal size
            size += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            block(torch.zeros(2, 50, 16, requires_grad=True))
        kept.append(size)
    assert kept[1] * 5 < kept[0]


def test_a_target_is_not_recomputed():
    block = Block(8, 2, 1.0, False, 0.0, None)
    block.recompute = True
    with torch.no_grad():
        assert block(torch.zeros(1, 3, 8)).grad_fn is None


@pytest.mark.parametrize("override", ["train.activation_checkpointing=some", "train.activation_checkpointing=0",
                                      "train.parallel=zero3", "train.parallel={kind: ddp, replicas: 2}", "train.compile=maybe"])
def test_a_way_that_there_is_not(make_recipe, override):
    with pytest.raises(RecipeError):
        make_recipe(override)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # of torch's own, about itself
@pytest.mark.parametrize("more", [[], ["train.activation_checkpointing=full"], ["model.position=rotary"]])
def test_compiled_blocks_learn_the_same_but_for_rounding(tmp_path, make_recipe, more):
    same = ["train.steps=4", "train.lr=1e-4", *more]
    plain, fast = (weights(make_recipe(*same, f"train.compile={compiled}"), tmp_path / compiled)
                   for compiled in ("false", "true"))
    assert plain.keys() == fast.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(fast[name], tensor, atol=1e-4, rtol=1e-3)
