"""Saving behind the loop's back: the loop copies what is to be saved, and a thread writes it while training goes on."""

from __future__ import annotations

import threading
from pathlib import Path

from djepa.recipe.schema import CheckpointSpec
from djepa.train.checkpoint import Snapshot, write_checkpoint
from djepa.train.team import Team


class Saver:
    """Writes a run's checkpoints, one at a time.

    Args:
        run: its folder.
        team: of the processes' saving threads, which nobody else uses.
    """

    def __init__(self, run: Path, spec: CheckpointSpec, team: Team) -> None:
        self.run, self.spec, self.team = run, spec, team
        self._thread: threading.Thread | None = None
        self._problem: Exception | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Begin to write a checkpoint, when the one before it is done.

        Raises:
            StorageError: that one, or one before it, could not be written.
        """
        self.wait()
        # A daemon, so that a process whose peers are gone can end although its thread still waits for them.
        self._thread = threading.Thread(target=self._write, args=(snapshot,), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when everything is on disk.

        Raises:
            StorageError: something could not be written.
        """
        self.finish()
        self.check()

    def finish(self) -> None:
        """Return when nothing is being written any more."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def check(self) -> None:
        """Raise what has gone wrong since this was last asked."""
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def _write(self, snapshot: Snapshot) -> None:
        try:
            write_checkpoint(self.run, snapshot, self.spec, self.team)
        except Exception as error:  # handed over: the loop raises it
            self._problem = error
