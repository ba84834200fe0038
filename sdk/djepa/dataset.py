"""The dataset contract: numbered examples, each some samples and the conditions that go with them.

A dataset is constructed as `Class(**options)` from a recipe's `data` node. It is map-style on purpose: the order of the
data is a pure function of (seed, step), so a resumed run continues with the very next example and nothing has to be
saved. All randomness of an example comes from the generator it is handed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from djepa.tokens import Sample


@dataclass(frozen=True)
class Example:
    """One training example.

    Attributes:
        samples: one sample per stream, by the stream's name.
        conditions: one raw value per condition, by the condition's name (a class name, a caption).
    """

    samples: Mapping[str, Sample]
    conditions: Mapping[str, Any] = field(default_factory=dict)


class Dataset(ABC):
    """Numbered examples."""

    @abstractmethod
    def __len__(self) -> int:
        """How many examples there are; at least one."""

    @abstractmethod
    def load(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Example `index`, augmented with draws from `rng`, or as it is when that is None."""

    def classes(self) -> Mapping[str, list[str]]:
        """The values each condition can take, in the order of their ids; empty where they are not a closed list."""
        return {}
