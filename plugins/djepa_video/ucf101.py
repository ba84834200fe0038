"""UCF101 [1]: 13,320 short videos of 101 kinds of action, with the official splits.

References:
    [1] K. Soomro, A. R. Zamir, M. Shah. UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild.
        arXiv 1212.0402.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from djepa.errors import UsageError
from djepa.folder import Labelled
from djepa_video.clips import ClipOptions, Clips

LISTS = "ucfTrainTestlist"   # the folder of the lists, as it is unpacked
VIDEOS = "UCF-101"           # that of the videos
MAX_NAMED = 3                # missing files that an error names


class Ucf101(Clips):
    """Clips of UCF101, stream "video", condition "label": "apply eye makeup", ..., "yo yo".

    The videos are as they are unpacked, `ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi` and so on, and so are the lists of which
    one belongs to which split: `classInd.txt`, `trainlist01.txt`, `testlist01.txt` and so on.

    Args:
        root: the folder of the class folders, or the one it lies in under its own name, UCF-101.
        split: "train" or "test".
        fold: which of the three official splits.
        lists: the folder of the lists; None to look for it in `root` and beside it, under its own name, ucfTrainTestlist.
        size, num_frames, fps, channels, flip, crop, clip, short, decoder: as of `video-folder`. All videos have 320x240 pixels
            and 25 or 29.97 frames per second; the shortest lasts about a second.

    Raises:
        UsageError: the folder, the lists or videos are missing; or a setting that cannot be.
    """

    def __init__(self, *, root: str, split: Literal["train", "test"] = "train", fold: Literal[1, 2, 3] = 1,
                 lists: str | None = None, size: int | tuple[int, int] = 64, num_frames: int = 16, fps: float | None = None,
                 channels: Literal[1, 3] = 3, flip: bool = True, crop: Literal["center", "random"] = "center",
                 clip: Literal["random", "center"] = "random", short: Literal["error", "loop"] = "error",
                 decoder: Literal["pyav", "decord"] = "pyav") -> None:
        if split not in ("train", "test") or fold not in (1, 2, 3):
            raise UsageError(f"UCF101 has a split 'train' and a split 'test', in the folds 1, 2 and 3; got split={split!r}, "
                             f"fold={fold!r}.")
        options = ClipOptions(size, num_frames, fps, channels, flip, crop, clip, short, decoder)
        folder = Path(root).expanduser()
        if not folder.is_dir():
            raise UsageError(f"root: there is no folder {str(folder)!r}.")
        videos = folder / VIDEOS if (folder / VIDEOS).is_dir() else folder
        where = _lists_folder([Path(lists).expanduser()] if lists else [folder / LISTS, folder.parent / LISTS, folder])
        classes = [line.split()[-1] for line in _lines(where / "classInd.txt")]
        files = _files(videos, classes, where / f"{split}list{fold:02d}.txt")
        super().__init__(videos, [readable(name) for name in classes], files, options)


def readable(name: str) -> str:
    """The name of a class as people write it: "ApplyEyeMakeup" is "apply eye makeup"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _lists_folder(places: Sequence[Path]) -> Path:
    for place in places:
        if (place / "classInd.txt").is_file():
            return place
    looked = " or ".join(repr(str(place)) for place in places)
    raise UsageError(f"UCF101's lists (classInd.txt, trainlist01.txt, ...) are not in {looked}; say where they are: lists=...")


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise UsageError(f"UCF101: there is no list {str(path)!r}.")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _files(videos: Path, classes: Sequence[str], path: Path) -> list[Labelled]:
    """The videos of a list, which a training list gives with the number of their class after them."""
    number_of = {name: number for number, name in enumerate(classes)}
    listed = [line.split()[0] for line in _lines(path)]
    if strange := [name for name in listed if name.split("/")[0] not in number_of]:
        raise UsageError(f"UCF101: {str(path)!r} lists {strange[0]!r}, whose class is not in classInd.txt.")
    if missing := [name for name in listed if not (videos / name).is_file()]:
        more = f" and {len(missing) - MAX_NAMED:,} more" if len(missing) > MAX_NAMED else ""
        raise UsageError(f"UCF101: of the {len(listed):,} videos in {path.name}, {len(missing):,} are not in {str(videos)!r}: "
                         f"{', '.join(missing[:MAX_NAMED])}{more}.")
    return [(str(videos / name), number_of[name.split("/")[0]]) for name in listed]
