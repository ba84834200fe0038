"""The arithmetic of the plucked-strings protocol: is it the note asked for, the timbre asked for, and one sound throughout?

Sounds are arrays of samples in [-1, 1]. The judges know nothing of how sounds are generated or tokenized:

* pitch: the median fundamental over voiced frames as probabilistic YIN [1] finds it (librosa), in cents off the note; a
  sound without voiced frames has none. Off by whole octaves counts as wrong and is counted by itself;
* timbre: a linear classifier on how the energy is spread over bands and over time, fitted on real sounds; loudness and the
  moment of the pluck do not enter;
* seam: where a continuation begins, no step between neighbouring samples and no change of the spectrum larger than the
  sound around has without it.

References:
    [1] M. Mauch, S. Dixon. pYIN: A Fundamental Frequency Estimator Using Probabilistic Threshold Distributions. ICASSP 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

RIGHT = 50.0  # cents: half a semitone, beyond which it is another note
OCTAVE = 1200.0
LOWEST, HIGHEST = 100.0, 640.0  # Hz: a few semitones around C3..B4
FRAME, HOP = 256, 128  # samples of the judges' own spectra
INAUDIBLE = 1e-3  # of the loudest: 60 dB below
NUM_BANDS, NUM_PARTS = 16, 8  # of a timbre: bands of frequency, parts of the time after the pluck


def pitch(sound: Float[Array, "s"], sample_rate: int) -> float:
    """Median fundamental in Hz over the voiced frames; NaN where there are none."""
    import librosa

    frequency, voiced, _ = librosa.pyin(sound.astype(np.float64), fmin=LOWEST, fmax=HIGHEST, sr=sample_rate, frame_length=1024,
                                        hop_length=256)
    return float(np.median(frequency[voiced])) if voiced.any() else float("nan")


def cents(frequency: float, reference: float) -> float:
    """How far a frequency lies above a reference; NaN of none."""
    return OCTAVE * float(np.log2(frequency / reference))


def is_right(off: Float[Array, "n"]) -> Array:
    """Whether these are within half a semitone, in the right octave."""
    return np.abs(off) <= RIGHT  # never of NaN


def is_octave_error(off: Float[Array, "n"]) -> Array:
    """Whether these are the right note in another octave."""
    octaves = np.round(off / OCTAVE)
    return (np.abs(off - OCTAVE * octaves) <= RIGHT) & (octaves != 0) & np.isfinite(off)


def spectrum(sound: Float[Array, "s"]) -> Float[Array, "f bin"]:
    """Magnitudes of windowed frames."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, FRAME)[::HOP]
    return np.abs(np.fft.rfft(frames * np.hanning(FRAME)))


def timbre_features(sound: Float[Array, "s"]) -> Float[Array, "c"]:
    """Logarithmic energies of bands, over time from the loudest moment of the onset on, relative to all of it.

    Bands are evenly wide; parts of the time after the onset double in length.
    """
    energy = spectrum(sound) ** 2
    total = energy.sum(axis=1)
    onset = int(np.argmax(total > 0.1 * total.max()))  # the first frame within 10 dB of the loudest
    energy = energy[onset:] / max(total.sum(), 1e-12)
    bands = np.stack([part.sum(axis=1) for part in np.array_split(energy, NUM_BANDS, axis=1)], axis=1)
    ends = np.minimum(np.round(np.geomspace(1, len(spectrum(sound)) - 8, NUM_PARTS)).astype(int), len(bands))
    starts = np.minimum(np.concatenate([[0], ends[:-1]]), len(bands) - 1)
    parts = [bands[start : max(end, start + 1)].mean(axis=0) for start, end in zip(starts, ends, strict=True)]
    return np.log10(np.maximum(np.concatenate(parts), 1e-7))


class TimbreReader:
    """Reads the timbre of a sound: logistic regression on `timbre_features`.

    Args:
        sounds: real ones.
        timbres: of each.
    """

    def __init__(self, sounds: Sequence[Float[Array, "s"]], timbres: Sequence[str]) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        self._model.fit(_features(sounds), list(timbres))

    def read(self, sounds: Sequence[Float[Array, "s"]]) -> Array:
        """The timbre of each sound."""
        return self._model.predict(_features(sounds))


def _features(sounds: Sequence[Float[Array, "s"]]) -> Float[Array, "n c"]:
    return np.stack([timbre_features(sound) for sound in sounds])


@dataclass(frozen=True)
class Seam:
    """What happens where a continuation begins, over what happens around: above 1 it stands out.

    Attributes:
        step: difference of the two samples at the seam, over the 95th percentile of such differences around.
        flux: largest rise of the spectrum in frames that see the seam, over the 95th percentile around.
    """

    step: float
    flux: float


def seam(sound: Float[Array, "s"], place: int, around: int = 2048) -> Seam:
    """Look for a click.

    Args:
        sound: of which samples from `place` on are a continuation.
        place: of the seam, in samples.
        around: samples before and after that it is compared with.
    """
    low = max(0, place - around)
    part, place = sound[low : place + around], place - low
    steps = np.abs(np.diff(part))
    # Frames are long: small hops, so that one of them begins right at the seam.
    frames = np.lib.stride_tricks.sliding_window_view(part, FRAME)[:: HOP // 4]
    spectra = np.abs(np.fft.rfft(frames * np.hanning(FRAME)))
    flux = np.maximum(np.diff(spectra, axis=0), 0.0).sum(axis=1)
    starts = np.arange(len(flux)) * (HOP // 4)
    sees = (starts + HOP // 4 + FRAME > place) & (starts < place)
    return Seam(_over(steps[place - 1], np.delete(steps, place - 1), INAUDIBLE * np.abs(sound).max()),
                _over(flux[sees].max(), flux[~sees], INAUDIBLE * spectrum(sound).sum(axis=1).max()))


def _over(value: float, others: Float[Array, "n"], least: float) -> float:
    """A value over the 95th percentile of others, where that is not less than can be heard beside the loudest moment."""
    return float(value / max(np.percentile(others, 95), least, 1e-12))
