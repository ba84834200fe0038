"""Features of sounds: plain statistics that need no network, and pretrained networks of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from djepa.errors import UsageError
from djepa.evaluate.extractor import FeatureExtractor, Features
from djepa.tokens import Sample
from djepa_audio.sound import check_rate, check_sound, resample, with_channels
from djepa_tokenizers.pretrained_encoder import PretrainedEncoder
from djepa_tokenizers.spectrogram import Spectrogram

LOWEST = 40.0  # Hz
FLOOR = 1e-5   # magnitudes below count as this: 90 dB and more below a tone of full scale


class MelStatistics(FeatureExtractor):
    """How loud a sound is in each mel bin on average, how much that varies, and how fast; of any length.

    Per bin of the logarithmic mel spectrogram of the channels' mean: mean over the frames, standard deviation over the frames,
    and mean absolute difference of a frame to the next.

    Args:
        num_mels: bins, from 40 Hz to half the sample rate.
        window: seconds that a frame sees; frames follow each other by a quarter of that.

    Raises:
        UsageError: settings that leave a bin empty.
    """

    modalities = ("audio",)

    def __init__(self, *, num_mels: int = 40, window: float = 0.064) -> None:
        if num_mels < 1 or not 0 < window < 10:
            raise UsageError(f"Features 'mel-statistics' need at least one bin, and a window of less than 10 seconds; got "
                             f"num_mels={num_mels}, window={window}.")
        self.num_mels, self.window = num_mels, window

    def extract(self, samples: Sequence[Sample]) -> Features:
        rates = {check_rate(sample.meta.get("sample_rate")) for sample in samples}
        if len(rates) > 1:
            raise UsageError(f"Features 'mel-statistics' compare sounds of one sample rate; there are "
                             f"{' and '.join(map(str, sorted(rates)))} Hz.")
        spectrogram = _spectrogram(rates.pop(), self.num_mels, self.window)
        return Features(torch.stack([self._row(sample.data, spectrogram) for sample in samples]))

    def _row(self, sound: Float[Tensor, "c s"], spectrogram: Spectrogram) -> Float[Tensor, " f"]:
        check_sound(sound)
        mono = with_channels(sound.float().cpu(), 1)
        whole = functional.pad(mono, (0, -mono.shape[-1] % spectrogram.hop))
        frames = spectrogram.mel(whole)[0].clamp(min=FLOOR).log()
        differences = frames.diff(dim=0).abs().mean(0) if len(frames) > 1 else torch.zeros(self.num_mels)
        return torch.cat([frames.mean(0), frames.std(0, correction=0), differences])


class AudioEncoder(FeatureExtractor):
    """What a network of transformers makes of sounds: CLAP, Wav2Vec2, HuBERT, AST, ..., at the sample rate it was trained on.

    The vector is the network's own summary (of a CLAP its embedding, else `pooler_output`), or the mean over time where it
    makes none. Networks saved as classifiers of sounds give logits too. What is longer than a CLAP listens to is cut.

    Args:
        source: folder that transformers saved the network and its feature extractor to, with weights in safetensors.

    Raises:
        CheckpointError: there is no such folder, or it is damaged.
        UsageError: transformers is not installed.
    """

    modalities = ("audio",)

    def __init__(self, *, source: str) -> None:
        self._encoder = PretrainedEncoder(source, "AutoFeatureExtractor", "audio")

    def extract(self, samples: Sequence[Sample]) -> Features:
        # One by one: padding that a network is told to overlook may still change its numbers.
        return Features.joined([self._one(sample) for sample in samples])

    def _one(self, sample: Sample) -> Features:
        check_sound(sample.data)
        rate = int(self._encoder.prepare.sampling_rate)
        mono = with_channels(resample(sample.data.float().cpu(), check_rate(sample.meta.get("sample_rate")), rate), 1)[0]
        heard = mono[: getattr(self._encoder.prepare, "nb_max_samples", None)]  # it would choose a part at random
        inputs = self._encoder.prepare(heard.numpy(), sampling_rate=rate, return_tensors="pt")
        return Features(*self._encoder.features(inputs))

    def to(self, device: torch.device) -> Self:
        self._encoder.to(device)
        return self

    def fingerprint(self) -> str:
        return self._encoder.fingerprint()


@cache
def _spectrogram(rate: int, num_mels: int, window: float) -> Spectrogram:
    hop = max(2, round(rate * window / 8) * 2)  # even, as the window is
    return Spectrogram(rate, 4 * hop, hop, num_mels, LOWEST, rate / 2)
