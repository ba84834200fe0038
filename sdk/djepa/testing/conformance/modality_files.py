"""Checks of a modality's files: they come back, they appear whole or not at all, and damaged ones are refused by name."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from djepa.errors import MediaError, StorageError, UsageError
from djepa.modality import Modality
from djepa.testing.conformance.check import CheckFailed, Function, NotApplicable, one_line, require
from djepa.testing.conformance.elsewhere import elsewhere
from djepa.testing.conformance.samples import copied
from djepa.tokens import Sample

if TYPE_CHECKING:
    from djepa.testing.conformance.modality import ModalitySubject

# Of lossy formats: root mean square of the error over that of the sample about its mean. Half is enough to tell any sample that
# is still itself from one that is mirrored, transposed, inverted or of another scale.
LOSSY = 0.5
SECONDS = 60.0        # that reading one damaged file may take
FULL_DISK = 64        # bytes a file may have on a disk that we make full
CUT = "cut"           # how the names of files that were cut short begin
Outcome = tuple[str, str, tuple[int, ...]]  # "read", "MediaError" or "other"; the error; the shape of what was read
META = {"seed": 3, "condition": {"label": "a \u00e4 'b'"}, "settings": {"scale": 1.5, "order": [1, 2]}}


def files_come_back(subject: ModalitySubject) -> None:
    """In every extension a saved sample can be loaded again: shape and metadata exactly, values nearly."""
    one = subject.build()
    with TemporaryDirectory() as folder:
        for extension in one.extensions:
            sample = one.example(3)
            sample.meta |= META
            before = copied(sample)
            path = one.save(sample, Path(folder) / "new" / f"sample.{extension}")
            require(Path(path).is_file(), f"save should return the path of the {extension} file.")
            require(torch.equal(before.data, sample.data) and before.meta == sample.meta, "save changed the sample.")
            _compare(one.load(Path(path)), sample, extension)


def _compare(back: Sample, sample: Sample, extension: str) -> None:
    require(back.shape == sample.shape, f"{extension}: saved {sample.shape}, loaded {back.shape}.")
    require(back.modality == sample.modality, f"{extension}: the modality came back as {back.modality!r}.")
    lost = [key for key, value in sample.meta.items() if back.meta.get(key) != value]
    require(not lost, f"{extension}: metadata did not come back: {lost}; loaded {dict(back.meta)}.")
    error, spread = (back.data - sample.data).square().mean().sqrt(), (sample.data - sample.data.mean()).square().mean().sqrt()
    require(bool(error <= LOSSY * spread), f"{extension}: values came back with an error of {float(error / spread):.2f} times "
                                           f"their spread; no more than {LOSSY} can be the format's.")


def saving_is_all_or_nothing(subject: ModalitySubject) -> None:
    """When a file cannot be written, the one that was there stays as it was, and nothing else is left behind."""
    one = subject.build()
    with TemporaryDirectory() as name:
        for extension in one.extensions:
            folder = Path(name) / extension
            path = Path(one.save(one.example(0), folder / f"sample.{extension}"))
            before = path.read_bytes()
            _refused(one, path, f"{extension}: metadata that no file can hold", UsageError, meta={"thing": object()})
            with full_disk():
                _refused(one, path, f"{extension}: a full disk", StorageError, meta={})
            require(path.read_bytes() == before, f"{extension}: a save that failed changed the file that was there.")
            left = [item.name for item in folder.iterdir() if item != path]
            require(not left, f"{extension}: a save that failed left {left} behind.")


def _refused(one: Modality, path: Path, what: str, kind: type[Exception], meta: dict[str, Any]) -> None:
    sample = one.example(1)
    try:
        one.save(Sample(sample.data, {**sample.meta, **meta}, sample.modality), path)
    except kind:
        return
    except Exception as error:
        raise CheckFailed(f"{what} should give {kind.__name__}; it gave {one_line(error)}") from error
    raise CheckFailed(f"{what} should give {kind.__name__}; nothing was raised.")


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process grow beyond a few bytes, as on a disk that is full."""
    try:
        import resource
    except ImportError:
        raise NotApplicable("this platform has no way to make a disk look full") from None

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_DISK, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def unknown_extensions_are_refused(subject: ModalitySubject) -> None:
    """Saving under an extension that is not on the list is a UsageError, and writes nothing."""
    one = subject.build()
    with TemporaryDirectory() as folder:
        for name in ("sample.nosuchextension", "sample"):
            path = Path(folder) / name
            try:
                one.save(one.example(0), path)
            except UsageError:
                require(not path.exists(), f"{name} was refused, and yet it was written.")
            else:
                raise CheckFailed(f"saving as {name!r} should be a UsageError.")


def what_is_no_file_is_refused(subject: ModalitySubject) -> None:
    """Missing and empty files, folders, and files of something else give a MediaError that names the path."""
    one = subject.build()
    contents = {"empty": b"", "random": random.Random(0).randbytes(5000), "zeros": bytes(5000), "text": b"once upon a" * 500}
    with TemporaryDirectory() as folder:
        for extension in one.extensions:
            paths = {what: Path(folder) / f"{what}.{extension}" for what in (*contents, "missing", "folder")}
            for what, content in contents.items():
                paths[what].write_bytes(content)
            paths["folder"].mkdir()
            for path, outcome in zip(paths.values(), _outcomes(one, list(paths.values())), strict=True):
                _judge(path, outcome, ())


def damaged_files_are_refused(subject: ModalitySubject) -> None:
    """A file that is cut short is read whole or gives a MediaError, one that is overwritten in part any sample or a MediaError.

    None of them crashes the process or hangs.
    """
    one = subject.build()
    shape = one.example(0).shape
    with TemporaryDirectory() as name:
        paths = [path for extension in one.extensions for path in _damaged(one, Path(name), extension)]
        with closing(elsewhere(_outcomes, one, paths, seconds=SECONDS)) as outcomes:
            for path in paths:
                try:
                    outcome = next(outcomes)
                except CheckFailed as error:
                    raise CheckFailed(f"reading {path.name}: {error}") from error
                _judge(path, outcome, shape if path.name.startswith(CUT) else None)


def _damaged(one: Modality, folder: Path, extension: str) -> list[Path]:
    content = Path(one.save(one.example(0), folder / f"whole.{extension}")).read_bytes()
    size, paths = len(content), []
    for end in sorted({1, 12, 100, size // 10, size // 2, 9 * size // 10, size - 1} & set(range(1, size))):
        paths.append(folder / f"{CUT}-at-{end}-of-{size}.{extension}")
        paths[-1].write_bytes(content[:end])
    for start, end in ((size // 10, size // 5), (size // 2, 6 * size // 10)):
        paths.append(folder / f"overwritten-{start}-{end}.{extension}")
        paths[-1].write_bytes(content[:start] + random.Random(start).randbytes(end - start) + content[end:])
    return paths


def _judge(path: Path, outcome: Outcome, whole: tuple[int, ...] | None) -> None:
    """Fail unless a file gave a sample of shape `whole` (None: of any), or a MediaError with its name."""
    kind, text, shape = outcome
    if kind == "read":
        require(whole is None or shape == whole, f"{path.name} was read as a sample of {shape}; it should give MediaError")
    else:
        require(kind == "MediaError", f"{path.name} should give MediaError; it gave {text}")
        require(path.name in text, f"{path.name}: the message does not name the path: {text}")


def _outcomes(one: Modality, paths: Sequence[Path]) -> Iterator[Outcome]:
    for path in paths:
        try:
            yield "read", "", one.load(path).shape
        except MediaError as error:
            yield "MediaError", str(error), ()
        except Exception as error:  # what the check is about
            yield "other", one_line(error), ()


FUNCTIONS: tuple[Function, ...] = (files_come_back, saving_is_all_or_nothing, unknown_extensions_are_refused,
                                   what_is_no_file_is_refused, damaged_files_are_refused)
