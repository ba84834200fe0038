"""What tokens cover of a sample: all of it, each step once, and no token nothing."""

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from djepa.tokens import Axis
from djepa_tokenizers.cover import Cover, LatentAxis

AXIS = st.integers(1, 12).flatmap(lambda stride: st.builds(LatentAxis, st.just(stride), st.integers(1, stride)))


@given(AXIS, st.integers(1, 5), st.integers(1, 300), st.sampled_from([1.0, 8.0, 44100.0]))
def test_along_one_axis(axis, patch, size, rate):
    cover = Cover((Axis("t", "s", "rate"),), (axis,), (patch,))
    (cells,), steps = cover.grid([size]), torch.arange(size)
    (full,) = cover.sizes([cells])
    # Enough tokens, and not one too many.
    assert full >= size and cover.counts([cells]) == (cells * patch,)
    assert cells == 1 or cover.sizes([cells - 1])[0] < size
    # Every step of the full sample belongs to the token between whose edges it lies; the part that is there likewise.
    edges = axis.edges(cells, patch).tolist()
    assert edges[0] == 0 and edges[-1] == full and all(low < high for low, high in pairwise(edges))
    rows = cover.cells([size])["t"]
    assert all(edges[row] <= step < edges[row + 1] for row, step in zip(rows.tolist(), steps.tolist(), strict=True))
    # The coordinate of a token is the mean of the middles of its steps.
    middles = [(low + high) / 2 / rate for low, high in pairwise(edges)]
    assert torch.allclose(cover.coords([cells], {"rate": rate})[:, 0], torch.tensor(middles))
    # What is padded is the sample, and then its last step.
    data = torch.arange(size, dtype=torch.float32).expand(1, 2, size)
    padded = cover.padded(data)
    assert torch.equal(padded[0, 1], torch.arange(full).clamp(max=size - 1).float())
    assert (padded is data) == (full == size)


@given(AXIS, st.integers(1, 300))
def test_latents_cover_the_fewest_steps_that_hold_a_sample(axis, size):
    count = axis.count(size)
    assert axis.size(count) >= size and (count == 1 or axis.size(count - 1) < size)
    assert axis.count(axis.size(count)) == count


def test_several_axes_are_in_row_major_order():
    cover = Cover((Axis("t", "s", "fps"), Axis("x", "px")), (LatentAxis(4, 1), LatentAxis(2, 2)), (1, 3))
    assert cover.grid([6, 7]) == (3, 2) and cover.sizes([3, 2]) == (9, 12)
    assert cover.coords([3, 2], {"fps": 2.0}).tolist() == [[0.25, 3], [0.25, 9], [1.5, 3], [1.5, 9], [3.5, 3], [3.5, 9]]
    assert cover.padded(torch.zeros(1, 1, 6, 7)).shape == (1, 1, 9, 12)
