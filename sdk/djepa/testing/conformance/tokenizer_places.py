"""Checks of where tokens are: grids, coordinates, sizes that work and sizes that do not."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import torch
from torch import Tensor

from djepa.errors import LayoutError, UsageError
from djepa.testing.conformance.check import CheckFailed, Function, require
from djepa.testing.conformance.tokenizer_subject import TokenizerSubject
from djepa.tokens import Axis, Sample, Tokens


def layout_is_that_of_encode(subject: TokenizerSubject) -> None:
    """`layout`, which plans without a sample, says how many tokens `encode` makes, and on which grid."""
    for sample in [*subject.samples, *subject.shorter()]:
        tokens, layout = subject.tokenizer.encode(sample), subject.tokenizer.layout(sample.shape)
        require(isinstance(layout, tuple) and all(isinstance(size, int) and size >= 1 for size in layout),
                f"the layout of {sample.shape} should be whole numbers; it is {layout!r}.")
        require(math.prod(layout) == len(tokens.values), f"the layout of {sample.shape} is {layout}, and encode makes "
                                                         f"{len(tokens.values)} tokens.")
        require(tokens.grid in (None, layout), f"the layout of {sample.shape} is {layout}, and encode's grid {tokens.grid}.")
        require(tokens.coords.shape == (len(tokens.values), len(subject.tokenizer.spec.axes)),
                f"coords have shape {tuple(tokens.coords.shape)}; expected a row per token and a column per axis.")


def coordinates_do_not_depend_on_values(subject: TokenizerSubject) -> None:
    """Other values on the same shape are in the same places: places are known before there is anything, and must not tell."""
    low, high = subject.modality.bounds or (-1.0, 1.0)
    middle = (low + high) / 2
    for sample in subject.samples:
        data = sample.data
        others = {"mirrored": data.flip(tuple(range(1, data.ndim))), "halved": middle + (data - middle) / 2,
                  "negated": low + high - data if subject.modality.bounds else -data, "blank": torch.full_like(data, middle)}
        places = subject.tokenizer.encode(sample)
        for what, values in others.items():
            tokens = subject.tokenizer.encode(replace(sample, data=values))
            require(torch.equal(tokens.coords, places.coords) and tokens.grid == places.grid,
                    f"the tokens of a {what} sample are in other places: coordinates must come from the grid alone.")


def coordinates_are_physical(subject: TokenizerSubject) -> None:
    """Every token has a place of its own within the sample, in the unit of the axis: at twice the rate, in half the space."""
    media, axes = subject.tokenizer.media.axes, subject.tokenizer.spec.axes
    for sample in [*subject.samples, *subject.shorter()]:
        tokens = subject.tokenizer.encode(sample)
        require(bool(tokens.coords.isfinite().all()), "coordinates are not finite.")
        require(len(tokens.coords.unique(dim=0)) == len(tokens.coords), "two tokens are in the same place.")
        for axis, size in zip(media, sample.shape[1:], strict=True):
            if axis.name in (one.name for one in axes):
                places = tokens.coords[:, [one.name for one in axes].index(axis.name)]
                _check_extent(places, size / axis.rate(sample.meta), axis, padded=tokens.size is not None)
    for axis in media:
        if axis.rate_key and axis.name in (one.name for one in axes):
            _check_rate(subject, axis, [one.name for one in axes].index(axis.name))


def _check_extent(places: Tensor, extent: float, axis: Axis, padded: bool) -> None:
    steps = places.unique().diff()
    slack = (float(steps.max()) if len(steps) else extent) if padded else 0.0
    low, high = float(places.min()), float(places.max())
    require(low >= 0 and high <= extent + slack, f"along {axis.name!r} a sample goes from 0 to {extent:g} {axis.unit}, and its "
                                                 f"tokens from {low:g} to {high:g}.")


def _check_rate(subject: TokenizerSubject, axis: Axis, column: int) -> None:
    sample = subject.samples[0]
    meta = {**sample.meta, axis.rate_key or "": 2 * axis.rate(sample.meta)}
    tokens = subject.tokenizer.encode(sample)
    try:
        faster = subject.tokenizer.encode(replace(sample, meta=meta))
    except UsageError:  # made for one rate: as good an answer
        return
    wanted = tokens.coords.clone()
    wanted[:, column] /= 2
    require(torch.allclose(faster.coords, wanted), f"at twice the {axis.rate_key}, tokens should be half as far along "
                                                   f"{axis.name!r}, and elsewhere where they were.")


def blanks_have_the_places_of_encode(subject: TokenizerSubject) -> None:
    """`blank` gives the places that `encode` would, and no values."""
    for sample in [*subject.samples, *subject.shorter()]:
        meta = dict(sample.meta)
        blank, tokens = subject.tokenizer.blank(sample.shape, meta, sample.modality), subject.tokenizer.encode(sample)
        require(torch.equal(blank.coords, tokens.coords) and _about(blank) == _about(tokens),
                f"blank puts tokens elsewhere than encode: {_about(blank)} instead of {_about(tokens)}, or other coordinates.")
        require(blank.values.shape == tokens.values.shape and not bool(blank.values.any()), "the values of blank should be 0.")
        require(meta == sample.meta, "blank changes the metadata it is given.")


def _about(tokens: Tokens) -> tuple[object, ...]:
    return tokens.grid, tokens.size, dict(tokens.meta), tokens.modality


def cells_divide_the_axes(subject: TokenizerSubject) -> None:
    """`cells` says of every step of a sample in which row of the token grid it is: from the first row to the last, in order."""
    names = [axis.name for axis in subject.tokenizer.spec.axes]
    for sample in [*subject.samples, *subject.shorter()]:
        cells = subject.tokenizer.cells(sample.shape)
        layout = dict(zip(names, subject.tokenizer.layout(sample.shape), strict=False))
        for axis, size in zip(subject.tokenizer.media.axes, sample.shape[1:], strict=True):
            if axis.name not in cells:
                require(axis.name not in names, f"cells say nothing of {axis.name!r}, which tokens have too.")
                continue
            rows = cells[axis.name]
            require(rows.shape == (size,), f"along {axis.name!r} there are {size} steps, and cells of {tuple(rows.shape)}.")
            require(int(rows[0]) == 0 and int(rows[-1]) < layout[axis.name] and bool((rows.diff() >= 0).all()),
                    f"along {axis.name!r} rows should go from 0 towards {layout[axis.name] - 1}, in order.")


def other_sizes_work_or_are_refused(subject: TokenizerSubject) -> None:
    """A size that whole tokens do not fill comes back as it was, or is a LayoutError that names one that works."""
    sample = subject.samples[0]
    for axis, size in enumerate(sample.shape[1:]):
        for other in (size - 1, size + 1, 1):
            if other >= 1:
                _check_size(subject, resized(sample, axis, other), axis)
    for wrong in (sample.data[None], torch.cat([sample.data, sample.data]), sample.data.narrow(1, 0, 0)):
        try:
            subject.tokenizer.encode(replace(sample, data=wrong))
        except LayoutError:
            continue
        raise CheckFailed(f"a sample of shape {tuple(wrong.shape)} should be a LayoutError; others have {sample.shape}.")


def _check_size(subject: TokenizerSubject, sample: Sample, axis: int) -> None:
    try:
        subject.tokenizer.layout(sample.shape)
    except LayoutError as error:
        try:
            subject.tokenizer.encode(sample)
        except LayoutError:
            _check_advice(subject, sample, axis, str(error))
            return
        raise CheckFailed(f"layout refuses {sample.shape}, and encode takes it.") from error
    back = subject.tokenizer.decode(subject.tokenizer.encode(sample))
    require(back.shape == sample.shape, f"a sample of shape {sample.shape} came back as {back.shape}.")


def _check_advice(subject: TokenizerSubject, sample: Sample, axis: int, message: str) -> None:
    named = {int(number) for number in re.findall(r"\d+", message)} - {0, sample.shape[1 + axis]}
    works = [number for number in named if subject.accepts((*sample.shape[: 1 + axis], number, *sample.shape[2 + axis :]))]
    require(bool(works), f"the size {sample.shape[1 + axis]} is refused, and the message names none that works: {message}")
    subject.tokenizer.encode(resized(sample, axis, min(works)))


def resized(sample: Sample, axis: int, size: int) -> Sample:
    """A sample cut short along an axis, or continued with its own values."""
    index = torch.arange(size) % sample.shape[1 + axis]
    return replace(sample, data=sample.data.index_select(1 + axis, index))


FUNCTIONS: tuple[Function, ...] = (
    layout_is_that_of_encode, coordinates_do_not_depend_on_values, coordinates_are_physical, blanks_have_the_places_of_encode,
    cells_divide_the_axes, other_sizes_work_or_are_refused,
)
