"""The feature extractor contract: samples of a modality to the vectors that metrics compare.

An extractor is constructed as `Class(**options)` from a recipe's `evaluate.features` node, or from the modality's default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from djepa.errors import PluginError, UsageError
from djepa.tokens import Sample


@dataclass(frozen=True)
class Features:
    """What an extractor finds in some samples, on the CPU.

    Attributes:
        vectors: (b, f) one row per sample.
        logits: (b, classes) of a classifier, where the extractor is one.
    """

    vectors: Float[Tensor, "b f"]
    logits: Float[Tensor, "b classes"] | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def chosen(self, which: Bool[Tensor, "b"] | Int[Tensor, " m"]) -> Features:
        """Some of the rows."""
        return Features(self.vectors[which], None if self.logits is None else self.logits[which])

    @classmethod
    def joined(cls, parts: Sequence[Features]) -> Features:
        """The rows of all parts, in order."""
        logits = [part.logits for part in parts if part.logits is not None]
        return cls(torch.cat([part.vectors for part in parts]), torch.cat(logits) if logits else None)


class FeatureExtractor(ABC):
    """Turns samples into feature vectors."""

    modalities: ClassVar[tuple[str, ...]] = ()  # registered names of those it is for; empty: any

    @abstractmethod
    def extract(self, samples: Sequence[Sample]) -> Features:
        """Features of at least one sample, on the CPU in float32; each a function of its own sample alone.

        Raises:
            UsageError: a sample is none that it can compare.
        """

    def to(self, device: torch.device) -> Self:
        """Let a network compute on this device from now on."""
        return self

    def fingerprint(self) -> str:
        """A text that is another one when the features would be, for a reason the options do not tell: other weights."""
        return ""


def stacked(samples: Sequence[Sample], kind: str) -> Float[Tensor, "b ..."]:
    """The data of samples as one batch.

    Raises:
        UsageError: they are not of one shape; `kind` is the extractor that says so.
    """
    first = samples[0].shape
    for sample in samples:
        if sample.shape != first:
            raise UsageError(f"Features {kind!r} compare samples of one shape; there are {first} and {sample.shape}.")
    return torch.stack([sample.data for sample in samples]).float()


def checked(features: Features, num_samples: int, kind: str) -> Features:
    """The features, if an extractor kept its contract.

    Raises:
        PluginError: there is not one row of finite numbers for each sample.
    """
    for name, rows in (("vectors", features.vectors), ("logits", features.logits)):
        if rows is None:
            continue
        if rows.ndim != 2 or len(rows) != num_samples or not rows.is_floating_point():
            raise PluginError(f"Extractor {kind!r} gave {name} of shape {tuple(rows.shape)} and {rows.dtype} for {num_samples} "
                              f"samples; expected a row of floats for each.")
        if not bool(rows.isfinite().all()):
            raise PluginError(f"Extractor {kind!r} gave {name} that are not finite.")
    return features
