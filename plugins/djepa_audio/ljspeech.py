"""Speech with its text, in the layout of LJSpeech [1]: also that of many other corpora of one voice.

    root/metadata.csv       id|text|normalized text, a row per recording, without quotes; UTF-8
    root/wavs/id.wav

References:
    [1] K. Ito, L. Johnson. The LJ Speech Dataset. https://keithito.com/LJ-Speech-Dataset, 2017.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from djepa.dataset import Dataset, Example
from djepa.errors import MediaError, UsageError, suggest
from djepa.folder import fingerprint
from djepa.remembered import remembered
from djepa.tokens import Sample
from djepa_audio.files import opened
from djepa_audio.sound import check_rate

COLUMNS = 3
SPLITS = ("train", "heldout", "all")
NUM_SHOWN = 10  # problems of the list that an error names


@dataclass(frozen=True)
class Utterance:
    """A row of metadata.csv: the name of a recording, and what is said in it."""

    id: str
    text: str
    normalized: str


class LJSpeech(Dataset):
    """Recordings of speech, mono, each whole, so of many lengths; stream "audio", condition "text".

    Args:
        root: the folder with metadata.csv and wavs/.
        split: "train" (all but the last `num_heldout` rows), "heldout" (these) or "all".
        num_heldout: rows at the end of the list that are kept from training.
        sample_rate: in Hz; recordings of other rates are resampled. LJSpeech itself has 22050.
        normalized: take the text in which numbers and abbreviations are written out.
        min_seconds, max_seconds: leave out what is shorter or longer; with either, the headers of all recordings are read. One
            that cannot be read stays, and is named when it is loaded.

    Raises:
        UsageError: the folder is not in this layout, a row or a recording is wrong or missing (all are named, up to ten), a
            setting cannot be, or nothing is left.
        MediaError: a recording whose length is asked for is gone.
    """

    def __init__(
        self, *, root: str, split: Literal["train", "heldout", "all"] = "train", num_heldout: int = 100,
        sample_rate: int = 22050, normalized: bool = True, min_seconds: float | None = None, max_seconds: float | None = None,
    ) -> None:
        self.root, self.normalized = Path(root).expanduser(), normalized
        self.sample_rate = check_rate(sample_rate, "LJSpeech: sample_rate")
        if split not in SPLITS:
            raise UsageError(f"LJSpeech has no split {split!r}. {suggest(split, SPLITS)}")
        rows = _rows(self.root)
        if not 0 <= num_heldout < len(rows):
            raise UsageError(f"LJSpeech: num_heldout must be at least 0 and less than the {len(rows)} recordings; got "
                             f"{num_heldout!r}.")
        first_heldout = len(rows) - num_heldout
        parts = {"train": rows[:first_heldout], "heldout": rows[first_heldout:], "all": rows}
        shortest, longest = min_seconds or 0.0, math.inf if max_seconds is None else max_seconds
        self._rows = parts[split]
        if shortest > 0.0 or longest < math.inf:
            seconds = self.lengths()  # what cannot be read stays, so that it is named when it is loaded
            self._rows = [row for row, one in zip(self._rows, seconds, strict=True) if not (one < shortest or one > longest)]
        if not self._rows:
            raise UsageError(f"LJSpeech: none of the {len(parts[split])} recordings of the split {split!r} lasts between "
                             f"{shortest} and {longest} seconds (min_seconds, max_seconds; see also num_heldout).")

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Recording `index`, whole; nothing is drawn from `rng`.

        Raises:
            MediaError: the file is gone, damaged or too long; the message names it.
        """
        row = self._rows[index]
        with opened(self._path(row)) as recording:
            data = recording.read(channels=1, sample_rate=self.sample_rate)
        sample = Sample(data, {"sample_rate": self.sample_rate}, "audio")
        return Example({"audio": sample}, {"text": row.normalized if self.normalized else row.text})

    def lengths(self) -> np.ndarray:
        """In seconds, from the headers of the recordings; read once, and kept as long as no file changes."""
        return remembered(f"seconds {self.fingerprint()}", lambda: np.array([self._seconds(row) for row in self._rows]))

    def described(self, index: int) -> str:
        """Its file."""
        return repr(str(self._path(self._rows[index])))

    def num_views(self) -> int:
        """One: nothing is drawn."""
        return 1

    def fingerprint(self) -> str:
        """Of the texts, and of the names, sizes and times of the last change of the recordings.

        Raises:
            MediaError: a file is gone.
        """
        digest = hashlib.sha256(fingerprint(self.root, [(str(self._path(row)), None) for row in self._rows]).encode())
        for row in self._rows:
            digest.update(f"{row.text}\0{row.normalized}\n".encode())
        return digest.hexdigest()

    def _path(self, row: Utterance) -> Path:
        return self.root / "wavs" / f"{row.id}.wav"

    def _seconds(self, row: Utterance) -> float:
        try:
            with opened(self._path(row)) as recording:
                return recording.num_frames / recording.sample_rate
        except MediaError:
            return math.nan


def _rows(root: Path) -> list[Utterance]:
    """All rows of the list, checked against each other and against the recordings."""
    lists, wavs = root / "metadata.csv", root / "wavs"
    for path, there in ((root, root.is_dir()), (lists, lists.is_file()), (wavs, wavs.is_dir())):
        if not there:
            raise UsageError(f"LJSpeech: there is no {str(path)!r}; root is the folder that holds metadata.csv and wavs/.")
    try:
        lines = lists.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{str(lists)!r} is not UTF-8: {error.reason} at byte {error.start}.") from error
    rows = {number: line.rstrip("\r").split("|") for number, line in enumerate(lines, 1) if line.strip()}
    problems = list(_problems(rows, {path.name for path in wavs.iterdir()}))
    if problems:
        more = f"; and {len(problems) - NUM_SHOWN} more" if len(problems) > NUM_SHOWN else ""
        raise UsageError(f"{str(lists)!r}: {'; '.join(problems[:NUM_SHOWN])}{more}.")
    if not rows:
        raise UsageError(f"{str(lists)!r} lists no recordings.")
    return [Utterance(name, text.strip(), normalized.strip()) for name, text, normalized in rows.values()]


def _problems(rows: dict[int, list[str]], recordings: set[str]) -> Iterator[str]:
    first: dict[str, int] = {}
    for number, row in rows.items():
        if len(row) != COLUMNS:
            yield f"line {number} has {len(row)} columns, not {COLUMNS} (id|text|normalized text)"
        elif f"{row[0]}.wav" not in recordings:
            yield f"line {number}: there is no wavs/{row[0]}.wav"
        elif row[0] in first:
            yield f"line {number} names {row[0]!r} again, after line {first[row[0]]}"
        elif not row[1].strip() or not row[2].strip():
            yield f"line {number} ({row[0]}) has an empty text"
        first.setdefault(row[0], number)
