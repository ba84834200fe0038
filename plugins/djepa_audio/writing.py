"""Writing sound files.

wav and flac in 24 bits, far below what can be heard and what every player takes; ogg (Vorbis), opus and mp3 in the quality
that libsndfile chooses. The sample's metadata goes along as JSON in the comment.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from djepa.errors import UsageError
from djepa.files import atomic_file
from djepa_audio import riff
from djepa_audio.files import MAX_VALUES, NOTE_KEY
from djepa_audio.sound import check_rate, check_sound

BLOCK = 1 << 16  # samples handed over at a time: libvorbis crashes on long ones
MAX_NOTE = {"opus": 50_000}  # bytes: with longer ones libsndfile writes files that it cannot read

_ENCODINGS = {"wav": ("WAV", "PCM_24"), "flac": ("FLAC", "PCM_24"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"),
              "mp3": ("MP3", "MPEG_LAYER_III")}
_RATES = {  # what the formats can hold; above its limit, libvorbis crashes
    # FLAC writes rates in Hz up to 16 bits, and above in tens of Hz.
    "flac": frozenset((*range(1, 65_536), *range(65_540, 655_351, 10))),
    "ogg": range(1, 200_001), "opus": (8000, 12000, 16000, 24000, 48000),
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
}


def write(data: Tensor, path: Path, extension: str, meta: Mapping[str, Any]) -> Path:
    """Write a sound, all or nothing; the arguments and errors of `encode`.

    Raises:
        StorageError: the disk refused.
    """
    content = encode(data, extension, meta)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return path


def encode(data: Tensor, extension: str, meta: Mapping[str, Any]) -> bytes:
    """The content of a sound file.

    Args:
        data: floating point (c, n) with 1 or 2 channels; values outside [-1, 1] are clipped.
        extension: "wav" or "flac" (24 bits), "ogg" (Vorbis), "opus" or "mp3".
        meta: plain values, which `read` gives back; "sample_rate" among them.

    Raises:
        UsageError: not a sound, values that are not numbers, a sample rate or metadata that the format cannot hold.
    """
    check_sound(data)
    if data.numel() > MAX_VALUES:
        raise UsageError(f"The sound has {data.numel():,} values, more than a file of ours may hold ({MAX_VALUES:,}); save it "
                         f"in parts.")
    if bool(data.isnan().any()):
        raise UsageError(f"The sound holds {int(data.isnan().sum()):,} values that are not numbers (NaN); it cannot be "
                         f"written.")
    rate, note = _rate(meta, extension), _note(meta, extension)
    kind, encoding = _ENCODINGS[extension]
    values = data.detach().to("cpu", torch.float32).clamp(-1.0, 1.0).T.contiguous().numpy()
    if encoding == "PCM_24":  # rounded here: libsndfile scales by one level too few
        values = np.clip(np.rint(values * 2.0**23), -(2**23), 2**23 - 1).astype(np.int32) << 8
    content = io.BytesIO()
    with soundfile.SoundFile(content, "w", rate, values.shape[1], encoding, format=kind) as sound:
        if kind != "WAV":
            sound.comment = note
        for start in range(0, len(values), BLOCK):
            sound.write(values[start:start + BLOCK])
    return riff.with_comment(content.getvalue(), note) if kind == "WAV" else content.getvalue()


def _rate(meta: Mapping[str, Any], extension: str) -> int:
    if "sample_rate" not in meta:
        raise UsageError("A sound needs meta['sample_rate'], in Hz, to be written.")
    rate, known = check_rate(meta["sample_rate"]), _RATES.get(extension)
    if known is not None and rate not in known:
        nearest = min(known, key=lambda other: abs(other - rate))
        raise UsageError(f"{extension} files cannot hold a sample rate of {rate} Hz; the nearest that they can is {nearest} "
                         f"Hz. Resample, or write a wav.")
    return rate


def _note(meta: Mapping[str, Any], extension: str) -> str:
    try:
        note = json.dumps({NOTE_KEY: dict(meta)})  # in ASCII, the one encoding that all comments share
    except (TypeError, ValueError) as error:
        raise UsageError(f"The metadata cannot be written with the sound: {error}. Plain values only: numbers, text, lists, "
                         f"dictionaries.") from error
    if len(note) > MAX_NOTE.get(extension, riff.MAX_NOTE):
        raise UsageError(f"The metadata takes {len(note):,} bytes, and {extension} files hold "
                         f"{MAX_NOTE.get(extension, riff.MAX_NOTE):,}" + ("." if extension == "wav" else "; write a wav."))
    return note
