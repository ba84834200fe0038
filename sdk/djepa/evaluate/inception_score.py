"""The Inception score of any classifier; the arithmetic is that of torchmetrics."""

from __future__ import annotations

import warnings
from typing import ClassVar, Literal

from djepa.evaluate.extractor import Features
from djepa.evaluate.frechet import AsGiven, require_torchmetrics
from djepa.evaluate.metric import Metric, require_samples
from djepa.random import seeded


class InceptionScore(Metric):
    """exp of the mean divergence KL(p(y|x) || p(y)) of a classifier's answers ([1], section 4), over all samples at once.

    1 where it answers every sample alike, the number of classes where it is sure of each and sees all classes equally often.
    Only the generated samples count. Published numbers are means over ten parts of 5,000 samples, which are a little lower.

    References:
        [1] T. Salimans et al. Improved Techniques for Training GANs. arXiv 1606.03498.

    Raises:
        UsageError: torchmetrics is not installed.
    """

    better: ClassVar[Literal["lower", "higher"]] = "higher"
    needs_logits = True

    def __init__(self) -> None:
        require_torchmetrics("inception-score")

    def figure(self, generated: Features, real: Features) -> float:
        from torchmetrics.image.inception import InceptionScore as Score

        assert generated.logits is not None, "`needs_logits` was checked"
        require_samples("inception-score", 2, generated, generated)
        logits = generated.logits.double()
        logits = (logits - logits.amax(1, keepdim=True)).clamp(min=-700.0)  # a probability of zero has no logarithm
        # It permutes the samples by torch's global generator, takes the standard deviation of its one part, and warns of both
        # that and its memory.
        with seeded(0, "inception score"), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            metric = Score(feature=AsGiven(logits.shape[1]), splits=1)
            metric.update(logits)
            return float(metric.compute()[0])
