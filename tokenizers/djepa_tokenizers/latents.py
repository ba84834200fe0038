"""What the latents of a diffusers autoencoder are: their channels, their scale, and what each covers of a sample."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from djepa.errors import UsageError, suggest
from djepa_tokenizers.cover import LatentAxis
from djepa_tokenizers.kinds import KINDS, SCALE_IN_WEIGHTS

Config = dict[str, Any]  # as in diffusers' config.json: the arguments of a class, and the class's name as `_class_name`
KIND = "_class_name"
DEFAULT_KIND = "AutoencoderKL"


@dataclass(frozen=True)
class LatentSpace:
    """The latents of an autoencoder.

    Attributes:
        kind: diffusers' name of its class.
        media_channels: of the samples it takes and gives.
        channels: of a latent.
        axes: along each axis of the media.
        mean, std: per latent channel, or one for all; None where the configuration does not say what scale latents have.
        still: whether a network for clips is used on pictures: clips of one frame.
    """

    kind: str
    media_channels: int
    channels: int
    axes: tuple[LatentAxis, ...]
    mean: list[float] | float | None
    std: list[float] | float | None
    still: bool = False

    @property
    def strides(self) -> tuple[int, ...]:
        """Steps of the sample per latent, along each axis of the media."""
        return tuple(axis.stride for axis in self.axes)

    def over(self, names: Sequence[str]) -> LatentSpace:
        """This space for media of these axes, where a picture may stand for a clip of one frame.

        Raises:
            UsageError: the network works on another number of axes.
        """
        if len(names) == len(self.axes):
            return self
        if len(names) == 2 and len(self.axes) == 3 and self.axes[0].first == 1:
            return replace(self, axes=self.axes[1:], still=True)
        raise UsageError(f"Autoencoder: {self.kind} works on {len(self.axes)} axes; these samples have {len(names)} "
                         f"({', '.join(names)}).")

    def found(self) -> dict[str, Any] | None:
        """What was found out by probing, for `latent_space`; None where the configuration says it all."""
        assert not self.still, "of a picture the axis of time is not there any more"
        if self.kind == DEFAULT_KIND:
            return None
        return {"media_channels": self.media_channels, "channels": self.channels, "strides": list(self.strides),
                "first": [axis.first for axis in self.axes]}


def latent_space(config: Config, found: Mapping[str, Any] | None = None) -> LatentSpace:
    """The latents of the autoencoder with this configuration.

    Args:
        config: of the autoencoder.
        found: what probing the network has told before (`LatentSpace.found`); without it most kinds are probed now, which
            imports diffusers and takes seconds.

    Raises:
        UsageError: it is of a class that is not supported, or one of its values cannot be.
    """
    kind = config.get(KIND, DEFAULT_KIND)
    if not isinstance(kind, str) or kind not in KINDS:
        raise UsageError(f"Autoencoder: no tokenizer can be made of the class {kind!r}. {suggest(kind, KINDS)}")
    if kind == DEFAULT_KIND:
        media_channels, channels, axes = _picture_kl(config)
    else:
        media_channels, channels, axes = _known(kind, found) if found is not None else _probed(config)
    mean, std = (None, None) if kind in SCALE_IN_WEIGHTS else _statistics(config, channels)
    return LatentSpace(kind, media_channels, channels, axes, mean, std)


_Sizes = tuple[int, int, tuple[LatentAxis, ...]]  # channels of the media, channels of latents, axes


def _picture_kl(config: Config) -> _Sizes:
    """AutoencoderKL: every level but the last halves both axes. The defaults are diffusers' own."""
    media_channels, given_back = _count(config, "in_channels", 3), _count(config, "out_channels", 3)
    if media_channels != given_back:
        raise UsageError(f"Autoencoder: it takes {media_channels} channels (in_channels) and gives {given_back} "
                         f"(out_channels); a tokenizer has to give back what it was given.")
    levels = config.get("block_out_channels", (64,))
    if not isinstance(levels, list | tuple) or not levels:
        raise UsageError(f"Autoencoder: block_out_channels must be a list with one number per level; got {levels!r}.")
    stride = 2 ** (len(levels) - 1)
    return media_channels, _count(config, "latent_channels", 4), (LatentAxis(stride, stride),) * 2


def _known(kind: str, found: Mapping[str, Any]) -> _Sizes:
    num_axes = len(KINDS[kind])
    counts = [found.get("media_channels"), found.get("channels")]
    strides, first = found.get("strides"), found.get("first")
    if (isinstance(strides, list) and isinstance(first, list) and len(strides) == len(first) == num_axes
            and all(isinstance(count, int) and count >= 1 for count in [*counts, *strides, *first])
            and all(few <= many for few, many in zip(first, strides, strict=True))):
        return counts[0], counts[1], tuple(map(LatentAxis, strides, first))  # pyright: ignore[reportReturnType]
    raise UsageError(f"Autoencoder: latents={dict(found)!r} is not what probing {kind} tells: media_channels, channels, and "
                     f"strides and first for each of its {num_axes} axes. Leave it out, and it will be found.")


def _probed(config: Config) -> _Sizes:
    from djepa_tokenizers.probe import probe

    media_channels, channels, axes = probe(json.dumps(config, sort_keys=True))
    return media_channels, channels, tuple(LatentAxis(stride, first) for stride, first in axes)


def _count(config: Config, key: str, default: int) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"Autoencoder: {key} must be a whole number, at least 1; got {value!r}.")
    return value


def _statistics(config: Config, channels: int) -> tuple[list[float] | float | None, list[float] | float | None]:
    """Mean and standard deviation of the latents, from the pair that says just that or from one factor for all.

    A factor of 1 is what diffusers writes where nobody has set one, and says nothing.
    """
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        return _over_frames(mean, std, channels)
    scale, shift = config.get("scaling_factor"), config.get("shift_factor")
    shift = 0.0 if shift is None else shift
    if scale is None or (scale, shift) == (1, 0):
        return None, None
    if not _is_finite(scale) or not _is_finite(shift) or scale <= 0:
        raise UsageError(f"Autoencoder: scaling_factor must be a number above 0 and shift_factor a number or null; got "
                         f"{scale!r} and {shift!r}.")
    return float(shift), 1.0 / scale


def _over_frames(mean: Any, std: Any, channels: int) -> tuple[list[float] | float, list[float] | float]:
    """Per channel, where the configuration has a table of channels by frames (Cosmos): as if all frames were as frequent."""
    tables = [table for table in (mean, std) if isinstance(table, Sequence) and all(map(_is_finite, table))]
    lengths = {len(table) for table in tables}
    if len(tables) < 2 or len(lengths) != 1 or lengths == {channels} or lengths.pop() % channels:
        return mean, std
    means, stds = (torch.tensor(table, dtype=torch.float64).view(channels, -1) for table in tables)
    spread = (stds.square() + means.square()).mean(1) - means.mean(1).square()
    return means.mean(1).tolist(), spread.sqrt().tolist()


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def plain_config(config: Mapping[str, Any]) -> Config:
    """A configuration as JSON gives it back (no tuples), without diffusers' private notes.

    Raises:
        UsageError: it holds what JSON cannot.
    """
    try:
        plain = json.loads(json.dumps(dict(config), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(f"Autoencoder: the configuration must hold plain values only ({error}).") from error
    plain.setdefault(KIND, DEFAULT_KIND)
    return {key: value for key, value in plain.items() if not key.startswith("_") or key == KIND}
