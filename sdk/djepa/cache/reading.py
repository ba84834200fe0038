"""The shards of a cache as a dataset."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from djepa.cache.index import HEADER, Index, changes, file_digest, problem_of, shard_path
from djepa.dataset import Dataset, Example, drawn_view
from djepa.errors import CheckpointError, UsageError
from djepa.recipe.component import Component, DatasetNode
from djepa.tokenizer import Tokenizer
from djepa.tokens import Encoded, Sample

MAX_OPEN = 1024  # shards


class Cached(Dataset):
    """The examples of another dataset, encoded already: what `djepa cache` wrote.

    Training from it takes the same steps as from the dataset itself, which need not be there any more. Where it still is, it
    must be as it was.

    Args:
        root: the folder of the cache.
        check_source: whether to compare the dataset with what the cache was made from, if it can be found.

    Raises:
        CheckpointError: the folder holds no cache, one that is not complete, or one with a damaged shard.
        UsageError: the dataset has changed since; the message says in what.
    """

    def __init__(self, *, root: str, check_source: bool = True) -> None:
        self.folder = Path(root).expanduser()
        self.index = Index.read(self.folder)
        if not self.index.complete:
            done = sum(shard.examples for shard in self.index.shards)
            raise CheckpointError(f"The cache in {str(self.folder)!r} is not complete: {done} of {self.index.num_examples} "
                                  f"examples are there. Go on with the djepa cache command that began it.")
        for number, shard in enumerate(self.index.shards):
            if problem := problem_of(shard_path(self.folder, number), shard):
                raise _damaged(shard_path(self.folder, number), problem)
        if check_source:
            self._check_source()
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()

    def _check_source(self) -> None:
        changed = source_changes(self.index)
        if changed:
            raise UsageError(f"The cache in {str(self.folder)!r} is stale: {'; '.join(changed)}. Make it anew with djepa "
                             f"cache, or train from it as it is with data.check_source=false.")

    def __len__(self) -> int:
        return self.index.num_examples

    def load(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Example `index` in the view that the dataset itself would have shown.

        Raises:
            CheckpointError: its shard is damaged; the message names it.
        """
        return self.view(index, drawn_view(rng, self.index.num_views))

    def lengths(self) -> np.ndarray:
        """Of the samples before they were encoded, in steps along their axes, all streams together."""
        return np.concatenate([self._shard(number).lengths() for number in range(len(self.index.shards))])

    def num_views(self) -> int:
        """As many as the dataset has."""
        return self.index.num_views

    def view(self, index: int, number: int) -> Example:
        """Example `index` in view `number`."""
        shard, place = divmod(index, self.index.shard_size)
        return self._shard(shard).example(place, number)

    def classes(self) -> Mapping[str, list[str]]:
        """Those of the dataset."""
        return self.index.classes

    def check(self, tokenizers: Mapping[str, Tokenizer]) -> None:
        """Refuse tokenizers that find something else in a sample than those the cache was made with."""
        for name, key in self.index.key["tokenizers"].items():
            if name not in tokenizers:
                continue
            now = json.loads(json.dumps(tokenizers[name].moments_key())) if tokenizers[name].cacheable else {}
            different = changes({name: key}, {name: now})
            if different:
                raise UsageError(f"The cache in {str(self.folder)!r} was made with another tokenizer: "
                                 f"{'; '.join(different[:5])}. Make it anew with djepa cache, or train without it.")

    def _shard(self, number: int) -> _OpenShard:
        if number in self._open:
            self._open.move_to_end(number)
        else:
            self._open[number] = _OpenShard(shard_path(self.folder, number), self.index)
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # open files stay in their process


class _OpenShard:
    """One shard, its tensors read when they are asked for."""

    def __init__(self, path: Path, index: Index) -> None:
        self.path, self.index = path, index
        try:
            self._file = safe_open(path, framework="pt")
            header = json.loads(self._file.metadata()[HEADER])
            self.conditions = header["conditions"]
            self._streams = {name: _Places(header["samples"][name]) for name in index.modalities}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise _damaged(path, error) from error

    def example(self, place: int, view: int) -> Example:
        try:
            number = place * self.index.num_views + view
            return Example({name: self._sample(name, number) for name in self._streams}, self.conditions[place])
        except (SafetensorError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise _damaged(self.path, error) from error

    def lengths(self) -> np.ndarray:
        try:
            each = [np.array([math.prod(kind["shape"][1:]) for kind in places.kinds], dtype=float)[places.kind_of]
                    for places in self._streams.values()]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise _damaged(self.path, error) from error
        return np.sum(each, axis=0)[:: self.index.num_views]

    def _sample(self, name: str, number: int) -> Sample:
        about, where = self._streams[name].of(number)
        # A copy, in memory of its own: what is read is a window on the file.
        data = self._file.get_slice(name)[where].to(torch.float32, copy=True).view(about["data"])
        modality, meta = self.index.modalities[name], dict(about["meta"])
        if name in self.index.key["tokenizers"]:
            return Encoded(data, meta, modality, tuple(about["shape"]))
        return Sample(data, meta, modality)


class _Places:
    """Where the samples of a stream lie in a shard, and what is known of them."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        self.kinds, self.kind_of = about["kinds"], about["of"]
        sizes = np.array([math.prod(kind["data"]) for kind in self.kinds])
        self.ends = np.cumsum(sizes[self.kind_of])
        self.sizes = sizes

    def of(self, number: int) -> tuple[dict[str, Any], slice]:
        """What is known of a sample, and where it lies."""
        kind, end = self.kind_of[number], int(self.ends[number])
        return self.kinds[kind], slice(end - int(self.sizes[kind]), end)


def source_changes(index: Index) -> list[str]:
    """What is no longer as it was in the dataset that a cache was made from; nothing if that cannot be found."""
    try:
        dataset: Dataset = _node(index.key["data"]).build()
        now = dataset.fingerprint()
    except (UsageError, OSError):  # it lies elsewhere, or its plugin is not installed: the cache stands for itself
        return []
    return changes({"files": index.key["files"]}, {"files": now})


def _node(data: Mapping[str, Any]) -> Component:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(DatasetNode).validate_python(dict(data))
    except ValidationError as error:
        raise UsageError(f"There is no such dataset here: {data}.") from error


def check_cache(folder: str | Path) -> Iterator[tuple[str, str]]:
    """Read every shard of a cache through; yields (name, problem) of one after the other, with "" for a sound one.

    Raises:
        CheckpointError: the folder holds no cache.
    """
    folder = Path(folder)
    index = Index.read(folder)
    for number, shard in enumerate(index.shards):
        path = shard_path(folder, number)
        try:
            problem = problem_of(path, shard)
            changed = not problem and file_digest(path) != shard.sha256
            yield path.name, "its content is not what was written" if changed else problem
        except OSError as error:
            yield path.name, f"it cannot be read ({error.strerror})"
    if not index.complete:
        yield "index.json", f"{sum(shard.examples for shard in index.shards)} of {index.num_examples} examples are there"
    yield from (("dataset", problem) for problem in source_changes(index))


def _damaged(path: Path, reason: object) -> CheckpointError:
    return CheckpointError(f"The shard {str(path)!r} of the cache is damaged: {reason}. Remove this file, and let the djepa "
                           f"cache command that made it make it anew.")
