"""A long sample as overlapping windows, each as long as what the model was trained on.

    known | known | unknown | unknown | unknown          rows of time
    [  context    |  made first ]
                  [  context    |  made next ]

Each window is generated as a sample of its own: its rows are moved to the beginning of time, the ones known by then are
given, the others filled in. What a window makes is context of the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from djepa.canvas import Canvas
from djepa.tokens import TokenBatch


@dataclass(frozen=True)
class Window:
    """Some of the tokens of every stream.

    Attributes:
        number: 0 for the first.
        columns: positions of its tokens among those of the stream; None where it is all of them.
        shift: what is taken off their coordinates, per axis.
        unknown: (1, columns) what it fills in; on the CPU.
    """

    number: int
    columns: Mapping[str, Int[Tensor, " m"] | None]
    shift: Mapping[str, Float[Tensor, " a"]]
    unknown: Mapping[str, Bool[Tensor, "1 m"]]

    def cut(self, name: str, batch: TokenBatch) -> TokenBatch:
        """The window's part of a stream."""
        columns = self.columns[name]
        if columns is None:
            return batch
        on_device = columns.to(batch.values.device)
        return replace(batch, values=batch.values[:, on_device], coords=batch.coords[:, on_device] - self.shift[name].to(
            batch.coords.device), valid=batch.valid[:, columns], grids=(None,) * len(batch))

    def put(self, name: str, batch: TokenBatch, part: TokenBatch) -> TokenBatch:
        """`batch` with the values of the window's part."""
        columns = self.columns[name]
        if columns is None:
            return part
        return batch.with_values(batch.values.index_copy(1, columns.to(batch.values.device), part.values))


def whole(canvas: Canvas) -> list[Window]:
    """One window over everything."""
    streams = canvas.streams
    return [Window(0, dict.fromkeys(streams), {}, {name: stream.unknown for name, stream in streams.items()})]


def windows(canvas: Canvas, times: Mapping[str, int | None], lead: str, num_rows: int, context: int) -> list[Window]:
    """Windows that together fill in everything unknown.

    Args:
        canvas: of the long sample.
        times: per stream, which of its tokens' axes is time; None where it has none, and is whole in every window.
        lead: the stream whose rows of equal time are counted.
        num_rows: of a window.
        context: rows that a window looks back on, fewer than it has.
    """
    axis = times[lead]
    assert axis is not None and 0 < context < num_rows
    moments = _moments(canvas, lead, axis)
    borders = torch.cat([moments.new_tensor([-torch.inf]), (moments[1:] + moments[:-1]) / 2, moments.new_tensor([torch.inf])])
    unknown = {name: stream.unknown.clone() for name, stream in canvas.streams.items()}
    made: list[Window] = []
    while (start := _first_unknown(canvas, unknown, times, borders)) is not None:
        begin = min(max(start - context, 0), max(len(moments) - num_rows, 0))
        low, high = borders[begin], borders[min(begin + num_rows, len(moments))]
        made.append(_window(len(made), canvas, unknown, times, (low, high), moments[begin] - moments[0]))
        for name, columns in made[-1].columns.items():
            unknown[name][:, slice(None) if columns is None else columns] = False
    return made


def _moments(canvas: Canvas, name: str, axis: int) -> Float[Tensor, " rows"]:
    stream = canvas.streams[name]
    return stream.tokens.coords[0, stream.tokens.valid[0], axis].unique()


def _first_unknown(
    canvas: Canvas, unknown: Mapping[str, Tensor], times: Mapping[str, int | None], borders: Tensor
) -> int | None:
    """The row in which the first unknown token lies."""
    firsts = [canvas.streams[name].tokens.coords[0, mask[0], axis].min()
              for name, mask in unknown.items() if (axis := times[name]) is not None and bool(mask.any())]
    return int(torch.searchsorted(borders, torch.stack(firsts).min(), right=True)) - 1 if firsts else None


def _window(
    number: int, canvas: Canvas, unknown: Mapping[str, Tensor], times: Mapping[str, int | None], span: tuple[Tensor, Tensor],
    offset: Tensor,
) -> Window:
    columns, shifts, parts = {}, {}, {}
    for name, stream in canvas.streams.items():
        axis, coords = times[name], stream.tokens.coords[0]
        if axis is None:
            columns[name], parts[name] = None, unknown[name].clone()
            continue
        inside = (coords[:, axis] >= span[0]) & (coords[:, axis] < span[1]) & stream.tokens.valid[0]
        columns[name] = inside.nonzero().squeeze(1)
        shifts[name] = torch.zeros(coords.shape[1]).index_fill(0, torch.tensor([axis]), float(offset))
        parts[name] = unknown[name][:, columns[name]]
    return Window(number, columns, shifts, parts)
