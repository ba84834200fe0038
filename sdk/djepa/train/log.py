"""What a run says: one JSON object a line in `log.jsonl`, always; a progress bar, or plain lines where there is no terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from djepa.files import atomic_file


class RunLog:
    """The log of a run.

    Args:
        path: of the JSONL file; records after `start` are dropped, because they will be made again.
        start: steps already done.
        steps: of the whole run.
    """

    def __init__(self, path: Path, start: int, steps: int) -> None:
        self._start_over(path, start)
        self._file = path.open("a", buffering=1)
        self._clock = time.perf_counter()
        self._bar = tqdm(total=steps, initial=start, unit="step", disable=not sys.stderr.isatty(), dynamic_ncols=True)
        self._plain = not sys.stderr.isatty()
        self._steps = steps

    @staticmethod
    def _start_over(path: Path, start: int) -> None:
        if not path.exists():
            return
        kept = [line for line in path.read_text().splitlines() if _step_of(line) <= start]
        with atomic_file(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))

    def elapsed(self) -> float:
        """Seconds since this was last asked."""
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        return seconds

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Write one record and show it."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        shown = {name: f"{value:.3g}" for name, value in values.items() if name in ("loss", "grad_norm", "samples_per_second")}
        self._bar.set_postfix(shown, refresh=False)
        if self._plain:
            text = " ".join(f"{name} {value}" for name, value in shown.items())
            print(f"step {step}/{self._steps} {text}", file=sys.stderr, flush=True)

    def event(self, step: int, name: str, **details: Any) -> None:
        """Write something that happened."""
        self._file.write(json.dumps({"step": step, "event": name, **details}) + "\n")

    def advance(self) -> None:
        """One more step is done."""
        self._bar.update()

    def close(self) -> None:
        """Finish the bar and the file."""
        self._bar.close()
        self._file.close()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line torn by a kill is dropped
