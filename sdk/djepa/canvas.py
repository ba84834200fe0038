"""What a generation starts from: empty places, given streams, and pictures, clips or sounds with a part to fill in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from djepa.errors import LayoutError, UsageError, suggest
from djepa.extent import fitted
from djepa.recipe.schema import LearnedPosition, ModelSpec
from djepa.tokenizer import Tokenizer
from djepa.tokens import Sample, TokenBatch

Box = Mapping[str, tuple[float, float]]  # from and to along some axes, in their units
Mask = Bool[Tensor, "..."] | Box         # True, or inside the box: to be generated


@dataclass(frozen=True)
class StreamCanvas:
    """One stream of a sample, known in part or not at all.

    Attributes:
        tokens: a batch of one.
        unknown: (1, n) on the CPU.
        original: the sample that is known in part; None when nothing of it has to come back exactly.
        keep: in the shape of its axes: True where it has to.
    """

    tokens: TokenBatch
    unknown: Bool[Tensor, "1 n"]
    original: Sample | None = None
    keep: Bool[Tensor, "..."] | None = None


@dataclass(frozen=True)
class Canvas:
    """Every stream of one sample."""

    streams: Mapping[str, StreamCanvas]

    def generated(self) -> list[str]:
        """The streams of which something is unknown."""
        return [name for name, stream in self.streams.items() if bool(stream.unknown.any())]

    def repeated(self, count: int, device: torch.device) -> dict[str, TokenBatch]:
        """The tokens of `count` samples that start alike."""
        return {name: stream.tokens.repeated(count).to(device) for name, stream in self.streams.items()}


def make_canvas(
    spec: ModelSpec, tokenizers: Mapping[str, Tokenizer], given: Mapping[str, Sample], masks: Mapping[str, Mask],
    shapes: Mapping[str, tuple[int, ...]],
) -> Canvas:
    """Lay out a sample to generate.

    Args:
        spec, tokenizers: of the model.
        given: samples of streams that are known, at least in part.
        masks: per given stream, what is to be generated anew; a stream without a mask is known throughout.
        shapes: of the samples of all other streams, channels first.

    Raises:
        UsageError: something is given for a stream that the model does not have, or a mask without its sample.
        LayoutError: a sample or mask does not fit the model.
    """
    for name in (*given, *masks):
        if name not in spec.streams:
            raise UsageError(f"This model has no stream {name!r}. {suggest(name, spec.streams)}")
        if name not in given:
            raise UsageError(f"There is a mask for the stream {name!r} and no sample it belongs to; give that as well.")
    streams = {}
    for name, stream in spec.streams.items():
        if name in given:
            sample = fitted(name, given[name], stream, tokenizers[name].media, isinstance(spec.position, LearnedPosition))
            streams[name] = _partly_known(tokenizers[name], sample, masks.get(name))
        else:
            tokens = TokenBatch.stack([tokenizers[name].blank(shapes[name], stream.meta, stream.modality)])
            streams[name] = StreamCanvas(tokens, tokens.valid)
    return Canvas(streams)


def _partly_known(tokenizer: Tokenizer, sample: Sample, mask: Mask | None) -> StreamCanvas:
    tokens = tokenizer.encode_batch([sample])
    if mask is None:
        return StreamCanvas(tokens, torch.zeros_like(tokens.valid))
    anew = sample_mask(mask, sample, tokenizer)
    hidden = token_mask(anew, tokenizer, tokens)
    if isinstance(mask, Mapping):
        hidden = hidden & _inside(mask, tokenizer, tokens)
    return StreamCanvas(tokens, (hidden & tokens.valid[0])[None], sample, ~anew)


def sample_mask(mask: Mask, sample: Sample, tokenizer: Tokenizer) -> Bool[Tensor, "..."]:
    """True for the part of a sample to be generated anew, in the shape of its axes.

    Args:
        mask: a tensor of that shape or one that broadcasts to it, or a box over axes of the sample and of its tokens: of
            the latter, the whole sample is in it.

    Raises:
        LayoutError: a mask of another shape.
        UsageError: a box over an axis that there is not, or that ends before it starts.
    """
    sizes, axes = tuple(sample.data.shape[1:]), tokenizer.media.axes
    if isinstance(mask, Mapping):
        _check_box(mask, tokenizer)
        inside = torch.ones(sizes, dtype=torch.bool)
        for index, axis in enumerate(axes):
            low, high = mask.get(axis.name, (float("-inf"), float("inf")))
            centres = (torch.arange(sizes[index], dtype=torch.float64) + 0.5) / axis.rate(sample.meta)
            part = (centres >= low) & (centres < high)
            inside &= part.view([-1 if other == index else 1 for other in range(len(sizes))])
        return inside
    try:
        return mask.bool().expand(sizes)
    except RuntimeError:
        raise LayoutError(f"The mask has shape {list(mask.shape)}; the sample needs {list(sizes)} (no channels).") from None


def _check_box(box: Box, tokenizer: Tokenizer) -> None:
    known = dict.fromkeys(axis.name for axis in (*tokenizer.media.axes, *tokenizer.spec.axes))
    for name, (low, high) in box.items():
        if name not in known:
            raise UsageError(f"The mask names the axis {name!r}, which these samples lack. {suggest(name, known)}")
        if not low < high:
            raise UsageError(f"The mask goes from {low} to {high} along {name!r}; expected a start below the end.")


def token_mask(anew: Bool[Tensor, "..."], tokenizer: Tokenizer, tokens: TokenBatch) -> Bool[Tensor, "n"]:
    """True for the tokens in whose cell anything is to be made anew.

    Args:
        anew: in the shape of the sample's axes.
        tokenizer, tokens: of the sample; a batch of one.

    Raises:
        LayoutError: the tokens form no grid.
    """
    grid, names = tokens.grids[0], [axis.name for axis in tokenizer.spec.axes]
    if grid is None or len(grid) != len(names):
        raise LayoutError("These tokens form no grid over the sample's axes, so a tensor does not say which of them it means; "
                          "a box over their axes does.")
    cells = tokenizer.cells((tokenizer.media.channels, *anew.shape))
    counts, left = anew.to(torch.int32), [axis.name for axis in tokenizer.media.axes]
    for name in list(left):
        axis = left.index(name)
        if name not in cells:  # tokens say nothing of where along it they are
            counts = counts.sum(axis, dtype=torch.int32)
            left.remove(name)
            continue
        shape = [*counts.shape[:axis], grid[names.index(name)], *counts.shape[axis + 1 :]]
        counts = counts.new_zeros(shape).index_add(axis, cells[name], counts)
    ordered = counts.permute([left.index(name) for name in names if name in left])
    shape = [size if name in left else 1 for name, size in zip(names, grid, strict=True)]
    return (ordered.reshape(shape) > 0).expand(grid).flatten()


def _inside(box: Box, tokenizer: Tokenizer, tokens: TokenBatch) -> Bool[Tensor, "n"]:
    """True for the tokens that lie in a box, as far as it goes along axes that only tokens have."""
    media = {axis.name for axis in tokenizer.media.axes}
    inside = torch.ones(tokens.values.shape[1], dtype=torch.bool)
    for index, axis in enumerate(tokenizer.spec.axes):
        if axis.name in box and axis.name not in media:
            low, high = box[axis.name]
            inside &= (tokens.coords[0, :, index] >= low) & (tokens.coords[0, :, index] < high)
    return inside
