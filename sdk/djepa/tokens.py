"""Tokens, their coordinates, and the samples they come from: the vocabulary every module shares.

Shape letters, used in annotations and docstrings everywhere:

    b  samples of a batch            n  tokens of a sample (of one stream)
    m  tokens selected from them     c  channels of a token
    d  model width                   a  coordinate axes
    h  attention heads               k  condition tokens

A *sample* is one picture, clip or sound, as a float tensor, channels first. A *tokenizer* turns it into
*tokens*: vectors of unit scale, each with a physical coordinate (pixels, seconds, mel bins) that comes
from the grid and never from the values. The core of the library sees tokens only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from djepa.errors import LayoutError, UsageError

if TYPE_CHECKING:
    from djepa.modality import Modality


@dataclass(frozen=True)
class Axis:
    """One physical axis of a medium.

    Attributes:
        name: what the axis is called in recipes: "y", "x", "t", "mel".
        unit: of the coordinate: "px", "s", "bin".
        rate_key: the entry of `Sample.meta` that says how many grid steps make one unit ("fps", "sample_rate");
            None where a grid step is one unit.
    """

    name: str
    unit: str
    rate_key: str | None = None

    def rate(self, meta: Mapping[str, Any]) -> float:
        """Grid steps per unit for a sample with this metadata."""
        if self.rate_key is None:
            return 1.0
        if self.rate_key not in meta:
            raise UsageError(f"A sample needs meta[{self.rate_key!r}] to place axis {self.name!r} in {self.unit}; "
                             f"it has {sorted(meta) or 'none'}.")
        return float(meta[self.rate_key])


@dataclass(frozen=True)
class MediaSpec:
    """What a tokenizer has to know about the samples of a modality.

    Attributes:
        channels: leading size of `Sample.data`.
        axes: the remaining dimensions, in order.
        bounds: smallest and largest value a sample may take, or None when unbounded.
    """

    channels: int
    axes: tuple[Axis, ...]
    bounds: tuple[float, float] | None = (-1.0, 1.0)


@dataclass(frozen=True)
class TokenSpec:
    """What the core has to know about the tokens of a tokenizer.

    Attributes:
        width: channels of a token (c).
        axes: the coordinate axes (a), in the order of `Tokens.coords`.
        bounds: per-channel smallest and largest value of a token, two tensors (c,), or None when unbounded. Heads
            clamp their estimate of the clean token to it.
    """

    width: int
    axes: tuple[Axis, ...]
    bounds: tuple[Tensor, Tensor] | None = None


@dataclass
class Sample:
    """One picture, clip or sound, and where it came from.

    Attributes:
        data: float32, channels first; pictures and waveforms lie in [-1, 1].
        meta: rates the axes need (fps, sample_rate), and for generated samples the model, condition, seed and settings.
        modality: registered name of the modality, which knows how to save and show it.
    """

    data: Float[Tensor, "..."]
    meta: dict[str, Any] = field(default_factory=dict)
    modality: str = ""

    def save(self, path: str | Path) -> Path:
        """Write the sample, with its metadata, in the format the path's extension names.

        Raises:
            UsageError: the modality writes no such extension.
            StorageError: the disk refused.
        """
        return _modality_of(self).save(self, Path(path))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """How a notebook shows the sample: the modality's preview, or nothing but the text."""
        shown = _modality_of(self).preview(self) if self.modality else {}
        return {"text/plain": repr(self), **shown}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the sample, channels first."""
        return tuple(self.data.shape)

    def __repr__(self) -> str:
        return f"Sample({self.modality or 'data'}, shape={tuple(self.data.shape)}, meta={self.meta})"


@dataclass(repr=False)
class Encoded(Sample):
    """A sample of which nothing is left but what a tokenizer's network found in it (`Tokenizer.moments`).

    Attributes:
        data: these findings.
        of_shape: the shape of the sample itself.
    """

    of_shape: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the sample, not of what was found."""
        return self.of_shape


class Samples(list[Sample]):
    """What a generation returns: a list that can lay itself out on one sheet or save every item."""

    def grid(self, path: str | Path, columns: int | None = None) -> Path:
        """Write all samples side by side (a grid of pictures, whatever the modality finds telling)."""
        if not self:
            raise UsageError("There are no samples to lay out: the list is empty.")
        return _modality_of(self[0]).sheet(self, Path(path), columns)

    def save(self, folder: str | Path, extension: str | None = None) -> list[Path]:
        """Write each sample to `folder`, numbered, with the modality's first extension unless told."""
        folder = Path(folder)
        paths = []
        for number, sample in enumerate(self):
            suffix = (extension or _modality_of(sample).extensions[0]).lstrip(".")
            paths.append(sample.save(folder / f"{number:05d}.{suffix}"))
        return paths

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        shown = _modality_of(self[0]).preview_sheet(self) if self and self[0].modality else {}
        return {"text/plain": repr(list(self)), **shown}


def _modality_of(sample: Sample) -> Modality:
    """The registered modality of a sample."""
    from djepa.plugins import host

    if not sample.modality:
        raise UsageError("This sample names no modality, so nothing knows how to save or show it; set Sample.modality.")
    return host().get("modality", sample.modality)()


@dataclass(frozen=True)
class Tokens:
    """The tokens of one sample.

    Attributes:
        values: unit scale (zero mean, unit variance over the training data).
        coords: physical coordinates of the token centres, in the units of the tokenizer's axes.
        grid: sizes of the token grid when there is one (their product is n).
        size: of the sample along its axes, where the grid does not say: tokenizers that pad to whole tokens crop to it again.
        meta, modality: the sample's own, carried through so that `decode` can restore them.
    """

    values: Float[Tensor, "n c"]
    coords: Float[Tensor, "n a"]
    grid: tuple[int, ...] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    modality: str = ""
    size: tuple[int, ...] | None = None


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of several samples, padded to the longest.

    Attributes:
        valid: True where a token is real, False where it is padding.
        grids, metas, sizes: as in `Tokens`, one per sample; `sizes` is empty where all grids say everything.
        modality: the one all samples share; a batch is made by one tokenizer.
    """

    values: Float[Tensor, "b n c"]
    coords: Float[Tensor, "b n a"]
    valid: Bool[Tensor, "b n"]
    grids: tuple[tuple[int, ...] | None, ...]
    metas: tuple[Mapping[str, Any], ...]
    modality: str = ""
    sizes: tuple[tuple[int, ...] | None, ...] = ()

    @classmethod
    def stack(cls, items: Sequence[Tokens]) -> TokenBatch:
        """Pad and stack the tokens of several samples."""
        if not items:
            raise LayoutError("Cannot batch no samples at all.")
        lengths = torch.tensor([len(item.values) for item in items])
        pad = torch.nn.utils.rnn.pad_sequence
        return cls(
            values=pad([item.values for item in items], batch_first=True),
            coords=pad([item.coords for item in items], batch_first=True),
            valid=torch.arange(int(lengths.max()))[None] < lengths[:, None],
            grids=tuple(item.grid for item in items),
            metas=tuple(item.meta for item in items),
            modality=items[0].modality,
            sizes=tuple(item.size for item in items),
        )

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Tokens:
        real = self.valid[index]
        return Tokens(self.values[index][real], self.coords[index][real], self.grids[index], self.metas[index],
                      self.modality, self.sizes[index] if self.sizes else None)

    def __iter__(self) -> Iterator[Tokens]:
        return (self[index] for index in range(len(self)))

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same tokens with values and coordinates on `device`; `valid` stays where it can be read without a sync."""
        return replace(self, values=self.values.to(device, non_blocking=True), coords=self.coords.to(device, non_blocking=True))

    def repeated(self, count: int) -> TokenBatch:
        """The whole batch `count` times over."""
        return TokenBatch(self.values.repeat(count, 1, 1), self.coords.repeat(count, 1, 1), self.valid.repeat(count, 1),
                          self.grids * count, self.metas * count, self.modality, self.sizes * count)

    def with_values(self, values: Float[Tensor, "b n c"]) -> TokenBatch:
        """The same places with other values."""
        return replace(self, values=values)
