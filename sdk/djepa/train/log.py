"""What a run says: one JSON object a line in `log.jsonl`, always; a progress bar, or plain lines where there is no terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from djepa.errors import StorageError
from djepa.files import atomic_file

LEFT_OUT = "left_out"  # event: an example that could not be loaded; in records, how many of them so far
SHOWN = ("loss", "grad_norm", "samples_per_second", LEFT_OUT)


class RunLog:
    """The log of a run.

    Args:
        path: of the JSONL file; records after `start` are dropped, because they will be made again.
        start: steps already done.
        steps: of the whole run.

    Raises:
        StorageError: the disk refused; so do `record` and `event`.
    """

    def __init__(self, path: Path, start: int, steps: int) -> None:
        self._path = path
        self._start_over(path, start)
        with self._storage():
            self._file = path.open("a", buffering=1, encoding="ascii")
        self._bar = tqdm(total=steps, initial=start, unit="step", disable=not sys.stderr.isatty(), dynamic_ncols=True)
        self._plain = not sys.stderr.isatty()
        self._steps = steps

    @staticmethod
    def _start_over(path: Path, start: int) -> None:
        if not path.exists():
            return
        kept = [line for line in path.read_text(encoding="ascii", errors="replace").splitlines() if _step_of(line) <= start]
        with atomic_file(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept), encoding="ascii", errors="replace")

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Write one record and show it. What is no finite number is null in the file: JSON has no other word for it."""
        self._write({"step": step, **{name: value if math.isfinite(value) else None for name, value in values.items()}})
        shown = {name: f"{value:.3g}" for name, value in values.items() if name in SHOWN}
        self._bar.set_postfix(shown, refresh=False)
        if self._plain:
            text = " ".join(f"{name} {value}" for name, value in shown.items())
            print(f"step {step}/{self._steps} {text}", file=sys.stderr, flush=True)

    def event(self, step: int, name: str, **details: Any) -> None:
        """Write something that happened."""
        self._write({"step": step, "event": name, **details})

    def events(self, name: str) -> list[dict[str, Any]]:
        """All events of this name, those of earlier parts of the run among them."""
        records = map(json.loads, self._path.read_text(encoding="ascii").splitlines())
        return [record for record in records if record.get("event") == name]

    def last(self) -> dict[str, float]:
        """The values of the last record."""
        records = map(json.loads, self._path.read_text(encoding="ascii").splitlines())
        values = [record for record in records if "event" not in record]
        return {name: value for name, value in values[-1].items() if isinstance(value, float)} if values else {}

    def advance(self) -> None:
        """One more step is done."""
        self._bar.update()

    def close(self) -> None:
        """Finish the bar and the file."""
        self._bar.close()
        with suppress(OSError):  # every line was flushed when it was written, or the failure reported
            self._file.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        with self._storage():
            self._file.write(json.dumps(record) + "\n")

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"Could not write {str(self._path)!r}: {error.strerror or error}. Free some space, then go on "
                               f"with: djepa resume {self._path.parent}") from error


def _step_of(line: str) -> float:
    """The step of a record; infinite where there is none: a line torn by a kill is dropped."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
