"""Griffin-Lim: a waveform whose spectra have given magnitudes, by going back and forth between the two.

In the fast version [2], from phases of zero, so that nothing is drawn. Where a part of the waveform is known, it is put back in
after every step: phases of the rest then grow out of it, and nothing is heard where one meets the other.

References:
    [1] D. Griffin, J. Lim. Signal estimation from modified short-time Fourier transform. IEEE Trans. ASSP 32(2), 1984.
    [2] N. Perraudin, P. Balazs, P. L. Sondergaard. A fast Griffin-Lim algorithm. WASPAA 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from djepa_tokenizers.spectrogram import TINY, Spectrogram

MOMENTUM = 0.99  # as the authors of [2] recommend


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
        start: a waveform to take the first phases from.
        known: part of the waveform, which comes back exactly. Frames that see some of it have its magnitudes by that much.
    """
    share = known.share(spectrogram) if known else 0.0
    spectra = magnitudes * (torch.ones_like(magnitudes) if start is None else _phases(spectrogram.transform(start)))
    previous: Tensor | float = 0.0
    for _ in range(iterations):
        rebuilt = spectrogram.transform(_waveform(spectrogram, spectra, known))
        moved = rebuilt - MOMENTUM / (1 + MOMENTUM) * previous
        spectra = torch.lerp(magnitudes, rebuilt.abs(), share) * _phases(moved) if known else magnitudes * _phases(moved)
        previous = rebuilt
    return _waveform(spectrogram, spectra, known)


def _waveform(spectrogram: Spectrogram, spectra: Complex[Tensor, "b f bin"], known: Known | None) -> Float[Tensor, "b s"]:
    waveform = spectrogram.inverse_transform(spectra)
    return known.put_into(waveform) if known else waveform


def _phases(spectra: Complex[Tensor, "b f bin"]) -> Complex[Tensor, "b f bin"]:
    return spectra / (spectra.abs() + TINY)
