"""LogMel: tokens are patches of a logarithmic mel spectrogram.

With a hop of h samples and patches of p frames and q bins, a waveform (C, N) becomes N/(h*p) x num_mels/q tokens of C*p*q
channels, cut as `Patchify` cuts a picture of frames and bins, each channel of the sound by itself. Token axis "t" counts
seconds, "mel" bins. A waveform that whole tokens do not fill is followed by silence, which `decode` takes off again.

The spectrogram says nothing of phases; `decode` finds some by Griffin-Lim, or lets a vocoder make the waveform.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from djepa.errors import LayoutError, UsageError
from djepa.seam import joined
from djepa.tokenizer import EncodingNoise, Tokenizer
from djepa.tokens import Axis, MediaSpec, Sample, TokenBatch, Tokens, TokenSpec
from djepa_tokenizers.griffin_lim import Known, griffin_lim
from djepa_tokenizers.patchify import Patchify
from djepa_tokenizers.spectrogram import Spectrogram
from djepa_tokenizers.vocoder import Vocoder

GRIFFIN_LIM = "griffin-lim"
MEL = Axis("mel", "bin")
MIN_STD = 0.1  # of a measured bin, about 1 dB: one that was silent must not blow up what little it varies by later
NEARLY_ALL = 0.95  # of what a frame sees: the rest, at its edges, makes no difference
NUM_BINS = 8  # of the Fourier transform: twice what its window spreads a partial over
SILENT = 1.01  # times the floor: what rounding and a model make of silence


class LogMel(Tokenizer):
    """Patches of a logarithmic mel spectrogram as tokens.

    Args:
        media: channels of the samples, and their one axis, of time.
        sample_rate: that all samples have, in Hz.
        n_fft: samples of a window.
        hop: samples from one frame to the next.
        num_mels: bins of the spectrogram.
        f_min, f_max: in Hz, where bins begin and end; by default they cover all there is.
        patch: frames ("t") and bins ("mel") of a token.
        floor: magnitudes below count as this. A sine of full scale comes to about 0.007 n_fft in low bins.
        mean, std: of the natural logarithm in each bin; both or neither. Without them tokens are the plain logarithms until
            `measured` has seen some data.
        iterations: of Griffin-Lim.
        vocoder: "griffin-lim", or a folder or Hub repository ("owner/name") of a `SpeechT5HifiGan` of transformers that was
            trained on such spectrograms. (Its own: sample_rate 16000, n_fft 1024, hop 256, num_mels 80, f_min 80, f_max
            7600, floor 1e-10.)
        vocoder_log: the logarithm that the vocoder was trained on; "ln" is that of the original HiFi-GAN.

    Raises:
        UsageError: a setting that cannot be, or a vocoder for other spectrograms.
    """

    def __init__(
        self, media: MediaSpec, *, sample_rate: int, n_fft: int = 1024, hop: int = 256, num_mels: int = 80,
        f_min: float = 0.0, f_max: float | None = None, patch: dict[str, int] | None = None, floor: float = 1e-5,
        mean: list[float] | None = None, std: list[float] | None = None, iterations: int = 60,
        vocoder: str = GRIFFIN_LIM, vocoder_log: Literal["log10", "ln"] = "log10",
    ) -> None:
        _check_frames(media, sample_rate, n_fft, hop, iterations)
        _check_bins(sample_rate, num_mels, f_min, f_max, floor)
        self.media, self.sample_rate, self.n_fft, self.hop, self.num_mels = media, sample_rate, n_fft, hop, num_mels
        self.f_min, self.f_max, self.floor, self.iterations = f_min, f_max, floor, iterations
        self._patches = _patches(media, patch or {"t": 4, "mel": 16}, num_mels)
        self._bins = _bins(media, num_mels, mean, std)
        self._spectrogram = Spectrogram(sample_rate, n_fft, hop, num_mels, f_min, f_max or sample_rate / 2)
        self._vocoder = None if vocoder == GRIFFIN_LIM else Vocoder(vocoder, vocoder_log, num_mels, sample_rate, hop)
        self._vocoder_log = vocoder_log
        self._spec = TokenSpec(self._patches.spec.width, self._patches.spec.axes, self._bounds())

    def _bounds(self) -> tuple[Tensor, Tensor]:
        """From silence to the loudest a waveform can be, the widest of the bins that a channel of a token stands for."""
        silence = torch.full((self.num_mels,), math.log(self.floor))
        ends = torch.stack([silence, self._spectrogram.loudest().log().clamp(min=math.log(self.floor))])
        low, high = self._scaled(ends).unflatten(1, (-1, self._patches.patch[1]))  # (patches, bins of a patch)
        repeats = self.media.channels * self._patches.patch[0]
        return low.amin(0).repeat(repeats), high.amax(0).repeat(repeats)

    @property
    def spec(self) -> TokenSpec:
        """Width, axes and bounds of the tokens."""
        return self._spec

    @property
    def _cell(self) -> int:
        """Samples of a row of tokens."""
        return self.hop * self._patches.patch[0]

    def layout(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The token grid of a sample of this shape (channels first); a last row that is not full counts.

        Raises:
            LayoutError: other channels or dimensions than this tokenizer's, or no samples.
        """
        if len(shape) != 2 or shape[0] != self.media.channels or shape[1] < 1:
            raise LayoutError(f"Expected a sound of shape ({self.media.channels}, {self.media.axes[0].name}), channels first, "
                              f"at least one sample long; got {tuple(shape)}.")
        return math.ceil(shape[1] / self._cell), self.num_mels // self._patches.patch[1]

    def cells(self, shape: tuple[int, ...]) -> dict[str, Int[Tensor, "s"]]:
        """Which row of tokens each sample belongs to."""
        return {self.media.axes[0].name: torch.arange(shape[1]) // self._cell}

    def blank(self, shape: tuple[int, ...], meta: Mapping[str, Any], modality: str = "") -> Tokens:
        """The places of a sample of this shape, without values."""
        rows, _ = self.layout(shape)
        self._check_rate(meta)
        tokens = self._patches.blank((shape[0], rows * self._patches.patch[0], self.num_mels), meta, modality)
        return replace(tokens, coords=self._physical(tokens.coords), size=shape[1:])

    def encode(self, sample: Sample) -> Tokens:
        """Tokens of one sample."""
        return self.encode_batch([sample])[0]

    def encode_batch(self, samples: Sequence[Sample], noise: EncodingNoise | None = None) -> TokenBatch:
        """Tokens of several samples; those of one length are computed together."""
        if len({sample.shape for sample in samples}) != 1:
            return super().encode_batch(samples)
        for sample in samples:
            self._check_rate(sample.meta)
        scaled = self._scaled(self._logarithms(torch.stack([sample.data for sample in samples])))
        cut = self._patches.encode_batch([replace(sample, data=data) for sample, data in zip(samples, scaled, strict=True)])
        return replace(cut, coords=self._physical(cut.coords), sizes=tuple(sample.shape[1:] for sample in samples))

    def _logarithms(self, data: Float[Tensor, "b C s"]) -> Float[Tensor, "b C f mel"]:
        rows, _ = self.layout(tuple(data.shape[1:]))
        whole = functional.pad(data.float(), (0, rows * self._cell - data.shape[-1]))
        return self._spectrogram.mel(whole.flatten(0, 1)).clamp(min=self.floor).log().unflatten(0, data.shape[:2])

    def decode(self, tokens: Tokens) -> Sample:
        """The sample of these tokens, as long as it was."""
        return self._decoded([self._patches.decode(tokens)], [tokens.size])[0]

    def decode_batch(self, tokens: TokenBatch) -> list[Sample]:
        """Samples of several sets of tokens; those of one length are computed together."""
        if len(set(tokens.grids)) != 1:
            return super().decode_batch(tokens)
        return self._decoded(self._patches.decode_batch(tokens), tokens.sizes or [None] * len(tokens))

    def _decoded(self, scaled: Sequence[Sample], sizes: Sequence[tuple[int, ...] | None]) -> list[Sample]:
        waveforms = self._waveforms(torch.stack([item.data for item in scaled]))
        # Clones, so that a sample kept or pickled does not drag the whole batch along.
        return [replace(item, data=waveform[:, : size and size[0]].clone())
                for item, waveform, size in zip(scaled, waveforms, sizes, strict=True)]

    def restore(self, tokens: Tokens, original: Sample, keep: Bool[Tensor, "s"]) -> Sample:
        """The sample of these tokens, exactly `original` where `keep` is True, with phases that go on from there."""
        scaled = self._patches.decode(tokens)
        size = original.shape[-1]
        missing = len(scaled.data[0]) * self.hop - size
        # What follows the sample is silence, as in encoding, and as well known.
        known = Known(functional.pad(original.data.float(), (0, missing)), functional.pad(keep, (0, missing), value=True))
        waveform = self._waveforms(scaled.data[None], known)[0, :, :size]
        return replace(scaled, data=torch.where(keep, original.data, waveform))

    def _waveforms(self, scaled: Float[Tensor, "b C f mel"], known: Known | None = None) -> Float[Tensor, "b C s"]:
        logarithms = self._unscaled(scaled).clamp(min=math.log(self.floor)).flatten(0, 1)
        waveform = self._vocoder.waveform(logarithms) if self._vocoder else None
        if waveform is None or known:
            mel = logarithms.exp()
            magnitudes = self._spectrogram.magnitudes(mel * (mel > SILENT * self.floor))
            magnitudes = self._going_on(magnitudes, known) if known else magnitudes
            waveform = griffin_lim(self._spectrogram, magnitudes, self.iterations, start=waveform, known=known)
        low, high = self.media.bounds or (-math.inf, math.inf)
        return waveform.clamp(low, high).unflatten(0, scaled.shape[:2])

    def _going_on(self, magnitudes: Float[Tensor, "b f bin"], known: Known) -> Float[Tensor, "b f bin"]:
        """Those of the frames that see only what is known, and others that go on from them: in level, and in partials, which
        mel bins blur.
        """
        true = self._spectrogram.transform(known.waveform).abs()
        keep = (known.share(self._spectrogram) > NEARLY_ALL).expand(magnitudes.shape[1:])
        return joined(magnitudes, true, keep, (self._patches.patch[0], NUM_BINS)).clamp(min=0)

    def measured(self, samples: Iterable[Sample]) -> LogMel:
        """This tokenizer with the mean and standard deviation of each bin, where they are not known.

        Raises:
            UsageError: there are no samples, or one holds values that are not finite.
        """
        if self._bins.mean is not None:
            return self
        fitted = self._bins.measured(self._bin_samples(samples)).options()
        tokenizer = LogMel(self.media, **{**self.options(), "mean": fitted["mean"],
                                          "std": [max(MIN_STD, std) for std in fitted["std"]]})
        tokenizer._vocoder = self._vocoder  # its weights are read once
        return tokenizer

    def _bin_samples(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Spectrograms as samples of which every bin is a channel."""
        for sample in samples:
            self._check_rate(sample.meta)
            yield replace(sample, data=self._logarithms(sample.data[None]).flatten(0, 2).T)

    def _scaled(self, logarithms: Float[Tensor, "... mel"]) -> Float[Tensor, "... mel"]:
        mean, std = self._statistics(logarithms.device)
        return (logarithms - mean) / std

    def _unscaled(self, scaled: Float[Tensor, "... mel"]) -> Float[Tensor, "... mel"]:
        mean, std = self._statistics(scaled.device)
        return scaled * std + mean

    def _statistics(self, device: torch.device) -> tuple[Float[Tensor, "mel"], Float[Tensor, "mel"]]:
        mean, std = self._bins.mean or (0.0,) * self.num_mels, self._bins.std or (1.0,) * self.num_mels
        return torch.tensor(mean, device=device), torch.tensor(std, device=device)

    def _physical(self, coords: Float[Tensor, "... a"]) -> Float[Tensor, "... a"]:
        """The patches count frames; a frame is `hop` samples."""
        return coords * torch.tensor([float(self.hop), 1.0])

    def _check_rate(self, meta: Mapping[str, Any]) -> None:
        rate = self.media.axes[0].rate(meta)
        if rate != self.sample_rate:
            raise UsageError(f"LogMel: a sound of {rate:g} Hz; this tokenizer is for {self.sample_rate} Hz. Resample it, or "
                             f"set its sample_rate.")

    def options(self) -> dict[str, Any]:
        """The keyword arguments that rebuild this tokenizer."""
        statistics = self._bins.options()
        return {"sample_rate": self.sample_rate, "n_fft": self.n_fft, "hop": self.hop, "num_mels": self.num_mels,
                "f_min": self.f_min, "f_max": self.f_max, "patch": self._patches.options()["patch"], "floor": self.floor,
                "mean": statistics["mean"], "std": statistics["std"], "iterations": self.iterations,
                "vocoder": self._vocoder.source if self._vocoder else GRIFFIN_LIM, "vocoder_log": self._vocoder_log}

    def to(self, device: torch.device) -> LogMel:
        """Let the vocoder compute on this device; everything else does on that of what it is given."""
        if self._vocoder:
            self._vocoder.to(device)
        return self

    def save_assets(self, folder: Path) -> None:
        """Write the vocoder as transformers does; nothing where there is none."""
        if self._vocoder:
            self._vocoder.save(folder)

    def load_assets(self, folder: Path) -> None:
        """Read the vocoder that `save_assets` wrote.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        if self._vocoder:
            self._vocoder.load(folder)


def _check_frames(media: MediaSpec, sample_rate: int, n_fft: int, hop: int, iterations: int) -> None:
    if len(media.axes) != 1:
        raise UsageError(f"LogMel is for sounds, which have one axis; these samples have {len(media.axes)} "
                         f"({', '.join(axis.name for axis in media.axes)}).")
    _check_whole("sample_rate", sample_rate, 1)
    _check_whole("n_fft", n_fft, 2)
    _check_whole("hop", hop, 1)
    _check_whole("iterations", iterations, 0)
    if not 2 * hop <= n_fft or (n_fft - hop) % 2 or n_fft % 2:
        raise UsageError(f"LogMel needs an even n_fft, and an even hop of at most half of it; got n_fft={n_fft}, hop={hop}.")


def _check_bins(sample_rate: int, num_mels: int, f_min: float, f_max: float | None, floor: float) -> None:
    _check_whole("num_mels", num_mels, 1)
    if not 0 <= f_min < (f_max or sample_rate / 2) <= sample_rate / 2:
        raise UsageError(f"LogMel needs 0 <= f_min < f_max <= {sample_rate / 2:g} Hz, half of the sample rate; got "
                         f"f_min={f_min}, f_max={f_max}.")
    if not 0 < floor < 1:
        raise UsageError(f"LogMel needs a floor above 0 and below 1; got {floor}.")


def _check_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"LogMel: {name} must be a whole number, at least {least}; got {value!r}.")


def _patches(media: MediaSpec, patch: dict[str, int], num_mels: int) -> Patchify:
    """Patches of frames and bins, which are a medium like any other, but without bounds."""
    try:
        patches = Patchify(MediaSpec(media.channels, (media.axes[0], MEL), bounds=None), patch=patch)
    except UsageError as error:
        raise UsageError(f"LogMel, patches of a spectrogram: {error}") from error
    if num_mels % patches.patch[1]:
        raise UsageError(f"LogMel: patches of {patches.patch[1]} bins do not divide num_mels={num_mels}.")
    return patches


def _bins(media: MediaSpec, num_mels: int, mean: list[float] | None, std: list[float] | None) -> Patchify:
    """Statistics of the bins: those of a medium whose channels they are."""
    try:
        return Patchify(MediaSpec(num_mels, media.axes, bounds=None), mean=mean, std=std)
    except UsageError as error:
        raise UsageError(f"LogMel, on {num_mels} bins: {error}") from error
