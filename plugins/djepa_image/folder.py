"""A folder of picture files as a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from djepa.dataset import Dataset, Example, drawn_view
from djepa.errors import UsageError
from djepa.folder import fingerprint, scan
from djepa.tokens import Sample
from djepa_image.files import decode, to_tensor

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


class ImageFolder(Dataset):
    """Pictures below a folder, all of one size; stream "image", condition "label" where there are classes.

    Each sub-folder is a class and gives it its name; pictures lie anywhere below it. Then a picture beside the
    sub-folders belongs to no class and is left out. Without sub-folders there are no classes and no condition. Hidden
    files and folders are skipped, and so is what has no picture's extension. Of an animation the first frame counts.

    Args:
        root: the folder.
        size: (height, width) in pixels, or one number for both. The picture is scaled, with antialiasing, until it just
            covers this size, and what sticks out is cropped.
        channels: 1 for grey, 3 for RGB, whatever the files are.
        flip: mirror left and right, at random.
        crop: "center", or "random" for a random place along the longer side.

    Raises:
        UsageError: the folder is missing, holds no pictures, or has a class without any; or a setting that cannot be.
    """

    def __init__(self, *, root: str, size: int | tuple[int, int] = 64, channels: Literal[1, 3] = 3, flip: bool = True,
                 crop: Literal["center", "random"] = "center") -> None:
        if channels not in (1, 3):
            raise UsageError(f"ImageFolder: channels must be 1 (grey) or 3 (RGB); got {channels!r}.")
        if crop not in ("center", "random"):
            raise UsageError(f"ImageFolder: crop must be 'center' or 'random'; got {crop!r}.")
        self.size = _height_and_width(size)
        self.channels: Literal[1, 3] = channels
        self.flip, self.crop = flip, crop
        self.root = Path(root).expanduser()
        self._classes, self._files = scan(self.root, EXTENSIONS, "pictures")

    def __len__(self) -> int:
        return len(self._files)

    def load(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Picture `index`; mirrored and cropped at random only if `rng` is given.

        Raises:
            MediaError: the file is gone, damaged or too large; the message names it.
        """
        place = 0.5 if rng is None or self.crop == "center" else rng.random()
        return self._shown(index, place, drawn_view(rng, 2 if self.flip else 1) == 1)

    def described(self, index: int) -> str:
        """Its file."""
        return repr(self._files[index][0])

    def num_views(self) -> int | None:
        """Plain and, where it flips, mirrored; random crops are too many to count."""
        return None if self.crop == "random" else 2 if self.flip else 1

    def view(self, index: int, number: int) -> Example:
        """Picture `index`, as it is (0) or mirrored (1)."""
        return self._shown(index, 0.5, mirrored=number == 1)

    def _shown(self, index: int, place: float, mirrored: bool) -> Example:
        file, label = self._files[index]
        image, _ = decode(Path(file), self.channels)
        image = _cover(image, self.size, place)
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        sample = Sample(to_tensor(image), {}, "image")
        return Example({"image": sample}, {} if label is None else {"label": self._classes[label]})

    def fingerprint(self) -> str:
        """Of the names of all files, their sizes and when they were changed last.

        Raises:
            MediaError: a file is gone.
        """
        return fingerprint(self.root, self._files)

    def classes(self) -> Mapping[str, list[str]]:
        """The names of the sub-folders, sorted; nothing where there are none."""
        return {"label": list(self._classes)} if self._classes else {}


def _cover(image: Image.Image, size: tuple[int, int], place: float) -> Image.Image:
    """Scale and crop in one pass; `place` in [0, 1] says where along the axis that sticks out."""
    height, width = size
    scale = max(height / image.height, width / image.width)
    box_height, box_width = min(height / scale, image.height), min(width / scale, image.width)
    top, left = (image.height - box_height) * place, (image.width - box_width) * place
    box = (left, top, min(left + box_width, image.width), min(top + box_height, image.height))
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)


def _height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    pair = list(size) if isinstance(size, Sequence) else [size, size]
    if len(pair) != 2 or not all(isinstance(side, int) and side >= 1 for side in pair):
        raise UsageError(f"ImageFolder: size must be a number of pixels, or (height, width), at least 1 each; got {size!r}.")
    return pair[0], pair[1]
