"""Video files to frames: what kind of file it is, by its content and never by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float, UInt8
from torch import Tensor

from djepa.errors import MediaError
from djepa.modality import require_file
from djepa_video import animation
from djepa_video.clip import Clip, check_size, to_floats


def probe(path: Path) -> Clip:
    """Look into a video file: how many frames it holds, when they are shown, how large they are.

    Nothing is decoded, except of animated pictures and of AVI files that do not say when frames are shown. That a frame is
    there does not mean that it is undamaged: only decoding it (`Clip.frames`) tells.

    Raises:
        MediaError: the file is missing, empty, no video, without frames, damaged, cut short or too large.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise MediaError(f"Cannot open {str(path)!r}: {error.strerror}.") from error
    if animation.is_animation(start):
        return animation.probe(path)
    from djepa_video import container  # takes FFmpeg's libraries, which are large

    return container.probe(path)


def frames_of(clip: Clip, numbers: Sequence[int], channels: Literal[1, 3] | None = None,
              decoder: Literal["pyav", "decord"] = "pyav") -> UInt8[Tensor, "t h w c"]:
    """Some frames of a clip, in the order they are asked for.

    Args:
        clip: from `probe`.
        numbers: which; a number may come twice.
        channels: 1 for grey, 3 for RGB, None for what the file is.
        decoder: "pyav" decodes all formats and refuses damage that FFmpeg notices. "decord" shows what it makes of it, is used
            for RGB of the files it finds the right frames in (`djepa_video.decord_frames`), and leaves others to PyAV.

    Raises:
        MediaError: as `Clip.frames`.
    """
    if decoder == "decord" and (channels or clip.channels) == 3:
        from djepa_video import decord_frames  # takes FFmpeg's libraries, which are large

        check_size(clip.path, clip.height, clip.width, len(numbers))
        found = decord_frames.read(clip, numbers)
        if found is not None:
            return found
    return clip.frames(numbers, channels)


def read(path: Path, channels: Literal[1, 3] | None = None) -> tuple[Float[Tensor, "c t h w"], dict[str, Any]]:
    """A whole clip, float32 in [-1, 1], and the metadata it was written with, with its frame rate.

    Args:
        path: the file; its extension does not matter. Sound is left out.
        channels: 1 for grey, 3 for RGB, None for what the file is.

    Raises:
        MediaError: as `probe`, or a frame cannot be decoded.
    """
    clip = probe(path)
    return to_floats(clip.frames(channels=channels)), clip.meta
