"""Operations that insist on torch's global generator, as a function of seed and purpose."""

import pytest
import torch

from djepa.random import seeded


def drawn(*key):
    with seeded(*key):
        return torch.nn.functional.dropout(torch.ones(1000), 0.5)


def test_the_same_key_gives_the_same_numbers_whatever_came_before():
    first = drawn(3, "dropout", 7)
    torch.rand(5)
    assert torch.equal(drawn(3, "dropout", 7), first)


@pytest.mark.parametrize("other", [(4, "dropout", 7), (3, "dropout", 8), (3, "initialization", 7), (3, "dropout"),
                                   (3, "dropout", "7")])
def test_another_key_gives_other_numbers(other):
    assert not torch.equal(drawn(*other), drawn(3, "dropout", 7))


@pytest.mark.parametrize("seed", [0, 2**63 - 1, 2**64 - 1, -1])
def test_any_whole_number_is_a_seed(seed):
    assert torch.equal(drawn(seed, "x"), drawn(seed, "x"))


def test_nothing_outside_can_tell(untouched):
    drawn(0, "x")
    with pytest.raises(KeyError), seeded(0, "x"):
        torch.rand(3)
        raise KeyError


def test_blocks_inside_of_blocks_do_not_disturb_each_other():
    with seeded(0, "outer"):
        alone = torch.rand(2), torch.rand(2)
    with seeded(0, "outer"):
        first = torch.rand(2)
        drawn(0, "inner")
        assert torch.equal(first, alone[0]) and torch.equal(torch.rand(2), alone[1])


@pytest.mark.gpu
def test_devices_are_seeded_and_put_back_too():
    before = torch.cuda.get_rng_state()
    draws = []
    for _ in range(2):
        with seeded(0, "x"):
            draws.append(torch.rand(5, device="cuda"))
    assert torch.equal(*draws) and torch.equal(torch.cuda.get_rng_state(), before)
