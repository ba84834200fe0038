"""Datasets of Hugging Face's `datasets` library: folders that it saved, files that it reads, repositories on the Hub.

Columns that hold files (whatever the library calls them) are handed over undecoded and read by our modalities. No code of a
repository is ever run: data files only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from djepa.errors import MediaError, UsageError, suggest
from djepa.plugins import host
from djepa.showing import Showing, ShownDataset
from djepa.tokens import Sample

SAVED = ("state.json", "dataset_dict.json")  # what makes a folder one that `save_to_disk` wrote


class HuggingFaceDataset(ShownDataset):
    """Rows of a table; streams and conditions by column. Needs: pip install djepa[data]

    Args:
        path: a folder that `save_to_disk` wrote; a format ("parquet", "json", "csv", "imagefolder", ...) of `data_files` or
            `data_dir`; or a repository on the Hub.
        name: configuration of a repository.
        split: "train", also a part: "train[:90%]".
        data_files: paths of the files, with * where wanted.
        data_dir: the folder of the files.
        revision: branch, tag or commit of a repository.
        streams: columns by stream. When not given, every column of files whose type is called like a modality is the stream of
            that name.
        conditions: columns by condition; all columns of classes and of texts under their own names, when not given.
        shapes: of samples, channels first, by stream: they are scaled, cut or padded to that, as their modality does. Samples
            are as they are when not given.
        rates: that they shall then have: {sample_rate: 24000}, {fps: 8}.
        crop: the part that is shown then: the "center", or at "random".
        flip: mirror left and right, at random.
        length: a column of numbers that tells how long an example is, for train.buckets.

    Raises:
        UsageError: the library is not installed, there is no such dataset, or a column is not what it should be.
    """

    def __init__(
        self, *, path: str, name: str | None = None, split: str = "train", data_files: str | list[str] | None = None,
        data_dir: str | None = None, revision: str | None = None, streams: Mapping[str, str] | None = None,
        conditions: Mapping[str, str] | None = None, shapes: Mapping[str, tuple[int, ...]] | None = None,
        rates: Mapping[str, float] | None = None, crop: Literal["center", "random"] = "center", flip: bool = False,
        length: str | None = None,
    ) -> None:
        table = _loaded(path, split, {"name": name, "data_files": data_files, "data_dir": data_dir, "revision": revision})
        features: Mapping[str, Any] = table.features
        self._streams = dict(streams) if streams is not None else _files_among(features)
        self._conditions = dict(conditions) if conditions is not None else _words_among(features)
        self._length, self._path = length, path
        for option, columns in (("streams", self._streams.values()), ("conditions", self._conditions.values()),
                                ("length", [length] if length else [])):
            for column in columns:
                if column not in features:
                    raise UsageError(f"{option}: {path!r} has no column {column!r}. {suggest(column, features)}")
        if not self._streams:
            raise UsageError(f"streams: no column of {path!r} is of a type called like a modality; say which are files: "
                             f"{', '.join(features)}.")
        modalities = {stream: _modality_of(stream, column, features[column]) for stream, column in self._streams.items()}
        self._showing = Showing(modalities, shapes or {}, rates or {}, crop, flip)
        self._names = {condition: list(features[column].names) for condition, column in self._conditions.items()
                       if _is_class(features[column])}
        for column in self._streams.values():
            table = table.cast_column(column, dataclasses.replace(features[column], decode=False))
        self._lengths = None if length is None else np.asarray(table[length], dtype=float)
        self._table = table.select_columns(sorted({*self._streams.values(), *self._conditions.values()}))

    def __len__(self) -> int:
        return len(self._table)

    def described(self, index: int) -> str:
        """Its number."""
        return f"row {index} of {self._path!r}"

    def classes(self) -> Mapping[str, list[str]]:
        """The names of the classes, for columns of classes."""
        return {condition: list(names) for condition, names in self._names.items()}

    def lengths(self) -> np.ndarray | None:
        """What the column `length` says."""
        return self._lengths

    def fingerprint(self) -> str:
        """Of the files that the table lies in (names, sizes, times of the last change), and of what is taken from it."""
        about: list[Any] = [self._streams, self._conditions, self._names, repr(self._showing), len(self)]
        for file in self._table.cache_files:
            stat = os.stat(file["filename"])
            about.append((os.path.basename(file["filename"]), stat.st_size, stat.st_mtime_ns))
        return hashlib.sha256(repr(about).encode()).hexdigest()

    def _read(self, index: int) -> tuple[dict[str, Sample], dict[str, Any]]:
        row = self._table[int(index)]
        samples = {stream: self._sample(index, stream, row[column]) for stream, column in self._streams.items()}
        return samples, {condition: self._condition(condition, row[column]) for condition, column in self._conditions.items()}

    def _sample(self, index: int, stream: str, file: Any) -> Sample:
        modality = host().get("modality", self._showing.modalities[stream])()
        where = f"{self._streams[stream]!r} in {self.described(index)}"
        content, path = (file or {}).get("bytes"), (file or {}).get("path") or ""
        if content is None and not path:
            raise MediaError(f"{where} is empty.")
        try:
            return modality.load(Path(path)) if content is None else modality.load_bytes(content, f"row{Path(path).suffix}")
        except MediaError as error:
            raise MediaError(f"{where}: {error}") from error

    def _condition(self, condition: str, value: Any) -> Any:
        if condition not in self._names or value is None:
            return value
        return self._names[condition][value] if value >= 0 else None  # a row without a label has -1


def _loaded(path: str, split: str, options: Mapping[str, Any]) -> Any:
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise UsageError("The data kind huggingface needs the library datasets: pip install djepa[data]") from error
    if path.endswith(".py"):
        raise UsageError(f"path: {path!r} is a program, and none is run; give the data files, or a folder that was saved.")
    given = {name: value for name, value in options.items() if value is not None}
    folder = Path(path).expanduser()
    try:
        if any((folder / name).is_file() for name in SAVED):
            found: Any = datasets.load_from_disk(str(folder))
            return found if not isinstance(found, dict) else found[split]
        return datasets.load_dataset(path, split=split, **given)
    except (OSError, ValueError, KeyError, DatasetsError) as error:
        told = " ".join(str(error).split())[:300] or type(error).__name__
        raise UsageError(f"There is no dataset {path!r} with the split {split!r} as it is asked for ({told}).") from error


def _files_among(features: Mapping[str, Any]) -> dict[str, str]:
    """The columns of files that are called like modalities, by these."""
    found: dict[str, str] = {}
    for column, feature in features.items():
        modality = type(feature).__name__.lower()
        if hasattr(feature, "decode") and modality in host().names("modality"):
            if modality in found:
                raise UsageError(f"streams: {found[modality]!r} and {column!r} are both of type {modality}; say which, as in "
                                 f"streams={{{modality}: {column}}}.")
            found[modality] = column
    return found


def _words_among(features: Mapping[str, Any]) -> dict[str, str]:
    return {column: column for column, feature in features.items()
            if _is_class(feature) or getattr(feature, "dtype", "") in ("string", "large_string")}


def _is_class(feature: Any) -> bool:
    return type(feature).__name__ == "ClassLabel"


def _modality_of(stream: str, column: str, feature: Any) -> str:
    modality = type(feature).__name__.lower()
    if not hasattr(feature, "decode") or modality not in host().names("modality"):
        raise UsageError(f"streams: the column {column!r} for {stream!r} holds no files of a known modality "
                         f"({', '.join(sorted(host().names('modality')))}), but {feature}.")
    return modality
