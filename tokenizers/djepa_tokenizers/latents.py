"""What the configuration of a diffusers autoencoder says of its latents: arithmetic only, no network."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from djepa.errors import UsageError, suggest

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
        strides: steps of the sample per latent, along each axis of the media.
        mean, std: per latent channel, or one for all; None where the configuration does not say what scale latents have.
    """

    kind: str
    media_channels: int
    channels: int
    strides: tuple[int, ...]
    mean: list[float] | float | None
    std: list[float] | float | None


def latent_space(config: Config) -> LatentSpace:
    """The latents of the autoencoder with this configuration.

    Raises:
        UsageError: it is of a class that is not supported, or one of its values cannot be.
    """
    kind = config.get(KIND, DEFAULT_KIND)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UsageError(f"Autoencoder: no tokenizer can be made of the class {kind!r}. {suggest(kind, _KINDS)}")
    media_channels, channels, strides = _KINDS[kind](config)
    mean, std = _statistics(config)
    return LatentSpace(kind, media_channels, channels, strides, mean, std)


def _picture_kl(config: Config) -> tuple[int, int, tuple[int, ...]]:
    """AutoencoderKL: every level but the last halves both axes. The defaults are diffusers' own."""
    media_channels, given_back = _count(config, "in_channels", 3), _count(config, "out_channels", 3)
    if media_channels != given_back:
        raise UsageError(f"Autoencoder: it takes {media_channels} channels (in_channels) and gives {given_back} "
                         f"(out_channels); a tokenizer has to give back what it was given.")
    levels = config.get("block_out_channels", (64,))
    if not isinstance(levels, list | tuple) or not levels:
        raise UsageError(f"Autoencoder: block_out_channels must be a list with one number per level; got {levels!r}.")
    stride = 2 ** (len(levels) - 1)
    return media_channels, _count(config, "latent_channels", 4), (stride, stride)


# Another class joins with a line here, if its `encode` gives a `latent_dist` or latents and its axes are cut evenly.
_KINDS: Mapping[str, Callable[[Config], tuple[int, int, tuple[int, ...]]]] = {"AutoencoderKL": _picture_kl}


def _count(config: Config, key: str, default: int) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"Autoencoder: {key} must be a whole number, at least 1; got {value!r}.")
    return value


def _statistics(config: Config) -> tuple[list[float] | float | None, list[float] | float | None]:
    """Mean and standard deviation of the latents, from the pair that says just that or from one factor for all."""
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        return mean, std
    scale, shift = config.get("scaling_factor"), config.get("shift_factor")
    if scale is None:
        return None, None
    shift = 0.0 if shift is None else shift
    if not _is_finite(scale) or not _is_finite(shift) or scale <= 0:
        raise UsageError(f"Autoencoder: scaling_factor must be a number above 0 and shift_factor a number or null; got "
                         f"{scale!r} and {shift!r}.")
    return float(shift), 1.0 / scale


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
