"""All views of examples in order, loaded ahead by several processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from djepa.dataset import Dataset, Example
from djepa.errors import DjepaError, UsageError

BATCH_SIZE = 16  # examples loaded together and handed to a tokenizer, which may divide them further

Views = list[Example]  # all views of one example


class _Views(TorchDataset[Views | DjepaError]):
    """An error that is meant for the reader is handed over, not raised: a worker would wrap it into its own traceback."""

    def __init__(self, dataset: Dataset, num_views: int) -> None:
        self.dataset, self.num_views = dataset, num_views

    def __getitem__(self, index: int) -> Views | DjepaError:
        try:
            return [self.dataset.view(index, number) for number in range(self.num_views)]
        except DjepaError as error:
            return error


def load_views(dataset: Dataset, num_views: int, numbers: range, num_workers: int) -> Iterator[list[Views]]:
    """The views of these examples, a few examples at a time (no workers: here, when asked).

    Raises:
        DjepaError: what the dataset says of an example that cannot be loaded.
        UsageError: a worker died.
    """
    loader = DataLoader(
        _Views(dataset, num_views), sampler=numbers, batch_size=BATCH_SIZE, num_workers=num_workers, collate_fn=list,
        generator=torch.Generator(),  # the loader draws a seed for its workers: not from the global generator
    )
    try:
        for loaded in loader:
            yield [_sound(views) for views in loaded]
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise UsageError("A process that loads the data was killed from outside, most often because memory ran out. Free some, "
                         "or set a lower train.num_workers, and give the same command again: it goes on.") from error


def _sound(loaded: Views | DjepaError) -> Views:
    if isinstance(loaded, DjepaError):
        raise loaded
    return loaded
