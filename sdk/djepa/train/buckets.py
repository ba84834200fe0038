"""Batches of examples of nearly equal length, so that little of them is padding.

Examples are sorted into buckets by length. Each bucket has an order of its own, an endless one: its epochs laid end to end, as
those of the whole data are without buckets. A batch is the next examples of one bucket, and which bucket's turn it is is laid
out in advance (`djepa.interleaving`), each in proportion to its examples. Hence

* every batch is full and of one bucket, and nothing is ever left over or left out: within a bucket, every example has been
  shown n times before any is shown for the (n + 1)-th time;
* all buckets keep pace: whatever the step, they have been gone through equally often, up to a few batches;
* all of it is a function of (seed, step), and nothing has to be saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from djepa.dataset import Dataset
from djepa.errors import UsageError
from djepa.interleaving import interleave, occurrences
from djepa.random import numpy_generator
from djepa.train.data import DataOrder, Place

BLOCK = 64  # steps within which the turns of the buckets are shuffled


class BucketOrder:
    """The order in which a run goes through its data, bucket by bucket.

    Args:
        seed: of the run.
        bucket_of: the bucket of every example, from 0 on.
        batch_size: global.
        permute: the order of one epoch of the whole data (`Dataset.order`); that of a bucket is what it has of it.
    """

    def __init__(self, seed: int, bucket_of: Int[np.ndarray, " n"], batch_size: int,
                 permute: Callable[[np.random.Generator], np.ndarray]) -> None:
        self.seed, self.batch_size, self._bucket_of = seed, batch_size, bucket_of
        self.sizes = np.bincount(bucket_of)
        self._pattern = interleave(self.sizes.tolist())
        self._whole = DataOrder(seed, len(bucket_of), batch_size, permute)
        self._turns = lru_cache(maxsize=2)(self._shuffled_turns)
        self._epoch = lru_cache(maxsize=4 * len(self.sizes))(self._of_bucket)

    def places(self, step: int) -> list[Place]:
        """The examples of a step."""
        bucket, batch = self._turn(step)
        size = int(self.sizes[bucket])
        positions = range(batch * self.batch_size, (batch + 1) * self.batch_size)
        return [(position // size, int(self._epoch(bucket, position // size)[position % size])) for position in positions]

    def _turn(self, step: int) -> tuple[int, int]:
        """The bucket of a step, and how many batches of it came before."""
        cycle, place = divmod(step, len(self._pattern))  # in a cycle, a bucket has as many batches as examples
        buckets, earlier = self._turns(cycle)
        bucket = int(buckets[place])
        return bucket, cycle * int(self.sizes[bucket]) + int(earlier[place])

    def _shuffled_turns(self, cycle: int) -> tuple[np.ndarray, np.ndarray]:
        rng = numpy_generator(self.seed, "bucket order", cycle)
        whole = len(self._pattern) // BLOCK * BLOCK
        blocks = rng.permuted(self._pattern[:whole].reshape(-1, BLOCK), axis=1)
        turns = np.concatenate([blocks.ravel(), rng.permutation(self._pattern[whole:])])
        return turns, occurrences(turns)

    def _of_bucket(self, bucket: int, epoch: int) -> np.ndarray:
        order = self._whole.epoch(epoch)
        return order[self._bucket_of[order] == bucket]


def data_order(dataset: Dataset, seed: int, batch_size: int, buckets: int | Sequence[float] | None) -> DataOrder | BucketOrder:
    """The order of a run.

    Args:
        dataset: the data.
        seed: of the run.
        batch_size: global.
        buckets: how many, of about as many examples each; or the lengths that are the longest of each bucket but the last, in
            the unit of the dataset's lengths; None for batches of any lengths.

    Raises:
        UsageError: the dataset is empty, or cannot tell lengths.
    """
    whole = DataOrder(seed, len(dataset), batch_size, dataset.order)
    if buckets is None:
        return whole
    lengths = dataset.lengths()
    if lengths is None:
        raise UsageError("train.buckets: this dataset cannot tell how long its examples are without decoding them, or all are "
                         "of one length; leave train.buckets out.")
    return BucketOrder(seed, bucket_numbers(lengths, buckets), batch_size, dataset.order)


def bucket_numbers(lengths: Float[np.ndarray, " n"], buckets: int | Sequence[float]) -> Int[np.ndarray, " n"]:
    """The bucket of every example, numbered without gaps from the shortest on; examples of one length share theirs.

    What has no length, because its file cannot be read, counts as the median: what takes its place has some length.
    """
    known = np.isfinite(lengths)
    filled = np.where(known, lengths, np.median(lengths[known]) if known.any() else 0.0)
    if isinstance(buckets, int):
        shares = np.arange(1, buckets) / buckets
        buckets = np.quantile(filled, shares, method="inverted_cdf").tolist()
    return np.unique(np.searchsorted(np.asarray(buckets, dtype=float), filled, side="left"), return_inverse=True)[1]
