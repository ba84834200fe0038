"""Processes that agree on small things: whether to go on, what one of them read, how many tokens they have in all.

What is agreed on goes through the hosts' memory, so that no device has to be waited for. A team of one asks nobody.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from djepa.errors import PeerError

T = TypeVar("T")


class Channel(ABC):
    """How the processes of a team reach each other; every one of them has to make the same calls in the same order."""

    @abstractmethod
    def total(self, numbers: Sequence[float]) -> list[float]:
        """The sums over all processes, exact for whole numbers below 2^53."""

    @abstractmethod
    def all(self, thing: Any) -> list[Any]:
        """Everybody's thing, by rank."""


class Team:
    """Processes that run the same program, each with its share of the work.

    Args:
        rank: of this process, from 0.
        size: processes in all.
        channel: to the others; not needed by a team of one.
    """

    def __init__(self, rank: int = 0, size: int = 1, channel: Channel | None = None) -> None:
        self.rank, self.size, self._channel = rank, size, channel

    @property
    def first(self) -> bool:
        """Whether this is the process that writes what is to be written once."""
        return self.rank == 0

    def total(self, numbers: Sequence[float]) -> list[float]:
        """The sums over all processes."""
        return list(numbers) if self._channel is None else self._channel.total(numbers)

    def all(self, thing: T) -> list[T]:
        """Everybody's thing, by rank."""
        return [thing] if self._channel is None else self._channel.all(thing)

    def shared(self, make: Callable[[], T]) -> T:
        """What the first process makes, handed to all.

        Raises:
            PeerError: it could not; there its own error is raised.
        """
        if self._channel is None:
            return make()
        made: T | None = None
        with self.together():
            if self.first:
                made = make()
        return self.all(made)[0]  # pyright: ignore[reportReturnType]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Leave the block only when all have, and with an error everywhere when there is one anywhere.

        Raises:
            PeerError: in the processes that had no error of their own.
        """
        if self._channel is None:
            yield
            return
        problem: Exception | None = None
        try:
            yield
        except Exception as error:
            problem = error
        failed, = self.total([problem is not None])
        if problem is not None:
            raise problem
        if failed:
            raise PeerError("Another process of this run failed; it says why.")


ALONE = Team()
