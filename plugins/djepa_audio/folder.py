"""A folder of sound files as a dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from djepa.dataset import Dataset, Example
from djepa.errors import MediaError, UsageError
from djepa.folder import fingerprint, scan
from djepa.tokens import Sample
from djepa_audio.files import opened
from djepa_audio.sound import check_rate

EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3")


class AudioFolder(Dataset):
    """Sounds below a folder, all of one length; stream "audio", condition "label" where there are classes.

    Each sub-folder is a class and gives it its name; sounds lie anywhere below it. Then a sound beside the sub-folders
    belongs to no class and is left out. Without sub-folders there are no classes and no condition. Hidden files and folders
    are skipped, and so is what has no sound's extension. Of a longer file, only the part that is shown is decoded.

    Args:
        root: the folder.
        seconds: length of what is shown of each file.
        sample_rate: in Hz; files of other rates are resampled.
        channels: 1 for mono, the mean of a file's channels; 2 for stereo, a mono file twice.
        crop: which part of a longer file is shown: "random", or "center" always.
        short: what happens to a shorter file: "pad" puts silence after it, "error" refuses it.

    Raises:
        UsageError: the folder is missing, holds no sounds, or has a class without any; or a setting that cannot be.
    """

    def __init__(self, *, root: str, seconds: float = 4.0, sample_rate: int = 24000, channels: Literal[1, 2] = 1,
                 crop: Literal["random", "center"] = "random", short: Literal["pad", "error"] = "pad") -> None:
        self.sample_rate = check_rate(sample_rate, "AudioFolder: sample_rate")
        if channels not in (1, 2):
            raise UsageError(f"AudioFolder: channels must be 1 (mono) or 2 (stereo); got {channels!r}.")
        if crop not in ("random", "center"):
            raise UsageError(f"AudioFolder: crop must be 'random' or 'center'; got {crop!r}.")
        if short not in ("pad", "error"):
            raise UsageError(f"AudioFolder: short must be 'pad' or 'error'; got {short!r}.")
        if not math.isfinite(seconds) or round(seconds * self.sample_rate) < 1:
            raise UsageError(f"AudioFolder: seconds must be a length of at least one sample; got {seconds!r}.")
        self.length = round(seconds * self.sample_rate)
        self.channels, self.crop, self.short = channels, crop, short
        self.root = Path(root).expanduser()
        self._classes, self._files = scan(self.root, EXTENSIONS, "sounds")

    def __len__(self) -> int:
        return len(self._files)

    def load(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """A part of sound `index`: at random only if `rng` is given, otherwise the middle.

        Raises:
            MediaError: the file is gone, damaged, or too short; the message names it.
        """
        file, label = self._files[index]
        place = 0.5 if rng is None or self.crop == "center" else rng.random()
        sample = Sample(self._part(Path(file), place), {"sample_rate": self.sample_rate}, "audio")
        return Example({"audio": sample}, {} if label is None else {"label": self._classes[label]})

    def described(self, index: int) -> str:
        """Its file."""
        return repr(self._files[index][0])

    def num_views(self) -> int | None:
        """One, or too many to count: random crops."""
        return None if self.crop == "random" else 1

    def fingerprint(self) -> str:
        """Of the names of all files, their sizes and when they were changed last.

        Raises:
            MediaError: a file is gone.
        """
        return fingerprint(self.root, self._files)

    def classes(self) -> Mapping[str, list[str]]:
        """The names of the sub-folders, sorted; nothing where there are none."""
        return {"label": list(self._classes)} if self._classes else {}

    def _part(self, path: Path, place: float) -> Tensor:
        with opened(path) as recording:
            needed = math.ceil(self.length * recording.sample_rate / self.sample_rate)
            if self.short == "error" and recording.num_frames < needed:
                raise MediaError(f"{str(path)!r} lasts {recording.num_frames / recording.sample_rate:.3f} s, less than the "
                                 f"{self.length / self.sample_rate:.3f} s asked for. With short=pad, silence is put after it.")
            start = int(max(0, recording.num_frames - needed + 1) * place)
            data = recording.read(self.channels, self.sample_rate, start, needed)[:, :self.length]
        return torch.nn.functional.pad(data, (0, self.length - data.shape[1]))
