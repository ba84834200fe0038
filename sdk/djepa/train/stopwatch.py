"""Where the time of a step goes, as the host sees it: what a GPU still works on is waited for in a later part."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

PARTS: tuple[str, ...] = ("data", "prepare", "forward", "backward", "optimizer", "average", "save", "preview", "evaluation")


class Stopwatch:
    """Sums up seconds by what they were spent on."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count what happens inside of a block, which holds no other such block, as a part."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - begin

    def lap(self) -> dict[str, float]:
        """Seconds of every part since the last lap, of all else ("other"), and in all ("step"); starts a new lap."""
        now = time.perf_counter()
        parts, step = self._seconds, now - self._begin
        self._begin, self._seconds = now, dict.fromkeys(PARTS, 0.0)
        return {**parts, "other": max(0.0, step - sum(parts.values())), "step": step}
