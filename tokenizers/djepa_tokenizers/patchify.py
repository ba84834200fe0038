"""Patchify: a token is a block of the sample itself, over any number of axes.

With patch sizes p1, p2, ... along the media's axes, a sample (C, S1, S2, ...) becomes a grid of S1/p1 x S2/p2 x ...
tokens in row-major order, each of C * p1 * p2 * ... channels. The channels of a token are channel-major: the media
channel varies slowest, then the position inside the patch, axis by axis (for a picture: channel, row, column).

Values are normalized by one mean and one standard deviation per media channel, so that tokens are unit scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from djepa.errors import LayoutError, UsageError, suggest
from djepa.tokenizer import EncodingNoise, Tokenizer, grid_coords
from djepa.tokens import MediaSpec, Sample, TokenBatch, Tokens, TokenSpec

MIN_STD = 1e-3  # of a measured channel: a constant one must not blow up what little it varies by later


class Patchify(Tokenizer):
    """Blocks of the sample as tokens.

    Args:
        media: channels, axes and bounds of the samples.
        patch: size of a block per axis name, in grid steps (an axis not named: 1), or one size for all axes.
        mean, std: per media channel, or one number for all; both or neither. Without them tokens are the plain values
            until `measured` has seen some data.

    Raises:
        UsageError: an unknown axis, a size below 1, or statistics that do not fit the media.
    """

    lossless = True

    def __init__(self, media: MediaSpec, *, patch: dict[str, int] | int = 1,
                 mean: list[float] | float | None = None, std: list[float] | float | None = None) -> None:
        if (mean is None) != (std is None):
            raise UsageError(f"Patchify needs both mean and std or neither; got mean={mean}, std={std}.")
        self.media = media
        self.patch = _patch_sizes(media, patch)
        self.mean = None if mean is None else _per_channel(media, "mean", mean)
        self.std = None if std is None else _per_channel(media, "std", std)
        if self.std is not None and min(self.std) <= 0:
            raise UsageError(f"Patchify needs every std above 0; got {self.std}.")
        volume = math.prod(self.patch)
        self._shift = torch.tensor(self.mean or [0.0] * media.channels, dtype=torch.float32).repeat_interleave(volume)
        self._scale = torch.tensor(self.std or [1.0] * media.channels, dtype=torch.float32).repeat_interleave(volume)
        self._spec = TokenSpec(media.channels * volume, media.axes, self._bounds())

    def _bounds(self) -> tuple[Tensor, Tensor] | None:
        if self.media.bounds is None:
            return None
        low, high = self.media.bounds
        return (low - self._shift) / self._scale, (high - self._shift) / self._scale

    @property
    def spec(self) -> TokenSpec:
        """Width, axes and bounds of the tokens."""
        return self._spec

    def layout(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The token grid of a sample of this shape (channels first).

        Raises:
            LayoutError: wrong channels or dimensions, or an axis its patch size does not divide.
        """
        names = [axis.name for axis in self.media.axes]
        if len(shape) != 1 + len(names) or shape[0] != self.media.channels:
            raise LayoutError(f"Expected a sample of shape ({', '.join([str(self.media.channels), *names])}), channels "
                              f"first; got {tuple(shape)}.")
        for name, size, patch in zip(names, shape[1:], self.patch, strict=True):
            if size % patch or size < 1:
                below = max(size // patch, 1) * patch
                raise LayoutError(f"Axis {name!r} has size {size}, which patches of {patch} do not divide; the nearest "
                                  f"sizes that work are {below} and {below + patch}.")
        return tuple(size // patch for size, patch in zip(shape[1:], self.patch, strict=True))

    def blank(self, shape: tuple[int, ...], meta: Mapping[str, Any], modality: str = "") -> Tokens:
        """The places of a sample of this shape, without values."""
        grid = self.layout(shape)
        values = torch.zeros(math.prod(grid), self.spec.width)
        return Tokens(values, grid_coords(grid, self._steps(meta)), grid, dict(meta), modality)

    def encode(self, sample: Sample) -> Tokens:
        """Tokens of one sample."""
        grid = self.layout(tuple(sample.data.shape))
        values = self._to_values(sample.data[None], grid)[0]
        return Tokens(values, grid_coords(grid, self._steps(sample.meta)), grid, dict(sample.meta), sample.modality)

    def decode(self, tokens: Tokens) -> Sample:
        """The sample of these tokens; its size comes from their grid."""
        grid = self._known_grid(tokens.grid, tuple(tokens.values.shape))
        return Sample(self._to_data(tokens.values[None], grid)[0], dict(tokens.meta), tokens.modality)

    def encode_batch(self, samples: Sequence[Sample], noise: EncodingNoise | None = None) -> TokenBatch:
        """Tokens of several samples; those of one shape are cut together."""
        if len({tuple(sample.data.shape) for sample in samples}) != 1:
            return super().encode_batch(samples)
        grid = self.layout(tuple(samples[0].data.shape))
        steps = [self._steps(sample.meta) for sample in samples]
        coords = {step: grid_coords(grid, step) for step in set(steps)}
        return TokenBatch(
            values=self._to_values(torch.stack([sample.data for sample in samples]), grid),
            coords=torch.stack([coords[step] for step in steps]),
            valid=torch.ones(len(samples), math.prod(grid), dtype=torch.bool),
            grids=(grid,) * len(samples),
            metas=tuple(dict(sample.meta) for sample in samples),
            modality=samples[0].modality,
        )

    def decode_batch(self, tokens: TokenBatch) -> list[Sample]:
        """Samples of several sets of tokens; those of one grid are put together at once."""
        if len(set(tokens.grids)) != 1 or not bool(tokens.valid.all()):
            return super().decode_batch(tokens)
        grid = self._known_grid(tokens.grids[0], tuple(tokens.values.shape[1:]))
        data = self._to_data(tokens.values, grid)
        # Clones, so that a sample kept or pickled does not drag the whole batch along.
        return [Sample(item.clone(), dict(meta), tokens.modality)
                for item, meta in zip(data, tokens.metas, strict=True)]

    def measured(self, samples: Iterable[Sample]) -> Patchify:
        """This tokenizer with the mean and standard deviation of each media channel over all values of `samples`.

        Raises:
            UsageError: there are no samples, or one holds values that are not finite.
        """
        if self.mean is not None:
            return self
        mean, std = _statistics(self, samples)
        return Patchify(self.media, patch=self._named_patch(), mean=mean.tolist(), std=std.clamp(min=MIN_STD).tolist())

    def options(self) -> dict[str, Any]:
        """The keyword arguments that rebuild this tokenizer."""
        return {"patch": self._named_patch(),
                "mean": None if self.mean is None else list(self.mean),
                "std": None if self.std is None else list(self.std)}

    def _named_patch(self) -> dict[str, int]:
        return {axis.name: size for axis, size in zip(self.media.axes, self.patch, strict=True)}

    def _steps(self, meta: Mapping[str, Any]) -> tuple[float, ...]:
        return tuple(size / axis.rate(meta) for axis, size in zip(self.media.axes, self.patch, strict=True))

    def _known_grid(self, grid: tuple[int, ...] | None, shape: tuple[int, ...]) -> tuple[int, ...]:
        if grid is None:
            raise LayoutError("Patchify cannot decode tokens without a grid: it says how large the sample is.")
        if len(grid) != len(self.patch) or shape != (math.prod(grid), self.spec.width):
            raise LayoutError(f"Tokens of shape {shape} on a grid of {grid} do not belong to this tokenizer: it makes "
                              f"tokens of {self.spec.width} channels on a grid of {len(self.patch)} axes.")
        return grid

    def _to_values(self, data: Float[Tensor, "b ..."], grid: tuple[int, ...]) -> Float[Tensor, "b n c"]:
        axes = range(len(grid))
        cut = data.to(torch.float32).reshape(len(data), self.media.channels, *_interleaved(grid, self.patch))
        # (b, C, g1, p1, g2, p2, ...) -> (b, g1, g2, ..., C, p1, p2, ...)
        order = (0, *(2 + 2 * axis for axis in axes), 1, *(3 + 2 * axis for axis in axes))
        plain = cut.permute(order).reshape(len(data), math.prod(grid), self.spec.width)
        return (plain - self._shift.to(plain.device)) / self._scale.to(plain.device)

    def _to_data(self, values: Float[Tensor, "b n c"], grid: tuple[int, ...]) -> Float[Tensor, "b ..."]:
        plain = values.to(torch.float32) * self._scale.to(values.device) + self._shift.to(values.device)
        blocks = plain.reshape(len(values), *grid, self.media.channels, *self.patch)
        # (b, g1, g2, ..., C, p1, p2, ...) -> (b, C, g1, p1, g2, p2, ...)
        first = 1 + len(grid)
        order = (0, first, *_interleaved(range(1, first), range(first + 1, first + 1 + len(grid))))
        sizes = (cells * patch for cells, patch in zip(grid, self.patch, strict=True))
        return blocks.permute(order).reshape(len(values), self.media.channels, *sizes)


def _interleaved(first: Sequence[int], second: Sequence[int]) -> list[int]:
    return [number for pair in zip(first, second, strict=True) for number in pair]


def _patch_sizes(media: MediaSpec, patch: dict[str, int] | int) -> tuple[int, ...]:
    names = [axis.name for axis in media.axes]
    sizes = patch if isinstance(patch, dict) else dict.fromkeys(names, patch)
    for name, size in sizes.items():
        if name not in names:
            raise UsageError(f"Patchify: there is no axis {name!r} to cut. {suggest(name, names)}")
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise UsageError(f"Patchify: the patch size of axis {name!r} must be a whole number, at least 1; "
                             f"got {size!r}.")
    return tuple(sizes.get(name, 1) for name in names)


def _per_channel(media: MediaSpec, name: str, value: list[float] | float) -> tuple[float, ...]:
    given = list(value) if isinstance(value, Sequence) else [value] * media.channels
    if len(given) != media.channels or not all(isinstance(item, int | float) and math.isfinite(item) for item in given):
        raise UsageError(f"Patchify: {name} must be one finite number or one per media channel ({media.channels}); "
                         f"got {value!r}.")
    return tuple(float(item) for item in given)


def _statistics(tokenizer: Patchify, samples: Iterable[Sample]) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Mean and standard deviation of each media channel, over all values of all samples, in float64."""
    count = 0
    mean, spread = torch.zeros(2, tokenizer.media.channels, dtype=torch.float64)
    for number, sample in enumerate(samples):
        tokenizer.layout(tuple(sample.data.shape))
        values = sample.data.detach().to("cpu", torch.float64).flatten(1)
        if not bool(values.isfinite().all()):
            raise UsageError(f"Sample {number} holds values that are not finite; no statistics can be measured on it.")
        # Chan's update of a mean and a sum of squared deviations: sums of raw squares cancel where the mean is large.
        own_mean, size = values.mean(1), values.shape[1]
        own_spread = (values - own_mean[:, None]).square().sum(1)
        total, gap = count + size, own_mean - mean
        spread = spread + own_spread + gap.square() * (count * size / total)
        mean, count = mean + gap * (size / total), total
    if count == 0:
        raise UsageError("Patchify cannot measure its statistics on no samples at all.")
    return mean, (spread / count).sqrt()
