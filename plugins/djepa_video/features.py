"""Features of clips: plain statistics that need no network, and pretrained networks of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from djepa.errors import UsageError
from djepa.evaluate.extractor import FeatureExtractor, Features
from djepa.tokens import Sample
from djepa_tokenizers.pretrained_encoder import PretrainedEncoder

RGB = 3


class FrameStatistics(FeatureExtractor):
    """What clips look like on average, how much that varies, and where they move, on a coarse grid; of any length and size.

    Per channel and cell of the grid: mean over the frames, standard deviation over the frames, and mean absolute difference of
    a frame to the next (0 for a still).

    Args:
        size: cells of the grid along height and width, at most.
    """

    modalities = ("video",)

    def __init__(self, *, size: int = 8) -> None:
        if size < 1:
            raise UsageError(f"size={size}: a grid has at least one cell.")
        self.size = size

    def extract(self, samples: Sequence[Sample]) -> Features:
        rows = [self._row(sample.data.float().cpu()) for sample in samples]
        if len({len(row) for row in rows}) > 1:
            raise UsageError("Features 'frame-statistics' compare clips of as many channels, and of at least as many pixels as "
                             "the grid has cells; these differ.")
        return Features(torch.stack(rows))

    def _row(self, clip: Float[Tensor, "c t y x"]) -> Float[Tensor, " f"]:
        grid = min(self.size, clip.shape[2]), min(self.size, clip.shape[3])
        frames = functional.adaptive_avg_pool2d(clip.transpose(0, 1), grid)
        differences = frames.diff(dim=0).abs().mean(0) if len(frames) > 1 else torch.zeros_like(frames[0])
        return torch.stack([frames.mean(0), frames.std(0, correction=0), differences]).flatten()


class VideoEncoder(FeatureExtractor):
    """What a network of transformers makes of clips: one for clips (VideoMAE, ViViT, TimeSformer, ...), or one for pictures.

    A network for clips sees as many frames as it was trained on, spread evenly over the clip. What a network for pictures
    (DINOv2, CLIP, ...) makes of frames is averaged over them. Networks saved as classifiers give logits too.

    Args:
        source: folder that transformers saved the network and its preprocessor to, with weights in safetensors.
        num_frames: that a network for pictures sees, spread evenly; None for all.

    Raises:
        CheckpointError: there is no such folder, or it is damaged.
        UsageError: transformers is not installed.
    """

    modalities = ("video",)

    def __init__(self, *, source: str, num_frames: int | None = None) -> None:
        if num_frames is not None and num_frames < 1:
            raise UsageError(f"num_frames={num_frames}: at least one frame is needed.")
        self._encoder = PretrainedEncoder(source, "AutoImageProcessor", "image")
        self._of_clips: int | None = self._encoder.config.get("num_frames")
        self._num_frames = num_frames

    def extract(self, samples: Sequence[Sample]) -> Features:
        return Features.joined([self._one(sample.data.float().cpu()) for sample in samples])

    def _one(self, clip: Float[Tensor, "c t y x"]) -> Features:
        frames = _bytes(spread_frames(clip, self._of_clips or self._num_frames or clip.shape[1]))
        if self._of_clips:
            inputs = self._encoder.prepare([list(frames)], return_tensors="pt")["pixel_values"]
            return Features(*self._encoder.features({"pixel_values": inputs}))
        inputs = self._encoder.prepare(list(frames), return_tensors="pt")["pixel_values"]
        vectors, logits = self._encoder.features({"pixel_values": inputs})
        return Features(vectors.mean(0, keepdim=True), None if logits is None else logits.mean(0, keepdim=True))

    def to(self, device: torch.device) -> Self:
        self._encoder.to(device)
        return self

    def fingerprint(self) -> str:
        return self._encoder.fingerprint()


def spread_frames(clip: Float[Tensor, "c t y x"], count: int) -> Float[Tensor, "c count y x"]:
    """So many frames spread evenly over a clip, both ends included; of a shorter clip, some twice."""
    return clip[:, torch.linspace(0, clip.shape[1] - 1, count).round().long()]


def _bytes(clip: Float[Tensor, "c t y x"]) -> Tensor:
    """Frames (t, 3, y, x) with levels of 0 to 255."""
    coloured = clip.expand(RGB, *clip.shape[1:]).transpose(0, 1)
    return ((coloured.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
