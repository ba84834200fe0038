"""Work in a process that was started anew, as data loaders of some platforms start theirs.

What it needs is pickled, nothing is inherited, and it may crash or hang without taking anybody along.
"""

from __future__ import annotations

import multiprocessing
import pickle
import sys
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import Connection
from typing import Any

from djepa.testing.conformance.check import CheckFailed, one_line

START_SECONDS = 180.0  # until the new process has imported what it needs; torch takes long on a machine that is busy
READY = "ready"


def elsewhere(function: Callable[..., Iterable[Any]], *arguments: Any, seconds: float = 60.0) -> Generator[Any, None, None]:
    """The items that `function(*arguments)` gives in a process of its own, as they come.

    Args:
        function: of a module, so that the other process can import it.
        arguments: what can be pickled.
        seconds: that each item may take.

    Raises:
        CheckFailed: something cannot be pickled; the process died, raised, or took longer.
    """
    try:
        pickle.dumps(arguments)
    except Exception as error:  # whatever a class makes of it
        raise CheckFailed(f"It cannot be pickled: {one_line(error)}") from error
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_all, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        _received(receiver, process, START_SECONDS)
        while (item := _received(receiver, process, seconds)) is not None:
            kind, value = item
            if kind == "error":
                raise CheckFailed(f"In a process of its own: {value}")
            yield value
    finally:
        receiver.close()
        process.kill()
        process.join()
        process.close()


def _received(receiver: Connection, process: Any, seconds: float) -> Any:
    if not receiver.poll(seconds):
        raise CheckFailed(f"In a process of its own, it did not come back within {seconds:g} seconds.")
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        raise CheckFailed(f"In a process of its own, it could not be unpickled, or the process died (exit code "
                          f"{process.exitcode}); see stderr.") from None


def _send_all(sender: Connection, function: Callable[..., Iterable[Any]], arguments: tuple[Any, ...]) -> None:
    sys.stdout = sys.stderr  # what a plugin prints must not mix with the report
    sender.send(READY)
    try:
        for value in function(*arguments):
            sender.send(("item", value))
    except Exception as error:
        sender.send(("error", one_line(error)))
    sender.send(None)
