"""Kernel distance of two sets of features: the squared maximum mean discrepancy, without bias and of all samples.

torchmetrics has the discrepancy of sets of equal size only, and averages it over random subsets; here every pair counts, in
blocks that fit memory.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from djepa.errors import UsageError
from djepa.evaluate.extractor import Features
from djepa.evaluate.metric import Metric, require_samples

ROWS = 1024  # of a block


class KernelDistance(Metric):
    """Unbiased estimate of the squared maximum mean discrepancy ([1], eq. 3) under a polynomial kernel ([2], eq. 3):

        k(x, y) = (gamma x.y + coef)^degree.

    With the features of an Inception network, and the default kernel, this is KID. Unlike a Frechet distance it does not depend
    on the number of samples but for its noise, and comes out below zero for equal distributions as often as above.

    Args:
        degree: of the polynomial.
        gamma: None for one over the number of features.
        coef: the constant.

    References:
        [1] A. Gretton et al. A Kernel Two-Sample Test. JMLR 2012.
        [2] M. Binkowski et al. Demystifying MMD GANs. arXiv 1801.01401.

    Raises:
        UsageError: a degree below 1.
    """

    better: ClassVar[Literal["lower", "higher"]] = "lower"

    def __init__(self, *, degree: int = 3, gamma: float | None = None, coef: float = 1.0) -> None:
        if degree < 1:
            raise UsageError(f"Metric 'kernel': degree={degree}; expected at least 1.")
        self.degree, self.gamma, self.coef = degree, gamma, coef

    def figure(self, generated: Features, real: Features) -> float:
        nobody = torch.zeros(len(generated), dtype=torch.long)
        return float(self._distances(generated, real, nobody, 1)[1])

    def without(self, generated: Features, real: Features, groups: Int[Tensor, " n"]) -> Float[Tensor, "g"]:
        return self._distances(generated, real, groups, int(groups.max()) + 1)[0]

    def _distances(
        self, generated: Features, real: Features, groups: Int[Tensor, " n"], count: int
    ) -> tuple[Float[Tensor, "g"], Float[Tensor, ""]]:
        """The distance without each group, and of all."""
        require_samples("kernel", 2, generated, real)
        x, y = generated.vectors.double(), real.vectors.double()
        sizes = torch.bincount(groups, minlength=count)
        pairs = self._group_sums(x, groups, x, groups, count)       # (g, g)
        pairs.diagonal().sub_(torch.zeros(count, dtype=pairs.dtype).index_add_(0, groups, self._kernel((x * x).sum(1), x)))
        across = self._group_sums(x, groups, y, torch.zeros(len(y), dtype=torch.long), count)[:, 0]
        theirs = self._group_sums(y, torch.zeros(len(y), dtype=torch.long), y, torch.zeros(len(y), dtype=torch.long), 1)[0, 0]
        theirs = (theirs - self._kernel((y * y).sum(1), y).sum()) / (len(y) * (len(y) - 1))

        def distance(inside: Tensor, between: Tensor, n: Tensor) -> Tensor:
            return inside / (n * (n - 1)) + theirs - 2 * between / (n * len(y))

        rest = pairs.sum() - pairs.sum(0) - pairs.sum(1) + pairs.diagonal()
        left = (len(x) - sizes).double()
        return (distance(rest, across.sum() - across, left),
                distance(pairs.sum(), across.sum(), torch.tensor(float(len(x)))))

    def _group_sums(self, a: Tensor, of_a: Tensor, b: Tensor, of_b: Tensor, count: int) -> Float[Tensor, "g g"]:
        """Sums of the kernel over all pairs of two sets, by the groups of both."""
        sums = torch.zeros(count, count, dtype=a.dtype)
        for start in range(0, len(a), ROWS):
            rows = slice(start, start + ROWS)
            by_column = torch.zeros(len(a[rows]), count, dtype=a.dtype)
            by_column.index_add_(1, of_b, self._kernel(a[rows] @ b.T, a))
            sums.index_add_(0, of_a[rows], by_column)
        return sums

    def _kernel(self, products: Tensor, points: Float[Tensor, "n f"]) -> Tensor:
        gamma = 1.0 / points.shape[1] if self.gamma is None else self.gamma
        return (gamma * products + self.coef) ** self.degree
