"""The audio modality: sounds of one (mono) or two (stereo) channels."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from djepa.errors import UsageError
from djepa.files import atomic_file
from djepa.modality import Modality, shared_meta
from djepa.tokens import Axis, Sample
from djepa_audio import spectrogram
from djepa_audio.files import read
from djepa_audio.sound import check_rate, check_sound, resample, with_channels
from djepa_audio.writing import encode, write

PAUSE = 0.25        # seconds of silence between the sounds of a sheet
RATE = 24000        # Hz: of examples and of the default tokenizer; one that every format can hold
EXAMPLE_LENGTH = 6000


class Audio(Modality):
    """Sounds, (c, n) in [-1, 1]; meta["sample_rate"] in Hz."""

    name = "audio"
    axes = (Axis("t", "s", "sample_rate"),)
    extensions = ("wav", "flac", "ogg", "mp3", "opus")
    required_meta = ("sample_rate",)
    sheet_extension = "png"
    sheet_extensions = ("png", *extensions)

    def load(self, path: Path) -> Sample:
        """Read a sound: one channel where the file is mono, two where it is stereo.

        Raises:
            MediaError: the file is missing, empty, no sound, damaged, cut short or too long, or has more channels.
        """
        data, meta = read(Path(path))
        return Sample(data, meta, self.name)

    def fit(self, sample: Sample, shape: Sequence[int], rates: Mapping[str, float], place: Sequence[float]) -> Sample:
        """A part of the sound, resampled; silence after one that is shorter. Mono is the mean of the channels."""
        rate = check_rate(rates.get("sample_rate", sample.meta["sample_rate"]))
        data = resample(with_channels(sample.data, shape[0]), check_rate(sample.meta["sample_rate"]), rate)
        start = round(max(0, data.shape[1] - shape[1]) * place[0])
        part = data[:, start:start + shape[1]]
        padded = torch.nn.functional.pad(part, (0, shape[1] - part.shape[1]))
        return Sample(padded.contiguous(), {**sample.meta, "sample_rate": rate}, self.name)

    def save(self, sample: Sample, path: Path) -> Path:
        """Write a sound, metadata included; wav and flac in 24 bits, the others lossy.

        Raises:
            UsageError: another extension, a tensor that is no sound, a sample rate that the format cannot hold, or metadata
                that is not plain.
            StorageError: the disk refused.
        """
        return write(sample.data, Path(path), self.check_extension(Path(path)), sample.meta)

    def example(self, seed: int) -> Sample:
        """A quarter of a second of one fading note with a few harmonics, mono, 24 kHz, on the levels of a 16-bit file."""
        generator = torch.Generator().manual_seed(seed)
        pitch = 110.0 * 2.0 ** (2.0 * torch.rand(1, generator=generator, dtype=torch.float64))
        phases = torch.rand(5, generator=generator, dtype=torch.float64)
        time = torch.arange(EXAMPLE_LENGTH, dtype=torch.float64) / RATE
        harmonics = torch.arange(1, 6)[:, None]
        waves = torch.sin(2 * torch.pi * (harmonics * pitch * time + phases[:, None])) / harmonics
        wave = waves.sum(0) * torch.exp(-4.0 * time) * (time * 200.0).clamp_max(1.0)
        levels = (wave / wave.abs().max() * 0.8 * 2**15).round()
        return Sample((levels / 2**15).float()[None], {"sample_rate": RATE}, self.name)

    def sheet(self, samples: Sequence[Sample], path: Path, columns: int | None = None) -> Path:
        """Write the spectrograms of all samples in a grid (png), or the sounds one after the other (any other extension).

        Raises:
            UsageError: there are no samples, or as `save`.
            StorageError: the disk refused.
        """
        path = Path(path)
        extension = self.check_extension(path, sheet=True)
        if extension != "png":
            return write(_joined(samples), path, extension, shared_meta(samples) | {"sample_rate": _highest_rate(samples)})
        drawn = spectrogram.sheet(samples, columns)
        with atomic_file(path) as temporary:
            drawn.save(temporary, "PNG")
        return path

    def default_tokenizer(self) -> dict[str, Any]:
        """Patches of a log-mel spectrogram, of sounds at 24 kHz; with any other rate, a recipe has to name its tokenizer."""
        return {"kind": "log-mel", "sample_rate": RATE}

    def default_features(self) -> dict[str, Any]:
        """Statistics of the mel spectrogram."""
        return {"kind": "mel-statistics"}

    def preview(self, sample: Sample) -> dict[str, Any]:
        """A player above the spectrogram; for front ends without HTML, the spectrogram alone."""
        return {"text/html": _player(sample), "image/png": _png(spectrogram.picture(sample))}

    def preview_sheet(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """A player and a spectrogram for each sample."""
        players = "".join(f"<div>{_player(sample)}</div>" for sample in samples)
        return {"text/html": f'<div style="display:flex;flex-wrap:wrap;gap:8px">{players}</div>',
                "image/png": _png(spectrogram.sheet(samples))}


def _player(sample: Sample) -> str:
    sound = base64.b64encode(encode(sample.data, "wav", sample.meta)).decode("ascii")
    return (f'<audio controls src="data:audio/wav;base64,{sound}"></audio><br>'
            f'<img src="data:image/png;base64,{_png(spectrogram.picture(sample))}">')


def _png(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode("ascii")


def _joined(samples: Sequence[Sample]) -> Tensor:
    """The sounds one after the other, with pauses; at the highest of their rates, stereo if one of them is."""
    rate = _highest_rate(samples)
    channels = max(len(sample.data) for sample in samples)
    pause, parts = torch.zeros(channels, round(PAUSE * rate)), []
    for sample in samples:
        check_sound(sample.data)
        data = resample(sample.data.detach().to("cpu", torch.float32), check_rate(sample.meta["sample_rate"]), rate)
        parts += [with_channels(data, channels), pause]
    return torch.cat(parts[:-1], dim=1)


def _highest_rate(samples: Sequence[Sample]) -> int:
    if not samples:
        raise UsageError("There are no sounds to join.")
    return max(check_rate(sample.meta.get("sample_rate")) for sample in samples)
