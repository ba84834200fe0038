"""The tokenizer contract: samples to unit-scale tokens and back.

A tokenizer is constructed as `Class(media, **options)`: `media` comes from the core (the modality's axes, the number
of channels), the keyword-only options come from a recipe. It owns the statistics that make its tokens unit scale:
they are options like any other, so a model folder stores them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from djepa.seam import joined
from djepa.tokens import Encoded, MediaSpec, Sample, TokenBatch, Tokens, TokenSpec

EncodingNoise = Callable[[int], Tensor]  # standard normal numbers (b, width), a function of each sample and not of its batch


class Tokenizer(ABC):
    """Turns samples into tokens and tokens into samples."""

    lossless: ClassVar[bool] = False  # decode(encode(sample)) gives the sample back, up to float32 rounding
    cacheable: ClassVar[bool] = False  # encoding takes a network; what it finds can be kept: see `moments`

    media: MediaSpec

    @property
    @abstractmethod
    def spec(self) -> TokenSpec:
        """Width, axes and bounds of the tokens."""

    @abstractmethod
    def layout(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The token grid of a sample of this shape (channels first): arithmetic only, no weights.

        A tokenizer either refuses a shape that whole tokens do not fill, or pads the sample by repeating its edge; then the
        grid is that of the padded sample, `Tokens.size` the size without, and `decode` crops.

        Raises:
            LayoutError: the shape cannot be divided; the message names the nearest that can.
        """

    def blank(self, shape: tuple[int, ...], meta: Mapping[str, Any], modality: str = "") -> Tokens:
        """Tokens of a sample of this shape of which nothing is known yet: places without values.

        Args:
            shape: of the sample, channels first.
            meta: rates of the axes.
            modality: name of the sample's.

        Override where the places can be told without a sample to encode.
        """
        tokens = self.encode(Sample(torch.zeros(shape), dict(meta), modality))
        return replace(tokens, values=torch.zeros_like(tokens.values))

    @abstractmethod
    def encode(self, sample: Sample) -> Tokens:
        """Tokens of one sample. Pure: the sample is not modified and the same sample gives the same tokens."""

    @abstractmethod
    def decode(self, tokens: Tokens) -> Sample:
        """The sample of these tokens, with the metadata that `encode` was given."""

    def cells(self, shape: tuple[int, ...]) -> dict[str, Int[Tensor, " s"]]:
        """Which row of the token grid each step of a sample of this shape belongs to, for every axis that both have.

        Override where rows are not all of one size, or the sample is padded to fill them.
        """
        counts = dict(zip((axis.name for axis in self.spec.axes), self.layout(shape), strict=True))
        return {axis.name: torch.arange(size) * counts[axis.name] // size
                for axis, size in zip(self.media.axes, shape[1:], strict=True) if axis.name in counts}

    def restore(self, tokens: Tokens, original: Sample, keep: Bool[Tensor, "..."]) -> Sample:
        """The sample of these tokens, and exactly `original` where `keep` (in the shape of its axes) is True.

        What a lossy tokenizer gets wrong beside the seam is made up for on its other side, as far as a token goes.

        Override where what is decoded has a freedom (the phase of a sound) in which it has to agree with what is kept.
        """
        decoded = self.decode(tokens)
        if self.lossless:
            return replace(decoded, data=torch.where(keep, original.data, decoded.data))
        data = joined(decoded.data, original.data, keep, self._token_sizes(original.shape))
        low, high = self.media.bounds or (-torch.inf, torch.inf)
        return replace(decoded, data=torch.where(keep, original.data, data.clamp(low, high)))

    def _token_sizes(self, shape: tuple[int, ...]) -> list[int]:
        """How many steps of a sample of this shape a token covers at most, along each axis; all, where tokens have no such."""
        cells = self.cells(shape)
        return [int(cells[axis.name].bincount().max()) if axis.name in cells else size
                for axis, size in zip(self.media.axes, shape[1:], strict=True)]

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The keyword arguments that rebuild this tokenizer: plain values that JSON can hold."""

    def measured(self, samples: Iterable[Sample]) -> Tokenizer:
        """This tokenizer with statistics measured on `samples`; itself when it already has them or needs none."""
        return self

    def unscaled(self) -> Tokenizer:
        """This tokenizer without statistics, so that `measured` takes those of the data; itself where it has none.

        Statistics are the options `mean` and `std`. Override where a tokenizer knows some that are no options.
        """
        options = self.options()
        if options.get("mean") is None:
            return self
        return type(self)(self.media, **{**options, "mean": None, "std": None})  # pyright: ignore[reportCallIssue]

    def encode_batch(self, samples: Sequence[Sample], noise: EncodingNoise | None = None) -> TokenBatch:
        """Tokens of several samples; override where a batch is cheaper than its items.

        Args:
            samples: of any shapes that `layout` takes.
            noise: for tokenizers whose encoding is a distribution: draw from it (training); None takes its mode.
        """
        return TokenBatch.stack([self.encode(sample) for sample in samples])

    def decode_batch(self, tokens: TokenBatch) -> list[Sample]:
        """Samples of several sets of tokens; override where a batch is cheaper than its items."""
        return [self.decode(item) for item in tokens]

    def moments(self, samples: Sequence[Sample]) -> list[Encoded]:
        """What the network finds in each sample, before anything is drawn; only of tokenizers that are `cacheable`.

        These take it in place of the sample in `encode_batch` and `measured`, and give the same with it.
        """
        raise NotImplementedError

    def moments_key(self) -> dict[str, Any]:
        """All that decides what `moments` gives, weights included, by name: plain values that JSON can hold."""
        raise NotImplementedError

    def to(self, device: torch.device) -> Tokenizer:
        """Compute on this device from now on, where the tokenizer has a network; returns itself."""
        return self

    def save_assets(self, folder: Path) -> None:  # noqa: B027 (most tokenizers have none)
        """Write what the options do not hold (a network's weights) into an existing folder; nothing by default."""

    def load_assets(self, folder: Path) -> None:  # noqa: B027
        """Read what `save_assets` wrote.

        Raises:
            CheckpointError: it is missing or damaged.
        """


def grid_coords(grid: tuple[int, ...], steps: Sequence[float]) -> Tensor:
    """Coordinates (n, a) of the centres of a grid's cells in row-major order.

    Args:
        grid: cells along each axis.
        steps: size of a cell along each axis, in the axis's unit (a 4-pixel patch: 4.0; 2 frames at 8 fps: 0.25).
    """
    centres = [(torch.arange(cells, dtype=torch.float32) + 0.5) * step for cells, step in zip(grid, steps, strict=True)]
    return torch.stack(torch.meshgrid(*centres, indexing="ij"), dim=-1).reshape(-1, len(grid))
