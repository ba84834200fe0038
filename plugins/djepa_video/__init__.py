"""Video: what this plugin offers, by name; imports none of it."""

from __future__ import annotations

from djepa.hookspecs import Register, hookimpl


@hookimpl
def djepa_register_modalities(register: Register) -> None:
    register("video", "djepa_video.modality:Video", summary="clips, grey or colour: mp4, gif, webp")


@hookimpl
def djepa_register_datasets(register: Register) -> None:
    register("moving-digits", "djepa_video.moving_digits:MovingDigits",
             summary="handwritten digits gliding over a canvas that wraps around, in eight directions")
    register("video-folder", "djepa_video.folder:VideoFolder", summary="a folder of clips, one sub-folder per class")
    register("ucf101", "djepa_video.ucf101:Ucf101", summary="UCF101's clips and official splits, from its unpacked folders")


@hookimpl
def djepa_register_feature_extractors(register: Register) -> None:
    register("frame-statistics", "djepa_video.features:FrameStatistics",
             summary="looks and motion of clips on a coarse grid; no network")
    register("video-encoder", "djepa_video.features:VideoEncoder",
             summary="clips through a network of transformers, for clips or frame by frame, from a local folder")
