"""The dataset contract: numbered examples, each some samples and the conditions that go with them.

A dataset is constructed as `Class(**options)` from a recipe's `data` node. It is map-style on purpose: the order of the
data is a pure function of (seed, step), so a resumed run continues with the very next example and nothing has to be
saved. All randomness of an example comes from the generator it is handed.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from djepa.tokens import Sample

if TYPE_CHECKING:
    from djepa.tokenizer import Tokenizer

NUM_HASHED = 64  # examples at most that the fingerprint of a dataset is taken of, unless it knows better


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

    def described(self, index: int) -> str:
        """What to call an example in a message: its file, where it is one."""
        return f"example {index}"

    # What the order of the data asks (`djepa.train.data`) ---------------------------------------------------------------

    def order(self, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
        """The order of one epoch: every index once. Draws from `rng` alone."""
        return rng.permutation(len(self))

    def lengths(self) -> Float[np.ndarray, " n"] | None:
        """How long each example is, in any unit in which its number of tokens grows, told without decoding any.

        None where that cannot be told, or all are alike; not a number for an example whose file cannot be read.
        """
        return None

    # What a cache asks (`djepa.cache`) -----------------------------------------------------------------------------------

    def num_views(self) -> int | None:
        """In how many ways `load` may show an example; None where these are too many, or have no numbers.

        With more than one, `load` has to choose by `drawn_view` and draw nothing else, so that a cache can choose alike.
        """
        return None

    def view(self, index: int, number: int) -> Example:
        """Example `index` in one of these ways; 0 is that of `load` without a generator."""
        return self.load(index)

    def fingerprint(self) -> str:
        """A text that is another one when the examples are: of some of them, unless a dataset has something better."""
        digest = hashlib.sha256(str(len(self)).encode())
        for index in range(0, len(self), max(1, len(self) // NUM_HASHED)):
            example = self.load(index)
            digest.update(json.dumps(dict(example.conditions), sort_keys=True, default=repr).encode())
            for name, sample in sorted(example.samples.items()):
                digest.update(f"{name}{sample.shape}".encode() + sample.data.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def check(self, tokenizers: Mapping[str, Tokenizer]) -> None:  # noqa: B027 (samples fit any tokenizer)
        """Refuse tokenizers other than those that made the examples, where these are `Encoded` already.

        Raises:
            UsageError: they are others; the message says in what.
        """


def drawn_view(rng: np.random.Generator | None, num_views: int) -> int:
    """Which view of an example is shown: each as likely as the others, and the first one without a generator."""
    return 0 if rng is None or num_views == 1 else num_views - 1 - int(rng.random() * num_views)
