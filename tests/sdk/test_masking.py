"""Mask ratios follow their distributions; subsets of tokens are taken and put back where they belong."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from djepa.masking import Subset, cosine_ratio, draw_ratio, num_hidden, truncated_normal_ratio
from djepa.random import Draws

PAPER = {"mean": 1.0, "std": 0.25, "low": 0.7, "high": 1.0}


def share_below(x, mean, std, low, high, cells=4000):
    """The cumulative distribution of a normal cut to [low, high], by the midpoint rule."""
    def mass(start, end):
        width = (end - start) / cells
        middles = [start + (index + 0.5) * width for index in range(cells)]
        shift = min(0.5 * ((low - mean) / std) ** 2, 0.5 * ((high - mean) / std) ** 2)  # far tails underflow otherwise
        return width * sum(math.exp(shift - 0.5 * ((point - mean) / std) ** 2) for point in middles)

    return mass(low, x) / (mass(low, x) + mass(x, high))


@pytest.mark.parametrize("options", [
    PAPER,
    {"mean": 0.5, "std": 0.3, "low": 0.1, "high": 0.8},
    {"mean": 1.0, "std": 5.0, "low": 0.0, "high": 1.0},   # nearly uniform
    {"mean": 0.2, "std": 0.1, "low": 0.7, "high": 1.0},   # five deviations above the mean
    {"mean": 0.0, "std": 0.05, "low": 0.7, "high": 1.0},  # fourteen
    {"mean": 2.0, "std": 0.1, "low": 0.2, "high": 0.9},   # eleven below
])
def test_the_truncated_normal_ratio_inverts_its_distribution(options):
    ratio = truncated_normal_ratio(**options)
    for u in (1e-4, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999):
        assert share_below(ratio(u), **options) == pytest.approx(u, abs=1e-4)


def test_the_paper_is_the_default():
    assert [truncated_normal_ratio()(u / 10) for u in range(10)] == [truncated_normal_ratio(**PAPER)(u / 10) for u in range(10)]


@settings(max_examples=100)
@given(mean=st.floats(-1, 2), std=st.floats(0.02, 3), low=st.floats(0, 0.9), width=st.floats(0.01, 1), u=st.floats(0, 0.999))
@example(mean=1.0, std=0.25, low=0.7, width=0.3, u=0.0)
def test_truncated_normal_ratios_stay_inside_and_grow(mean, std, low, width, u):
    high = min(1.0, low + width)
    ratio = truncated_normal_ratio(mean, std, low, high)
    assert low <= ratio(u) <= ratio(min(u + 1e-3, 1.0)) <= high


def test_the_cosine_ratio():
    assert [cosine_ratio(u) for u in (0.0, 1 / 3, 0.5, 2 / 3)] == pytest.approx([1, math.sqrt(3) / 2, math.sqrt(0.5), 0.5])
    assert 0 <= cosine_ratio(1 - 2**-24) < 1e-6  # the largest uniform number there is


@pytest.mark.parametrize(("ratio", "distribution"), [
    (truncated_normal_ratio(), lambda x: share_below(x, **PAPER, cells=200)),
    (cosine_ratio, lambda x: 1 - math.acos(x) * 2 / math.pi),
])
def test_drawn_ratios_are_distributed_as_they_should(ratio, distribution):
    draws, count = Draws(0, "ratio"), 800
    ratios = sorted(draw_ratio(ratio, draws, step) for step in range(count))
    distance = max(abs(distribution(x) - (index + 0.5) / count) for index, x in enumerate(ratios))
    assert distance < 1.95 / math.sqrt(count)  # Kolmogorov-Smirnov at 0.1%; the draws are fixed by their seed


def test_a_step_has_its_own_ratio_whatever_was_drawn_before():
    draws = Draws(0, "ratio")
    forwards = [draw_ratio(cosine_ratio, draws, step) for step in range(5)]
    assert forwards == [draw_ratio(cosine_ratio, draws, step) for step in reversed(range(5))][::-1]
    assert len(set(forwards)) == 5


@given(ratio=st.floats(0, 1), lengths=st.lists(st.integers(0, 300), min_size=1, max_size=6))
def test_counts_are_rounded_up_and_leave_nobody_without(ratio, lengths):
    counts = num_hidden(ratio, torch.tensor(lengths)).tolist()
    assert counts == [min(max(math.ceil(ratio * length), 1), length) for length in lengths]


def test_counts_of_the_paper():
    assert num_hidden(0.7, torch.tensor([256, 10, 1, 0])).tolist() == [180, 7, 1, 0]


@st.composite
def selections(draw):
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    bits = draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(bits).view(rows, columns)


@given(selections())
def test_a_subset_lists_the_selected_tokens_sample_by_sample(selected):
    subset = Subset.of(selected)
    places = [(row, column) for row, flags in enumerate(selected.tolist()) for column, flag in enumerate(flags) if flag]
    assert subset.index.tolist() == [row * selected.shape[1] + column for row, column in places]
    assert subset.lengths == tuple(sum(flags) for flags in selected.tolist())
    assert len(subset) == len(places)
    ragged = len(set(subset.lengths)) > 1
    assert subset.packing.lengths == subset.lengths if ragged else subset.packing is None


@given(selections(), st.integers(1, 3))
def test_taking_and_putting_back(selected, width):
    x = torch.arange(selected.numel() * width, dtype=torch.float32).view(*selected.shape, width)
    subset = Subset.of(selected)
    taken = subset.take(x)
    assert torch.equal(taken, x[selected])
    assert torch.equal(subset.put(x, taken), x)
    marked = subset.put(x, torch.full_like(taken, -1.0))
    assert (marked[selected] == -1).all() and torch.equal(marked[~selected], x[~selected])
    assert float(x.min()) == 0  # the original is left alone


@given(selections().filter(lambda selected: bool(selected.any())))
def test_sequences_are_a_batch_when_equal_and_one_packed_row_when_not(selected):
    x = torch.arange(selected.numel() * 2, dtype=torch.float32).view(*selected.shape, 2)
    subset = Subset.of(selected)
    sequences = subset.sequences(x)
    if subset.packing is None:
        assert torch.equal(sequences, torch.stack([row[flags] for row, flags in zip(x, selected, strict=True)]))
    else:
        assert torch.equal(sequences, x[selected][None])
