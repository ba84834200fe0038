"""The modality contract: what a kind of media is, and how its files are read, written and shown.

A modality knows files and shapes; it knows nothing of models. It is stateless and constructed without arguments.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from djepa.errors import MediaError, UsageError, suggest
from djepa.tokens import Axis, Sample


class Modality(ABC):
    """One kind of media."""

    name: ClassVar[str]                            # registered name; the default name of its stream
    axes: ClassVar[tuple[Axis, ...]]               # dimensions of `Sample.data` after the channels
    bounds: ClassVar[tuple[float, float] | None] = (-1.0, 1.0)
    extensions: ClassVar[tuple[str, ...]]          # without dot; the first is the default for saving
    required_meta: ClassVar[tuple[str, ...]] = ()  # must survive save/load and encode/decode
    sheet_extension: ClassVar[str] = "png"         # what `sheet` writes by default
    sheet_extensions: ClassVar[tuple[str, ...]] = ()  # all it writes, where that is other than `extensions`

    @abstractmethod
    def load(self, path: Path) -> Sample:
        """Read a file.

        Raises:
            MediaError: the file is missing, damaged, too large or of another kind; the message names the path.
        """

    def load_bytes(self, content: bytes, name: str) -> Sample:
        """Read what is the content of a file; override where that can be done without one.

        Args:
            content: of the file.
            name: what to call it in an error; it ends like the file.

        Raises:
            MediaError: as `load`.
        """
        with tempfile.NamedTemporaryFile(suffix=Path(name).suffix) as file:
            file.write(content)
            file.flush()
            try:
                return self.load(Path(file.name))
            except MediaError as error:
                raise MediaError(str(error).replace(file.name, name)) from error

    def fit(self, sample: Sample, shape: Sequence[int], rates: Mapping[str, float], place: Sequence[float]) -> Sample:
        """The sample in another shape: by default, a part of it; override where it can be scaled, padded or converted.

        Args:
            sample: as it was loaded.
            shape: channels first.
            rates: that it shall have, by their keys in its metadata ("fps"); the sample's own where there are none.
            place: for each axis, where the part lies in what sticks out: 0 at its start, 1 at its end.

        Raises:
            MediaError: the sample is smaller, or has other channels or rates.
        """
        sizes = sample.shape
        fits = len(sizes) == len(shape) and all(have >= want for have, want in zip(sizes, shape, strict=True))
        if not fits or sizes[0] != shape[0]:
            raise MediaError(f"A sample of shape {list(sizes)} cannot be fitted into {list(shape)} (channels first): a part of "
                             f"it is taken, with the same channels.")
        for key, rate in rates.items():
            if key in sample.meta and sample.meta[key] != rate:
                raise MediaError(f"A sample of {key} {sample.meta[key]} cannot be converted to {rate:g}.")
        starts = [round((have - want) * part) for have, want, part in zip(sizes[1:], shape[1:], place, strict=True)]
        cuts = tuple(slice(start, start + want) for start, want in zip(starts, shape[1:], strict=True))
        return replace(sample, data=sample.data[(slice(None), *cuts)].contiguous())

    @abstractmethod
    def save(self, sample: Sample, path: Path) -> Path:
        """Write a file, metadata included, atomically: `path` holds the whole file or is untouched."""

    @abstractmethod
    def example(self, seed: int) -> Sample:
        """A small made-up sample, the same for the same seed: for tests and conformance checks."""

    @abstractmethod
    def sheet(self, samples: Sequence[Sample], path: Path, columns: int | None = None) -> Path:
        """Write one file that shows several samples side by side."""

    def default_tokenizer(self) -> dict[str, Any]:
        """The tokenizer node a recipe gets when it names none, e.g. ``{"kind": "patchify", "patch": {"y": 2, "x": 2}}``."""
        return {"kind": "patchify"}

    def default_features(self) -> dict[str, Any]:
        """The extractor node of an evaluation that names none, e.g. ``{"kind": "values"}``."""
        return {"kind": "values"}

    def preview(self, sample: Sample) -> dict[str, Any]:
        """MIME bundle for notebooks, binary types in base64 text ({"image/png": "iVBO..."}); nothing by default."""
        return {}

    def preview_sheet(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """MIME bundle of several samples together; nothing by default."""
        return {}

    def check_extension(self, path: Path, sheet: bool = False) -> str:
        """The path's extension in lower case without its dot.

        Args:
            path: to be written.
            sheet: it shows several samples (`sheet`), rather than to be one (`save`).

        Raises:
            UsageError: the modality does not write it.
        """
        extension = path.suffix.lower().lstrip(".")
        known = self.sheet_extensions or self.extensions if sheet else self.extensions
        if extension not in known:
            raise UsageError(f"Cannot write {str(path)!r}: {self.name} {'sheets' if sheet else 'files'} end in one of the "
                             f"known extensions. {suggest(extension, known)}")
        return extension


def require_file(path: Path) -> Path:
    """`path`, if it is a file with something in it.

    Raises:
        MediaError: it is missing, a folder, or empty.
    """
    if not path.is_file():
        raise MediaError(f"No such file: {str(path)!r}." if not path.exists() else f"Not a file: {str(path)!r}.")
    if path.stat().st_size == 0:
        raise MediaError(f"{str(path)!r} is empty (0 bytes).")
    return path


def shared_meta(samples: Sequence[Sample]) -> dict[str, Any]:
    """The metadata that all of some samples have in common: that of a file which shows them together."""
    first, *others = (sample.meta for sample in samples)
    return {key: value for key, value in first.items() if all(key in meta and meta[key] == value for meta in others)}
