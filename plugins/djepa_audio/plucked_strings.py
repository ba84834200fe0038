"""Plucked strings by note and timbre, synthesized on the fly: a burst of noise around a delay line, as Karplus and Strong [1].

The string's loop is a delay, a low-pass filter that damps what is bright faster, and an allpass that makes up the fraction
of a sample by which the period misses a whole number, so that the fundamental is in tune exactly [2].

References:
    [1] K. Karplus, A. Strong. Digital Synthesis of Plucked-String and Drum Timbres. Computer Music Journal 7(2), 1983.
    [2] D. Jaffe, J. Smith. Extensions of the Karplus-Strong Plucked-String Algorithm. Computer Music Journal 7(2), 1983.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from djepa.dataset import Dataset, Example
from djepa.errors import UsageError
from djepa.random import numpy_generator
from djepa.tokens import Sample

SAMPLE_RATE = 8000  # Hz
LENGTH = 8192  # samples, a little over a second
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
OCTAVES = (3, 4)
NOTES = {f"{name}{octave}": 440.0 * 2 ** ((step - 9) / 12 + octave - 4)  # Hz, equal temperament
         for octave in OCTAVES for step, name in enumerate(NAMES)}
MAX_ONSET = 0.1  # seconds
LOUDNESS = (0.25, 0.9)  # range of the largest amplitude


@dataclass(frozen=True)
class Timbre:
    """How a string sounds.

    Attributes:
        softness: pole of the low-pass filter that the burst goes through twice; 0 leaves it white noise.
        damping: of what is bright, 0..0.5: weight of the older of the two samples that the loop averages.
        decay: seconds in which the fundamental falls by 60 dB.
        pick: range of where the string is plucked, as parts of its length; harmonics with a node there are missing.
    """

    softness: float
    damping: float
    decay: float
    pick: tuple[float, float]


TIMBRES = {
    "nylon": Timbre(softness=0.6, damping=0.25, decay=2.0, pick=(0.3, 0.45)),
    "steel": Timbre(softness=0.0, damping=0.05, decay=4.0, pick=(0.1, 0.2)),
    "muted": Timbre(softness=0.8, damping=0.5, decay=0.4, pick=(0.2, 0.4)),
}


class PluckedStrings(Dataset):
    """Sounds of one plucked string each: 1x8192 at 8 kHz, stream "audio", conditions "note" ("C3".."B4") and "timbre".

    Args:
        per_class: examples of every note and timbre. With augmentation each is plucked anew every time.

    Raises:
        UsageError: no examples.
    """

    def __init__(self, *, per_class: int = 16) -> None:
        if per_class < 1:
            raise UsageError(f"PluckedStrings: per_class must be at least 1; got {per_class}.")
        self.per_class = per_class
        self._classes = [(note, timbre) for note in NOTES for timbre in TIMBRES]

    def __len__(self) -> int:
        return self.per_class * len(self._classes)

    def load(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Example `index`: its note and timbre, plucked with draws from `rng`, or with its own."""
        note, timbre = self._classes[index % len(self._classes)]
        own = numpy_generator(0, "plucked strings", index) if rng is None else rng
        sound = pluck(NOTES[note], TIMBRES[timbre], own)
        return Example({"audio": Sample(sound[None], {"sample_rate": SAMPLE_RATE}, "audio")}, {"note": note, "timbre": timbre})

    def classes(self) -> Mapping[str, list[str]]:
        """Two octaves of notes, three timbres."""
        return {"note": list(NOTES), "timbre": list(TIMBRES)}

    def fingerprint(self) -> str:
        """What the examples follow from."""
        return f"{self.per_class} of each of {NOTES}, {TIMBRES}: {LENGTH} at {SAMPLE_RATE}, {MAX_ONSET}, {LOUDNESS}"


def pluck(
    frequency: float, timbre: Timbre, rng: np.random.Generator, *, length: int = LENGTH, sample_rate: int = SAMPLE_RATE
) -> Float[Tensor, " s"]:
    """The sound of one string.

    Args:
        frequency: of the fundamental, Hz.
        timbre: of the string.
        rng: draws when the string is plucked, how loudly, the burst, and where.
        length: in samples.
        sample_rate: in Hz.
    """
    from torchaudio.functional import lfilter

    onset, loudness = int(rng.uniform(0, MAX_ONSET) * sample_rate), rng.uniform(*LOUDNESS)
    burst = torch.zeros(length, dtype=torch.float64)
    period = sample_rate / frequency
    noise = _burst(period, timbre, rng)
    burst[: len(noise)] = torch.from_numpy(noise)
    forward, backward = _loop(period, timbre, sample_rate)
    sound = lfilter(burst, backward, forward, clamp=False)
    sound = torch.cat([sound.new_zeros(onset), sound[: length - onset]])
    return (sound * (loudness / sound.abs().max())).float()


def _burst(period: float, timbre: Timbre, rng: np.random.Generator) -> Float[np.ndarray, " s"]:
    """One period of noise, softened, less itself as it comes back from the nearer end of the string."""
    noise = rng.uniform(-1, 1, round(period))
    noise -= noise.mean()  # which the loop would hardly damp
    for _ in range(2):
        noise = _softened(noise, timbre.softness)
    delay = max(1, round(rng.uniform(*timbre.pick) * period))
    return np.pad(noise, (0, delay)) - np.pad(noise, (delay, 0))


def _softened(noise: Float[np.ndarray, " s"], softness: float) -> Float[np.ndarray, " s"]:
    """Noise through a one-pole low-pass filter, as if it had gone on before as it ends."""
    last, softened = noise[-1], np.empty_like(noise)
    for place, value in enumerate(noise):
        last = softened[place] = (1 - softness) * value + softness * last
    return softened


def _loop(period: float, timbre: Timbre, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Numerator and denominator of the string as a filter: 1 / (1 - loss * lowpass(z) * allpass(z) * z^-whole)."""
    omega = 2 * math.pi / period
    lowpass = (1 - timbre.damping) + timbre.damping * cmath.exp(-1j * omega)
    rest = period + cmath.phase(lowpass) / omega  # what delay and allpass have to make up
    whole = math.floor(rest - 0.3)  # an allpass of 0.3 to 1.3 samples rings least
    fraction = rest - whole
    allpass = math.sin(omega * (1 - fraction) / 2) / math.sin(omega * (1 + fraction) / 2)
    loss = 10 ** (-3 * period / sample_rate / timbre.decay) / abs(lowpass)
    forward, backward = torch.zeros(2, whole + 3, dtype=torch.float64)
    forward[:2] = torch.tensor([1.0, allpass])
    path = np.convolve([1 - timbre.damping, timbre.damping], [allpass, 1.0])
    backward[:2] = forward[:2]
    backward[whole:] -= loss * torch.from_numpy(path)
    return forward, backward
