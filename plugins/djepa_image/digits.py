"""Handwritten digits: 1,797 real scans that ship with the package (source and licence in `data/README.md`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from djepa.dataset import Dataset, Example
from djepa.errors import UsageError, suggest
from djepa.tokens import Sample

FILE = Path(__file__).with_name("data") / "digits.npz"
NUM_TRAIN = 1400
TOP_LEVEL = 16  # pixels are whole numbers 0..16: how many of 4x4 finer pixels the pen touched

_SPLITS = {"train": slice(NUM_TRAIN), "heldout": slice(NUM_TRAIN, None), "all": slice(None)}


class Digits(Dataset):
    """Pictures of one digit each: 1x8x8, stream "image", condition "label" ("0".."9").

    Args:
        split: "train" (the first 1,400), "heldout" (the last 397) or "all".

    Raises:
        UsageError: there is no such split.
    """

    def __init__(self, *, split: Literal["train", "heldout", "all"] = "train") -> None:
        if split not in _SPLITS:
            raise UsageError(f"Digits has no split {split!r}. {suggest(split, _SPLITS)}")
        with np.load(FILE, allow_pickle=False) as stored:
            levels, labels = stored["levels"][_SPLITS[split]], stored["labels"][_SPLITS[split]]
        self._pictures = torch.from_numpy(levels[:, None].astype(np.float32) / (TOP_LEVEL / 2) - 1.0)
        self._labels = [str(label) for label in labels.tolist()]

    def __len__(self) -> int:
        return len(self._labels)

    def load(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Digit `index`. Nothing is drawn from `rng`: a shifted or mirrored digit is no longer one of these."""
        # A clone, so that an example that is changed or sent to another process is this one picture and no more.
        sample = Sample(self._pictures[index].clone(), {}, "image")
        return Example({"image": sample}, {"label": self._labels[index]})

    def num_views(self) -> int:
        """One: nothing is drawn."""
        return 1

    def classes(self) -> Mapping[str, list[str]]:
        """The ten digits."""
        return {"label": [str(digit) for digit in range(10)]}


def levels(samples: Sequence[Sample]) -> Float[np.ndarray, "b 64"]:
    """The pixels of digits on the scans' own scale of 0..16, row by row, float32.

    Nothing is rounded or clipped, so that an evaluation sees what a model really made.

    Raises:
        UsageError: a sample is not 1x8x8.
    """
    for sample in samples:
        if tuple(sample.data.shape) != (1, 8, 8):
            raise UsageError(f"A digit is a sample of shape (1, 8, 8); got {tuple(sample.data.shape)}.")
    flat = [(sample.data.detach().float().cpu().flatten() + 1.0) * (TOP_LEVEL / 2) for sample in samples]
    return torch.stack(flat).numpy() if flat else np.zeros((0, 64), dtype=np.float32)
