"""Workers as a whole: who reads what."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import util
from multiprocessing.connection import wait
from typing import Any

from djepa.dataset import Dataset
from djepa.errors import TrainingError
from djepa.loading.work import Read, with_tensors
from djepa.loading.worker import Part, Worker

AHEAD = 2          # tasks that are read beyond the one that is waited for; parts of tasks that a worker is given at most
POLL = 1.0         # seconds after which clocks are looked at again
DYING = 5.0        # seconds that a process whose pipe is closed has to die by itself, so that we learn of what
CRASHES = {-number for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)}
KILLED = ("A process that loads the data was killed from outside, most often because memory ran out. Free some, or set a lower "
          "train.num_workers, and go on: djepa resume RUN, or the same djepa cache command")

Lost = Callable[[int, str], None]           # told which example was lost, and why; raises where that is the end


class Workers:
    """Processes that read examples.

    Args:
        dataset: whose `load` and `view` they use; it is sent to them.
        read: what to read at a place.
        num: of processes.
        timeout: seconds that an example may take; 0 for any time.
        on_lost: called when the process that was loading an example hung or crashed. If it returns, that example counts as one
            that cannot be read (MediaError) from then on.
        survives_kills: take a worker that was killed from outside as crashed, too.
        method: how processes are started: "fork", "spawn"; None for what is usual on this system.
    """

    def __init__(self, dataset: Dataset, read: Read, num: int, *, timeout: float = 0.0, on_lost: Lost,
                 survives_kills: bool = False, method: str | None = None) -> None:
        self._crashes = CRASHES | {-signal.SIGKILL} if survives_kills else CRASHES
        self._timeout, self._on_lost, self._dataset = timeout, on_lost, dataset
        self._start = lambda: Worker(dataset, read, method)
        self._lost: dict[int, str] = {}
        self._workers: list[Worker] = []
        self._waiting: deque[Part] = deque()
        # At the exit of the interpreter, before multiprocessing waits for processes that may never end.
        self._finalizer = util.Finalize(self, _kill_all, args=(self._workers,), exitpriority=10)
        self._workers += [self._start() for _ in range(num)]

    def run(self, tasks: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
        """The results of each task, a list of places, in order.

        Raises:
            TrainingError: a worker was killed from outside.
            RuntimeError: something is wrong with the dataset: it raised what is not meant for the user.
        """
        left, begun = iter(tasks), deque[_Task]()
        while True:
            while len(begun) <= AHEAD and (places := next(left, None)) is not None:
                begun.append(_Task(places, len(self._workers)))
                self._waiting.extend(begun[-1].parts)
            if not begun:
                return
            self._assign()
            while not begun[0].done:
                self._look()
                self._assign()
            yield begun.popleft().results

    def close(self) -> None:
        """Kill all workers."""
        self._finalizer()

    def _assign(self) -> None:
        while self._waiting:
            idlest = min(self._workers, key=lambda worker: len(worker.given))
            if len(idlest.given) >= AHEAD:
                return
            idlest.give(self._waiting.popleft(), self._lost)

    def _look(self) -> None:
        """Wait for a result, a death or a deadline, and do what it asks for."""
        ready = wait([worker.inbox for worker in self._workers], self._patience())
        for worker in list(self._workers):
            if worker.inbox in ready:
                try:
                    worker.take()
                except EOFError:
                    self._replace(worker, "")
            elif self._timeout and worker.seconds() > self._timeout:
                self._replace(worker, f"not loaded within {self._timeout:g} seconds: its decoder hangs, or its disk is slow")

    def _patience(self) -> float:
        slowest = max((worker.seconds() for worker in self._workers), default=0.0)
        return min(POLL, max(0.01, self._timeout - slowest)) if self._timeout else POLL

    def _replace(self, worker: Worker, reason: str) -> None:
        """Put another worker in the place of one that hangs, or is dead."""
        index = worker.loading()
        code = worker.kill(grace=0.0 if reason else DYING)
        if not reason:
            if index is None or code not in self._crashes:
                raise TrainingError(KILLED)
            reason = f"the process that decoded it crashed ({signal.Signals(-code).name})"
        assert index is not None
        reason = f"{self._dataset.described(index)}: {reason}"
        self._on_lost(index, reason)
        self._lost[index] = reason
        self._waiting.extendleft(reversed(worker.given))
        self._workers[self._workers.index(worker)] = self._start()


class _Task:
    """Places that are read together, by several workers."""

    def __init__(self, places: Sequence[Any], num_parts: int) -> None:
        size = -(-len(places) // num_parts) or 1
        self.parts = [Part(places[start : start + size]) for start in range(0, len(places), size)]

    @property
    def done(self) -> bool:
        return all(part.results is not None for part in self.parts)

    @property
    def results(self) -> list[Any]:
        return [with_tensors(result) for part in self.parts for result in part.results or ()]




def _kill_all(workers: list[Worker]) -> None:
    for worker in workers:
        worker.kill()
    workers.clear()
