"""What a cache is made from, and the shards it consists of: `index.json`, written anew with each finished shard.

    index.json                   the key: dataset, its files, tokenizers and their weights; the shards with their checksums
    shard-00000.safetensors      one tensor per stream: the numbers of all examples and views, one after the other; in the
                                 header, shapes and conditions (few and short entries: opening a shard must be quick)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from djepa.errors import CheckpointError
from djepa.files import atomic_file

FORMAT = 1
INDEX = "index.json"
HEADER = "djepa"  # entry of a shard's header
NOT_COMPARED = object()


@dataclass(frozen=True)
class Shard:
    """One file of a cache.

    Attributes:
        examples: how many.
        bytes, sha256: of the whole file.
    """

    examples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """A cache as its `index.json` has it.

    Attributes:
        key: all that decides what is in it; two caches of one key hold the same.
        num_examples, num_views: of the dataset.
        shard_size: examples of every shard but the last.
        classes: of the dataset.
        modalities: by stream.
        shards: the finished ones, from the first on.
        left_out: what is wrong with examples that could not be loaded, by index; others are in their place.
    """

    key: Mapping[str, Any]
    num_examples: int
    num_views: int
    shard_size: int
    classes: Mapping[str, list[str]]
    modalities: Mapping[str, str]
    shards: list[Shard] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every example is there."""
        return sum(shard.examples for shard in self.shards) == self.num_examples

    def write(self, folder: Path) -> None:
        """Put the index into its folder.

        Raises:
            StorageError: the disk refused.
        """
        with atomic_file(folder / INDEX) as temporary:
            temporary.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Index:
        """The index of a folder.

        Raises:
            CheckpointError: the folder holds no cache, a damaged one, or one of another format.
        """
        path = folder / INDEX
        if not path.is_file():
            raise CheckpointError(f"{str(folder)!r} holds no cache: it has no {INDEX}. Make one with: djepa cache RECIPE --out "
                                  f"{folder}")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values.pop("format")
            shards = [Shard(**shard) for shard in values.pop("shards")]
            if version == FORMAT:
                return cls(**values, shards=shards)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{str(path)!r} is damaged or not the index of a cache ({error!r}).") from error
        raise CheckpointError(f"{str(path)!r} has format {version!r}; this djepa reads {FORMAT}. Make the cache anew, or "
                              f"use the djepa it was made with.")


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard is."""
    return folder / f"shard-{number:05d}.safetensors"


def problem_of(path: Path, shard: Shard) -> str:
    """Why a file cannot be the shard, as far as its size tells; "" if it can."""
    size = path.stat().st_size if path.is_file() else None
    if size == shard.bytes:
        return ""
    return "it is missing" if size is None else f"it has {size} bytes instead of {shard.bytes}"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What is different in two keys, in words."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return [_change(name, before.get(name, NOT_COMPARED), after.get(name, NOT_COMPARED))
            for name in {**before, **after} if before.get(name, NOT_COMPARED) != after.get(name, NOT_COMPARED)]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _change(name: str, before: Any, after: Any) -> str:
    if name == "files":
        return "the files of the dataset are others, or were changed"
    if name.endswith(".weights"):
        return f"the weights of {name.removesuffix('.weights')} are others"
    texts = ["not there" if value is NOT_COMPARED else json.dumps(value) for value in (before, after)]
    return f"{name} was {texts[0]} and is {texts[1]}"
