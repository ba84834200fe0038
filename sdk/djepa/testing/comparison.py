"""Recorded tensors on one side, ours on the other: rows of differences, and whatever nobody compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from djepa.errors import CheckpointError

ABSOLUTE, RELATIVE = 1e-4, 1e-6  # equal: max|a - b| <= ABSOLUTE + RELATIVE * max|recorded|


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        difference: the largest, over all numbers; infinite where shapes differ.
        bound: the largest that counts as equal.
    """

    name: str
    difference: float
    bound: float

    @property
    def ok(self) -> bool:
        """Whether they are equal; never where a number, ours or recorded, is not finite."""
        return math.isfinite(self.bound) and self.difference <= self.bound


class Comparison:
    """Compares with recorded tensors and keeps the books.

    Args:
        recorded: by name.
        place: what to call them in errors.
    """

    def __init__(self, recorded: Mapping[str, Tensor], place: str) -> None:
        self.recorded, self.place = recorded, place
        self.rows: list[Row] = []
        self.inputs: dict[str, None] = {}
        self._compared: set[str] = set()

    def given(self, name: str) -> Tensor:
        """A recorded input.

        Raises:
            CheckpointError: it is not there.
        """
        self.inputs[name] = None
        return self._recorded(name)

    def ignore_empty(self, prefix: str) -> None:
        """Count recorded tensors without a single number as inputs."""
        self.inputs |= {name: None for name, tensor in self.recorded.items() if name.startswith(prefix) and not tensor.numel()}

    def equal(self, name: str, ours: Tensor) -> None:
        """Compare with a recorded output.

        Raises:
            CheckpointError: it is not there.
        """
        self._add(name, ours, self._recorded(name))
        self._compared.add(name)

    def equal_slices(self, name: str, ours: Tensor) -> None:
        """Compare each entry along the first axis by itself."""
        recorded = self._recorded(name)
        if ours.shape != recorded.shape:
            return self.equal(name, ours)
        for index, (mine, theirs) in enumerate(zip(ours, recorded, strict=True)):
            self._add(f"{name}[{index}]", mine, theirs)
        self._compared.add(name)

    def uncompared(self) -> list[str]:
        """Recorded tensors that are no input and were not compared."""
        return sorted(set(self.recorded) - set(self.inputs) - self._compared)

    def _recorded(self, name: str) -> Tensor:
        if name not in self.recorded:
            raise CheckpointError(f"{self.place} has no tensor {name!r}, which this comparison needs.")
        return self.recorded[name]

    def _add(self, name: str, ours: Tensor, recorded: Tensor) -> None:
        recorded = recorded.double()
        bound = ABSOLUTE + RELATIVE * float(recorded.abs().amax()) if recorded.numel() else ABSOLUTE
        same = ours.shape == recorded.shape
        difference = (ours.double() - recorded).abs() if same else torch.tensor([torch.inf])
        self.rows.append(Row(name, float(difference.amax()) if difference.numel() else 0.0, bound))
