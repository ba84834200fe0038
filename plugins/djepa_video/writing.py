"""Clips to video files.

    mp4    H.264, nearly without visible loss. Colour has half the resolution (4:2:0), since no browser and few players show
           anything else: the colours of very small clips blur. Odd sides are filled up by repeating the last row or column,
           and cropped again by this library.
    gif    256 colours a frame; grey clips are kept exactly.
    webp   without loss.

All hold the sample's metadata as JSON: the "comment" of an mp4 and a gif, the EXIF user comment of a webp.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from djepa.errors import UsageError
from djepa.files import atomic_file
from djepa_video.animation import durations, exif_comment
from djepa_video.note import Note, padded

CRF = "12"                                               # of H.264, 0 to 51: 18 is already hard to tell from the original
MAX_DENOMINATOR = 100_000                                # of a frame rate as a fraction: 24000/1001 and 7.5 come out exactly
FPS = (0.01, 1000.0)
MAX_SIDE = {"mp4": 16_384, "gif": 65_535, "webp": 16_383}  # what the formats, or their encoders, can hold
MAX_EXIF = 65_000                                        # bytes

BT601, LIMITED = 6, 1  # FFmpeg's numbers of what the conversion to YUV does, so that players convert back alike


def write(data: Tensor, path: Path, extension: str, meta: Mapping[str, Any]) -> Path:
    """Write a clip, all or nothing; the arguments and errors of `encode`.

    Raises:
        StorageError: the disk refused.
    """
    content = encode(data, extension, meta)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return path


def encode(data: Tensor, extension: str, meta: Mapping[str, Any]) -> bytes:
    """The content of a video file.

    Args:
        data: floating point (c, t, h, w) with 1 or 3 channels; values outside [-1, 1] are clipped.
        extension: "mp4", "gif" or "webp".
        meta: plain values, which `read` gives back; "fps", the frame rate, is one of them.

    Raises:
        UsageError: not a clip, values that are not numbers, no frame rate, or what the format cannot hold.
    """
    frames = _to_frames(data)
    fps = check_fps(meta.get("fps"))
    height, width = frames.shape[1:3]
    if max(height, width) > MAX_SIDE[extension]:
        raise UsageError(f"A clip of {width}x{height} pixels does not fit into a {extension} file, whose sides end at "
                         f"{MAX_SIDE[extension]}.")
    note = Note(meta, 1 if len(data) == 1 else 3, (height, width), len(frames))
    return ENCODERS[extension](frames.numpy(), fps, note.text())


def check_clip(data: Tensor) -> None:
    """Raise UsageError unless `data` has the shape and type of a clip."""
    if data.ndim != 4 or len(data) not in (1, 3) or 0 in data.shape or not data.is_floating_point():
        raise UsageError(f"A clip is a floating-point tensor (1 or 3 channels, frames, height, width) in [-1, 1]; got "
                         f"{tuple(data.shape)} of {data.dtype}.")


def check_fps(fps: object) -> float:
    """A frame rate.

    Raises:
        UsageError: it is none.
    """
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not math.isfinite(fps) or not FPS[0] <= fps <= FPS[1]:
        raise UsageError(f"A clip needs its frame rate, meta['fps'], from {FPS[0]} to {FPS[1]:g}; got {fps!r}.")
    return float(fps)


def _to_frames(data: Tensor) -> UInt8[Tensor, "t h w c"]:
    check_clip(data)
    values = data.detach().to("cpu", torch.float32)
    if bool(values.isnan().any()):
        raise UsageError(f"The clip holds {int(values.isnan().sum())} values that are not numbers (NaN); it cannot be written.")
    return ((values.clamp(-1.0, 1.0) + 1.0) * 127.5).round_().to(torch.uint8).permute(1, 2, 3, 0).contiguous()


def _mp4(frames: np.ndarray, fps: float, note: str) -> bytes:
    import av  # FFmpeg's libraries, which are large

    height, width = padded(*frames.shape[1:3])
    filled = np.pad(frames, ((0, 0), (0, height - frames.shape[1]), (0, width - frames.shape[2]), (0, 0)), mode="edge")
    content = io.BytesIO()
    try:
        with av.open(content, "w", format="mp4") as container:
            container.metadata["comment"] = note
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(MAX_DENOMINATOR))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": CRF}
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT601
            context.color_range = LIMITED
            for pixels in filled:
                frame = av.VideoFrame.from_ndarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels,
                                                   "gray" if pixels.shape[-1] == 1 else "rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise UsageError(f"A clip of {width}x{height} pixels at {fps:g} fps cannot be encoded as mp4: {error}.") from error
    return content.getvalue()


def _gif(frames: np.ndarray, fps: float, note: str) -> bytes:
    content = io.BytesIO()
    first, *others = _images(frames)
    first.save(content, "GIF", save_all=True, append_images=others, duration=durations(fps, len(frames), "gif"), loop=0,
               comment=note.encode("ascii"))
    return content.getvalue()


def _webp(frames: np.ndarray, fps: float, note: str) -> bytes:
    exif = exif_comment(note)
    if len(exif) > MAX_EXIF:
        raise UsageError(f"The metadata takes {len(exif):,} bytes, and a webp file holds {MAX_EXIF:,}; write an mp4.")
    content = io.BytesIO()
    first, *others = _images(frames)
    first.save(content, "WEBP", save_all=True, append_images=others, duration=durations(fps, len(frames), "webp"), loop=0,
               lossless=True, exif=exif)
    return content.getvalue()


def _images(frames: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels) for pixels in frames]


ENCODERS: Mapping[str, Callable[[np.ndarray, float, str], bytes]] = {"mp4": _mp4, "gif": _gif, "webp": _webp}
