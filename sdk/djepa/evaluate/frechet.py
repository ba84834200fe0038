"""Frechet distance of two sets of features; the arithmetic is that of torchmetrics."""

from __future__ import annotations

import importlib.util
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from djepa.errors import UsageError
from djepa.evaluate.extractor import Features
from djepa.evaluate.metric import Metric, require_samples


class FrechetDistance(Metric):
    """Squared distance of the Gaussians with the means and (unbiased) covariances of the features ([1], eq. 6):

        |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2).

    With the features of an Inception network this is FID, of I3D FVD, of VGGish FAD. It is biased: fewer samples give a larger
    one, so only numbers of equally many samples compare.

    References:
        [1] M. Heusel et al. GANs Trained by a Two Time-Scale Update Rule. arXiv 1706.08500.

    Raises:
        UsageError: torchmetrics is not installed.
    """

    better: ClassVar[Literal["lower", "higher"]] = "lower"

    def __init__(self) -> None:
        require_torchmetrics("frechet")

    def figure(self, generated: Features, real: Features) -> float:
        from torchmetrics.image.fid import FrechetInceptionDistance

        require_samples("frechet", 2, generated, real)
        ours, theirs = generated.vectors.double(), real.vectors.double()
        centre = theirs.mean(0)  # it subtracts squares of means from means of squares
        metric = FrechetInceptionDistance(feature=AsGiven(len(centre)))
        metric.update(theirs - centre, real=True)
        metric.update(ours - centre, real=False)
        return max(float(metric.compute()), 0.0)  # rounding leaves less than nothing of equal sets


class AsGiven(nn.Module):
    """In the place of a network of torchmetrics: what it is given are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Float[Tensor, "b f"]) -> Float[Tensor, "b f"]:
        """The features."""
        return features


def require_torchmetrics(name: str) -> None:
    """Refuse a metric before anything is generated for it.

    Raises:
        UsageError: torchmetrics is not installed.
    """
    if importlib.util.find_spec("torchmetrics") is None:
        raise UsageError(f"Metric {name!r} needs torchmetrics, which is not installed: pip install 'djepa[eval]'")
