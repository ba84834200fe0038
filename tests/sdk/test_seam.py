"""Where what is kept meets what is generated: kept exactly, no step beyond those there are, nothing changed far away."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from djepa.seam import _nearest, _steps_away, joined

SHAPES = st.sampled_from([(1,), (7,), (1, 5), (4, 6), (3, 4, 5)])


@st.composite
def masks(draw):
    shape = draw(SHAPES)
    seed, share = draw(st.integers(0, 999)), draw(st.sampled_from([0.05, 0.3, 0.9]))
    keep = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share
    return keep, tuple(draw(st.integers(1, 5)) for _ in shape)


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def halves(shape, axis, size, *, backwards=False):
    keep = (torch.arange(shape[axis]) < size).view([-1 if index == axis else 1 for index in range(len(shape))]).expand(shape)
    return keep.flip(axis) if backwards else keep


@given(masks())
def test_the_nearest_is_found_by_going_along_the_axes_one_by_one(case):
    keep, reach = case
    nearest = _nearest(keep, reach)
    kept = list(itertools.compress(itertools.product(*map(range, keep.shape)), keep.flatten().tolist()))
    for number, place in enumerate(itertools.product(*map(range, keep.shape))):
        ways = {other: sum(abs(a - b) / steps for a, b, steps in zip(place, other, reach, strict=True)) for other in kept}
        if kept:
            found = tuple(int(index) for index in torch.unravel_index(nearest.flatten()[number], keep.shape))
            assert ways[found] == pytest.approx(min(ways.values()), abs=1e-9)


@given(masks(), st.integers(0, 99))
def test_what_is_kept_is_exact_and_what_is_far_is_as_decoded(case, seed):
    keep, reach = case
    decoded, original = noise(2, *keep.shape, seed=seed), noise(2, *keep.shape, seed=seed + 100)
    result = joined(decoded, original, keep, reach)
    assert torch.equal(result[:, keep], original[:, keep]) and bool(result.isfinite().all())
    away = _steps_away(_nearest(keep, reach))
    far = sum((steps - 1).clamp(min=0) / one for steps, one in zip(away, reach, strict=True)) >= 1
    far = far | ~keep.any()
    assert torch.equal(result[:, far & ~keep], decoded[:, far & ~keep])


@given(masks(), st.integers(0, 99))
def test_where_the_decoder_is_right_nothing_changes(case, seed):
    keep, reach = case
    decoded = noise(2, *keep.shape, seed=seed)
    original = torch.where(keep, decoded, noise(2, *keep.shape, seed=seed + 1))
    torch.testing.assert_close(joined(decoded, original, keep, reach), decoded)


@given(masks(), st.floats(-1, 1))
def test_a_level_that_is_off_is_made_up_for_beside_the_seam_and_fades(case, level):
    keep, reach = case
    decoded = noise(2, *keep.shape)
    change = joined(decoded, decoded + level, keep, reach) - decoded
    beside = sum((steps - 1).clamp(min=0) for steps in _steps_away(_nearest(keep, reach))) == 0
    torch.testing.assert_close(change[:, beside & keep.any()], torch.full_like(change[:, beside & keep.any()], level))
    assert bool((change.abs() <= abs(level) + 1e-5).all())


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("axis", "reach"), [(0, (4, 8, 8)), (1, (1, 5, 3)), (2, (2, 1, 8))])
def test_detail_that_stays_goes_on_over_the_seam(axis, reach, backwards):
    """Steps over it are the decoder's own, and the correction becomes less with every step."""
    keep = halves((12, 12, 12), axis, 6, backwards=backwards)
    decoded, detail = noise(3, 12, 12, 12), noise(3, *(1 if index == axis else 12 for index in range(3)), seed=1)
    result = joined(decoded, decoded + detail, keep, reach)
    torch.testing.assert_close(*(data.diff(dim=axis + 1).select(axis + 1, 5) for data in (result, decoded)))
    change = (result - decoded).abs()
    beyond = (change.flip(axis + 1) if backwards else change).narrow(axis + 1, 6, 6)
    assert bool((beyond.diff(dim=axis + 1) <= 1e-6).all())


def test_detail_that_is_new_with_every_step_leaves_no_ghost():
    keep = halves((16, 24, 24), 0, 8)
    decoded, detail = noise(3, 16, 24, 24), noise(3, 16, 24, 24, seed=1)
    change = joined(decoded, decoded + detail, keep, (4, 8, 8))[:, 8] - decoded[:, 8]
    assert float(change.square().mean()) < 0.05 * float(detail.square().mean())


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_errors_step_over_the_seam_no_more_than_where_all_is_known(correlation):
    generator, steps = torch.Generator().manual_seed(0), [torch.zeros(3, 32, 32)]
    for _ in range(16):
        steps.append(correlation * steps[-1] + (1 - correlation**2) ** 0.5 * torch.randn(3, 32, 32, generator=generator))
    error, decoded = torch.stack(steps[1:], dim=1), noise(3, 16, 32, 32)
    left = decoded + error - joined(decoded, decoded + error, halves((16, 32, 32), 0, 8), (4, 8, 8))
    over_the_seam = (error - left)[:, 8] - error[:, 7]  # of what is made up for
    assert float(over_the_seam.square().mean()) <= float(error[:, :8].diff(dim=1).square().mean())
    if correlation:
        assert float(over_the_seam.square().mean()) < 0.6 * float(error[:, 7].square().mean())
