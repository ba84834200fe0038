"""Are generated samples like real ones, and are all real ones covered? By balls that reach to the k-th neighbour.

Precision and recall are those of [1], density and coverage of [2], which outliers sway less. Distances are Euclidean, in
float64, in blocks that fit memory.

References:
    [1] T. Kynkaanniemi et al. Improved Precision and Recall Metric for Assessing Generative Models. arXiv 1904.06991.
    [2] M. F. Naeem et al. Reliable Fidelity and Diversity Metrics for Generative Models. arXiv 2002.09797.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from djepa.errors import UsageError
from djepa.evaluate.extractor import Features
from djepa.evaluate.metric import Metric, require_samples

ROWS = 1024  # of a block
Points = Float[Tensor, "n f"]


class Balls:
    """Balls around points, each reaching to the point's k-th nearest neighbour among the others."""

    def __init__(self, points: Points, neighbours: int) -> None:
        self.centre = points.double().mean(0)  # products of small numbers lose less
        self.points = points.double() - self.centre
        blocks = (self._squares(block).kthvalue(neighbours + 1).values for block in self.points.split(ROWS))  # + 1: itself
        # What rounding leaves of the distance of a point to itself, which shall count as none.
        self.reach = torch.cat(list(blocks)) + 1e-12 * self.points.square().sum(1).max()

    def _squares(self, points: Points) -> Float[Tensor, "n m"]:
        return (points.square().sum(1)[:, None] - 2 * points @ self.points.T + self.points.square().sum(1)).clamp(min=0)

    def holding(self, points: Points) -> Iterator[Bool[Tensor, "rows m"]]:
        """Which balls (m) each point is in, some points (rows) at a time."""
        for block in (points.double() - self.centre).split(ROWS):
            yield self._squares(block) <= self.reach


class _Neighbours(Metric):
    """A metric of balls.

    Args:
        neighbours: the balls reach to the neighbour of this number.
    """

    better: ClassVar[Literal["lower", "higher"]] = "higher"

    def __init__(self, *, neighbours: int) -> None:
        if neighbours < 1:
            raise UsageError(f"neighbours={neighbours}: a ball reaches to its first neighbour at least.")
        self.neighbours = neighbours

    def _check(self, name: str, generated: Features, real: Features) -> None:
        require_samples(name, self.neighbours + 1, generated, real)


class _Mean(_Neighbours):
    """A mean over the generated samples, of something that does not depend on the other ones."""

    @abstractmethod
    def _contributions(self, generated: Features, real: Features) -> Float[Tensor, " n"]:
        """What each generated sample contributes."""

    def figure(self, generated: Features, real: Features) -> float:
        return float(self._contributions(generated, real).mean())

    def without(self, generated: Features, real: Features, groups: Int[Tensor, " n"]) -> Float[Tensor, "g"]:
        contributions = self._contributions(generated, real)
        sums = torch.zeros(int(groups.max()) + 1, dtype=torch.float64).index_add_(0, groups, contributions)
        return (contributions.sum() - sums) / (len(groups) - torch.bincount(groups))


class Precision(_Mean):
    """Share of the generated samples that lie in a ball of a real one ([1], eq. 2); 0 to 1.

    Args:
        neighbours: the balls reach to the neighbour of this number.
    """

    def __init__(self, *, neighbours: int = 3) -> None:
        super().__init__(neighbours=neighbours)

    def _contributions(self, generated: Features, real: Features) -> Float[Tensor, " n"]:
        self._check("precision", generated, real)
        balls = Balls(real.vectors, self.neighbours)
        return torch.cat([held.any(1) for held in balls.holding(generated.vectors)]).double()


class Density(_Mean):
    """How many balls of real samples a generated one lies in, over `neighbours` ([2], eq. 3); about 1 for new real samples.

    Args:
        neighbours: the balls reach to the neighbour of this number.
    """

    def __init__(self, *, neighbours: int = 5) -> None:
        super().__init__(neighbours=neighbours)

    def _contributions(self, generated: Features, real: Features) -> Float[Tensor, " n"]:
        self._check("density", generated, real)
        balls = Balls(real.vectors, self.neighbours)
        return torch.cat([held.sum(1) for held in balls.holding(generated.vectors)]).double() / self.neighbours


class Coverage(_Neighbours):
    """Share of the real samples in whose ball there is a generated one ([2], eq. 4); 0 to 1.

    Args:
        neighbours: the balls reach to the neighbour of this number.
    """

    def __init__(self, *, neighbours: int = 5) -> None:
        super().__init__(neighbours=neighbours)

    def figure(self, generated: Features, real: Features) -> float:
        return float((self._held(generated, real, torch.zeros(len(generated), dtype=torch.long)).sum(0) > 0).double().mean())

    def without(self, generated: Features, real: Features, groups: Int[Tensor, " n"]) -> Float[Tensor, "g"]:
        held = self._held(generated, real, groups)
        return (held.sum(0) - held > 0).double().mean(1)

    def _held(self, generated: Features, real: Features, groups: Int[Tensor, " n"]) -> Int[Tensor, "g m"]:
        """How many generated samples of each group the ball of each real one holds."""
        self._check("coverage", generated, real)
        counts = torch.zeros(int(groups.max()) + 1, len(real), dtype=torch.long)
        for rows, held in zip(groups.split(ROWS), Balls(real.vectors, self.neighbours).holding(generated.vectors), strict=True):
            counts.index_add_(0, rows, held.long())
        return counts


class Recall(_Neighbours):
    """Share of the real samples that lie in a ball of a generated one ([1], eq. 2); 0 to 1.

    Args:
        neighbours: the balls reach to the neighbour of this number.
    """

    def __init__(self, *, neighbours: int = 3) -> None:
        super().__init__(neighbours=neighbours)

    def figure(self, generated: Features, real: Features) -> float:
        self._check("recall", generated, real)
        balls = Balls(generated.vectors, self.neighbours)
        return float(torch.cat([held.any(1) for held in balls.holding(real.vectors)]).double().mean())
