"""Being asked to stop: SIGTERM and SIGUSR1 mean "save, then go", at the next step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from djepa.launch import asked_to_stop

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Notices the signals while a block runs; the process's own handlers come back afterwards.

    In a thread other than the main one nothing is noticed: signals do not arrive there.
    """

    def __init__(self) -> None:
        self._reason = ""
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._notice) for one in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)  # pyright: ignore[reportArgumentType]

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._reason = signal.Signals(number).name

    @property
    def reason(self) -> str:
        """What asked for it; "" when nothing has."""
        return self._reason or asked_to_stop()
