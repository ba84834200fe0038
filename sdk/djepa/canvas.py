"""What a generation starts from: empty places, given streams, and pictures, clips or sounds with a part to fill in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from djepa.build import check_shape
from djepa.errors import LayoutError, UsageError, suggest
from djepa.recipe.schema import LearnedPosition, ModelSpec
from djepa.tokenizer import Tokenizer
from djepa.tokens import Sample, TokenBatch


@dataclass(frozen=True)
class Canvas:
    """Tokens of one sample in every stream, and which of them are unknown.

    Attributes:
        tokens: batches of one.
        unknown: (1, n) on the CPU.
    """

    tokens: Mapping[str, TokenBatch]
    unknown: Mapping[str, Bool[Tensor, "1 n"]]

    def repeated(self, count: int, device: torch.device) -> tuple[dict[str, TokenBatch], dict[str, Tensor]]:
        """The canvas for a batch of `count` samples."""
        batch = {name: one.repeated(count).to(device) for name, one in self.tokens.items()}
        return batch, {name: mask.expand(count, -1) for name, mask in self.unknown.items()}


def make_canvas(
    spec: ModelSpec, tokenizers: Mapping[str, Tokenizer], given: Mapping[str, Sample],
    masks: Mapping[str, Bool[Tensor, "..."]],
) -> Canvas:
    """Lay out a sample to generate.

    Args:
        spec, tokenizers: of the model.
        given: samples of streams that are known, at least in part.
        masks: per given stream, True where the sample is to be generated anew, in the shape of its axes; a stream without
            a mask is known throughout.

    Raises:
        UsageError: something is given for a stream that the model does not have, or a mask without its sample.
        LayoutError: a sample or mask does not fit the model.
    """
    for name in (*given, *masks):
        if name not in spec.streams:
            raise UsageError(f"This model has no stream {name!r}. {suggest(name, spec.streams)}")
        if name not in given:
            raise UsageError(f"There is a mask for the stream {name!r} and no sample it belongs to; give that as well.")
    tokens, unknown = {}, {}
    for name, stream in spec.streams.items():
        assert stream.shape is not None
        sample = given.get(name)
        if sample is None:
            empty = Sample(torch.zeros(stream.shape), dict(stream.meta), stream.modality)
            tokens[name] = tokenizers[name].encode_batch([empty])
            unknown[name] = tokens[name].valid
            continue
        check_shape(name, sample, stream, isinstance(spec.position, LearnedPosition))
        tokens[name] = tokenizers[name].encode_batch([sample])
        hidden = torch.zeros_like(tokens[name].valid)
        if name in masks:
            hidden[0] = token_mask(masks[name], tuple(sample.data.shape[1:]), tokens[name].grids[0])
        unknown[name] = hidden & tokens[name].valid
    return Canvas(tokens, unknown)


def token_mask(
    mask: Bool[Tensor, "..."], shape: tuple[int, ...], grid: tuple[int, ...] | None
) -> Bool[Tensor, "n"]:
    """True for the tokens in whose cell anything is masked.

    Args:
        mask: True where to generate; of shape `shape`, or one that broadcasts to it.
        shape: of the sample without its channels.
        grid: of the tokens.

    Raises:
        LayoutError: the mask has another shape, or the tokens form no grid over the axes of the sample.
    """
    if grid is None or len(grid) != len(shape):
        raise LayoutError("These tokens form no grid over the sample's axes, so a mask does not say which of them it means.")
    try:
        mask = mask.bool().expand(shape)
    except RuntimeError:
        raise LayoutError(f"The mask has shape {list(mask.shape)}; the sample needs {list(shape)} (no channels).") from None
    cells = mask.to(torch.int32)
    for axis, (size, count) in enumerate(zip(shape, grid, strict=True)):
        cell = torch.arange(size) * count // size  # which cell each step of the axis falls into
        reduced = cells.new_zeros(*cells.shape[:axis], count, *cells.shape[axis + 1 :])
        cells = reduced.index_add(axis, cell, cells)
    return cells.flatten() > 0


def composite(original: Sample, generated: Sample, mask: Bool[Tensor, "..."]) -> Sample:
    """The generated sample where the mask is True, the original everywhere else, exactly."""
    data = torch.where(mask.bool().expand(original.data.shape[1:]), generated.data, original.data)
    return Sample(data, generated.meta, generated.modality)
