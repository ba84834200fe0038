"""One worker as we see it.

It has pipes of its own and shares nothing else, so that killing it harms no other. While it loads an example, it says so in
memory that we see: a decoder that hangs (in C, deaf to signals) is recognised by its clock, and we know which example it was.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any

from djepa.dataset import Dataset
from djepa.loading.work import LENGTH, Failure, Read, work

CHUNK = 1 << 20    # bytes read at a time


class Part:
    """Places that one worker reads, and what it found there."""

    def __init__(self, places: Sequence[Any]) -> None:
        self.places = list(places)
        self.results: list[Any] | None = None


class Worker:
    """One process, and what it was given to do."""

    def __init__(self, dataset: Dataset, read: Read, method: str | None) -> None:
        context: Any = multiprocessing.get_context(method)
        self.given: deque[Part] = deque()
        self._clock: Any = context.RawArray("d", 2)  # when it began to load an example (0: it does not), and which
        their_tasks, self._tasks = context.Pipe(duplex=False)
        self.inbox, their_results = context.Pipe()
        os.set_blocking(self.inbox.fileno(), False)  # who hangs in the middle of a message must not hang us
        self._unread = bytearray()
        arguments = (their_tasks, their_results, dataset, read, self._clock, os.getpid())
        self._process = context.Process(target=work, args=arguments, daemon=True)
        self._process.start()
        their_tasks.close()
        their_results.close()

    def give(self, part: Part, lost: Mapping[int, str]) -> None:
        self.given.append(part)
        try:
            self._tasks.send((part.places, dict(lost)))
        except OSError:  # it is dead, which is noticed where results are taken
            return

    def take(self) -> None:
        """Read what there is to be read, and take the results that are whole."""
        alive = self._pump()
        for found in self._whole():
            if isinstance(found, Failure):
                raise RuntimeError(f"A process that loads the data failed:\n{found.text}")
            self.given.popleft().results = found
        if not alive:
            raise EOFError

    def _pump(self) -> bool:
        """Read until nothing is left for now (True), or for ever."""
        try:
            while data := os.read(self.inbox.fileno(), CHUNK):
                self._unread += data
        except BlockingIOError:
            return True
        except OSError:  # the other end was closed in the middle of something
            return False
        return False

    def _whole(self) -> Iterator[Any]:
        """The messages that have come to their end."""
        while len(self._unread) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._unread)[0]
            if len(self._unread) < end:
                return
            with memoryview(self._unread) as unread, unread[LENGTH.size : end] as message:
                found = ForkingPickler.loads(message)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
            del self._unread[:end]
            yield found

    def seconds(self) -> float:
        """How long it has been loading its example."""
        began = self._clock[0]
        return time.monotonic() - began if began else 0.0

    def loading(self) -> int | None:
        """Which example it is loading."""
        return int(self._clock[1]) if self._clock[0] else None

    def kill(self, grace: float = 0.0) -> int:
        """End it, unless it ends by itself within so many seconds, and return its exit code."""
        if grace:
            self._process.join(grace)
        self._process.kill()
        self._process.join()
        self._tasks.close()
        self.inbox.close()
        return self._process.exitcode or 0
