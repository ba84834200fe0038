"""A training script of a user: a dataset of his own that writes down what is loaded; run by torchrun, or alone.

    python recorded.py RUN RECORDS [KEY=VALUE]...
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch

from djepa import Dataset, Example, Recipe, Sample, Trainer
from djepa.errors import DjepaError
from djepa.hookspecs import hookimpl
from djepa.plugins import temporary
from djepa.random import numpy_generator


class Recorded(Dataset):
    """Noise. Training writes the numbers of its examples to a file of its process, and meets no number in those of `bad`."""

    def __init__(self, *, folder: str, bad: list[int]) -> None:
        self.path, self.bad = Path(folder) / f"{os.environ.get('RANK', 'alone')}.txt", bad

    def __len__(self) -> int:
        return 16

    def load(self, index, rng=None):
        data = torch.from_numpy(numpy_generator(0, index).uniform(-1, 1, (1, 8, 8)).astype(np.float32))
        if rng is not None:
            with self.path.open("a") as file:
                file.write(f"{index} {rng.integers(1000)}\n")
            if index in self.bad:
                data[0, 0, 0] = torch.nan
        return Example({"image": Sample(data, {}, "image")}, {"label": str(index % 2)})

    def classes(self):
        return {"label": ["0", "1"]}


class Plugin:
    @hookimpl
    def djepa_register_datasets(self, register):
        register("recorded", f"{__name__}:Recorded")


def main(run: str, *overrides: str) -> None:
    torch.set_num_threads(1)
    with temporary(Plugin()):
        if Path(run).exists():
            Trainer.resume(run, overrides, device="cpu")
        else:
            Trainer(Recipe.load("image/digits", overrides), device="cpu").fit(run)


if __name__ == "__main__":
    sys.modules["recorded"] = sys.modules["__main__"]
    __name__ = "recorded"
    try:
        main(*sys.argv[1:])
    except DjepaError as error:
        sys.exit(f"{type(error).__name__}: {error}")
