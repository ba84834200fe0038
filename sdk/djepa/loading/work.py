"""What happens inside a worker. It dies with the process that started it, whatever becomes of that."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import queue
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch

from djepa.dataset import Dataset, Example
from djepa.errors import MediaError
from djepa.skipping import Skipping
from djepa.tokens import Sample

LENGTH = struct.Struct("!Q")  # before each message
PR_SET_PDEATHSIG = 1

Read = Callable[[Dataset, Any], Any]  # what a worker makes of the dataset and a place


@dataclass(frozen=True)
class Failure:
    """What went wrong in a worker that should not have.

    Attributes:
        text: the traceback.
    """

    text: str


class _Watched(Dataset):
    """A dataset that says on a clock which example it is loading, and refuses those that were lost."""

    def __init__(self, dataset: Dataset, clock: Any) -> None:
        self.dataset, self._clock = dataset, clock
        self.lost: Mapping[int, str] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def load(self, index: int, rng: np.random.Generator | None = None) -> Example:
        return self._timed(index, lambda: self.dataset.load(index, rng))

    def view(self, index: int, number: int) -> Example:
        return self._timed(index, lambda: self.dataset.view(index, number))

    def _timed(self, index: int, load: Callable[[], Example]) -> Example:
        if index in self.lost:
            raise MediaError(f"{self.lost[index]}.")
        self._clock[1] = index
        self._clock[0] = time.monotonic()
        try:
            return load()
        finally:
            self._clock[0] = 0.0


def work(tasks: Connection, results: Connection, dataset: Dataset, read: Read, clock: Any, parent: int) -> None:
    """What a worker does until its pipe is closed."""
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ours decides
    torch.set_num_threads(1)
    watched = _Watched(dataset.dataset if isinstance(dataset, Skipping) else dataset, clock)
    shown = Skipping(watched) if isinstance(dataset, Skipping) else watched
    done: queue.Queue[Any] = queue.Queue(maxsize=1)  # what is sent while the next is read
    threading.Thread(target=_send, args=(results, done), daemon=True).start()
    while True:
        try:
            places, watched.lost = tasks.recv()
        except (EOFError, OSError):
            os._exit(0)
        try:
            done.put([without_tensors(read(shown, place)) for place in places])
        except Exception:
            done.put(Failure(traceback.format_exc()))


def _send(results: Connection, done: queue.Queue[Any]) -> None:
    while True:
        message = ForkingPickler.dumps(done.get(), 5)  # the first protocol that does not copy arrays twice
        try:
            for part in (LENGTH.pack(len(message)), message):
                left = memoryview(part)
                while left:
                    left = left[os.write(results.fileno(), left) :]
        except OSError:
            os._exit(0)


def _die_with(parent: int) -> None:
    """Let the system kill this process when its parent dies; where it cannot, the closed pipe ends all that do not hang."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if multiprocessing.parent_process() is not None and os.getppid() == 1 != parent:
        os._exit(0)




def without_tensors(result: Any) -> Any:
    """Tensors as arrays, which go through a pipe by value: as tensors they would live as long as their worker."""
    return _mapped(result, lambda sample: replace(sample, data=sample.data.numpy()))


def with_tensors(result: Any) -> Any:
    """What `without_tensors` was given."""
    return _mapped(result, lambda sample: replace(sample, data=torch.from_numpy(sample.data)))


def _mapped(result: Any, change: Callable[[Sample], Sample]) -> Any:
    if isinstance(result, list):
        return [_mapped(one, change) for one in result]
    if isinstance(result, Example):
        return replace(result, samples={name: change(sample) for name, sample in result.samples.items()})
    return result
