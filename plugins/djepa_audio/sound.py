"""Waveforms as tensors: checking them, other sample rates, other numbers of channels."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from djepa.errors import UsageError

FILTER_WIDTH = 64        # zero crossings on either side: flat to 0.9 of the new Nyquist frequency, nothing left at 1.1 of it
MAX_FILTER_SIZE = 2**25  # values (128 MiB): rates without a common factor take a filter for each of their phases


def check_sound(data: Tensor) -> None:
    """Raise UsageError unless `data` has the shape and type of a sound."""
    if data.ndim != 2 or len(data) not in (1, 2) or 0 in data.shape or not data.is_floating_point():
        raise UsageError(f"A sound is a floating-point tensor (1 or 2 channels, samples) in [-1, 1]; got "
                         f"{tuple(data.shape)} of {data.dtype}.")


def check_rate(rate: object, name: str = "sample_rate") -> int:
    """A sample rate as a whole number of samples a second.

    Raises:
        UsageError: it is none.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate != rate // 1 or not 1 <= rate < 2**31:
        raise UsageError(f"{name} must be a whole number of samples a second (Hz), at least 1; got {rate!r}.")
    return int(rate)


def resample(data: Float[Tensor, "c _n"], rate: int, new_rate: int) -> Float[Tensor, "c _m"]:
    """The same sound at another sample rate, band-limited to the lower of the two; ceil(n * new_rate / rate) samples.

    Raises:
        UsageError: the rates have so small a common factor that the filter would not fit memory.
    """
    if rate == new_rate:
        return data
    from torchaudio.functional import resample as filtered

    old, new = rate // math.gcd(rate, new_rate), new_rate // math.gcd(rate, new_rate)
    if new * (old + 2 * FILTER_WIDTH * max(1, old // new)) > MAX_FILTER_SIZE:
        raise UsageError(f"Cannot resample from {rate} Hz to {new_rate} Hz: their ratio is {new}/{old}, which takes a filter "
                         f"too large for memory. Choose a rate that has a large factor in common with {rate}.")
    return filtered(data, rate, new_rate, lowpass_filter_width=FILTER_WIDTH).clamp_(-1.0, 1.0)


def with_channels(data: Float[Tensor, "c n"], channels: int) -> Float[Tensor, "_c n"]:
    """The sound with this many channels: their mean for one, the one channel repeated for more.

    Raises:
        UsageError: several channels are to become several others.
    """
    if len(data) == channels:
        return data
    if channels == 1:
        return data.mean(0, keepdim=True)
    if len(data) == 1:
        return data.expand(channels, -1).contiguous()
    raise UsageError(f"There is no one way to make {channels} channels of {len(data)}; only to make 1 (their mean).")
