"""The figures of the digits protocol mean what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from digits_metrics import Protocol, frechet_distance, frechet_of_gaussians, nearest_distances

LEVELS, LABELS = load_digits(return_X_y=True)
TRAINING, HELDOUT = LEVELS[:1400], LEVELS[1400:]


@pytest.fixture(scope="module")
def protocol():
    return Protocol(TRAINING, LABELS[:1400], HELDOUT, LABELS[1400:])


finite = st.floats(-5.0, 5.0)
matrices = st.tuples(finite, finite, finite, finite).map(lambda entries: np.array(entries).reshape(2, 2))
means = st.tuples(finite, finite).map(np.array)


@given(means, matrices, means, matrices)
def test_frechet_of_two_dimensional_gaussians_has_a_closed_form(mean_1, factor_1, mean_2, factor_2):
    c1, c2 = factor_1 @ factor_1.T, factor_2 @ factor_2.T
    # The trace of the square root of a 2x2 matrix M is sqrt(tr M + 2 sqrt(det M)); here det M = det C1 det C2.
    overlap = np.sqrt(np.trace(c1 @ c2) + 2.0 * abs(np.linalg.det(factor_1) * np.linalg.det(factor_2)))
    expected = ((mean_1 - mean_2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2.0 * overlap
    assert frechet_of_gaussians(mean_1, c1, mean_2, c2) == pytest.approx(expected, rel=1e-6, abs=1e-4)


@given(st.floats(0.0, 9.0), st.floats(0.0, 9.0), st.floats(-3.0, 3.0))
def test_frechet_of_round_gaussians(spread_1, spread_2, shift):
    size = 64
    ours = frechet_of_gaussians(np.zeros(size), spread_1**2 * np.eye(size), np.full(size, shift), spread_2**2 * np.eye(size))
    assert ours == pytest.approx(size * (shift**2 + (spread_1 - spread_2) ** 2), rel=1e-9, abs=1e-6)


def test_frechet_is_zero_for_a_set_and_itself_and_does_not_depend_on_the_side():
    assert frechet_distance(HELDOUT, HELDOUT) == pytest.approx(0.0, abs=1e-4)
    assert frechet_distance(HELDOUT, TRAINING) == pytest.approx(frechet_distance(TRAINING, HELDOUT), rel=1e-6)


def test_nearest_distances_are_euclidean():
    points, others = np.array([[0.0, 0.0], [10.0, 1.0]]), np.array([[3.0, 4.0], [10.0, 0.0]])
    assert nearest_distances(points, others).tolist() == [5.0, 1.0]


def test_the_reference_figures_of_the_scans(protocol):
    assert protocol.reference_frechet == pytest.approx(67.6, abs=0.1)
    assert protocol.reader_accuracy == pytest.approx(0.97, abs=0.005)


def test_held_out_scans_judged_as_if_generated_are_the_ideal(protocol):
    quality = protocol.judge(HELDOUT, LABELS[1400:])
    assert quality.right_class == protocol.reader_accuracy
    assert quality.frechet == pytest.approx(0.0, abs=1e-4)
    assert quality.nearest_ratio == 1.0
    assert len(quality.right_by_class) == 10


def test_copies_of_training_scans_show_in_the_nearest_ratio(protocol):
    quality = protocol.judge(TRAINING[:300], LABELS[:300])
    assert quality.nearest_ratio == 0.0
    assert quality.right_class > 0.99


def test_a_digit_asked_for_wrongly_counts_as_wrong_for_that_class(protocol):
    asked = LABELS[1400:].copy()
    asked[asked == 7] = 1
    quality = protocol.judge(HELDOUT, asked)
    assert quality.right_by_class[1] < 0.6 < min(quality.right_by_class[2:7])


def test_values_between_the_levels_of_a_scan_are_not_rounded(protocol):
    shifted = protocol.judge(HELDOUT + 0.3, LABELS[1400:])
    assert shifted.frechet == pytest.approx(64 * 0.3**2, rel=1e-3)
