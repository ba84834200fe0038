"""Checkpoints: model folders (of the averaged weights) that also hold what training needs to go on.

    checkpoints/step_00001000/
        config.json model.safetensors      the averaged model: Pipeline.from_pretrained takes it as it is
        training.safetensors               raw weights and optimizer state
        progress.json                      the step

A checkpoint is written under a temporary name and renamed, so one that is there is complete.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from djepa.errors import CheckpointError
from djepa.files import atomic_folder, leftovers
from djepa.model import MaskedModel
from djepa.recipe.schema import ModelSpec
from djepa.storage import PROGRESS, WEIGHTS, checkpoints, fill_model_folder, load_into, read_tensors, write_tensors
from djepa.train.optimizer import load_optimizer, optimizer_tensors

TRAINING = "training.safetensors"


def save_checkpoint(
    run: Path, step: int, spec: ModelSpec, model: MaskedModel, average: MaskedModel, optimizer: torch.optim.Optimizer,
    about: Mapping[str, Any], keep: int,
) -> Path:
    """Write the checkpoint of `step`, then drop all but the newest `keep`.

    Raises:
        StorageError: the disk refused; older checkpoints are untouched.
    """
    path = run / "checkpoints" / f"step_{step:08d}"
    with atomic_folder(path) as temporary:
        fill_model_folder(temporary, spec, average.state_dict(), about={**about, "step": step})
        raw = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        state = {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(optimizer, model).items()}
        write_tensors(temporary / TRAINING, raw | state)
        (temporary / PROGRESS).write_text(json.dumps({"step": step}) + "\n")
    for _, old in checkpoints(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def sweep(run: Path) -> None:
    """Remove what a killed process left in a run's folders under temporary names."""
    for folder in (run, run / "checkpoints", run / "samples"):
        for leftover in leftovers(folder):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def load_checkpoint(
    path: Path, model: MaskedModel, average: MaskedModel, optimizer: torch.optim.Optimizer
) -> int:
    """Put everything back as it was after the checkpoint's step, and return that step.

    Raises:
        CheckpointError: the checkpoint is damaged or of another model.
    """
    load_into(average, read_tensors(path / WEIGHTS), str(path))
    training = read_tensors(path / TRAINING)
    load_into(model, _under("model.", training), str(path))
    load_optimizer(optimizer, model, _under("optimizer.", training))
    try:
        return int(json.loads((path / PROGRESS).read_text())["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{str(path / PROGRESS)!r} is damaged ({error!r}).") from error


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
