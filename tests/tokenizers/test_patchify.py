"""Patchify: lossless, over any number of axes, with a fixed order of tokens and channels."""

import itertools
import json
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from djepa.errors import LayoutError, UsageError
from djepa.tokens import Axis, MediaSpec, Sample, TokenBatch
from djepa_tokenizers.patchify import MIN_STD, Patchify

PICTURE = (Axis("y", "px"), Axis("x", "px"))
CLIP = (Axis("t", "s", "fps"), *PICTURE)
NAMES = ("t", "z", "y", "x")


@st.composite
def tokenizers(draw):
    """A tokenizer with random axes, patches and statistics, and a shape it divides."""
    rank, channels = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    sizes = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    patch, grid = draw(sizes), draw(sizes)
    names = NAMES[-rank:]
    media = MediaSpec(channels, tuple(Axis(name, "px") for name in names))
    stats = {}
    if draw(st.booleans()):
        number = st.lists(st.floats(-2, 2), min_size=channels, max_size=channels)
        stats = {"mean": draw(number), "std": [0.1 + abs(item) for item in draw(number)]}
    tokenizer = Patchify(media, patch=dict(zip(names, patch, strict=True)), **stats)
    return tokenizer, (channels, *(g * p for g, p in zip(grid, patch, strict=True)))


def noise(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def reference_tokens(tokenizer, data):
    """The documented order, one value at a time."""
    grid = tokenizer.layout(tuple(data.shape))
    mean = tokenizer.mean or [0.0] * len(data)
    std = tokenizer.std or [1.0] * len(data)
    tokens = []
    for cell in itertools.product(*map(range, grid)):
        token = []
        for channel in range(len(data)):
            for inside in itertools.product(*map(range, tokenizer.patch)):
                place = tuple(c * p + i for c, p, i in zip(cell, tokenizer.patch, inside, strict=True))
                token.append((data[channel][place].item() - mean[channel]) / std[channel])
        tokens.append(token)
    return torch.tensor(tokens)


@settings(deadline=None, max_examples=60)
@given(tokenizers())
def test_values_follow_the_documented_order(case):
    tokenizer, shape = case
    data = noise(shape)
    torch.testing.assert_close(tokenizer.encode(Sample(data)).values, reference_tokens(tokenizer, data),
                               rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=100)
@given(tokenizers(), st.integers(0, 1000))
def test_decode_undoes_encode(case, seed):
    tokenizer, shape = case
    sample = Sample(noise(shape, seed), {"note": "kept"}, "image")
    before = sample.data.clone()
    back = tokenizer.decode(tokenizer.encode(sample))
    torch.testing.assert_close(back.data, before, rtol=1e-6, atol=1e-6)
    assert (back.meta, back.modality) == (sample.meta, "image")
    assert torch.equal(sample.data, before)


@settings(deadline=None, max_examples=100)
@given(tokenizers(), st.integers(1, 4))
def test_layout_spec_and_encode_agree(case, seed):
    tokenizer, shape = case
    tokens = tokenizer.encode(Sample(noise(shape, seed)))
    assert tokens.grid == tokenizer.layout(shape)
    assert tokens.values.shape == (math.prod(tokens.grid), tokenizer.spec.width)
    assert tokens.coords.shape == (math.prod(tokens.grid), len(tokenizer.spec.axes))
    low, high = tokenizer.spec.bounds
    assert bool(((tokens.values >= low) & (tokens.values <= high)).all())


@settings(deadline=None, max_examples=60)
@given(tokenizers(), st.integers(1, 4))
def test_a_batch_is_its_items(case, size):
    tokenizer, shape = case
    samples = [Sample(noise(shape, seed), {"number": seed}, "image") for seed in range(size)]
    batch, stacked = tokenizer.encode_batch(samples), TokenBatch.stack([tokenizer.encode(s) for s in samples])
    for name in ("values", "coords", "valid"):
        assert torch.equal(getattr(batch, name), getattr(stacked, name))
    assert (batch.grids, batch.metas, batch.modality) == (stacked.grids, stacked.metas, stacked.modality)
    for decoded, item in zip(tokenizer.decode_batch(batch), batch, strict=True):
        single = tokenizer.decode(item)
        assert torch.equal(decoded.data, single.data)
        assert (decoded.meta, decoded.modality) == (single.meta, single.modality)


@settings(deadline=None, max_examples=30)
@given(tokenizers())
def test_coordinates_come_from_the_grid_alone(case):
    tokenizer, shape = case
    first, second = (tokenizer.encode(Sample(noise(shape, seed))).coords for seed in (1, 2))
    assert torch.equal(first, second)
    centres = torch.tensor([[(c + 0.5) * p for c, p in zip(cell, tokenizer.patch, strict=True)]
                            for cell in itertools.product(*map(range, tokenizer.layout(shape)))])
    torch.testing.assert_close(first, centres)


def test_samples_of_different_sizes_and_rates_share_a_batch():
    tokenizer = Patchify(MediaSpec(1, CLIP), patch={"t": 2, "y": 4, "x": 4})
    samples = [Sample(noise((1, 4, 8, 8)), {"fps": 8}), Sample(noise((1, 2, 4, 8)), {"fps": 4})]
    batch = tokenizer.encode_batch(samples)
    assert batch.valid.sum(1).tolist() == [8, 2]
    for sample, back in zip(samples, tokenizer.decode_batch(batch), strict=True):
        torch.testing.assert_close(back.data, sample.data)
    same_size = tokenizer.encode_batch([samples[0], Sample(samples[0].data, {"fps": 16})])
    assert same_size.coords[0, 0].tolist() == [0.125, 2.0, 2.0]
    assert same_size.coords[1, 0].tolist() == [0.0625, 2.0, 2.0]


def test_a_sample_without_the_rate_of_its_axis_is_refused():
    with pytest.raises(UsageError, match="fps"):
        Patchify(MediaSpec(1, CLIP)).encode(Sample(noise((1, 2, 4, 4))))


@given(st.integers(2, 9), st.integers(1, 60))
def test_a_size_that_does_not_divide_names_the_nearest_that_do(patch, size):
    tokenizer = Patchify(MediaSpec(1, PICTURE), patch={"x": patch})
    if size % patch == 0:
        assert tokenizer.layout((1, 5, size)) == (5, size // patch)
        return
    with pytest.raises(LayoutError) as caught:
        tokenizer.layout((1, 5, size))
    works = [number for number in range(1, size + 2 * patch) if number % patch == 0]
    nearest = sorted(sorted(works, key=lambda number: abs(number - size))[:2])
    for word in ("'x'", str(size), str(patch), f"{nearest[0]} and {nearest[1]}"):
        assert word in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 4, 4), (3, 4, 4), (), (1, 0, 4)])
def test_a_shape_of_another_kind_is_refused(shape):
    with pytest.raises(LayoutError):
        Patchify(MediaSpec(1, PICTURE)).layout(shape)


def test_tokens_of_another_tokenizer_are_refused():
    tokens = Patchify(MediaSpec(1, PICTURE), patch=2).encode(Sample(noise((1, 4, 4))))
    with pytest.raises(LayoutError, match="16 channels"):
        Patchify(MediaSpec(1, PICTURE), patch=4).decode(tokens)


def test_an_unknown_axis_is_refused_with_a_suggestion():
    with pytest.raises(UsageError, match="Did you mean 'mel'"):
        Patchify(MediaSpec(1, (Axis("t", "s"), Axis("mel", "bin"))), patch={"mell": 4})


@pytest.mark.parametrize("options", [
    {"patch": 0}, {"patch": {"y": -2}}, {"patch": {"y": 1.5}}, {"patch": True}, {"mean": 0.0}, {"std": 1.0},
    {"mean": [0.0, 0.0], "std": 1.0}, {"mean": 0.0, "std": 0.0}, {"mean": 0.0, "std": -1.0},
    {"mean": math.nan, "std": 1.0}, {"mean": 0.0, "std": math.inf}, {"mean": "a", "std": 1.0},
])
def test_settings_that_cannot_be_are_refused(options):
    with pytest.raises(UsageError):
        Patchify(MediaSpec(1, PICTURE), **options)


def test_one_number_stands_for_every_axis_and_channel():
    short = Patchify(MediaSpec(3, PICTURE), patch=2, mean=0.5, std=2.0)
    long = Patchify(MediaSpec(3, PICTURE), patch={"y": 2, "x": 2}, mean=[0.5] * 3, std=[2.0] * 3)
    assert short.options() == long.options() == {"patch": {"y": 2, "x": 2}, "mean": [0.5] * 3, "std": [2.0] * 3}


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.floats(-1e4, 1e4), st.floats(0.01, 100.0))
def test_measured_tokens_have_unit_scale(count, offset, spread):
    samples = [Sample(noise((2, 4, 4 + 2 * seed), seed) * spread + offset) for seed in range(count)]
    tokenizer = Patchify(MediaSpec(2, PICTURE, bounds=None), patch=2).measured(iter(samples))
    everything = torch.cat([sample.data.double().flatten(1) for sample in samples], dim=1)
    torch.testing.assert_close(torch.tensor(tokenizer.mean).double(), everything.mean(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.tensor(tokenizer.std).double(), everything.std(1, unbiased=False),
                               rtol=1e-6, atol=1e-6)
    values = torch.cat([tokenizer.encode(sample).values for sample in samples])
    assert abs(values.mean().item()) < 1e-3 + 1e-6 * abs(offset) / spread
    assert tokenizer.spec.bounds is None
    assert tokenizer.measured(samples[:1]) is tokenizer


def test_a_constant_channel_is_no_trouble():
    sample = Sample(torch.cat([torch.full((1, 4, 4), 0.3), noise((1, 4, 4))]))
    tokenizer = Patchify(MediaSpec(2, PICTURE), patch=2).measured([sample])
    assert tokenizer.std[0] == MIN_STD
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(sample)).data, sample.data)


def test_statistics_need_finite_samples_of_the_right_shape():
    tokenizer = Patchify(MediaSpec(1, PICTURE))
    for samples, words in ([], "no samples"), ([Sample(torch.full((1, 2, 2), math.nan))], "Sample 0"):
        with pytest.raises(UsageError, match=words):
            tokenizer.measured(samples)
    with pytest.raises(LayoutError):
        tokenizer.measured([Sample(noise((3, 2, 2)))])


@pytest.mark.parametrize("measured", [False, True])
def test_options_rebuild_the_tokenizer_even_through_json_and_pickle(measured):
    sample = Sample(noise((2, 8, 8)))
    tokenizer = Patchify(MediaSpec(2, PICTURE), patch={"y": 4})
    if measured:
        tokenizer = tokenizer.measured([sample])
    rebuilt = Patchify(tokenizer.media, **json.loads(json.dumps(tokenizer.options())))
    for other in rebuilt, pickle.loads(pickle.dumps(tokenizer)):
        assert other.options() == tokenizer.options()
        assert torch.equal(other.encode(sample).values, tokenizer.encode(sample).values)


def test_half_precision_tokens_decode_to_float32():
    tokenizer = Patchify(MediaSpec(1, PICTURE), patch=2, mean=0.1, std=0.5)
    batch = tokenizer.encode_batch([Sample(noise((1, 4, 4)))])
    decoded = tokenizer.decode_batch(batch.with_values(batch.values.bfloat16()))[0]
    assert decoded.data.dtype == torch.float32
