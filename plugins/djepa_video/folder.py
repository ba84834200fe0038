"""A folder of video files as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from djepa.folder import scan
from djepa_video.clips import ClipOptions, Clips

EXTENSIONS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".gif", ".webp")


class VideoFolder(Clips):
    """Clips of the videos below a folder, all of one size and length; stream "video", condition "label" if there are classes.

    Each sub-folder is a class and gives it its name; videos lie anywhere below it. Then a video beside the sub-folders belongs
    to no class and is left out. Without sub-folders there are no classes and no condition. Hidden files and folders are
    skipped, and so is what has no video's extension. Sound is left out.

    Args:
        root: the folder.
        size: (height, width) in pixels, or one number for both. Frames are scaled, with antialiasing, until they just cover
            this size, and what sticks out is cropped.
        num_frames: of a clip.
        fps: of a clip: the frames shown nearest to its times are taken. None for successive frames of the file, whatever its
            rate.
        channels: 1 for grey, 3 for RGB, whatever the files are.
        flip: mirror left and right, at random.
        crop: "center", or "random" for a random place along the side that sticks out.
        clip: the part of a longer file: "random", or always its "center".
        short: what happens to a file that is shorter than a clip: an "error", or it starts again at its end ("loop").
        decoder: "pyav" refuses damaged files; "decord" shows what it makes of them.

    Raises:
        UsageError: the folder is missing, holds no videos, or has a class without any; or a setting that cannot be.
    """

    def __init__(self, *, root: str, size: int | tuple[int, int] = 64, num_frames: int = 16, fps: float | None = None,
                 channels: Literal[1, 3] = 3, flip: bool = True, crop: Literal["center", "random"] = "center",
                 clip: Literal["random", "center"] = "random", short: Literal["error", "loop"] = "error",
                 decoder: Literal["pyav", "decord"] = "pyav") -> None:
        options = ClipOptions(size, num_frames, fps, channels, flip, crop, clip, short, decoder)
        folder = Path(root).expanduser()
        super().__init__(folder, *scan(folder, EXTENSIONS, "videos"), options)
