"""Tokens of an autoencoder are what diffusers' own network makes, at unit scale, whatever batch they are computed in."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import djepa_tokenizers.network
from djepa.errors import LayoutError, UsageError
from djepa.tokens import Axis, MediaSpec, Sample, TokenBatch
from djepa_tokenizers.autoencoder import Autoencoder
from djepa_tokenizers.latents import latent_space

PICTURES = MediaSpec(3, (Axis("y", "px"), Axis("x", "px")))


def as_latents(tokens, channels=4, patch=1):
    """Latents (c, y, x) of tokens, one value at a time."""
    height, width = tokens.grid
    blocks = tokens.values.reshape(height, width, channels, patch, patch)
    return blocks.permute(2, 0, 3, 1, 4).reshape(channels, height * patch, width * patch)


def keyed(seed=0):
    """Noise whose first row belongs to the first sample, and so on."""
    def noise(width):
        return torch.stack([torch.randn(width, generator=torch.Generator().manual_seed(seed + row)) for row in range(8)])

    return noise


@pytest.mark.parametrize("patch", [1, 2])
def test_tokens_are_the_scaled_mode_in_patches(autoencoder, network, picture, patch):
    sample = picture(16, 24)
    tokens = autoencoder(patch=patch).encode(sample)
    assert tokens.grid == (8 // patch, 12 // patch) and (tokens.meta, tokens.modality) == (sample.meta, "image")
    mode = network.encode(sample.data[None]).latent_dist.mode()[0]
    assert torch.allclose(as_latents(tokens, patch=patch), (mode - 0.25) * 0.5, atol=1e-5)


@pytest.mark.parametrize("patch", [1, {"y": 1, "x": 2}])
def test_samples_are_what_the_decoder_makes_within_bounds(autoencoder, network, picture, patch):
    tokenizer = autoencoder(patch=patch, mean=0.0, std=1.0)
    tokens = tokenizer.encode(picture())
    latents = 6 * network.encode(picture().data[None]).latent_dist.mode()
    sample = tokenizer.decode_batch(TokenBatch.stack([tokens]).with_values(6 * tokens.values[None]))[0]
    expected = network.decode(latents).sample[0]
    assert expected.abs().max() > 1
    assert torch.allclose(sample.data, expected.clamp(-1, 1), atol=1e-4)
    assert (sample.meta, sample.modality) == (picture().meta, "image")


def test_coordinates_are_centres_in_pixels(autoencoder, picture):
    tokens = autoencoder(patch={"y": 4, "x": 2}).encode(picture(16, 8))
    assert tokens.coords.tolist() == [[4.0, 2.0], [4.0, 6.0], [12.0, 2.0], [12.0, 6.0]]
    assert autoencoder().spec.axes == PICTURES.axes and autoencoder().spec.bounds is None


@pytest.mark.parametrize(("shape", "told"), [
    ((3, 0, 16), "sizes start at 1"), ((1, 16, 16), "channels=3"), ((3, 16), "(3, y, x)"), ((3, 4, 16, 16), "(3, y, x)"),
])
def test_shapes_without_tokens_are_refused(autoencoder, shape, told):
    tokenizer = autoencoder(patch=2)
    for refused in (tokenizer.layout, tokenizer.cells, lambda shape: tokenizer.blank(shape, {}),
                    lambda shape: tokenizer.encode(Sample(torch.zeros(shape)))):
        with pytest.raises(LayoutError) as caught:
            refused(shape)
        assert told in str(caught.value)


def test_a_grey_stream_is_refused(config):
    with pytest.raises(LayoutError, match=r"\(3, y, x\).*channels=3"):
        Autoencoder(MediaSpec(1, PICTURES.axes), config=config()).layout((1, 16, 16))


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("attention", [False, True])
def test_strides_of_the_configuration_are_those_of_the_network(config, levels, attention):
    from diffusers import AutoencoderKL

    last = "AttnDownEncoderBlock2D" if attention else "DownEncoderBlock2D"
    given = config(levels, down_block_types=["DownEncoderBlock2D"] * (levels - 1) + [last])
    space = latent_space(given)
    with torch.device("meta"):
        found = AutoencoderKL.from_config(given).encode(torch.zeros(1, 3, 32, 64)).latent_dist.mean
    assert found.shape[1:] == (space.channels, 32 // space.strides[0], 64 // space.strides[1])


# Draws ----------------------------------------------------------------------------------------------------------------------


def test_with_noise_latents_are_drawn(autoencoder, network, picture):
    samples = [picture(seed=seed) for seed in range(3)]
    drawn = autoencoder().encode_batch(samples, keyed())
    found = network.encode(torch.stack([sample.data for sample in samples])).latent_dist
    noise = keyed()(4 * 8 * 8)[:3].view(3, 4, 8, 8)
    expected = (found.mean + (0.5 * found.logvar).exp() * noise - 0.25) * 0.5
    assert (found.logvar.exp() > 0.01).all()
    for tokens, latents in zip(drawn, expected, strict=True):
        assert torch.allclose(as_latents(tokens), latents, atol=1e-5)


def test_the_mode_is_drawn_by_nobody(autoencoder, picture):
    samples = [picture(), picture(seed=1)]
    for tokenizer, noise in ((autoencoder(posterior="mode"), keyed()), (autoencoder(), None)):
        values = tokenizer.encode_batch(samples, noise).values
        assert torch.allclose(values[1], autoencoder().encode(samples[1]).values, atol=1e-5)


def test_a_sample_is_the_same_in_any_company(autoencoder, picture, monkeypatch):
    """Alone, among others of its shape, among others of other shapes, and cut into parts that fit the memory."""
    samples = [picture(16, 16), picture(8, 24, seed=1), picture(16, 16, seed=2), picture(8, 24, seed=3)]
    tokenizer = autoencoder()
    together = tokenizer.encode_batch(samples, keyed())
    decoded = tokenizer.decode_batch(together)
    monkeypatch.setattr(djepa_tokenizers.network, "PLACES_AT_A_TIME", 1)
    for row, (sample, tokens, back) in enumerate(zip(samples, together, decoded, strict=True)):
        alone = tokenizer.encode_batch([sample], lambda width, row=row: keyed()(width)[row : row + 1])
        assert tokens.grid == alone.grids[0] and tokens.meta == sample.meta
        assert torch.allclose(tokens.values, alone.values[0], atol=1e-5) and torch.equal(tokens.coords, alone.coords[0])
        assert torch.allclose(back.data, tokenizer.decode(tokens).data, atol=1e-5)
    again = tokenizer.encode_batch([samples[0], samples[2]])
    assert torch.allclose(again.values[1], tokenizer.encode(samples[2]).values, atol=1e-5)


def test_encoding_is_pure(autoencoder, picture, untouched_generator):
    sample, tokenizer = picture(), autoencoder()
    before = sample.data.clone()
    assert torch.equal(tokenizer.encode(sample).values, tokenizer.encode(sample).values)
    assert torch.equal(sample.data, before)


@pytest.fixture
def untouched_generator():
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


def test_precision_and_gradients_around_it_do_not_matter(autoencoder, picture):
    tokenizer, sample = autoencoder(), picture()
    plain = tokenizer.encode(sample)
    sample.data.requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        inside = tokenizer.encode(sample)
        back = tokenizer.decode(inside)
    assert torch.equal(inside.values, plain.values) and inside.values.dtype == back.data.dtype == torch.float32
    assert torch.equal(back.data, tokenizer.decode(plain).data)
    assert not inside.values.requires_grad and not back.data.requires_grad


def test_a_first_use_in_inference_mode_is_not_the_last(autoencoder, picture):
    tokenizer = autoencoder()
    with torch.inference_mode():
        first = tokenizer.encode(picture()).values
    assert torch.equal(tokenizer.to(torch.device("cpu")).encode(picture()).values, first)


# Scale ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("known", "mean", "std"), [
    ({"scaling_factor": 0.18215, "shift_factor": None}, [0.0] * 4, [1 / 0.18215] * 4),
    ({"scaling_factor": 0.5, "shift_factor": 0.25}, [0.25] * 4, [2.0] * 4),
    ({"latents_mean": [1, 2, 3, 4], "latents_std": [5, 6, 7, 8]}, [1, 2, 3, 4], [5, 6, 7, 8]),
    ({"latents_mean": [1, 2, 3, 4], "latents_std": None}, [0.25] * 4, [2.0] * 4),
])
def test_the_configuration_says_the_scale(config, known, mean, std):
    options = Autoencoder(PICTURES, config=config(**known)).options()
    assert (options["mean"], options["std"]) == (mean, std)


def test_options_go_before_the_configuration(autoencoder):
    options = autoencoder(mean=0.5, std=[1, 2, 3, 4]).options()
    assert (options["mean"], options["std"]) == ([0.5] * 4, [1, 2, 3, 4])


def test_an_unknown_scale_is_measured(own_autoencoder, autoencoder, picture):
    path = own_autoencoder / "config.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in stored.items() if key != "scaling_factor"}))
    samples = [picture(16, 16, seed) for seed in range(3)] + [picture(8, 8, 7)]
    rough = autoencoder(source=str(own_autoencoder))
    assert rough.options()["mean"] is rough.options()["std"] is None
    fitted = rough.measured(iter(samples))
    latents = torch.cat([as_latents(fitted.encode(sample)).flatten(1) for sample in samples], dim=1)
    assert latents.mean(1).abs().max() < 1e-4 and (latents.std(1, correction=0) - 1).abs().max() < 1e-4
    fitted.save_assets(own_autoencoder)  # nobody shall take diffusers' default for what was measured
    assert json.loads(path.read_text())["scaling_factor"] is None
    with pytest.raises(UsageError, match="no samples"):
        rough.measured([])
    with pytest.raises(UsageError, match="not finite"):
        rough.measured([Sample(torch.full((3, 8, 8), torch.nan))])


def test_a_known_scale_is_kept(autoencoder, picture):
    tokenizer = autoencoder()
    assert tokenizer.measured([picture()]) is tokenizer


# Settings -------------------------------------------------------------------------------------------------------------------


def test_options_rebuild_the_tokenizer_without_its_folder(autoencoder, picture, tmp_path):
    tokenizer = autoencoder(patch={"y": 1, "x": 2}, posterior="mode", tile=8, mean=[1, 2, 3, 4], std=2)
    tokenizer.save_assets(tmp_path)
    options = json.loads(json.dumps(tokenizer.options()))
    rebuilt = Autoencoder(PICTURES, **{**options, "source": "/nowhere"})
    assert rebuilt.options() == {**options, "source": "/nowhere"} and rebuilt.layout((3, 8, 8)) == (4, 2)
    rebuilt.load_assets(tmp_path)
    assert torch.equal(rebuilt.encode(picture()).values, tokenizer.encode(picture()).values)


@pytest.mark.parametrize(("options", "told"), [
    ({"source": None}, "a source"), ({"posterior": "mean"}, "'mean'"), ({"mean": 1.0}, "both mean and std"),
    ({"mean": [1.0], "std": [1.0]}, "4 channels"), ({"mean": 0, "std": 0}, "above 0"), ({"patch": 0}, "at least 1"),
    ({"patch": {"z": 1}}, "'z'"), ({"tile": 2}, "twice"), ({"tile": 9}, "multiple"),
    ({"config": {"_class_name": "AutoencoderKLL"}}, "Did you mean 'AutoencoderKL'"), ({"config": {"_class_name": [1]}}, "[1]"),
    ({"config": {"latent_channels": "4"}}, "'4'"), ({"config": {"in_channels": 1}}, "out_channels"),
    ({"config": {"block_out_channels": 64}}, "64"), ({"config": {"scaling_factor": 0}}, "scaling_factor"),
    ({"config": {"latents_mean": [1], "latents_std": [1]}}, "4 channels"), ({"config": {"act_fn": torch.nn.SiLU}}, "plain"),
])
def test_settings_that_cannot_be_say_so(autoencoder, options, told):
    with pytest.raises(UsageError) as caught:
        autoencoder(**options)
    assert told in str(caught.value)


def test_samples_of_other_axes_are_refused(config):
    with pytest.raises(UsageError, match="2 axes"):
        Autoencoder(MediaSpec(3, (Axis("t", "s", "fps"), *PICTURES.axes)), config=config())


def test_specification_and_layout_need_no_network(config):
    code = ("import sys, json; from djepa_tokenizers.autoencoder import Autoencoder; from djepa.tokens import Axis, MediaSpec\n"
            "made = Autoencoder(MediaSpec(3, (Axis('y', 'px'), Axis('x', 'px'))), config=json.loads(sys.argv[1]))\n"
            "print(made.spec.width, made.layout((3, 8, 8)), 'diffusers' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code, json.dumps(config())], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.stdout == "4 (4, 4) False\n", done.stderr


@given(st.integers(1, 400), st.integers(1, 4), st.integers(1, 4))
def test_a_layout_is_the_size_in_tokens_rounded_up(size, levels, patch):
    tokenizer = Autoencoder(PICTURES, config={"block_out_channels": [32] * levels}, patch=patch)
    cell = patch * 2 ** (levels - 1)
    assert tokenizer.layout((3, size, cell)) == (math.ceil(size / cell), 1)
    assert tokenizer.cells((3, size, cell))["y"].tolist() == [step // cell for step in range(size)]
