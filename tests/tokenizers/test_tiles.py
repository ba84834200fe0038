"""Tiles: exact where a function looks no further than one cell, close away from seams elsewhere, and small in memory."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from djepa_tokenizers.tiles import tiled


@st.composite
def layouts(draw):
    """Cells of the whole and of a tile along up to three axes, and the size of a cell before and after."""
    rank = draw(st.integers(1, 3))
    sizes = [st.lists(st.integers(low, high), min_size=rank, max_size=rank)
             for low, high in ((1, 9), (2, 5), (1, 3), (1, 3))]
    return [draw(size) for size in sizes]


@given(layouts())
def test_a_function_of_single_cells_is_the_same_in_tiles(layout):
    grid, tile, taken, given = layout
    data = torch.rand(2, 3, *(count * step for count, step in zip(grid, taken, strict=True)),
                      generator=torch.Generator().manual_seed(0))

    def function(part):
        for axis, (before, after) in enumerate(zip(taken, given, strict=True), start=2):
            part = part.unflatten(axis, (-1, before)).sum(axis + 1).repeat_interleave(after, axis)
        return torch.cat([part.sin(), part], dim=1)

    seen = []
    result = tiled(lambda part: seen.append(tuple(part.shape[2:])) or function(part), data, tile, taken, given)
    assert torch.allclose(result, function(data), atol=1e-5)
    assert set(seen) == {tuple(min(most, count) * step for most, count, step in zip(tile, grid, taken, strict=True))}


def test_seams_are_blended():
    """Two tiles that disagree fade into each other: no step is larger than the fading allows."""
    values = iter([0.0, 1.0])
    result = tiled(lambda part: torch.full_like(part, next(values)), torch.zeros(1, 1, 28), (16,), (1,), (1,))[0, 0]
    assert torch.equal(result[:12], torch.zeros(12)) and torch.equal(result[16:], torch.ones(12))
    assert result.diff().min() >= 0 and result.diff().max() <= 1 / 4 + 1e-6


def test_a_function_that_looks_around_is_the_same_away_from_seams():
    data = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    kernel = torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(1))

    def blur(part):
        return functional.conv2d(part, kernel, padding=1)

    away = (tiled(blur, data, (16, 16), (1, 1), (1, 1)) - blur(data)).abs()[0, 0]
    ends = [place for start in (0, 12, 24) for place in (start, start + 15) if 0 < place < 39]  # what lies at a tile's end
    inner = [place for place in range(40) if place not in ends]
    assert away[inner][:, inner].max() < 1e-5 < away[ends].max()


def activations(tokenizer, sample):
    """What encoding and decoding a sample gives, and the largest tensor that a layer made on the way."""
    largest = [0]
    tokenizer.encode(sample)
    hooks = [layer.register_forward_hook(lambda layer, given, made: largest.append(made.numel()))
             for layer in tokenizer._network._module.modules() if isinstance(layer, torch.nn.Conv2d)]
    tokens = tokenizer.encode(sample)
    back = tokenizer.decode(tokens)
    for hook in hooks:
        hook.remove()
    return tokens, back, max(largest)


def test_a_tiled_round_trip_is_close_and_takes_less_memory(autoencoder, picture):
    """On a picture that repeats itself: what the norms see in a tile is then nearly what they see in the whole."""
    sample = picture(16, 16)
    sample.data = sample.data.repeat(1, 9, 7)
    tokens, back, most = activations(autoencoder(), sample)
    apart = {}
    for tile in (32, 64, 96):
        found, returned, largest = activations(autoencoder(tile=tile), sample)
        assert found.grid == tokens.grid and torch.equal(found.coords, tokens.coords)
        assert largest == most * tile * tile // (144 * 112)
        apart[tile] = ((found.values - tokens.values).abs().mean() / tokens.values.std(),
                       (returned.data - back.data).abs().mean() / back.data.std())
    assert apart[32] > apart[64] > apart[96]
    assert apart[96][0] < 0.05 and apart[96][1] < 0.15  # layers that sample and norm drew at random exaggerate


@pytest.mark.parametrize("size", [(16, 64), (64, 16)])
def test_only_what_is_larger_is_cut(autoencoder, picture, size):
    tokens, _, most = activations(autoencoder(tile=16), picture(*size))
    assert tokens.grid == (size[0] // 2, size[1] // 2)
    assert most == activations(autoencoder(), picture(16, 16))[2]


def test_small_pictures_are_the_same_with_tiles(autoencoder, picture):
    assert torch.equal(autoencoder(tile=16).encode(picture()).values, autoencoder().encode(picture()).values)
