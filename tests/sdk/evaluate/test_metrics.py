"""Metrics beside closed forms, other people's implementations, and the laws they keep."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from djepa.errors import UsageError
from djepa.evaluate.extractor import Features
from djepa.evaluate.frechet import FrechetDistance
from djepa.evaluate.inception_score import InceptionScore
from djepa.evaluate.kernel import KernelDistance
from djepa.evaluate.manifold import Coverage, Density, Precision, Recall
from djepa.evaluate.metric import Metric, dealt, standard_error
from djepa.random import Draws

ALL = [FrechetDistance, KernelDistance, Precision, Recall, Density, Coverage]


def points(num, width=5, *, seed=0, scale=1.0, shift=0.0):
    """Normal points, as features."""
    drawn = Draws(seed, "points").normal(torch.arange(num), 0, width)
    return Features(drawn * scale + shift)


def with_moments(num, mean, covariance, seed=0):
    """Points whose mean and unbiased covariance are exactly these."""
    drawn = points(num, len(mean), seed=seed).vectors.double()
    drawn -= drawn.mean(0)
    white = torch.linalg.cholesky(torch.linalg.inv(torch.cov(drawn.T)))
    return Features(drawn @ white @ torch.linalg.cholesky(covariance).T + mean)


# Frechet distance.

def test_frechet_of_known_gaussians():
    first = with_moments(40, torch.tensor([1.0, 0.0, 0.0]).double(), torch.diag(torch.tensor([4.0, 1.0, 9.0]).double()))
    second = with_moments(50, torch.tensor([0.0, 2.0, 0.0]).double(), torch.diag(torch.tensor([1.0, 1.0, 16.0]).double()), 1)
    # |m1 - m2|^2 + sum of (s1 - s2)^2, for covariances that commute.
    assert FrechetDistance().figure(first, second) == pytest.approx(1 + 4 + (2 - 1) ** 2 + 0 + (3 - 4) ** 2, abs=1e-9)


def test_frechet_of_any_gaussians_is_that_of_scipy():
    from scipy.linalg import sqrtm

    first, second = points(60, 4), Features(points(70, 4, seed=1).vectors @ points(4, 4, seed=2).vectors + 1)
    one, other = (features.vectors.double().numpy() for features in (first, second))
    covariances = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert FrechetDistance().figure(first, second) == pytest.approx(expected, rel=1e-9)


def test_frechet_bears_features_that_never_vary_and_large_means():
    flat = points(30).vectors.clone()
    flat[:, 0] = 3.0
    assert FrechetDistance().figure(Features(flat + 1e4), Features(flat + 1e4)) == pytest.approx(0.0, abs=1e-5)
    assert FrechetDistance().figure(Features(flat.double() + 1), Features(flat.double())) == pytest.approx(5.0, abs=1e-6)


# Kernel distance.

def test_kernel_distance_is_the_unbiased_one_of_every_pair():
    first, second = points(37), points(53, seed=1, shift=0.5)
    x, y = first.vectors.double().numpy(), second.vectors.double().numpy()
    inside, theirs, between = (polynomial_kernel(*pair, degree=3, coef0=1) for pair in ((x, x), (y, y), (x, y)))
    expected = ((inside.sum() - np.trace(inside)) / (37 * 36) + (theirs.sum() - np.trace(theirs)) / (53 * 52)
                - 2 * between.mean())
    assert KernelDistance().figure(first, second) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_of_equal_numbers_is_that_of_torchmetrics():
    from torchmetrics.image.kid import poly_mmd

    first, second = points(40), points(40, seed=1, scale=1.2)
    expected = float(poly_mmd(second.vectors.double(), first.vectors.double(), gamma=0.3, coef=2.0))
    assert KernelDistance(gamma=0.3, coef=2.0).figure(first, second) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_of_one_distribution_is_zero_on_average():
    found = [KernelDistance().figure(points(50, seed=2 * seed), points(60, seed=2 * seed + 1)) for seed in range(60)]
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(len(found)) and min(found) < 0 < max(found)


def test_blocks_leave_no_trace(monkeypatch):
    import djepa.evaluate.kernel
    import djepa.evaluate.manifold

    first, second = points(50), points(30, seed=1)
    metrics = [KernelDistance(), Precision(), Recall(), Density(), Coverage()]
    groups = dealt(50, 4, 0)
    whole = [(metric.figure(first, second), metric.without(first, second, groups)) for metric in metrics]
    monkeypatch.setattr(djepa.evaluate.kernel, "ROWS", 7)
    monkeypatch.setattr(djepa.evaluate.manifold, "ROWS", 7)
    for metric, (figure, without) in zip(metrics, whole, strict=True):
        assert metric.figure(first, second) == pytest.approx(figure, rel=1e-12)
        torch.testing.assert_close(metric.without(first, second, groups), without)


# Balls.

def by_hand(generated, real, neighbours):
    """Precision, recall, density and coverage by scikit-learn's brute force."""
    def reach(x):
        return NearestNeighbors(n_neighbors=neighbours + 1, algorithm="brute").fit(x).kneighbors(x)[0][:, -1]

    distances = pairwise_distances(generated, real)
    in_real, in_generated = distances <= reach(real)[None], distances <= reach(generated)[:, None]
    return in_real.any(1).mean(), in_generated.any(0).mean(), in_real.sum(1).mean() / neighbours, in_real.any(0).mean()


@given(st.integers(0, 1000), st.integers(1, 4), st.integers(5, 40), st.integers(5, 40), st.floats(0.3, 3.0))
def test_balls_are_those_of_brute_force(seed, neighbours, n, m, scale):
    generated, real = points(n, 3, seed=seed, scale=scale), points(m, 3, seed=seed + 1)
    found = [metric(neighbours=neighbours).figure(generated, real) for metric in (Precision, Recall, Density, Coverage)]
    expected = by_hand(generated.vectors.double().numpy(), real.vectors.double().numpy(), neighbours)
    assert found == pytest.approx(expected)


def test_balls_tell_copies_from_spread_and_spread_from_noise():
    real = points(200)
    assert Precision().figure(points(200, seed=1, scale=0.3), real) > 0.95 > 0.6 > Recall().figure(points(200, scale=0.3), real)
    assert Precision().figure(points(200, seed=1, scale=3.0), real) < 0.3
    assert Density().figure(points(200, seed=1), real) == pytest.approx(1.0, abs=0.15)
    assert Coverage().figure(Features(real.vectors[:1].expand(200, -1)), real) < 0.1


def test_a_ball_reaches_to_a_neighbour_that_exists():
    with pytest.raises(UsageError, match="'density' needs at least 6 real examples; there are 5"):
        Density().figure(points(9), points(5))
    with pytest.raises(UsageError, match="neighbours=0"):
        Recall(neighbours=0)


# Inception score.

def test_inception_score_goes_from_one_to_the_number_of_classes():
    sure = Features(torch.zeros(40, 1), 1e3 * torch.eye(4).repeat(10, 1))
    assert InceptionScore().figure(sure, sure) == pytest.approx(4.0)
    assert InceptionScore().figure(sure.chosen(torch.arange(0, 40, 4)), sure) == pytest.approx(1.0)
    assert InceptionScore().figure(Features(torch.zeros(9, 1), torch.ones(9, 4)), sure) == pytest.approx(1.0)


def test_inception_score_is_its_formula(untouched):
    logits = points(50, 6).vectors.double()
    answers = torch.softmax(logits, 1)
    expected = math.exp((answers * (answers.log() - answers.mean(0).log())).sum(1).mean())
    assert InceptionScore().figure(Features(logits, logits), Features(logits)) == pytest.approx(expected, rel=1e-9)


# Laws.

@pytest.mark.parametrize("metric", [*ALL, InceptionScore])
@given(st.integers(0, 100))
def test_the_order_of_samples_does_not_matter(metric, seed):
    first, second = points(20, 3, seed=seed), points(15, 3, seed=seed + 1)
    first = Features(first.vectors, first.vectors)
    shuffled = first.chosen(torch.randperm(20, generator=torch.Generator().manual_seed(seed)))
    assert metric().figure(shuffled, second) == pytest.approx(metric().figure(first, second), rel=1e-9, abs=1e-9)


@given(st.integers(0, 100), st.integers(8, 30), st.integers(1, 6))
def test_equal_sets_are_as_good_as_can_be(seed, num, width):
    same = points(num, width, seed=seed)
    assert FrechetDistance().figure(same, same) == pytest.approx(0.0, abs=1e-5)
    assert Precision().figure(same, same) == Recall().figure(same, same) == Coverage().figure(same, same) == 1.0
    assert Density().figure(same, same) >= 1.0
    assert KernelDistance().figure(same, same) <= 0.0  # the pairs of a point with itself do not count


@given(st.integers(0, 100), st.floats(-3, 3))
def test_distances_do_not_depend_on_where_the_origin_is(seed, shift):
    first, second = points(20, 3, seed=seed), points(20, 3, seed=seed + 1)
    for metric in (FrechetDistance(), Precision(), Recall(), Density(), Coverage()):
        moved = (Features(features.vectors.double() + shift) for features in (first, second))
        assert metric.figure(*moved) == pytest.approx(metric.figure(first, second), abs=1e-6)


# How sure a figure is.

@pytest.mark.parametrize("metric", ALL)
def test_figures_without_a_group_are_those_of_the_rest(metric):
    first, second, groups = points(41), points(30, seed=1, shift=0.3), dealt(41, 5, seed=3)
    found = metric().without(first, second, groups)
    expected = [metric().figure(first.chosen(groups != group), second) for group in range(5)]
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_groups_are_of_equal_size_and_drawn_by_the_seed():
    groups = dealt(103, 10, seed=0)
    assert sorted(torch.bincount(groups).tolist()) == [10] * 7 + [11] * 3
    assert torch.equal(groups, dealt(103, 10, seed=0)) and not torch.equal(groups, dealt(103, 10, seed=1))


@pytest.mark.parametrize(("metric", "low", "high"), [(FrechetDistance, 0.7, 1.4), (KernelDistance, 0.7, 1.4),
                                                    (Precision, 0.7, 1.4), (Density, 0.7, 1.4), (Coverage, 0.6, 1.6),
                                                    (Recall, 0.6, 2.5)])
def test_a_standard_error_is_the_spread_of_figures_of_other_samples(metric, low, high):
    """Against 60 independent sets of samples: the spread that the jackknife can only guess from one."""
    real, sets = points(150, 3, seed=1000), [points(150, 3, seed=seed, shift=0.4) for seed in range(60)]
    spread = np.std([metric().figure(one, real) for one in sets], ddof=1)
    guessed = np.sqrt(np.mean([standard_error(metric(), one, real, 15, seed=0) ** 2 for one in sets[:10]]))
    assert low < guessed / spread < high


def test_a_metric_of_ones_own_needs_a_figure_alone():
    class Mean(Metric):
        better = "lower"

        def figure(self, generated, real):
            return float(generated.vectors.mean())

    drawn = points(400, 1)
    assert standard_error(Mean(), drawn, drawn, 20, 0) == pytest.approx(float(drawn.vectors.std()) / 20, rel=0.5)
