"""Features that need no network: the numbers of a sample themselves."""

from __future__ import annotations

from collections.abc import Sequence

from djepa.errors import UsageError
from djepa.evaluate.extractor import FeatureExtractor, Features, stacked
from djepa.tokens import Sample

MAX_VALUES = 4096  # of a sample: a covariance of so many has 16 million entries


class Values(FeatureExtractor):
    """All values of a sample, one after the other. For small samples of one shape, such as pictures of 8x8 pixels."""

    def extract(self, samples: Sequence[Sample]) -> Features:
        vectors = stacked(samples, "values").flatten(1).cpu()
        if vectors.shape[1] > MAX_VALUES:
            raise UsageError(f"Features 'values' are for samples of at most {MAX_VALUES:,} values; these have "
                             f"{vectors.shape[1]:,}. Choose an extractor with fewer features.")
        return Features(vectors)
