"""The metric contract: a number for how one set of features compares with another, and how sure it is.

A metric is constructed as `Class(**options)` from the entries of a recipe's `evaluate.metrics`.

How sure: by a delete-a-group jackknife over the generated samples (P. S. Kott, The delete-a-group jackknife, JOS 2001; B.
Efron and C. Stein, The jackknife estimate of variance, Ann. Statist. 1981). They are dealt into g groups, the figure is
computed again without each, and

    standard error^2 = (g - 1) / g * sum over groups of (figure without the group - mean of these)^2.

It is cautious for figures that are not smooth: of recall it gave about twice the spread that new samples show, of the others
0.9 to 1.3 times. A bootstrap would draw samples twice, and these metrics do not bear that: a repeated point is its own nearest
neighbour at distance zero, and a Frechet distance grows as if there were fewer samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from djepa.errors import UsageError
from djepa.evaluate.extractor import Features
from djepa.random import Draws


class Metric(ABC):
    """Compares generated samples with real ones by their features."""

    better: ClassVar[Literal["lower", "higher"]]
    needs_logits: ClassVar[bool] = False

    @abstractmethod
    def figure(self, generated: Features, real: Features) -> float:
        """The number. Neither set is changed.

        Raises:
            UsageError: a set has too few samples.
        """

    def without(self, generated: Features, real: Features, groups: Int[Tensor, " n"]) -> Float[Tensor, "g"]:
        """The number without the generated samples of each group.

        Args:
            generated, real: as in `figure`.
            groups: which group each generated sample is in: 0, 1, ...; none is empty.
        """
        count = int(groups.max()) + 1
        figures = [self.figure(generated.chosen(groups != group), real) for group in range(count)]
        return torch.tensor(figures, dtype=torch.float64)


def dealt(num_samples: int, num_groups: int, seed: int) -> Int[Tensor, " n"]:
    """The group of each sample: groups of equal size, give or take one, drawn by the seed alone."""
    places = Draws(seed, "jackknife").permutations(torch.zeros(1, dtype=torch.long), num_samples)[0]
    return places.argsort() % num_groups


def standard_error(metric: Metric, generated: Features, real: Features, num_groups: int, seed: int) -> float:
    """The jackknife's standard error of a figure, over what was generated; the real samples count as given."""
    again = metric.without(generated, real, dealt(len(generated), num_groups, seed))
    return float(((len(again) - 1) / len(again) * (again - again.mean()).square().sum()).sqrt())


def require_samples(name: str, least: int, generated: Features, real: Features) -> None:
    """Refuse sets that are too small.

    Raises:
        UsageError: one has fewer samples than `least`.
    """
    for what, features in (("generated samples", generated), ("real examples", real)):
        if len(features) < least:
            raise UsageError(f"Metric {name!r} needs at least {least} {what}; there are {len(features)}.")
