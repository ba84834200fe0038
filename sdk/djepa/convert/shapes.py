"""Sizes read off tensors, and the shapes that all tensors of a file must then have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from djepa.errors import CheckpointError

Tensors = Mapping[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def size(tensors: Tensors, name: str, axis: int, num_axes: int) -> int:
    """The size of a tensor along an axis.

    Raises:
        CheckpointError: there is no such tensor, or it has another number of axes.
    """
    if name not in tensors:
        raise CheckpointError(f"The tensor {name!r} is missing.")
    shape = tensors[name].shape
    if len(shape) != num_axes or 0 in shape:
        raise CheckpointError(f"The tensor {name!r} has shape {list(shape)}; expected {num_axes} axes, none of them empty.")
    return shape[axis]


def count(names: Iterable[str], prefix: str) -> int:
    """How many different numbers follow a prefix in names; counted, because the numbers themselves are anyone's.

    Raises:
        CheckpointError: there are none.
    """
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    found = {match[1] for name in names if (match := pattern.match(name))}
    if not found:
        raise CheckpointError(f"There are no tensors {prefix}.0.*: the model lacks them.")
    return len(found)


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    """Of a linear layer."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def convolution(name: str, outputs: int, inputs: int, extent: int) -> Shapes:
    """Of a square 2-d convolution."""
    return {f"{name}.weight": (outputs, inputs, extent, extent), f"{name}.bias": (outputs,)}


def norm(name: str, width: int) -> Shapes:
    """Of a normalization with scale and shift."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def check(tensors: Tensors, shapes: Shapes, place: object) -> None:
    """Refuse tensors that are not exactly of these shapes.

    Raises:
        CheckpointError: some are missing, left over or of another shape; the message names up to five.
    """
    problems = [f"missing {name!r}" for name in shapes if name not in tensors]
    problems += [f"unknown {name!r}" for name in tensors if name not in shapes]
    problems += [f"{name!r} has shape {list(tensors[name].shape)} instead of {list(shape)}"
                 for name, shape in shapes.items() if name in tensors and tuple(tensors[name].shape) != shape]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(f"The tensors in {str(place)!r} do not fit together: {'; '.join(problems[:5])}{more}.")
