"""Which examples a step sees, and how they get there.

The order of the data is a pure function of (seed, step): epoch e is a permutation keyed by (seed, e), and step s takes the
global positions s * batch_size ... of the epochs laid end to end. Augmentation is keyed by (seed, epoch, example). Hence
nothing about data has to be saved, and any number of workers or processes sees the same examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from djepa.dataset import Dataset, Example
from djepa.errors import DjepaError, TrainingError, UsageError
from djepa.random import numpy_generator

Place = tuple[int, int]  # epoch, index of the example


class DataOrder:
    """The order in which a run goes through its data.

    Args:
        seed: of the run.
        size: examples of the dataset.
        batch_size: global.
        share: the part of every batch that is wanted here; all of it by default.
    """

    def __init__(self, seed: int, size: int, batch_size: int, share: slice = slice(None)) -> None:
        if size < 1:
            raise UsageError("The dataset is empty: there is nothing to train on.")
        self.seed, self.size, self.batch_size, self.share = seed, size, batch_size, share
        self._epoch = lru_cache(maxsize=4)(self._permutation)

    def _permutation(self, epoch: int) -> np.ndarray:
        return numpy_generator(self.seed, "data order", epoch).permutation(self.size)

    def places(self, step: int) -> list[Place]:
        """The examples of a step, or this share of them."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)[self.share]
        return [(position // self.size, int(self._epoch(position // self.size)[position % self.size]))
                for position in positions]


class KeyedExamples(TorchDataset[Example | DjepaError]):
    """A dataset addressed by (epoch, index), augmented as a function of both.

    An error that is meant for the reader is handed over, not raised: a worker would wrap it into its own traceback.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, place: Place) -> Example | DjepaError:  # pyright: ignore[reportIncompatibleMethodOverride]
        epoch, index = place
        try:
            return self.dataset.load(index, numpy_generator(self.seed, "augmentation", epoch, index))
        except DjepaError as error:
            return error
        except OSError as error:  # the data are gone, or their disk is
            return TrainingError(f"Example {index} of the dataset cannot be loaded: {error}. When the data are back, go on "
                                 f"with: djepa resume RUN")


def batches(
    dataset: Dataset, order: DataOrder, steps: range, num_workers: int, load_timeout: float = 0.0
) -> Iterator[list[Example]]:
    """The examples of every step, loaded ahead by `num_workers` processes (0: here, when asked).

    Args:
        load_timeout: seconds that workers may take for a batch; 0 (the only choice without workers) for any time.

    Raises:
        DjepaError: what the dataset says of an example that cannot be loaded.
        TrainingError: a worker died, or takes longer than that.
    """
    loader = DataLoader(
        KeyedExamples(dataset, order.seed),
        batch_sampler=_Places(order, steps),  # pyright: ignore[reportArgumentType]
        num_workers=num_workers,
        timeout=load_timeout,
        collate_fn=list,
        generator=torch.Generator(),  # the loader draws a seed for its workers: not from the global generator
        pin_memory=False,
        persistent_workers=False,
    )
    try:
        for loaded in loader:
            yield [_sound(example) for example in loaded]
    except RuntimeError as error:
        if str(error).startswith("DataLoader timed out"):
            raise TrainingError(f"No batch could be loaded within {load_timeout:g} seconds: a file on which its decoder hangs, "
                                f"or data that are slow to read. Give them longer with train.load_timeout, and go on with: "
                                f"djepa resume RUN") from error
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise TrainingError("A process that loads the data was killed from outside, most often because memory ran out. Free "
                            "some, or set a lower train.num_workers, and go on with: djepa resume RUN") from error


def _sound(loaded: Example | DjepaError) -> Example:
    if isinstance(loaded, DjepaError):
        raise loaded
    return loaded


class _Places:
    """The places of every step, one step at a time."""

    def __init__(self, order: DataOrder, steps: range) -> None:
        self.order, self.steps = order, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Place]]:
        return (self.order.places(step) for step in self.steps)
