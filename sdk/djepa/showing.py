"""How samples that were loaded whole are shown: cut and scaled to one shape, at chosen or random places, mirrored or not.

For datasets of files of any kind; what it takes to fit a sample into a shape, its modality knows (`Modality.fit`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from djepa.dataset import Dataset, Example, drawn_view
from djepa.errors import UsageError, suggest
from djepa.modality import Modality
from djepa.plugins import host
from djepa.tokens import Sample

MIRRORED = "x"  # the axis along which a flip goes
MIDDLE = 0.5


@dataclass(frozen=True)
class Showing:
    """How the samples of a dataset are shown.

    Attributes:
        modalities: by stream.
        shapes: of the samples that are fitted into one, channels first, by stream; others stay as they are.
        rates: that fitted samples shall have, by their keys ("fps").
        crop: where the part lies that is shown: the "center", or "random", along an axis the same for all streams.
        flip: mirror left and right, at random.
    """

    modalities: Mapping[str, str]
    shapes: Mapping[str, Sequence[int]]
    rates: Mapping[str, float]
    crop: Literal["center", "random"]
    flip: bool

    def __post_init__(self) -> None:
        for name, shape in self.shapes.items():
            if name not in self.modalities:
                raise UsageError(f"shapes: there is no stream {name!r}. {suggest(name, self.modalities)}")
            axes = [axis.name for axis in self._modality(name).axes]
            if len(shape) != 1 + len(axes) or any(size < 1 for size in shape):
                raise UsageError(f"shapes: {name!r} has the shape (channels, {', '.join(axes)}), at least 1 each; got "
                                 f"{list(shape)}.")
        if self.crop not in ("center", "random"):
            raise UsageError(f"crop must be 'center' or 'random'; got {self.crop!r}.")

    @property
    def num_views(self) -> int | None:
        """In how many ways samples are shown; None for random places."""
        return None if self.crop == "random" and self.shapes else 2 if self.flip else 1

    def drawn(self, samples: Mapping[str, Sample], rng: np.random.Generator | None) -> dict[str, Sample]:
        """The samples of an example as draws from `rng` want them, or as they are shown first."""
        names = sorted({axis.name for stream in self.modalities for axis in self._modality(stream).axes})
        places = {} if rng is None or self.num_views is not None else {name: float(rng.random()) for name in names}
        return self._shown(samples, places, drawn_view(rng, 2 if self.flip else 1) == 1)

    def view(self, samples: Mapping[str, Sample], number: int) -> dict[str, Sample]:
        """The samples of an example in view `number`: the middle, as it is (0) or mirrored (1)."""
        return self._shown(samples, {}, mirrored=number == 1)

    def _shown(self, samples: Mapping[str, Sample], places: Mapping[str, float], mirrored: bool) -> dict[str, Sample]:
        return {name: self._one(name, sample, places, mirrored) for name, sample in samples.items()}

    def _one(self, name: str, sample: Sample, places: Mapping[str, float], mirrored: bool) -> Sample:
        modality = self._modality(name)
        axes = [axis.name for axis in modality.axes]
        if name in self.shapes:
            sample = modality.fit(sample, self.shapes[name], self.rates, [places.get(axis, MIDDLE) for axis in axes])
        if mirrored and MIRRORED in axes:
            sample = Sample(sample.data.flip(1 + axes.index(MIRRORED)), sample.meta, sample.modality)
        return sample

    def _modality(self, stream: str) -> Modality:
        return host().get("modality", self.modalities[stream])()


class ShownDataset(Dataset):
    """A dataset whose examples are read whole, and shown as its `_showing` says."""

    _showing: Showing

    @abstractmethod
    def _read(self, index: int) -> tuple[dict[str, Sample], dict[str, Any]]:
        """Samples by stream and conditions by name of example `index`, as they are."""

    def load(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Example `index`, shown as draws from `rng` want it.

        Raises:
            MediaError: a file of it cannot be read; the message says which.
        """
        samples, conditions = self._read(index)
        return Example(self._showing.drawn(samples, rng), conditions)

    def num_views(self) -> int | None:
        """Plain and, where it flips, mirrored; random places are too many to count."""
        return self._showing.num_views

    def view(self, index: int, number: int) -> Example:
        """Example `index`, as it is (0) or mirrored (1)."""
        samples, conditions = self._read(index)
        return Example(self._showing.view(samples, number), conditions)
