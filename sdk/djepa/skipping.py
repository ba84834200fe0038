"""Datasets some of whose files cannot be read: other examples take their place (`train.on_error=skip`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from djepa.dataset import Dataset, Example
from djepa.errors import MediaError
from djepa.random import numpy_generator
from djepa.tokenizer import Tokenizer

NUM_DRAWN = 8  # examples that are tried in the place of one; when none of them can be read, more than a few are damaged


@dataclass(frozen=True)
class Replacement(Example):
    """An example in the place of others.

    Attributes:
        left_out: what is wrong with each of these, by its index.
    """

    left_out: Mapping[int, str] = field(default_factory=dict)


class Skipping(Dataset):
    """A dataset in which every example can be loaded as long as most can.

    Which examples are tried in the place of one depends on its index alone, so a run that is resumed, one with other workers,
    and a cache all see the same.

    Args:
        dataset: whose examples raise MediaError where their files are damaged.

    Attributes:
        left_out: what is wrong with each example that could not be loaded so far in this process, by its index.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.left_out: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def load(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Example `index`, or a `Replacement`.

        Raises:
            MediaError: none of `NUM_DRAWN` others can be loaded either.
        """
        if rng is None:
            return self._first_sound(index, self.dataset.load)
        start = rng.bit_generator.state  # a replacement shall be shown as it were in a cache: with the first draws

        def load(one: int) -> Example:
            rng.bit_generator.state = start
            return self.dataset.load(one, rng)

        return self._first_sound(index, load)

    def described(self, index: int) -> str:
        """As the dataset calls it."""
        return self.dataset.described(index)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """That of the dataset."""
        return self.dataset.order(rng)

    def lengths(self) -> np.ndarray | None:
        """Those of the dataset."""
        return self.dataset.lengths()

    def num_views(self) -> int | None:
        """Those of the dataset."""
        return self.dataset.num_views()

    def view(self, index: int, number: int) -> Example:
        """Example `index` in view `number`, or a `Replacement` in that view; errors as in `load`."""
        return self._first_sound(index, lambda one: self.dataset.view(one, number))

    def classes(self) -> Mapping[str, list[str]]:
        """Those of the dataset."""
        return self.dataset.classes()

    def fingerprint(self) -> str:
        """That of the dataset; where it is taken of the examples themselves, of those that can be loaded."""
        by_examples = type(self.dataset).fingerprint is Dataset.fingerprint
        return super().fingerprint() if by_examples else self.dataset.fingerprint()

    def check(self, tokenizers: Mapping[str, Tokenizer]) -> None:
        """Refuse what the dataset refuses."""
        self.dataset.check(tokenizers)

    def _first_sound(self, index: int, load: Callable[[int], Example]) -> Example:
        damaged: dict[int, str] = {}
        for one in (index, *_others(index, len(self))):
            try:
                example = load(one)
            except MediaError as error:
                damaged[one] = str(error)
                continue
            self.left_out |= damaged
            return Replacement(example.samples, example.conditions, damaged) if damaged else example
        raise MediaError(f"Example {index} of the dataset cannot be loaded, and none of {len(damaged) - 1} others drawn in its "
                         f"place can, so this is not a matter of a few damaged files. The first one: {damaged[index]}")


def left_out_of(examples: Iterable[Example]) -> dict[int, str]:
    """What is wrong with the examples in whose place some of these are, by index."""
    found: dict[int, str] = {}
    for example in examples:
        if isinstance(example, Replacement):
            found |= example.left_out
    return found


def _others(index: int, size: int) -> list[int]:
    """Examples to try in the place of one, all different and none of them this one."""
    rng = numpy_generator(0, "replacement", index)
    steps = rng.choice(size - 1, min(NUM_DRAWN, size - 1), replace=False) if size > 1 else []
    return [(index + 1 + int(step)) % size for step in steps]
