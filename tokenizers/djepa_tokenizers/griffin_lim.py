"""Griffin-Lim: a waveform whose spectra have given magnitudes, by going back and forth between the two.

In the fast version [2]. Nothing is drawn: the first phases of a frame are those of what the frames before leave in it [3].
Where a part of the waveform is known, phases start from there, and it is put back in after every step: the rest grows out of
it, and nothing is heard where one meets the other.

References:
    [1] D. Griffin, J. Lim. Signal estimation from modified short-time Fourier transform. IEEE Trans. ASSP 32(2), 1984.
    [2] N. Perraudin, P. Balazs, P. L. Sondergaard. A fast Griffin-Lim algorithm. WASPAA 2013.
    [3] X. Zhu, G. T. Beauregard, L. L. Wyse. Real-time signal estimation from modified short-time Fourier transform magnitude
        spectra. IEEE Trans. ASLP 15(5), 2007.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor
from torch.nn import functional

from djepa_tokenizers.spectrogram import TINY, Spectrogram

MOMENTUM = 0.99  # as the authors of [2] recommend
NUM_LOCAL = 5  # iterations of a frame by itself, before the whole


@dataclass(frozen=True)
class Known:
    """The part of a waveform that is known.

    Attributes:
        waveform: of any values elsewhere.
        keep: True where it is known.
    """

    waveform: Float[Tensor, "b s"]
    keep: Bool[Tensor, "s"]

    def put_into(self, waveform: Float[Tensor, "b s"]) -> Float[Tensor, "b s"]:
        """`waveform` with the known part as it is."""
        return torch.where(self.keep, self.waveform, waveform)

    def surrounded(self, pad: int) -> Known:
        """The same with unknown samples before and after."""
        return Known(functional.pad(self.waveform, (pad, pad)), functional.pad(self.keep, (pad, pad)))

    def reversed(self) -> Known:
        """The same from its end to its beginning."""
        return Known(self.waveform.flip(-1), self.keep.flip(-1))

    def share(self, spectrogram: Spectrogram) -> Float[Tensor, "f 1"]:
        """How much of what each frame sees is known, 0 to 1."""
        weight = spectrogram.window.square().to(self.keep.device)
        return (spectrogram.frames(self.keep.float()[None])[0] @ weight / weight.sum())[:, None]


def griffin_lim(
    spectrogram: Spectrogram, magnitudes: Float[Tensor, "b f bin"], iterations: int, *,
    start: Float[Tensor, "b s"] | None = None, known: Known | None = None,
) -> Float[Tensor, "b s"]:
    """A waveform with these magnitudes.

    Args:
        spectrogram: the transform they are of.
        magnitudes: of a whole number of frames.
        iterations: each takes one transform and one inverse.
        start: a waveform to take the first phases from, where there is one.
        known: part of the waveform, which comes back exactly. Frames that see some of it have its magnitudes by that much.
    """
    share = known.share(spectrogram) if known else 0.0
    spectra = magnitudes * _phases(spectrogram.transform(_start(spectrogram, magnitudes, known) if start is None else start))
    previous: Tensor | float = 0.0
    for _ in range(iterations):
        rebuilt = spectrogram.transform(_waveform(spectrogram, spectra, known))
        moved = rebuilt - MOMENTUM / (1 + MOMENTUM) * previous
        spectra = torch.lerp(magnitudes, rebuilt.abs(), share) * _phases(moved) if known else magnitudes * _phases(moved)
        previous = rebuilt
    return _waveform(spectrogram, spectra, known)


def _start(spectrogram: Spectrogram, magnitudes: Float[Tensor, "b f bin"], known: Known | None) -> Float[Tensor, "b s"]:
    """A first waveform, grown from the beginning, or from the end where only that is known."""
    if known and not bool(known.keep[0]) and bool(known.keep[-1]):
        return _grown(spectrogram, magnitudes.flip(1), known.reversed()).flip(-1)
    return _grown(spectrogram, magnitudes, known)


def _grown(spectrogram: Spectrogram, magnitudes: Float[Tensor, "b f bin"], known: Known | None) -> Float[Tensor, "b s"]:
    """Frame by frame, each with the phases of what is there before it [3]."""
    window, weight = (tensor.to(magnitudes.device) for tensor in (spectrogram.window, spectrogram.weight(magnitudes.shape[1])))
    around = known and known.surrounded(spectrogram.pad)
    total = magnitudes.new_zeros(len(magnitudes), len(weight))
    for number, wanted in enumerate(magnitudes.unbind(1)):
        place = slice(number * spectrogram.hop, number * spectrogram.hop + spectrogram.n_fft)
        frame = torch.zeros_like(total[:, place])
        for _ in range(NUM_LOCAL):
            seen = (total[:, place] + frame) / weight[place]
            if around:
                seen = torch.where(around.keep[place], around.waveform[:, place], seen)
            frame = torch.fft.irfft(wanted * _phases(torch.fft.rfft(seen * window)), n=spectrogram.n_fft) * window
        total[:, place] += frame
    return spectrogram.cropped(total / weight)


def _waveform(spectrogram: Spectrogram, spectra: Complex[Tensor, "b f bin"], known: Known | None) -> Float[Tensor, "b s"]:
    waveform = spectrogram.inverse_transform(spectra)
    return known.put_into(waveform) if known else waveform


def _phases(spectra: Complex[Tensor, "b f bin"]) -> Complex[Tensor, "b f bin"]:
    """Spectra of magnitude 1; phase 0 where there is nothing to have one."""
    sizes = spectra.abs()
    return torch.where(sizes > TINY, spectra / sizes.clamp(min=TINY), torch.ones_like(spectra))
