"""The arithmetic of the digits protocol: how far generated digits are from scans that no model has seen.

A set of digits is an array (n, 64) of levels, 0 for paper to 16 for ink, kept continuous: scans hold whole numbers, but
rounding generated values would hide how far from them they are. Three figures, none of which needs a network:

* the share of generated digits that an independent classifier reads as the digit asked for;
* the Fréchet distance of two sets, between the Gaussians with their means and covariances,
      |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2);
* how close generated digits come to training digits, against how close held-out digits do: 1 is what new scans show, well
  below 1 means copies, well above 1 means values that no scan has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array
from sklearn.svm import SVC


def frechet_of_gaussians(
    mean_1: Float[Array, "c"], covariance_1: Float[Array, "c c"], mean_2: Float[Array, "c"], covariance_2: Float[Array, "c c"]
) -> float:
    """Squared Fréchet distance of two Gaussians; covariances may be singular.

    The square roots are taken of eigenvalues of symmetric matrices, in float64, with those that rounding left below zero
    set to zero: exact where a general matrix square root turns complex or diverges, such as for pixels that never vary.
    """
    values, vectors = np.linalg.eigh(covariance_1)
    root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    product = root @ covariance_2 @ root
    overlap = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(min=0.0)).sum()
    distance = ((mean_1 - mean_2) ** 2).sum() + np.trace(covariance_1) + np.trace(covariance_2) - 2.0 * overlap
    return max(float(distance), 0.0)


def frechet_distance(first: Float[Array, "n c"], second: Float[Array, "m c"]) -> float:
    """Squared Fréchet distance of two sets, from their means and unbiased covariances."""
    moments = [(points.mean(axis=0, dtype=np.float64), np.cov(points, rowvar=False)) for points in (first, second)]
    return frechet_of_gaussians(*moments[0], *moments[1])


def nearest_distances(points: Float[Array, "n c"], others: Float[Array, "m c"]) -> Float[Array, "n"]:
    """Euclidean distance of each point to the nearest of the others."""
    return np.array([np.sqrt(((others - point) ** 2).sum(axis=1).min()) for point in points])


@dataclass(frozen=True)
class Quality:
    """What the protocol says about a set of generated digits.

    Attributes:
        right_class: share read as the digit asked for, 0 to 1.
        right_by_class: the same for each of the ten digits.
        frechet: squared Fréchet distance to the held-out scans, in levels squared.
        frechet_ratio: that, over the distance of the training scans to the held-out scans.
        nearest_ratio: median distance to the nearest training scan, over the same median of the held-out scans.
    """

    right_class: float
    right_by_class: tuple[float, ...]
    frechet: float
    frechet_ratio: float
    nearest_ratio: float


class Protocol:
    """Scans to judge by, and the judge.

    Args:
        training, heldout: levels of the scans models may and may not learn from.
        training_labels, heldout_labels: the digits they show.

    Attributes:
        reader_accuracy: share of the held-out scans that the classifier, fitted on the training scans, reads right: the
            most that `right_class` can be expected to reach.
        reference_frechet: squared Fréchet distance of the training scans to the held-out scans.
        reference_nearest: median distance of a held-out scan to its nearest training scan.
    """

    def __init__(self, training: Float[Array, "n 64"], training_labels: Int[Array, "n"],
                 heldout: Float[Array, "m 64"], heldout_labels: Int[Array, "m"]) -> None:
        self.training, self.heldout = training, heldout
        self.reader = SVC(C=10.0).set_params(gamma=0.001).fit(training, training_labels)
        self.reader_accuracy = float(self.reader.score(heldout, heldout_labels))
        self.reference_frechet = frechet_distance(training, heldout)
        self.reference_nearest = float(np.median(nearest_distances(heldout, training)))

    def judge(self, levels: Float[Array, "n 64"], asked: Int[Array, "n"]) -> Quality:
        """The figures of generated digits.

        Args:
            levels: their values on the scale of the scans.
            asked: the digit each was asked to be.
        """
        right = self.reader.predict(levels) == asked
        frechet = frechet_distance(levels, self.heldout)
        return Quality(
            right_class=float(right.mean()),
            right_by_class=tuple(float(right[asked == digit].mean()) for digit in np.unique(asked)),
            frechet=frechet,
            frechet_ratio=frechet / self.reference_frechet,
            nearest_ratio=float(np.median(nearest_distances(levels, self.training))) / self.reference_nearest,
        )
