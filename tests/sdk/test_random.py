"""Randomness is a pure function of seed, purpose, sample and item."""

import numpy as np
import pytest
import torch

from djepa.random import Draws, derive, numpy_generator, philox

KNOWN_ANSWERS = [  # the test vectors published with Random123 for philox4x32, 10 rounds
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, expected):
    words = philox(tuple(torch.tensor([word]) for word in counter), key)
    assert tuple(int(word) for word in words) == expected


def test_a_draw_depends_on_its_sample_and_item_alone():
    draws = Draws(3, "noise")
    together = draws.normal(torch.arange(10)[:, None], torch.arange(7), 5)
    alone = draws.normal(torch.tensor([6]), torch.tensor([4]), 5)
    assert torch.equal(together[6, 4], alone[0])


def test_a_wider_draw_extends_a_narrower_one():
    draws = Draws(0, "noise")
    ids = torch.arange(3)
    assert torch.equal(draws.normal(ids, 0, 9)[:, :4], draws.normal(ids, 0, 4))


@pytest.mark.parametrize("other", [Draws(1, "a"), Draws(0, "b"), Draws(0, "a", 1), Draws(0).within("a", "1")])
def test_another_seed_or_purpose_gives_other_numbers(other):
    ids = torch.arange(100)
    assert not torch.isclose(Draws(0, "a").normal(ids, 0, 4), other.normal(ids, 0, 4)).any(dim=-1).all()


def test_large_and_negative_sample_ids_are_distinct():
    ids = torch.tensor([5, 5 + 2**32, 5 + 2**40, -5])
    words = Draws(0).words(ids, 0, 2)
    assert len({tuple(row.tolist()) for row in words}) == 4


def test_normals_have_the_moments_of_a_normal_distribution():
    z = Draws(0, "moments").normal(torch.arange(1000)[:, None], torch.arange(100), 8).double().flatten()
    moments = [float((z**power).mean()) for power in (1, 2, 3, 4)]
    bounds = [5 * (variance / z.numel()) ** 0.5 for variance in (1, 2, 15, 96)]  # five standard errors
    for moment, expected, bound in zip(moments, (0, 1, 0, 3), bounds, strict=True):
        assert abs(moment - expected) < bound
    pairs = z.view(-1, 8)
    correlation = np.corrcoef(pairs.T.numpy()) - np.eye(8)
    assert np.abs(correlation).max() < 5 / len(pairs) ** 0.5


def test_uniforms_fill_the_unit_interval_evenly():
    u = Draws(0).uniform(torch.arange(4000), 0, 25).flatten()
    assert 0 <= u.min() and u.max() < 1
    counts = torch.histc(u, 50, 0, 1)
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 49 + 5 * (2 * 49) ** 0.5


def test_permutations_are_permutations_and_every_position_is_equally_likely():
    orders = Draws(0).permutations(torch.arange(6000), 5)
    assert torch.equal(orders.sort(dim=-1).values, torch.arange(5).expand(6000, 5))
    first = torch.bincount(orders[:, 0], minlength=5)
    assert (first - 1200).abs().max() < 5 * (6000 * 0.2 * 0.8) ** 0.5


def test_purposes_do_not_run_into_each_other():
    assert derive(1, "a", "b") != derive(1, "a/b") != derive(1, "ab")
    assert derive(1, 2) != derive(1, "2")
    assert numpy_generator(0, "x").random() == numpy_generator(0, "x").random()
