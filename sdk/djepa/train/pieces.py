"""Tensors in pieces: each process writes what it holds, and any number of processes reads them again.

The files are safetensors, and together a torch.distributed.checkpoint folder (its Hugging Face storage): every file says in its
header where its pieces belong. One process writes `training.safetensors`; of three, the second writes
`training-00002-of-00003.safetensors`. A piece is some rows of a tensor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from djepa.errors import CheckpointError
from djepa.storage import write_tensors

OFFSETS = "DCP_SHARDING_INFO"  # torch's name for the entry of the header: {tensor: {"saved_offsets": [row, 0, ...]}}
_PART = re.compile(r".*-(\d{5})-of-(\d{5})\.safetensors")


@dataclass(frozen=True)
class Piece:
    """What a process holds of a tensor.

    Attributes:
        data: the part, sharing memory with what it is part of.
        row: of the whole tensor where it starts.
        shape: of the whole tensor.
        kept: whether it is this process, of those that hold the same, that saves it.
    """

    data: Tensor
    row: int
    shape: tuple[int, ...]
    kept: bool = True

    @classmethod
    def whole(cls, tensor: Tensor) -> Piece:
        """All of it."""
        return cls(tensor, 0, tuple(tensor.shape))


Pieces = Mapping[str, Piece]


def write_pieces(folder: Path, stem: str, pieces: Pieces, rank: int, size: int) -> None:
    """Write what this process holds.

    Args:
        size: processes that write; with one its file has no number.

    Raises:
        OSError: the disk refused.
    """
    offsets = {name: {"saved_offsets": [piece.row, *[0] * (piece.data.ndim - 1)][: piece.data.ndim]}
               for name, piece in pieces.items()}
    header = {OFFSETS: json.dumps(offsets)} if size > 1 else None
    name = f"{stem}-{rank + 1:05d}-of-{size:05d}.safetensors" if size > 1 else f"{stem}.safetensors"
    write_tensors(folder / name, {name: piece.data for name, piece in pieces.items()}, header)


class StoredPieces:
    """The tensors that some processes wrote.

    Args:
        folder, stem: where, and what their files are called.

    Raises:
        CheckpointError: a file is missing or damaged.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder, self.stem = folder, stem
        self._stored: dict[str, list[tuple[Path, int, list[int]]]] = {}
        for path in self._paths():
            with _opened(path) as file:
                offsets = _offsets(path, file)
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    row = offsets.get(name, 0)
                    self._stored.setdefault(name, []).append((path, row, file.get_slice(name).get_shape()))

    def _paths(self) -> list[Path]:
        single = self.folder / f"{self.stem}.safetensors"
        if single.is_file():
            return [single]
        parts = sorted(self.folder.glob(f"{self.stem}-*-of-*.safetensors"))
        counts = {int(match[2]) for path in parts if (match := _PART.fullmatch(path.name))}
        if not parts or counts != {len(parts)}:
            raise CheckpointError(f"{str(self.folder)!r} has no {single.name}, and not all parts of it either "
                                  f"({len(parts)} of {max(counts, default=1)}); the folder is not complete.")
        return parts

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The whole shape of every tensor."""
        return {name: tuple([max(row + shape[0] for _, row, shape in parts), *parts[0][2][1:]]) if parts[0][2] else ()
                for name, parts in self._stored.items()}

    def fill(self, targets: Pieces) -> None:
        """Copy into what this process holds.

        Raises:
            CheckpointError: a tensor is missing or of another shape; the message names the first few.
        """
        shapes = self.shapes
        problems = [f"missing {name!r}" for name in targets if name not in shapes]
        problems += [f"{name!r} has shape {list(shapes[name])} instead of {list(target.shape)}"
                     for name, target in targets.items() if name in shapes and shapes[name] != target.shape]
        refuse(problems, str(self.folder))
        with ExitStack() as stack:
            files: dict[Path, Any] = {}
            for name, target in targets.items():
                for path, row, shape in self._stored[name]:
                    if path not in files:
                        files[path] = stack.enter_context(_opened(path))
                    _copy(target, row, shape, files[path], name)

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Whole tensors."""
        shapes, found = self.shapes, {}
        for name in names:
            path = self._stored[name][0][0]
            with _opened(path) as file:
                found[name] = torch.empty(shapes[name], dtype=file.get_tensor(name).dtype)
        self.fill({name: Piece.whole(tensor) for name, tensor in found.items()})
        return found


def refuse(problems: list[str], source: str) -> None:
    """Raise CheckpointError when there are problems between a checkpoint and the model it is for."""
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"The weights in {source!r} do not fit the model they are for: {shown}.")


def _copy(target: Piece, row: int, shape: list[int], file: Any, name: str) -> None:
    """What a stored piece and a target have in common."""
    if not shape:
        target.data.copy_(file.get_tensor(name))
        return
    start, stop = max(target.row, row), min(target.row + target.data.shape[0], row + shape[0])
    if start < stop:
        target.data[start - target.row : stop - target.row].copy_(file.get_slice(name)[start - row : stop - row])


@contextmanager
def _opened(path: Path) -> Any:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged or no safetensors file ({error}); fetch or save it again.") from error


def _offsets(path: Path, file: Any) -> dict[str, int]:
    try:
        written = json.loads((file.metadata() or {}).get(OFFSETS, "{}"))
        return {name: int(entry["saved_offsets"][0]) for name, entry in written.items() if entry["saved_offsets"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{str(path)!r} does not say where its pieces belong ({error!r}); it is damaged.") from error
