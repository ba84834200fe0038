"""Generation orders, and how many tokens each step reveals."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from djepa.errors import UsageError
from djepa.order import CausalOrder, RandomOrder, RasterOrder, hidden_after, hide_last, ranks
from djepa.random import Draws
from djepa.tokenizer import grid_coords

AXES = ("t", "y", "x")


def grid(*sizes):
    """Coordinates (n, a) of a grid, row-major."""
    return torch.cartesian_prod(*(torch.arange(size, dtype=torch.float32) for size in sizes)).view(-1, len(sizes))


def orders_of(order, coords, rows=4, seed=0, axes=AXES):
    return order.permutations(Draws(seed, "order"), torch.arange(rows), coords.expand(rows, -1, -1), axes[: coords.shape[1]])


@pytest.mark.parametrize("order", [RandomOrder(), RasterOrder(), CausalOrder(axis="t"), CausalOrder(axis="x")])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 2, 4), (5, 1, 1)])
def test_orders_are_permutations(order, sizes):
    orders = orders_of(order, grid(*sizes))
    assert (orders.sort(dim=1).values == torch.arange(math.prod(sizes))).all()


def test_random_orders_are_uniform():
    orders = RandomOrder().permutations(Draws(0, "order"), torch.arange(6000), torch.zeros(6000, 3, 1), ("x",))
    counts = [int((orders == torch.tensor(way)).all(dim=1).sum()) for way in itertools.permutations(range(3))]
    assert sum(counts) == 6000
    assert sum((count - 1000) ** 2 / 1000 for count in counts) < 20  # chi-squared, 5 degrees of freedom


def test_an_order_belongs_to_its_sample_and_seed():
    coords = grid(4, 4)
    together, other = orders_of(RandomOrder(), coords), orders_of(RandomOrder(), coords, seed=1)
    alone = RandomOrder().permutations(Draws(0, "order"), torch.tensor([2]), coords[None], ("y", "x"))
    assert torch.equal(together[2], alone[0])
    assert not torch.equal(together[2], together[1]) and not torch.equal(together, other)


def test_raster_is_the_layout():
    assert orders_of(RasterOrder(), grid(2, 3)).tolist() == [list(range(6))] * 4


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("steps", [(1.0, 1.0, 1.0), (4 / 29.97, 0.1, 1e-3)])
def test_a_causal_order_follows_its_axis_and_is_random_beside_it(axis, steps):
    coords, index = grid_coords((3, 2, 4), steps), AXES.index(axis)
    orders = orders_of(CausalOrder(axis=axis), coords, rows=50)
    cells = grid(3, 2, 4)[:, index][orders]
    assert torch.equal(cells, cells.sort(dim=1).values)  # whole groups one after the other, whatever the unit
    for group in orders.split(24 // (3, 2, 4)[index], dim=1):
        assert len({tuple(row) for row in group.tolist()}) > 40   # 6, 8 or 12 tokens in random order


@pytest.mark.parametrize("count", [1, 8, 11, 16, 24])
def test_what_a_causal_order_hides_may_begin_inside_a_group(count):
    """The last groups are hidden whole, and of the one before them some tokens, other ones in other samples."""
    orders = orders_of(CausalOrder(axis="t"), grid_coords((3, 2, 4), (1 / 29.97, 4.0, 4.0)), rows=50)
    hidden = hide_last(orders, torch.ones(50, 24, dtype=torch.bool), torch.full((50,), count)).view(50, 3, 8)
    wanted = [min(max(count - 8 * later, 0), 8) for later in (2, 1, 0)]
    assert hidden.sum(dim=2).tolist() == [wanted] * 50
    for number, group in zip(wanted, hidden.unbind(dim=1), strict=True):
        assert number in (0, 8) or len({tuple(row) for row in group.tolist()}) > 4


def test_a_causal_order_along_an_axis_that_is_missing_is_refused():
    with pytest.raises(UsageError, match=r"needs the axis 'time', which these tokens lack. .*Known: t, x, y"):
        orders_of(CausalOrder(axis="time"), grid(2, 2, 2))


@st.composite
def ordered(draw):
    """Orders of some samples and which of their tokens count."""
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    order = torch.tensor([draw(st.permutations(range(columns))) for _ in range(rows)])
    eligible = torch.tensor([draw(st.lists(st.booleans(), min_size=columns, max_size=columns)) for _ in range(rows)])
    return order, eligible


@settings(max_examples=60)
@given(ordered())
def test_ranks_count_the_eligible_tokens_along_the_order(case):
    order, eligible = case
    wanted = torch.full(order.shape, -1)
    for row, positions in enumerate(order.tolist()):
        for rank, position in enumerate([position for position in positions if eligible[row, position]]):
            wanted[row, position] = rank
    assert torch.equal(ranks(order, eligible), wanted)


@settings(max_examples=60)
@given(ordered(), st.data())
def test_the_last_of_the_eligible_tokens_are_hidden(case, data):
    order, eligible = case
    counts = [data.draw(st.integers(0, int(row.sum()))) for row in eligible]
    hidden = hide_last(order, eligible, torch.tensor(counts))
    for row, positions in enumerate(order.tolist()):
        walked = [position for position in positions if eligible[row, position]]
        assert set(hidden[row].nonzero().flatten().tolist()) == set(walked[len(walked) - counts[row]:])


def test_ranks_take_orders_that_share_memory():
    order = RasterOrder().permutations(Draws(0), torch.arange(3), torch.zeros(3, 4, 1), ("x",))
    assert ranks(order, torch.ones(3, 4, dtype=torch.bool)).tolist() == [[0, 1, 2, 3]] * 3


def plain_hidden_after(num_tokens, num_steps):
    """The rule in words: floor(N cos), at least 1 and at most one fewer than now; nothing is left after the last step."""
    sequence, now = [], num_tokens
    for step in range(num_steps):
        if step == num_steps - 1:
            now = 0
        elif now > 1:
            now = min(max(math.floor(num_tokens * math.cos(math.pi / 2 * (step + 1) / num_steps)), 1), now - 1)
        sequence.append(now)
    return sequence


@pytest.mark.parametrize(("num_tokens", "num_steps", "hidden"), [
    (16, 4, [14, 11, 6, 0]),
    (4, 4, [3, 2, 1, 0]),
    (5, 1, [0]),
    (2, 5, [1, 1, 1, 1, 0]),   # more steps than tokens: some reveal nothing
    (1, 3, [1, 1, 0]),
    (0, 3, [0, 0, 0]),
    (64, 8, [62, 59, 53, 45, 35, 24, 12, 0]),
])
def test_known_schedules(num_tokens, num_steps, hidden):
    assert hidden_after(num_tokens, num_steps) == hidden == plain_hidden_after(num_tokens, num_steps)


@given(st.integers(0, 600), st.integers(1, 300))
def test_schedules_follow_the_rule(num_tokens, num_steps):
    hidden = hidden_after(num_tokens, num_steps)
    assert hidden == plain_hidden_after(num_tokens, num_steps)
    assert len(hidden) == num_steps and hidden[-1] == 0
    steps = [before - after for before, after in itertools.pairwise([num_tokens, *hidden])]
    assert min(steps) >= 0 and min(hidden) >= 0 and sum(steps) == num_tokens
    if 1 <= num_steps <= num_tokens:
        assert min(steps) >= 1  # no step for nothing
