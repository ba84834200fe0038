"""Several parts spread evenly over one sequence: how a mixture lays out its datasets, and bucketed batches their buckets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def interleave(counts: Sequence[int]) -> Int[np.ndarray, " n"]:
    """Which part each place of a sequence belongs to, part i `counts[i]` times, as evenly as can be told in advance.

    The k-th element of part i has the time (k + 1/2) / counts[i], and all are put in the order of their times. Hence, with m
    parts of the shares w_i = counts[i] / n: among the first k places, part i has w_i k of them, off by at most
    1/2 + w_i (m - 2) / 2; in any window of k places by at most twice that; and in the whole it has exactly `counts[i]`. With
    two parts no window is off by more than one.
    """
    times = np.concatenate([(2 * np.arange(count) + 1) / (2 * count) for count in counts])
    parts = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
    return parts[np.argsort(times, kind="stable")]


def occurrences(parts: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """How many places before each place belong to the same part."""
    by_part = np.argsort(parts, kind="stable")
    counts = np.bincount(parts)
    found = np.empty(len(parts), dtype=np.int64)
    found[by_part] = np.arange(len(parts)) - np.repeat(np.cumsum(counts) - counts, counts)
    return found
