"""Features of numbered samples in a folder, a block of samples to a file.

Which samples a block holds depends on their numbers alone, so that whatever makes blocks, one process or eight, in one go or
killed in between, makes the same ones. A file appears when it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from djepa.errors import CheckpointError
from djepa.evaluate.extractor import Features
from djepa.files import atomic_file, leftovers
from djepa.storage import read_tensors, write_tensors

SIZE = 64  # samples of a block


@dataclass(frozen=True)
class Blocks:
    """Some samples' features.

    Attributes:
        folder: of the files.
        total: how many samples there are to be.
    """

    folder: Path
    total: int

    def ranges(self) -> list[range]:
        """The samples of every block."""
        return [range(start, min(start + SIZE, self.total)) for start in range(0, self.total, SIZE)]

    def missing(self, share: slice = slice(None)) -> list[range]:
        """The blocks that are still to be made, of a share of all."""
        return [numbers for numbers in self.ranges()[share] if not self._path(numbers).is_file()]

    def done(self) -> int:
        """How many samples have been made."""
        return self.total - sum(map(len, self.missing()))

    def write(self, numbers: range, features: Features) -> None:
        """Keep the features of a block.

        Raises:
            StorageError: the disk refused.
        """
        # A clone, for an extractor may give the logits as its features, and a file holds no tensor twice.
        tensors = {"vectors": features.vectors} | ({} if features.logits is None else {"logits": features.logits.clone()})
        with atomic_file(self._path(numbers)) as temporary:
            write_tensors(temporary, tensors)

    def read(self) -> Features:
        """The features of all samples, in order.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        return Features.joined(list(self._parts()))

    def sweep(self) -> None:
        """Remove what writers that were killed left; nobody must be writing."""
        for leftover in leftovers(self.folder):
            leftover.unlink(missing_ok=True)

    def _parts(self) -> Iterator[Features]:
        for numbers in self.ranges():
            path = self._path(numbers)
            tensors = read_tensors(path)
            if "vectors" not in tensors or len(tensors["vectors"]) != len(numbers):
                raise CheckpointError(f"{str(path)!r} does not hold the features of {len(numbers)} samples; remove it, and run "
                                      f"the same command again.")
            yield Features(tensors["vectors"], tensors.get("logits"))

    def _path(self, numbers: range) -> Path:
        return self.folder / f"{numbers.start:08d}-{numbers.stop:08d}.safetensors"
