"""Sound and motion that goes on: clips to extend, and clips of which only the two ends are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from jaxtyping import Bool
from torch import Tensor

from djepa.canvas import Canvas, StreamCanvas, make_canvas
from djepa.errors import LayoutError, UsageError
from djepa.extent import fitted, time_axis
from djepa.recipe.schema import ModelSpec
from djepa.tokenizer import Tokenizer
from djepa.tokens import Sample, TokenBatch, Tokens
from djepa.windows import Window, windows

MAX_CELL = 4096  # steps of time that a row of tokens may cover


@dataclass(frozen=True)
class Continuation:
    """A clip laid out to be extended.

    Attributes:
        canvas, windows: what to fill in.
        axis: time, among the axes of the clip.
        num_steps: of time that were asked for; whole tokens may cover a few more.
    """

    canvas: Canvas
    windows: list[Window]
    axis: int
    num_steps: int

    def cropped(self, sample: Sample) -> Sample:
        """The sample without what was not asked for."""
        return replace(sample, data=sample.data.narrow(self.axis + 1, 0, self.num_steps))


def continuation(
    spec: ModelSpec, tokenizers: Mapping[str, Tokenizer], name: str, clip: Sample, seconds: float, context: float | None
) -> Continuation:
    """Lay out a clip, and `seconds` more of it.

    Args:
        spec, tokenizers: of the model.
        name: the clip's stream; other streams are generated along with it.
        seconds: how much longer it shall be.
        context: seconds that each window looks back on; None for half of what the model was trained on.

    Raises:
        UsageError: the stream has no axis in seconds, or a number is out of range.
        LayoutError: the clip does not fit the model, or is too short to hold a token.
    """
    tokenizer, stream = tokenizers[name], spec.streams[name]
    axis = required_time_axis(name, tokenizer)
    if not seconds > 0:
        raise UsageError(f"seconds={seconds!r}: expected how much longer the sample shall be, above 0.")
    assert stream.shape is not None
    sample = fitted(name, clip, stream, tokenizer.media, learned=False)
    rate = tokenizer.media.axes[axis].rate(sample.meta)
    given = sample.data.shape[axis + 1]
    asked = given + max(1, round(seconds * rate))
    shape = _whole(tokenizer, tuple(sample.data.shape), axis, asked)
    lead = _known_in_part(tokenizer, sample, shape, axis)
    others = {other: _lasting(tokenizers[other], spec, other, asked / rate) for other in spec.streams if other != name}
    canvas = Canvas({other: lead if other == name else stream for other, stream in
                     make_canvas(spec, tokenizers, {}, {}, {**others, name: shape}).streams.items()})
    times = {other: _token_time(one) for other, one in tokenizers.items()}
    rows, looks_back = _rows(tokenizer, stream.shape, axis, rate, context)
    return Continuation(canvas, windows(canvas, times, name, rows, looks_back), axis, asked)


def required_time_axis(name: str, tokenizer: Tokenizer) -> int:
    """The axis in seconds of a stream that has to have one.

    Raises:
        UsageError: it has none.
    """
    axis = time_axis(tokenizer.media)
    if axis is None or _token_time(tokenizer) is None:
        raise UsageError(f"The stream {name!r} does not go on in time: none of its axes is measured in seconds.")
    return axis


def _token_time(tokenizer: Tokenizer) -> int | None:
    """Time among the axes of the tokens."""
    axis, names = time_axis(tokenizer.media), [one.name for one in tokenizer.spec.axes]
    name = None if axis is None else tokenizer.media.axes[axis].name
    return names.index(name) if name in names else None


def _whole(tokenizer: Tokenizer, shape: tuple[int, ...], axis: int, steps: int) -> tuple[int, ...]:
    """`shape` with so many steps along an axis, or the fewest above that tokens can be made of."""
    longer = ((*shape[: axis + 1], steps + more, *shape[axis + 2 :]) for more in range(MAX_CELL))
    found = next((changed for changed in longer if _divides(tokenizer, changed)), None)
    if found is None:
        tokenizer.layout((*shape[: axis + 1], steps, *shape[axis + 2 :]))  # says what is wrong
        raise LayoutError(f"No length from {steps} steps of time on can be divided into tokens.")
    return found


def _divides(tokenizer: Tokenizer, shape: tuple[int, ...]) -> bool:
    try:
        tokenizer.layout(shape)
    except LayoutError:
        return False
    return True


def _lasting(tokenizer: Tokenizer, spec: ModelSpec, name: str, seconds: float) -> tuple[int, ...]:
    """The shape of another stream that lasts as long."""
    shape, axis = spec.streams[name].shape, time_axis(tokenizer.media)
    assert shape is not None
    if axis is None:
        return shape
    return _whole(tokenizer, shape, axis, round(seconds * tokenizer.media.axes[axis].rate(spec.streams[name].meta)))


def _known_in_part(tokenizer: Tokenizer, sample: Sample, shape: tuple[int, ...], axis: int) -> StreamCanvas:
    """The extended sample: tokens that lie within what is given are known."""
    given = sample.data.shape[axis + 1]
    cells = tokenizer.cells(shape)[tokenizer.media.axes[axis].name]
    num_known = int(cells[given - 1]) + (given == len(cells) or bool(cells[given] > cells[given - 1]))
    if num_known == 0:
        needed = int((cells == 0).sum())
        raise LayoutError(f"The sample to extend has {given} steps of time, and a token of this model covers {needed}; give at "
                          f"least that many.")
    known = _encoded(tokenizer, sample, axis, given, int((cells < num_known).sum()))
    blank = tokenizer.blank(shape, sample.meta, sample.modality)
    row = _token_time(tokenizer)
    assert blank.grid is not None and known.grid is not None and row is not None
    values = blank.values.unflatten(0, blank.grid).clone()
    values.narrow(row, 0, num_known).copy_(known.values.unflatten(0, known.grid).narrow(row, 0, num_known))
    unknown = torch.ones(blank.grid, dtype=torch.bool)
    unknown.narrow(row, 0, num_known).fill_(False)
    tokens = TokenBatch.stack([replace(blank, values=values.flatten(0, len(blank.grid) - 1))])
    keep = _first(shape, axis, given)
    padding = torch.zeros([shape[axis + 1] - given if index == axis + 1 else size for index, size in enumerate(shape)])
    original = replace(sample, data=torch.cat([sample.data, padding], dim=axis + 1))
    return StreamCanvas(tokens, unknown.view(1, prod(blank.grid)), original, keep)


def _encoded(tokenizer: Tokenizer, sample: Sample, axis: int, given: int, covered: int) -> Tokens:
    """Tokens of what is given, as it is where the tokenizer takes that, else cut to whole tokens."""
    steps = given if _divides(tokenizer, tuple(sample.data.shape)) else covered
    return tokenizer.encode(replace(sample, data=sample.data.narrow(axis + 1, 0, steps)))


def _first(shape: tuple[int, ...], axis: int, steps: int) -> Bool[Tensor, "..."]:
    place = torch.arange(shape[axis + 1]) < steps
    return place.view([-1 if index == axis else 1 for index in range(len(shape) - 1)]).expand(shape[1:])


def _rows(
    tokenizer: Tokenizer, shape: tuple[int, ...] | None, axis: int, rate: float, context: float | None
) -> tuple[int, int]:
    """Rows of tokens in what the model was trained on, and how many of them a window looks back on."""
    row = _token_time(tokenizer)
    assert row is not None and shape is not None
    rows = tokenizer.layout(shape)[row]
    trained = shape[axis + 1] / rate
    if rows < 2:
        raise UsageError("This model was trained on samples of a single row of time, which leaves no room for context.")
    if context is None:
        return rows, rows // 2
    if not 0 < context < trained:
        raise UsageError(f"context={context!r}: expected seconds, above 0 and below the {trained:g} that this model was "
                         f"trained on.")
    return rows, min(max(1, round(context / trained * rows)), rows - 1)


def between(
    tokenizer: Tokenizer, first: Sample, last: Sample, shape: tuple[int, ...], axis: int
) -> tuple[Sample, Bool[Tensor, "..."]]:
    """A sample of which the first and last steps of time are given, and the mask of what lies between.

    An end that does not fill its row of tokens is held still until it does. Between the ends one fades into the other, so that
    a tokenizer that looks beyond a token sees nothing abrupt.

    Args:
        tokenizer: of the sample.
        first, last: with as many axes as the sample, or one fewer: a still.
        shape: of the whole.
        axis: time, among the axes of the sample.

    Raises:
        LayoutError: nothing lies between the two, or they have other sizes.
    """
    parts = [part.data if part.data.ndim == len(shape) else part.data.unsqueeze(axis + 1) for part in (first, last)]
    for part in parts:
        if (*part.shape[: axis + 1], shape[axis + 1], *part.shape[axis + 2 :]) != shape:
            raise LayoutError(f"An end of shape {list(part.shape)} does not belong to a sample of {list(shape)}: only its "
                              f"length in time may differ.")
    cells = tokenizer.cells(shape)[tokenizer.media.axes[axis].name]
    head = _held(parts[0], axis + 1, int((cells <= cells[parts[0].shape[axis + 1] - 1]).sum()), from_start=True)
    tail = _held(parts[1], axis + 1, int((cells >= cells[-parts[1].shape[axis + 1]]).sum()), from_start=False)
    steps = shape[axis + 1] - head.shape[axis + 1] - tail.shape[axis + 1]
    if steps < 1:
        raise LayoutError(f"Nothing lies between the two ends: they fill the {shape[axis + 1]} steps of time; ask for more "
                          f"seconds.")
    weight = torch.linspace(0.0, 1.0, steps + 2)[1:-1].view([-1 if index == axis + 1 else 1 for index in range(len(shape))])
    middle = torch.lerp(head.narrow(axis + 1, -1, 1), tail.narrow(axis + 1, 0, 1), weight)
    known = _first(shape, axis, head.shape[axis + 1]) | ~_first(shape, axis, head.shape[axis + 1] + steps)
    return replace(first, data=torch.cat([head, middle, tail], dim=axis + 1)), ~known


def _held(part: Tensor, dim: int, steps: int, *, from_start: bool) -> Tensor:
    """`part` with its inner end repeated until it has so many steps."""
    edge = part.narrow(dim, -1 if from_start else 0, 1)
    still = edge.expand([steps - part.shape[dim] if index == dim else size for index, size in enumerate(edge.shape)])
    return torch.cat([part, still] if from_start else [still, part], dim=dim)
