"""Pictures of sounds: how loud each frequency is at each time, in colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from djepa.errors import UsageError
from djepa.files import atomic_file
from djepa.tokens import Sample
from djepa_audio.sound import check_rate, check_sound

ROWS = 128                # pixels, evenly spaced in mel from 0 Hz (bottom) to half the sample rate (top)
COLUMNS_PER_SECOND = 200  # about: a whole number of samples each
MAX_COLUMNS = 2000        # longer sounds are drawn with fewer columns a second
WINDOW = 0.04             # seconds
RANGE = 80.0              # dB below the loudest place that are still told apart
GAP = 2                   # pixels around every picture of a sheet

# From silence to the loudest: a dark blue, by violet, red and orange, to a pale yellow; brightness grows all the way.
_COLOURS = np.array([(8, 8, 24), (52, 16, 100), (128, 28, 120), (208, 60, 88), (250, 140, 60), (252, 252, 190)], np.float32)


def write_spectrogram(sample: Sample, path: str | Path) -> Path:
    """Write the spectrogram of one sound as a PNG file.

    Raises:
        UsageError: the sample is no sound, or does not say its sample rate.
        StorageError: the disk refused.
    """
    with atomic_file(path) as temporary:
        picture(sample).save(temporary, "PNG")
    return Path(path)


def picture(sample: Sample) -> Image.Image:
    """The spectrogram of one sound in colours, 128 pixels high; time runs to the right, pitch upwards."""
    levels = spectrogram(sample.data, check_rate(sample.meta.get("sample_rate")))
    return Image.fromarray(_coloured(levels))


def sheet(samples: Sequence[Sample], columns: int | None = None) -> Image.Image:
    """The spectrograms of several sounds in a grid, near-square unless `columns` is given; grey is where there is no sound.

    Raises:
        UsageError: there are none, one is no sound, or `columns` is below 1.
    """
    if not samples:
        raise UsageError("There are no sounds to draw.")
    if columns is not None and columns < 1:
        raise UsageError(f"A sheet needs at least one column; got columns={columns}.")
    pictures = [picture(sample) for sample in samples]
    across = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    step_x, step_y = max(item.width for item in pictures) + GAP, ROWS + GAP
    whole = Image.new("RGB", (across * step_x + GAP, math.ceil(len(pictures) / across) * step_y + GAP), (128, 128, 128))
    for number, item in enumerate(pictures):
        whole.paste(item, (GAP + number % across * step_x, GAP + number // across * step_y))
    return whole


def spectrogram(data: Float[Tensor, "c n"], rate: int) -> Float[Tensor, "_rows _columns"]:
    """Loudness from 0 (80 dB below the loudest place, or silence) to 1; the first row is the highest pitch.

    Raises:
        UsageError: the tensor is no sound.
    """
    check_sound(data)
    data = data.detach().to("cpu", torch.float32)
    hop = max(1, round(rate / COLUMNS_PER_SECOND), math.ceil(data.shape[1] / MAX_COLUMNS))
    window = max(16, round(WINDOW * rate))
    size = 2 ** math.ceil(math.log2(4 * window))  # finer than the window resolves, so that low pitches are not blocks
    padded = torch.nn.functional.pad(data, (size // 2, size // 2))
    spectrum = torch.stft(padded, size, hop, window, torch.hann_window(window), center=False, return_complex=True)
    power = spectrum.abs().square().mean(0)[:, :math.ceil(data.shape[1] / hop)]
    decibels = 10.0 * torch.log10(_rows_of(power, rate).clamp_min(1e-20))
    return ((decibels - decibels.max()) / RANGE + 1.0).clamp(0.0, 1.0) * (decibels.max() > -120.0)


def _rows_of(power: Float[Tensor, "f t"], rate: int) -> Float[Tensor, "_rows t"]:
    """Power at evenly spaced mels, from high to low, between the two nearest frequencies of the transform."""
    top = 2595.0 * math.log10(1.0 + rate / 2 / 700.0)
    hertz = 700.0 * (10.0 ** (torch.linspace(top, 0.0, ROWS) / 2595.0) - 1.0)
    place = (hertz / (rate / 2) * (len(power) - 1)).clamp(0, len(power) - 1)
    lower = place.floor().long().clamp_max(len(power) - 2)
    return torch.lerp(power[lower], power[lower + 1], (place - lower)[:, None])


def _coloured(levels: Tensor) -> UInt8[np.ndarray, "y x 3"]:
    place = np.linspace(0.0, 1.0, len(_COLOURS))
    channels = [np.interp(levels.numpy(), place, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
