"""ImageNet's training pictures [1], with names a person would type.

The names are in the order of the ids, which is that of the sorted folders (source and licence in `data/README.md`).

References:
    [1] O. Russakovsky et al. ImageNet Large Scale Visual Recognition Challenge. arXiv 1409.0575.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from djepa.errors import UsageError
from djepa_image.folder import ImageFolder

NAMES = Path(__file__).with_name("data") / "imagenet_names.txt"
NUM_CLASSES = 1000
ANCHORS = {0: "n01440764", 207: "n02099601", 999: "n15075141"}  # tench, golden retriever, toilet tissue

_FOLDER = re.compile(r"n\d{8}")


class ImageNet(ImageFolder):
    """The 1,000 classes of ILSVRC 2012, colour, stream "image", condition "label".

    The folder is as it is unpacked everywhere: train/n01440764/*.JPEG and so on, a sub-folder per class. With all 1,000 of
    them a class has the name that people know it by ("golden retriever"). With fewer, or with others, folders keep their
    own names: which of ImageNet's classes is missing cannot be told from the names alone.

    Args:
        root: the folder that holds the splits.
        split: its sub-folder: "train" or "val", both with a sub-folder per class.
        size: (height, width) in pixels, or one number for both; scaled and cropped as by `image-folder`.
        flip: mirror left and right, at random.
        crop: "center", or "random" for a random place along the longer side.

    Raises:
        UsageError: there is no such folder, or it is not divided into ImageNet's classes; or a setting that cannot be.
    """

    def __init__(self, *, root: str, split: Literal["train", "val"] = "train", size: int | tuple[int, int] = 256,
                 flip: bool = True, crop: Literal["center", "random"] = "center") -> None:
        folder = Path(root).expanduser() / split
        if not folder.is_dir():
            raise UsageError(f"ImageNet: there is no folder {str(folder)!r}; root is the folder that holds {split!r}.")
        super().__init__(root=str(folder), size=size, channels=3, flip=flip, crop=crop)
        strange = [name for name in self._classes if not _FOLDER.fullmatch(name)]
        if strange or not self._classes:
            found = f"a folder {strange[0]!r}" if strange else "no sub-folders"
            raise UsageError(f"ImageNet: {str(folder)!r} holds {found}; expected one folder per class, named like "
                             f"{ANCHORS[0]!r}. For other pictures there is the data kind image-folder.")
        self._classes = names_of(self._classes)


def names_of(folders: Sequence[str]) -> list[str]:
    """The class names of sorted folders: people's names if these are the 1,000 classes, else the folders' own."""
    complete = len(folders) == NUM_CLASSES and all(folders[index] == name for index, name in ANCHORS.items())
    return imagenet_names() if complete else list(folders)


def imagenet_names() -> list[str]:
    """The names of the 1,000 classes in the order of their ids, all different even where case is ignored."""
    return NAMES.read_text(encoding="utf-8").splitlines()
