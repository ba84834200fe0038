"""Rotary positions: attention sees differences of coordinates; learned positions: one length only."""

import cmath

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from djepa.errors import UsageError
from djepa.heads.flow import FlowHead
from djepa.model import Stream
from djepa.nn.positions import RotaryPosition

AXES = ("t", "z", "y", "x", "w")
coordinate = st.integers(-400, 400).map(lambda quarter: quarter / 4)  # exact in float32, and so are their sums


def rotary(num_axes, head_width=16, scale=None, theta=100.0):
    return RotaryPosition(AXES[:num_axes], head_width, scale or {}, theta)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def turn(rotary, coords, x):
    """`x` (e) at one place with coordinates (a)."""
    return rotary(torch.tensor(coords)[None, None])(x[None, None, None])[0, 0, 0]


@settings(max_examples=60)
@given(st.data(), st.integers(1, 4), st.sampled_from([8, 12, 16]))
def test_scores_depend_on_differences_of_coordinates_only(data, num_axes, head_width):
    point = st.lists(coordinate, min_size=num_axes, max_size=num_axes)
    here, there, shift = data.draw(point), data.draw(point), data.draw(point)
    position = rotary(num_axes, head_width, {"t": 0.5, "z": 3.0})
    q, k = noise(2, head_width)

    def score(offset):
        moved = [[a + b for a, b in zip(place, offset, strict=True)] for place in (here, there)]
        return float(turn(position, moved[0], q) @ turn(position, moved[1], k))

    assert score(shift) == pytest.approx(score([0.0] * num_axes), abs=2e-3)


@pytest.mark.parametrize("num_axes", range(1, 6))
def test_coordinate_zero_is_the_identity(num_axes):
    x = noise(16)
    assert torch.equal(turn(rotary(num_axes), [0.0] * num_axes, x), x)


@settings(max_examples=30)
@given(st.lists(coordinate, min_size=1, max_size=5))
def test_turning_keeps_lengths(coords):
    x = noise(16)
    assert float(turn(rotary(len(coords)), coords, x).norm()) == pytest.approx(float(x.norm()), rel=1e-5)


def test_pairs_turn_by_coordinate_over_scale_times_frequency():
    position = RotaryPosition(("y", "x"), 10, {"x": 4.0}, theta=81.0)
    x = noise(10)
    # Five pairs: y gets three (1, 1/9, 1/81), x two (1, 1/81), divided by its scale.
    angles = [7.0 * speed for speed in (1, 1 / 9, 1 / 81)] + [-3.0 / 4.0 * speed for speed in (1, 1 / 81)]
    turned = [complex(float(x[i]), float(x[i + 5])) * cmath.exp(1j * angle) for i, angle in enumerate(angles)]
    wanted = [number.real for number in turned] + [number.imag for number in turned]
    assert turn(position, [7.0, -3.0], x).tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("num_axes", range(1, 6))
@pytest.mark.parametrize("head_width", [10, 16, 24])
def test_axes_share_the_pairs(num_axes, head_width):
    turned_by = rotary(num_axes, head_width).frequencies > 0
    assert (turned_by.sum(dim=0) == 1).all()  # every pair belongs to one axis
    shares = turned_by.sum(dim=1).tolist()
    assert shares == sorted(shares, reverse=True) and shares[0] - shares[-1] <= 1


def test_an_axis_with_one_pair_turns_at_full_speed():
    assert rotary(3, 6, {"z": 2.0}).frequencies.tolist() == [[1, 0, 0], [0, 0.5, 0], [0, 0, 1]]


def test_places_and_heads_are_turned_each_on_its_own():
    position, x = rotary(2, 8), noise(2, 3, 4, 8)
    coords = noise(2, 3, 2, seed=1) * 10
    together = position(coords)(x)
    for batch, place, head in [(0, 0, 0), (1, 2, 3), (0, 1, 2)]:
        alone = turn(position, coords[batch, place].tolist(), x[batch, place, head])
        torch.testing.assert_close(together[batch, place, head], alone, atol=1e-6, rtol=0)


def test_angles_and_turning_are_in_float32_whatever_the_precision_around():
    position, x, coords = rotary(2), noise(1, 50, 2, 16), noise(1, 50, 2, seed=1) * 300
    exact = position(coords)
    with torch.autocast("cpu", torch.bfloat16):
        inside = position(coords.clone())
    assert torch.equal(inside.cos, exact.cos) and torch.equal(inside.sin, exact.sin)
    low = exact(x.bfloat16())
    assert low.dtype == torch.bfloat16
    assert torch.equal(low, exact(x.bfloat16().float()).bfloat16())  # rounded once, at the end


def test_rotary_positions_are_no_weights():
    assert rotary(2).state_dict() == {}


@pytest.mark.parametrize("length", [5, 7])
def test_learned_positions_take_the_trained_length_only(token_batch, length):
    stream = Stream(3, 8, 8, (0, 1), FlowHead(3, 8, depth=1, width=8), num_tokens=6)
    with pytest.raises(UsageError, match=rf"exactly 6 tokens and was given {length}.*rotary"):
        stream.embed(token_batch(3, [length]))
    assert stream.embed(token_batch(3, [6])).shape == (1, 6, 8)
