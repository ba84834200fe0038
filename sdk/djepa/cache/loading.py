"""All views of examples in order, loaded ahead by several processes."""

from __future__ import annotations

from collections.abc import Generator

from djepa.dataset import Dataset, Example
from djepa.loading import loaded

BATCH_SIZE = 16  # examples loaded together and handed to a tokenizer, which may divide them further

Views = list[Example]  # all views of one example


class _AllViews:
    """Reads all views of an example."""

    def __init__(self, num_views: int) -> None:
        self.num_views = num_views

    def __call__(self, dataset: Dataset, index: int) -> Views:
        return [dataset.view(index, number) for number in range(self.num_views)]


def load_views(
    dataset: Dataset, num_views: int, numbers: range, num_workers: int, load_timeout: float = 0.0
) -> Generator[list[Views]]:
    """The views of these examples, a few examples at a time; arguments and errors are those of `loaded`."""
    parts = (numbers[start : start + BATCH_SIZE] for start in range(0, len(numbers), BATCH_SIZE))
    return loaded(dataset, _AllViews(num_views), parts, num_workers, load_timeout)
