"""Examples read ahead of time, by processes that can be killed.

    pool.py      Workers: who reads what; results in order; another worker in the place of one that hangs or crashes
    worker.py    one worker as we see it: its pipes, its clock, its end
    work.py      what happens inside of it

Every result is a function of its task alone, so that neither the number of workers nor the death of one changes any.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any

from djepa.dataset import Dataset
from djepa.errors import DjepaError, MediaError
from djepa.loading.pool import Workers
from djepa.loading.work import Read
from djepa.skipping import Skipping

__all__ = ["Read", "Workers", "loaded"]


def loaded(
    dataset: Dataset, read: Read, tasks: Iterable[Sequence[Any]], num_workers: int, timeout: float = 0.0
) -> Generator[list[Any]]:
    """The results of each task, a list of places, in order; without workers they are read here, when asked for.

    Close it when it is no longer needed: that ends the processes.

    Args:
        dataset: whose examples are read.
        read: what to read at a place.
        tasks: the places.
        num_workers: processes.
        timeout: seconds that an example may take a worker; 0 for any time. One that takes longer, or crashes its process,
            counts as a damaged file: a `Skipping` dataset shows another in its place.

    Raises:
        DjepaError: what the dataset says of an example that cannot be loaded.
        MediaError: an example hangs or crashes, and nothing can take its place.
        TrainingError: a worker was killed from outside.
    """
    if not num_workers:
        yield from ([read(dataset, place) for place in places] for places in tasks)
        return
    on_lost = _left_out if isinstance(dataset, Skipping) else _stop
    workers = Workers(dataset, _HandedOver(read), num_workers, timeout=timeout, on_lost=on_lost)
    try:
        for results in workers.run(tasks):
            yield [_sound(result) for result in results]
    finally:
        workers.close()


def _left_out(index: int, reason: str) -> None:
    """Go on: another example takes its place, and says why."""


def _stop(index: int, reason: str) -> None:
    raise MediaError(f"{reason}. If it needs longer, set train.load_timeout.")


class _HandedOver:
    """Reads, and hands an error over that is meant for the user: raised in a worker, it would be a failure of the worker."""

    def __init__(self, read: Read) -> None:
        self.read = read

    def __call__(self, dataset: Dataset, place: Any) -> Any:
        try:
            return self.read(dataset, place)
        except DjepaError as error:
            return error


def _sound(result: Any) -> Any:
    if isinstance(result, DjepaError):
        raise result
    return result
