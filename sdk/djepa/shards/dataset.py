"""Shards as a dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from djepa.errors import MediaError, UsageError, suggest
from djepa.plugins import host
from djepa.recipe.component import ModalityName
from djepa.remembered import remembered
from djepa.shards.index import CLASS, ShardIndex
from djepa.shards.layout import JSON, Layout, class_names, condition, inside, stream
from djepa.shards.reading import OpenShards
from djepa.shards.selection import shards_of
from djepa.showing import Showing, ShownDataset
from djepa.tokens import Sample


class WebDataset(ShownDataset):
    """Examples in the tar shards of WebDataset [1]; streams and conditions by the extensions of their members.

    A stream has a modality and is read by it, from the member with one of the modality's extensions (or of `extensions`). A
    condition is the text of a member ("txt"), a class ("cls": a name, or a number that counts from 0), or a value out of a JSON
    member ("json:caption", "json:meta.caption").

    The first time, all shards are read through to find their members, which are kept beside them (`djepa.shards.index`). From
    then on each is read by itself.

    Args:
        root: a folder of shards, a path with {000..123} or * in it, or a list of these. Uncompressed .tar only.
        streams: modalities by stream; all that the first example has, each under its own name, when not given.
        conditions: where each condition is found; by default "label" in "cls" and "text" in "txt", where the first example has
            them.
        extensions: of the members of a stream, where they are other than its modality's: {depth: [depth.png]}.
        classes: the names of the classes, in the order of their numbers: a list, or a text file with one a line. Without it,
            names are sorted, and numbers are their own names.
        missing: what becomes of examples that lack a member: an "error" before anything else, or "skip".
        shapes: of samples, channels first, by stream: they are scaled, cut or padded to that, as their modality does. Samples
            are as they are when not given.
        rates: that they shall then have: {sample_rate: 24000}, {fps: 8}.
        crop: the part that is shown then: the "center", or at "random".
        flip: mirror left and right, at random.
        length: what tells how long an example is, for train.buckets: "bytes" (of its samples), or "json:seconds".
        shuffle: "global" for any order; "shards" for shards in any order, and within `window` examples of a shard and the next
            any order: then a disk reads nearly one after the other.
        window: see there.

    Raises:
        UsageError: there are no such shards, or a setting does not go with what they hold.
        MediaError: a shard is compressed, damaged or cut short, or an example lacks a member.

    References:
        [1] A. Aizman, G. Maltby, T. Breuel. High Performance I/O For Large Scale Deep Learning. arXiv 2001.01858.
    """

    def __init__(
        self, *, root: str | list[str], streams: Mapping[str, ModalityName] | None = None,
        conditions: Mapping[str, str] | None = None, extensions: Mapping[str, list[str]] | None = None,
        classes: list[str] | str | None = None, missing: Literal["error", "skip"] = "error",
        shapes: Mapping[str, tuple[int, ...]] | None = None, rates: Mapping[str, float] | None = None,
        crop: Literal["center", "random"] = "center", flip: bool = False, length: str | None = None,
        shuffle: Literal["global", "shards"] = "global", window: int = 1024,
    ) -> None:
        for name, value, choices in (("shuffle", shuffle, ("global", "shards")), ("missing", missing, ("error", "skip"))):
            if value not in choices:
                raise UsageError(f"WebDataset: {name} must be {' or '.join(map(repr, choices))}; got {value!r}.")
        if window < 1:
            raise UsageError(f"WebDataset: window must be at least 1 example; got {window!r}.")
        if length is not None and length != "bytes" and not length.startswith(f"{JSON}:"):
            raise UsageError(f"WebDataset: length must be 'bytes' or '{JSON}:' and a name, such as '{JSON}:seconds'; got "
                             f"{length!r}.")
        self._shards = shards_of(root)
        self._shuffle, self._window, self._length = shuffle, window, length
        first = next((group for shard in self._shards for group in ShardIndex.of(shard).groups), None)
        if first is None:
            raise UsageError(f"root: there are no examples in {str(self._shards[0])!r}: their members are named KEY.EXTENSION.")
        self._layout = Layout.of(first, streams, conditions, extensions or {})
        self._showing = Showing(self._layout.streams, shapes or {}, rates or {}, crop, flip)
        labels = self._find(skip=missing == "skip")
        self._files = OpenShards(self._shards, self._stats)
        self._classes = class_names(classes, labels) if CLASS in self._layout.conditions.values() else []
        self._check_labels(labels)

    def _find(self, skip: bool) -> list[str]:
        """Where the members of all examples lie, as arrays: lists of a few million would be gigabytes in every process.

        Returns:
            The label of every example.
        """
        shards: list[int] = []
        rows: list[int] = []
        labels: list[str] = []
        self._stats: list[tuple[int, int]] = []
        where: dict[str, list[np.ndarray]] = {name: [] for name in self._layout.members}
        for number, shard in enumerate(self._shards):
            index = ShardIndex.of(shard)
            self._stats.append((index.size, index.mtime_ns))
            kept: dict[str, list[tuple[int, int, int]]] = {name: [] for name in where}
            for row, group in enumerate(index.groups):
                found = self._layout.found(group)
                if isinstance(found, str):
                    if not skip:
                        raise self._layout.lacks(shard, group, found)
                    continue
                shards.append(number)
                rows.append(row)
                labels.append(group.label)
                for name, place in found.items():
                    kept[name].append(place)
            for name, places in kept.items():
                where[name].append(np.array(places, dtype=np.int64).reshape(-1, 3))
        if not shards:
            raise UsageError(f"root: none of the examples has all of: {', '.join(self._layout.members)}.")
        self._shard, self._row = np.array(shards, dtype=np.int32), np.array(rows, dtype=np.int32)
        self._where = {name: np.concatenate(parts) for name, parts in where.items()}
        return labels

    def _check_labels(self, labels: Sequence[str]) -> None:
        known = set(self._classes)
        for index, label in enumerate(labels if self._classes else ()):
            if label not in known and not (label.isdecimal() and int(label) < len(self._classes)):
                raise UsageError(f"classes: {self.described(index)} is of the class {label!r}, which is none of the "
                                 f"{len(known)}. {suggest(label, known)}")

    def __len__(self) -> int:
        return len(self._shard)

    def described(self, index: int) -> str:
        """Its key and shard."""
        shard = self._shards[self._shard[index]]
        return f"{_index_of(shard).groups[self._row[index]].key!r} in {str(shard)!r}"

    def classes(self) -> Mapping[str, list[str]]:
        """The names of the classes, for conditions out of "cls"."""
        return {name: list(self._classes) for name, place in self._layout.conditions.items() if place == CLASS}

    def fingerprint(self) -> str:
        """Of the shards (names, sizes, times of the last change) and of what is taken from them."""
        about = [[shard.name for shard in self._shards], self._stats, repr(self._layout), repr(self._showing), self._classes,
                 len(self)]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Any, or one that goes from shard to shard and shuffles within windows of them."""
        if self._shuffle == "global":
            return rng.permutation(len(self))
        turn = rng.permutation(len(self._shards))
        by_shard = np.argsort(turn[self._shard], kind="stable")
        starts = range(0, len(self), self._window)
        return np.concatenate([rng.permutation(by_shard[start : start + self._window]) for start in starts])

    def lengths(self) -> np.ndarray | None:
        """As `length` says; None without."""
        if self._length is None:
            return None
        if self._length == "bytes":
            return np.sum([self._where[stream(name)][:, 1] for name in self._layout.streams], axis=0).astype(float)
        return remembered(f"{self._length} {self.fingerprint()}",
                          lambda: np.array([self._told_length(index) for index in range(len(self))]))

    def _told_length(self, index: int) -> float:
        """What the JSON member of an example says that its length is; not a number if it says nothing."""
        try:
            shard = int(self._shard[index])
            place = _index_of(self._shards[shard]).groups[self._row[index]].members[JSON]
            return float(inside(self._files.read(shard, *place).decode(), str(self._length).partition(":")[2]))
        except (MediaError, KeyError, ValueError, TypeError):
            return float("nan")

    # Reading ----------------------------------------------------------------------------------------------------------------

    def _read(self, index: int) -> tuple[dict[str, Sample], dict[str, Any]]:
        samples = {name: self._sample(index, name, modality) for name, modality in self._layout.streams.items()}
        return samples, {name: self._condition(index, name, place) for name, place in self._layout.conditions.items()}

    def _sample(self, index: int, name: str, modality: str) -> Sample:
        content, extension = self._content(index, stream(name))
        unnamed = f"member.{extension}"
        try:
            return host().get("modality", modality)().load_bytes(content, unnamed)
        except MediaError as error:  # what it is called is looked up only now: that reads the index of the shard
            raise MediaError(str(error).replace(unnamed, self._called(index, extension))) from error

    def _condition(self, index: int, name: str, place: str) -> Any:
        content, extension = self._content(index, condition(name))
        try:
            text = content.decode("utf-8").strip()
            if place.startswith(f"{JSON}:"):
                return inside(text, place.partition(":")[2])
        except (UnicodeDecodeError, MediaError) as error:
            raise MediaError(f"{self._called(index, extension)!r} does not say {name!r}: {error}.") from error
        if place != CLASS or text in self._classes:
            return text
        return self._classes[int(text)]

    def _content(self, index: int, name: str) -> tuple[bytes, str]:
        """The content of a member and its extension."""
        offset, size, number = map(int, self._where[name][index])
        return self._files.read(int(self._shard[index]), offset, size), self._layout.members[name][number]

    def _called(self, index: int, extension: str) -> str:
        shard = self._shards[self._shard[index]]
        return f"{shard}:{_index_of(shard).groups[self._row[index]].key}.{extension}"


@lru_cache(maxsize=8)
def _index_of(shard: Path) -> ShardIndex:
    """An index, for messages."""
    return ShardIndex.of(shard)
