"""What an autoencoder makes of samples, found out by trying: its network, without memory for weights or numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from djepa.errors import UsageError
from djepa_tokenizers.kinds import KINDS, decoded, encoded, refusal
from djepa_tokenizers.pretrained import empty_network

Axes = tuple[tuple[int, int], ...]  # along each axis: steps of the sample per latent, and those of the first latent
_CHANNELS = ("out_channels", "audio_channels", "input_channels", "in_channels")  # where configurations may say them


@lru_cache(maxsize=64)
def probe(config: str) -> tuple[int, int, Axes]:
    """Channels of the media, channels of latents, and what a latent covers along each axis.

    Neither attributes nor documentation of the classes can be trusted in this; shapes can.

    Args:
        config: of the autoencoder, as JSON.

    Raises:
        CheckpointError: diffusers cannot build it.
        UsageError: what it makes of samples has no regular shape, or it does not give back what it takes.
    """
    given = json.loads(config)
    kind = given["_class_name"]
    network: Any = empty_network(given)
    if reason := refusal(kind, network.config):
        raise UsageError(f"Autoencoder: no tokenizer can be made of this {kind}: {reason}.")
    small, large = zip(*KINDS[kind], strict=True)
    try:
        media_channels = _media_channels(network, small)
        axes = tuple(map(_axis, small, large, _latents(network, media_channels, small)[1:],
                         _latents(network, media_channels, large)[1:]))
        return media_channels, _checked(network, media_channels, axes), axes
    except _FAILURES as error:
        raise UsageError(f"Autoencoder: no tokenizer can be made of this {kind}: {error}.") from error


_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)  # of a network that is given the wrong shape


def _latents(network: Any, media_channels: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Shape of the latents of a sample: channels first."""
    return tuple(encoded(network, torch.empty(1, media_channels, *sizes, device="meta"))[0].shape[1:])


def _media_channels(network: Any, sizes: Sequence[int]) -> int:
    """The first number of channels, of those it may be, that the network takes."""
    said = [network.config.get(key) for key in _CHANNELS]
    problems = []
    for channels in dict.fromkeys(count for count in (*said, 3, 2, 1) if isinstance(count, int)):
        try:
            _latents(network, channels, sizes)
            return channels
        except _FAILURES as error:
            problems.append(str(error))
    raise ValueError(f"it takes no sample of sizes {list(sizes)} ({problems[0]})")


def _axis(small: int, large: int, few: int, many: int) -> tuple[int, int]:
    """Stride and first of an axis on which samples of two sizes have so many latents."""
    stride, rest = divmod(large - small, many - few) if many > few else (0, 1)
    first = small - stride * (few - 1)
    if rest or not 1 <= first <= stride:
        raise ValueError(f"samples of {small} and {large} steps have {few} and {many} latents, which are not all of one size")
    return stride, first


def _checked(network: Any, media_channels: int, axes: Axes) -> int:
    """Channels of the latents, once two along each axis are as large as they should be, there and back."""
    sizes = [first + stride for stride, first in axes]
    channels, *counts = _latents(network, media_channels, sizes)
    if set(counts) != {2}:
        raise ValueError(f"samples of {sizes} steps have {counts} latents where two each were expected")
    given_back, *made = decoded(network, torch.empty(1, channels, *counts, device="meta")).shape[1:]
    if given_back != media_channels:
        raise ValueError(f"it takes {media_channels} channels and gives {given_back}; a tokenizer has to give back what it was "
                         f"given")
    # A causal decoder may treat the first latent like all others; the surplus lies in front, and `Network` drops it.
    if any(found != size and (found < size or first == stride) for found, size, (stride, first) in zip(made, sizes, axes,
                                                                                                       strict=True)):
        raise ValueError(f"of latents of samples of {sizes} steps it makes samples of {list(made)} steps")
    return channels
