"""Which examples a step sees, and how they get there.

The order of the data is a pure function of (seed, step): epoch e is a permutation keyed by (seed, e), and step s takes the
global positions s * batch_size ... of the epochs laid end to end. Augmentation is keyed by (seed, epoch, example). Hence
nothing about data has to be saved, and any number of workers or processes sees the same examples.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import lru_cache
from typing import Protocol

import numpy as np

from djepa.dataset import Dataset, Example
from djepa.errors import UsageError
from djepa.loading import loaded
from djepa.random import numpy_generator

Place = tuple[int, int]  # epoch, index of the example


class DataOrder:
    """The order in which a run goes through its data.

    Args:
        seed: of the run.
        size: examples of the dataset.
        batch_size: global.
        permute: the order of one epoch (`Dataset.order`); any, when not given.
    """

    def __init__(self, seed: int, size: int, batch_size: int,
                 permute: Callable[[np.random.Generator], np.ndarray] | None = None) -> None:
        if size < 1:
            raise UsageError("The dataset is empty: there is nothing to train on.")
        self.seed, self.size, self.batch_size = seed, size, batch_size
        self._permute = permute or (lambda rng: rng.permutation(size))
        self.epoch = lru_cache(maxsize=4)(self._permutation)

    def _permutation(self, epoch: int) -> np.ndarray:
        return self._permute(numpy_generator(self.seed, "data order", epoch))

    def places(self, step: int) -> list[Place]:
        """The examples of a step."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [(position // self.size, int(self.epoch(position // self.size)[position % self.size]))
                for position in positions]


class Order(Protocol):
    """In which order a run goes through its data."""

    seed: int

    def places(self, step: int) -> list[Place]:
        """The examples of a step."""
        ...


class KeyedExamples:
    """Reads examples addressed by (epoch, index), augmented as a function of both."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, dataset: Dataset, place: Place) -> Example:
        epoch, index = place
        return dataset.load(index, numpy_generator(self.seed, "augmentation", epoch, index))


def batches(
    dataset: Dataset, order: Order, steps: range, num_workers: int, load_timeout: float = 0.0
) -> Generator[list[Example]]:
    """The examples of every step, loaded ahead by `num_workers` processes; arguments and errors are those of `loaded`."""
    return loaded(dataset, KeyedExamples(order.seed), (order.places(step) for step in steps), num_workers, load_timeout)
