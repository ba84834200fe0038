"""Which examples a step sees, and how they get there.

The order of the data is a pure function of (seed, step): epoch e is a permutation keyed by (seed, e), and step s takes the
global positions s * batch_size ... of the epochs laid end to end. Augmentation is keyed by (seed, epoch, example). Hence
nothing about data has to be saved, and any number of workers or processes sees the same examples.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from djepa.dataset import Dataset, Example
from djepa.errors import TrainingError, UsageError
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

    @property
    def seed(self) -> int:
        """Of the run."""
        ...

    def places(self, step: int) -> list[Place]:
        """The examples of a step."""
        ...


@dataclass(frozen=True)
class Part:
    """A part of every batch of an order: what one of several processes sees.

    Attributes:
        whole: the order.
        share: of the places of a batch.
    """

    whole: Order
    share: slice

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.whole.seed

    def places(self, step: int) -> list[Place]:
        """This share of the examples of a step."""
        return self.whole.places(step)[self.share]


class KeyedExamples:
    """Reads examples addressed by (epoch, index), augmented as a function of both."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, dataset: Dataset, place: Place) -> Example:
        epoch, index = place
        try:
            return dataset.load(index, numpy_generator(self.seed, "augmentation", epoch, index))
        except OSError as error:  # the data are gone, or their disk is
            raise TrainingError(f"Example {index} of the dataset cannot be loaded: {error}. When the data are back, go on "
                                f"with: djepa resume RUN") from error


def batches(
    dataset: Dataset, order: Order, steps: range, num_workers: int, load_timeout: float = 0.0
) -> Generator[list[Example]]:
    """The examples of every step, loaded ahead by `num_workers` processes; arguments and errors are those of `loaded`."""
    return loaded(dataset, KeyedExamples(order.seed), (order.places(step) for step in steps), num_workers, load_timeout)
