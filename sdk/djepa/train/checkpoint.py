"""Checkpoints: model folders (of the averaged weights) that also hold what training needs to go on.

    checkpoints/step_00001000/
        config.json model.safetensors      the averaged model: Pipeline.from_pretrained takes it as it is
        training.safetensors               raw weights and optimizer state; of a sharded model a file for every process
        progress.json                      the step

A checkpoint is written under a temporary name and renamed, so one that is there is complete. Any number of processes reads
what any number wrote.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from djepa.errors import CheckpointError, StorageError
from djepa.files import atomic_folder, leftovers
from djepa.recipe.schema import CheckpointSpec, ModelSpec
from djepa.storage import PROGRESS, WEIGHTS, checkpoints, fill_model_folder
from djepa.train.distributed import piece
from djepa.train.engine import Engine
from djepa.train.pieces import Piece, Pieces, StoredPieces, refuse, write_pieces
from djepa.train.team import Team

TRAINING, AVERAGE = "training", "average"


@dataclass(frozen=True)
class Snapshot:
    """A run as it is after a step; apart from it, so that training can go on while it is written.

    Attributes:
        spec: of the model.
        about: facts for the reader of `config.json`.
        values: logged ones, by which the best checkpoint is known.
        training, average: what this process holds.
        sharded: whether no process holds all.
    """

    step: int
    spec: ModelSpec
    about: Mapping[str, Any]
    values: Mapping[str, float]
    training: Pieces
    average: Pieces
    sharded: bool


def take_snapshot(step: int, engine: Engine, team: Team, about: Mapping[str, Any], values: Mapping[str, float]) -> Snapshot:
    """Copy what has to be saved, on every process what it is the one to save."""
    training, average = _copied(training_pieces(engine, team)), _copied(model_pieces(engine.average, team, ""))
    return Snapshot(step, engine.spec, {**about, "step": step}, dict(values), training, average, engine.sharded)


def _copied(pieces: Pieces) -> Pieces:
    return {name: replace(one, data=one.data.to("cpu", copy=True)) for name, one in pieces.items() if one.kept}


def model_pieces(model: Any, team: Team, prefix: str) -> dict[str, Piece]:
    """What this process holds of a model's weights."""
    return {f"{prefix}{name}": piece(tensor, team) for name, tensor in model.state_dict().items()}


def optimizer_pieces(engine: Engine, team: Team) -> dict[str, Piece]:
    """What this process holds of the optimizer's state."""
    pieces = {}
    for name, tensor in engine.optimizer.state().items():
        parameter = engine.optimizer.parameter(name)
        pieces[f"optimizer.{name}"] = piece(tensor, team) if parameter is None else piece(parameter, team, tensor)
    return pieces


def training_pieces(engine: Engine, team: Team) -> dict[str, Piece]:
    """What this process holds of everything but the average."""
    return model_pieces(engine.model, team, "model.") | optimizer_pieces(engine, team)


def write_checkpoint(run: Path, snapshot: Snapshot, spec: CheckpointSpec, team: Team) -> Path:
    """Write a checkpoint, all processes together, then drop those that need not be kept.

    Raises:
        StorageError: the disk refused; older checkpoints are untouched.
        PeerError: another process could not write its part.
    """
    path = run / "checkpoints" / f"step_{snapshot.step:08d}"
    rank, size = (team.rank, team.size) if snapshot.sharded else (0, 1)
    with team.together(), ExitStack() as stack:
        folder = team.shared(lambda: stack.enter_context(atomic_folder(path)))
        with team.together():
            _write_parts(folder, snapshot, rank, size, team)
        if team.first:
            _complete(folder, snapshot)
    if team.first:
        prune(run, spec)
    return path


def _write_parts(folder: Path, snapshot: Snapshot, rank: int, size: int, team: Team) -> None:
    if not (team.first or snapshot.sharded):
        return
    try:
        write_pieces(folder, TRAINING, snapshot.training, rank, size)
        if snapshot.sharded:
            write_pieces(folder, AVERAGE, snapshot.average, rank, size)
    except OSError as error:
        raise StorageError(f"Could not write a part of {str(folder)!r}: {error.strerror or error}. Older checkpoints are "
                           f"untouched; free some space, then go on with: djepa resume {folder.parents[1]}") from error


def _complete(folder: Path, snapshot: Snapshot) -> None:
    """What one process writes when all have written their parts."""
    if snapshot.sharded:
        stored = StoredPieces(folder, AVERAGE)
        average = stored.read(stored.shapes)
        for part in folder.glob(f"{AVERAGE}-*"):
            part.unlink()
    else:
        average = {name: one.data for name, one in snapshot.average.items()}
    fill_model_folder(folder, snapshot.spec, average, about=snapshot.about)
    progress = {"step": snapshot.step, **({"values": dict(snapshot.values)} if snapshot.values else {})}
    (folder / PROGRESS).write_text(json.dumps(progress) + "\n")


def prune(run: Path, spec: CheckpointSpec) -> None:
    """Drop all checkpoints but the newest few, the best, and those of every so many steps."""
    found = checkpoints(run)
    kept = {step for step, _ in found[-spec.keep :]}
    kept |= {step for step, _ in found if spec.keep_every and step % spec.keep_every == 0}
    if spec.keep_best is not None:
        judged = [(value, step) for step, path in found if (value := _value(path, spec.keep_best)) is not None]
        kept |= {min(judged)[1]} if judged else set()
    for step, old in found:
        if step not in kept:
            shutil.rmtree(old, ignore_errors=True)


def _value(path: Path, name: str) -> float | None:
    value = read_progress(path).get("values", {}).get(name)
    return value if isinstance(value, int | float) else None


def sweep(run: Path) -> None:
    """Remove what a killed process left in a run's folders under temporary names."""
    for folder in (run, run / "checkpoints", run / "samples"):
        for leftover in leftovers(folder):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def load_checkpoint(path: Path, engine: Engine, team: Team) -> int:
    """Put everything back as it was after the checkpoint's step, and return that step.

    Raises:
        CheckpointError: the checkpoint is damaged or of another model.
    """
    step = read_progress(path)["step"]
    _fill(StoredPieces(path, WEIGHTS.removesuffix(".safetensors")), model_pieces(engine.average, team, ""))
    training = StoredPieces(path, TRAINING)
    engine.optimizer.blank_state(name.removeprefix("optimizer.") for name in training.shapes if name.startswith("optimizer."))
    _fill(training, training_pieces(engine, team))
    return step


def _fill(stored: StoredPieces, pieces: Pieces) -> None:
    refuse([f"unexpected {name!r}" for name in stored.shapes if name not in pieces], str(stored.folder))
    stored.fill(pieces)


def read_progress(path: Path) -> dict[str, Any]:
    """What `progress.json` of a checkpoint says.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        progress = json.loads((path / PROGRESS).read_text())
        return {**progress, "step": int(progress["step"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{str(path / PROGRESS)!r} is damaged ({error!r}).") from error
