"""Every kind of autoencoder there is a tokenizer for: against diffusers' own network, on samples of any size."""

import json
import logging
import math
import os
import subprocess
import sys
import warnings

import pytest
import torch
from torch.nn.functional import pixel_unshuffle

from djepa.errors import LayoutError, UsageError
from djepa.tokens import Axis, Encoded, MediaSpec, Sample, TokenBatch
from djepa_tokenizers.autoencoder import Autoencoder
from djepa_tokenizers.latents import latent_space

AXES = {"t": Axis("t", "s", "fps"), "y": Axis("y", "px"), "x": Axis("x", "px"), "s": Axis("t", "s", "sample_rate")}
MEDIA = {"picture": MediaSpec(3, (AXES["y"], AXES["x"])), "clip": MediaSpec(3, (AXES["t"], AXES["y"], AXES["x"])),
         "sound": MediaSpec(2, (AXES["s"],))}
RATES = {"picture": {}, "clip": {"fps": 8.0}, "sound": {"sample_rate": 44100}}
MEAN, STD = [0.1, -0.2, 0.3, 0.4], [0.5, 1.0, 1.5, 2.0]
LEVELS = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2, "norm_num_groups": 4,
          "block_out_channels": [8, 8], "latent_channels": 4, "layers_per_block": 1, "sample_size": 16}
CLIPS = {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 1], "num_res_blocks": 1, "temperal_downsample": [True, True],
         "latents_mean": MEAN, "latents_std": STD}
# kind: medium, strides, steps of the first latent, channels of a latent, arguments of the class
KINDS = {
    "AutoencoderKL": ("picture", [2, 2], [2, 2], 4, {**LEVELS, "scaling_factor": 0.5, "shift_factor": 0.25}),
    "AutoencoderTiny": ("picture", [4, 4], [4, 4], 4, {
        "encoder_block_out_channels": [4] * 3, "decoder_block_out_channels": [4] * 3, "num_encoder_blocks": [1] * 3,
        "num_decoder_blocks": [1] * 3, "latent_channels": 4, "scaling_factor": 1.0}),
    "AutoencoderDC": ("picture", [4, 4], [4, 4], 4, {
        "latent_channels": 4, "attention_head_dim": 4, "encoder_block_out_channels": [4, 8, 8],
        "decoder_block_out_channels": [4, 8, 8], "encoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"],
        "decoder_block_types": ["ResBlock", "ResBlock", "EfficientViTBlock"], "encoder_layers_per_block": [1] * 3,
        "decoder_layers_per_block": [1] * 3, "encoder_qkv_multiscales": [[], [], [5]],
        "decoder_qkv_multiscales": [[], [], [5]], "scaling_factor": 0.41407}),
    "AutoencoderKLFlux2": ("picture", [4, 4], [4, 4], 16, LEVELS),  # blocks of two by two latents, as Flux.2 takes them
    "AutoencoderKLWan": ("clip", [4, 4, 4], [1, 4, 4], 4, CLIPS),
    "AutoencoderKLQwenImage": ("clip", [4, 4, 4], [1, 4, 4], 4, CLIPS),
    "AutoencoderKLLTXVideo": ("clip", [4, 8, 8], [1, 8, 8], 4, {
        "latent_channels": 4, "block_out_channels": [8, 8], "down_block_types": ["LTXVideoDownBlock3D"] * 2,
        "decoder_block_out_channels": [8, 8], "layers_per_block": [1] * 3, "decoder_layers_per_block": [1] * 3,
        "spatio_temporal_scaling": [True, True], "decoder_spatio_temporal_scaling": [True, True], "patch_size": 2,
        "decoder_inject_noise": [False] * 3, "downsample_type": ["conv"] * 2, "upsample_residual": [False] * 2,
        "upsample_factor": [1] * 2, "timestep_conditioning": True}),
    "AutoencoderKLCogVideoX": ("clip", [4, 4, 4], [1, 4, 4], 4, {
        "block_out_channels": [8] * 3, "down_block_types": ["CogVideoXDownBlock3D"] * 3, "latent_channels": 4,
        "up_block_types": ["CogVideoXUpBlock3D"] * 3, "layers_per_block": 1, "norm_num_groups": 2, "scaling_factor": 0.7}),
    "AutoencoderKLHunyuanVideo": ("clip", [4, 8, 8], [1, 8, 8], 4, {
        "latent_channels": 4, "block_out_channels": [8] * 4, "layers_per_block": 1, "norm_num_groups": 4,
        "scaling_factor": 0.476986}),
    "AutoencoderKLMochi": ("clip", [3, 4, 4], [1, 4, 4], 4, {
        "latent_channels": 4, "encoder_block_out_channels": [32] * 3, "decoder_block_out_channels": [32] * 3,
        "layers_per_block": [1] * 4, "temporal_expansions": [1, 3], "spatial_expansions": [2, 2],
        "add_attention_block": [False, True, True, True], "latents_mean": MEAN, "latents_std": STD}),
    "AutoencoderKLCosmos": ("clip", [4, 4, 4], [1, 4, 4], 4, {
        "latent_channels": 4, "encoder_block_out_channels": [8] * 4, "decode_block_out_channels": [8] * 4, "num_layers": 1,
        "attention_resolutions": [8], "resolution": 16, "patch_size": 2, "spatial_compression_ratio": 4,
        "temporal_compression_ratio": 4, "latents_mean": None, "latents_std": None}),
    "AutoencoderOobleck": ("sound", [8], [8], 4, {
        "encoder_hidden_size": 8, "downsampling_ratios": [2, 4], "channel_multiples": [1, 2], "decoder_channels": 8,
        "decoder_input_channels": 4}),
    "AutoencoderSAME": ("sound", [8], [8], 4, {
        "patch_size": 4, "encoder_channels": 4, "encoder_c_mults": [2], "encoder_strides": [2], "latent_dim": 4,
        "encoder_transformer_depths": [1], "dim_heads": 4}),
}
CAUSAL = [kind for kind, (_, strides, first, *_) in KINDS.items() if strides != first]


def configuration(kind):
    return {"_class_name": kind, **KINDS[kind][-1]}


def built(kind, **changes):
    """A network in which every parameter tells, and statistics that nobody would take for untouched ones."""
    import diffusers

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's old weight norm
        torch.manual_seed(0)
        network = getattr(diffusers, kind).from_config({**configuration(kind), **changes}).eval().requires_grad_(False)
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    if kind == "AutoencoderKLFlux2":
        network.bn.running_mean += torch.linspace(-1, 1, 16)
        network.bn.running_var += torch.linspace(0, 3, 16)
    if kind == "AutoencoderKLLTXVideo":
        network.latents_mean += torch.tensor(MEAN)
        network.latents_std += torch.tensor(STD)
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a kind, as diffusers writes it; not to be changed."""
    made = {}

    def of(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            built(kind).save_pretrained(made[kind])
        return str(made[kind])

    return of


@pytest.fixture(scope="module")
def network():
    """The same network as diffusers runs it."""
    made = {}
    return lambda kind: made.setdefault(kind, None) or made.update({kind: built(kind)}) or made[kind]


@pytest.fixture
def tokenizer(folder):
    return lambda kind, medium=None, **options: Autoencoder(MEDIA[medium or KINDS[kind][0]], source=folder(kind), **options)


def sample_of(medium, *sizes, seed=0):
    data = torch.rand(MEDIA[medium].channels, *sizes, generator=torch.Generator().manual_seed(seed))
    ramp = torch.linspace(-1, 1, sizes[-1])
    return Sample((data - 0.5 + 0.5 * ramp).clamp(-1, 1), {**RATES[medium], "file": f"{seed}"}, medium)


def whole(kind, count=2):
    """A sample of so many latents along each axis."""
    medium, strides, first, *_ = KINDS[kind]
    return sample_of(medium, *(start + stride * (count - 1) for stride, start in zip(strides, first, strict=True)))


def latents_of(tokens):
    """Of tokens that are one latent each: (c, ...)."""
    return tokens.values.T.reshape(-1, *tokens.grid)


def mode(network, data):
    """What diffusers makes of one sample, before it is scaled."""
    output = network.encode(data[None])
    if hasattr(output, "latent_dist"):
        return output.latent_dist.mode()[0]
    return (output.latent if hasattr(output, "latent") else output.latents)[0]


# What a latent covers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_latents_cover_is_found_by_probing(kind):
    medium, strides, first, channels, _ = KINDS[kind]
    space = latent_space(configuration(kind))
    assert (space.media_channels, space.channels) == (MEDIA[medium].channels, channels)
    assert [(axis.stride, axis.first) for axis in space.axes] == list(zip(strides, first, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_latents_and_samples_are_those_of_diffusers(kind, tokenizer, network):
    ours, theirs, sample = tokenizer(kind, mean=0.0, std=1.0), network(kind), whole(kind, 3)
    tokens = ours.encode(sample)
    assert tokens.grid == (3,) * len(tokens.grid) and tokens.size is None
    found = mode(theirs, sample.data)
    expected = pixel_unshuffle(found, 2) if kind == "AutoencoderKLFlux2" else found
    assert torch.allclose(latents_of(tokens), expected, atol=1e-4)
    assert expected.std() > 0.01
    back = ours.decode(tokens)
    args = (torch.zeros(1),) if kind == "AutoencoderKLLTXVideo" else ()  # how much noise is left
    assert torch.allclose(back.data, theirs.decode(found[None], *args).sample[0].clamp(-1, 1), atol=1e-4)
    assert (back.meta, back.modality) == (sample.meta, sample.modality)


def test_what_a_causal_decoder_makes_too_much_lies_in_front(tokenizer, network):
    """Of an even number of latents CogVideoX makes four frames each, also of the first, which was made of one."""
    ours, sample = tokenizer("AutoencoderKLCogVideoX"), whole("AutoencoderKLCogVideoX", 2)
    made = network("AutoencoderKLCogVideoX").decode(mode(network("AutoencoderKLCogVideoX"), sample.data)[None]).sample[0]
    back = ours.decode(ours.encode(sample)).data
    assert (made.shape[1], back.shape[1]) == (8, 5)
    assert torch.allclose(back, made[:, 3:].clamp(-1, 1), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_any_size_comes_back_in_it(kind, tokenizer):
    medium, strides, first, *_ = KINDS[kind]
    ours = tokenizer(kind, patch=2)
    sizes = {"picture": [(1, 1), (13, 30)], "clip": [(frames, 5, 17) for frames in (1, 2, 4, 5, 8, 9)],
             "sound": [(1,), (7,), (100,)]}[medium]
    samples = [sample_of(medium, *size, seed=seed) for seed, size in enumerate(sizes)]
    for size, sample, tokens in zip(sizes, samples, ours.encode_batch(samples), strict=True):
        latents = [1 + max(0, math.ceil((steps - start) / stride))
                   for steps, start, stride in zip(size, first, strides, strict=True)]
        assert tokens.grid == tuple(math.ceil(count / 2) for count in latents)
        assert tokens.size == size and ours.decode(tokens).data.shape == sample.data.shape
        blank = ours.blank(sample.shape, sample.meta, medium)
        assert (blank.grid, blank.size, blank.meta, blank.modality) == (tokens.grid, size, sample.meta, medium)
        assert torch.equal(blank.coords, tokens.coords) and blank.values.shape == tokens.values.shape
        assert not blank.values.any()
    together = ours.decode_batch(ours.encode_batch(samples))
    assert [item.data.shape for item in together] == [item.data.shape for item in samples]


@pytest.mark.parametrize(("kind", "patch", "sizes"), [("AutoencoderKLMochi", {"t": 2}, (3, 7, 16)),
                                                      ("AutoencoderOobleck", 2, (17,))])
def test_what_is_missing_repeats_the_edge(kind, patch, sizes, tokenizer):
    """A causal first latent covers one frame, so that two tokens of two latents take 10 frames of Mochi's."""
    ours, sample = tokenizer(kind, patch=patch), sample_of(KINDS[kind][0], *sizes)
    full = {"AutoencoderKLMochi": (4, 8, 16), "AutoencoderOobleck": (32,)}[kind]
    data = sample.data
    for axis, size in enumerate(full, start=1):
        data = torch.cat([data, data.narrow(axis, data.shape[axis] - 1, 1).expand_as(data.narrow(axis, 0, 1)).repeat_interleave(
            size - data.shape[axis], axis)], axis)
    padded = ours.encode(Sample(data, sample.meta))
    tokens = ours.encode(sample)
    assert tokens.size == sizes and padded.size is None and tokens.grid == padded.grid
    assert torch.equal(tokens.values, padded.values)
    assert torch.equal(ours.decode(tokens).data, ours.decode(padded).data[(slice(None), *map(slice, sizes))])


def test_coordinates_are_the_middle_of_what_is_covered(tokenizer):
    clip = sample_of("clip", 9, 8, 4)
    seconds = tokenizer("AutoencoderKLWan").encode(clip).coords.view(3, 2, 1, 3)[:, 0, 0, 0]
    assert seconds.tolist() == [0.5 / 8, 3 / 8, 7 / 8]  # frame 0, frames 1 to 4, frames 5 to 8
    coords = tokenizer("AutoencoderKLWan", patch={"t": 2}).encode(clip).coords.view(2, 2, 1, 3)
    assert coords[:, 0, 0, 0].tolist() == [2.5 / 8, 9 / 8]  # frames 0 to 4, frames 5 to 12, of which 4 are padding
    assert coords[0, :, 0, 1:].tolist() == [[2.0, 2.0], [6.0, 2.0]]
    sound = tokenizer("AutoencoderOobleck").encode(sample_of("sound", 24))
    assert torch.allclose(sound.coords, torch.tensor([[4.0], [12.0], [20.0]]) / 44100)


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("patch", [1, 3])
def test_steps_belong_to_the_token_that_covers_them(kind, patch, tokenizer):
    _, (stride, *_), *_ = KINDS[kind]
    ours = tokenizer(kind, patch={"t": patch})
    frames = 1 + 7 * stride
    rows = ours.cells((3, frames, 8, 8))["t"]
    assert rows.tolist() == [math.ceil(frame / stride) // patch for frame in range(frames)]
    seconds = ours.blank((3, frames, 8, 8), {"fps": 1.0}).coords[:, 0].unique()
    middles = [(torch.nonzero(rows == row) + 0.5).mean().item() for row in range(int(rows[-1]))]  # the last may lack some
    assert seconds[: len(middles)].tolist() == pytest.approx(middles)


def test_padding_is_said_once_for_every_shape(tokenizer, caplog):
    ours = tokenizer("AutoencoderOobleck")
    with caplog.at_level(logging.INFO, logger="djepa_tokenizers.autoencoder"):
        for size in (16, 17, 17, 9):
            ours.encode(sample_of("sound", size))
    assert [record.getMessage() for record in caplog.records] == [
        "Samples of sizes [17] are padded to [24] by repeating their edges.",
        "Samples of sizes [9] are padded to [16] by repeating their edges."]


def test_tokens_of_another_size_are_refused(tokenizer):
    ours = tokenizer("AutoencoderOobleck")
    batch = ours.encode_batch([sample_of("sound", 24)])
    wrong = TokenBatch(batch.values, batch.coords, batch.valid, batch.grids, batch.metas, batch.modality, ((16,),))
    with pytest.raises(LayoutError, match=r"\[24\] cannot be those of one of \[16\]"):
        ours.decode_batch(wrong)


# Company, draws, devices ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_the_same_in_any_company(kind, tokenizer):
    ours = tokenizer(kind)
    first = whole(kind)
    samples = [first, whole(kind, 3), Sample(first.data.flip(0), first.meta, first.modality)]

    def noise(rows):
        return lambda width: torch.stack([torch.randn(width, generator=torch.Generator().manual_seed(row)) for row in rows])

    together = ours.encode_batch(samples, noise([0, 1, 2]))
    decoded = ours.decode_batch(together)
    for row, (sample, tokens, back) in enumerate(zip(samples, together, decoded, strict=True)):
        alone = ours.encode_batch([sample], noise([row]))[0]
        assert torch.allclose(tokens.values, alone.values, atol=1e-4) and torch.equal(tokens.coords, alone.coords)
        assert torch.allclose(back.data, ours.decode(alone).data, atol=1e-4)
    spread = ours.moments(samples)[0].data.shape[0] > ours.latents.channels
    drawn = not torch.allclose(together[0].values, ours.encode(first).values, atol=1e-3)
    assert drawn == spread and spread == (kind not in ("AutoencoderTiny", "AutoencoderDC", "AutoencoderKLCosmos",
                                                       "AutoencoderSAME"))


def test_sounds_are_drawn_as_diffusers_draws_them(tokenizer, network):
    sample = whole("AutoencoderOobleck", 4)
    noise = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    drawn = tokenizer("AutoencoderOobleck").encode_batch([sample], lambda width: noise.view(1, width))[0]
    found = network("AutoencoderOobleck").encode(sample.data[None]).latent_dist
    assert torch.allclose(latents_of(drawn), (found.mean + found.std * noise)[0], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_reading_and_running_a_network_draws_nothing(kind, tokenizer):
    before = torch.get_rng_state()
    ours = tokenizer(kind)
    ours.decode(ours.encode(whole(kind)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_another_device_gives_the_same(kind, tokenizer):
    sample, here = whole(kind, 3), tokenizer(kind)
    there = tokenizer(kind).to(torch.device("cuda"))
    tokens = there.encode(sample)
    assert tokens.values.device == sample.data.device
    assert torch.allclose(tokens.values, here.encode(sample).values, atol=1e-2)
    assert torch.allclose(there.decode(tokens).data, here.decode(tokens).data, atol=1e-2)


# Scale ---------------------------------------------------------------------------------------------------------------------


def normalized(kind, network, latents):
    """By the formulas of diffusers' pipelines."""
    config = network.config
    if kind in ("AutoencoderKLWan", "AutoencoderKLQwenImage", "AutoencoderKLMochi"):
        mean, std = torch.tensor(config.latents_mean), torch.tensor(config.latents_std)
        return (latents - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1)
    if kind == "AutoencoderKLLTXVideo":
        from diffusers import LTXPipeline

        statistics = network.latents_mean, network.latents_std, config.scaling_factor
        return LTXPipeline._normalize_latents(latents[None], *statistics)[0]
    if kind == "AutoencoderKLFlux2":
        from diffusers import Flux2Pipeline

        blocks = Flux2Pipeline._patchify_latents(latents[None])
        std = (network.bn.running_var + config.batch_norm_eps).sqrt()
        return ((blocks - network.bn.running_mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1))[0]
    return (latents - (config.get("shift_factor") or 0.0)) * config.scaling_factor


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderDC", "AutoencoderKLFlux2", "AutoencoderKLWan",
                                  "AutoencoderKLQwenImage", "AutoencoderKLLTXVideo", "AutoencoderKLCogVideoX",
                                  "AutoencoderKLHunyuanVideo", "AutoencoderKLMochi"])
def test_tokens_have_the_scale_that_the_pipelines_give_latents(kind, tokenizer, network):
    sample = whole(kind, 3)
    ours = tokenizer(kind).measured([])  # no data is needed
    expected = normalized(kind, network(kind), mode(network(kind), sample.data))
    assert torch.allclose(latents_of(ours.encode(sample)), expected, atol=1e-4)


def test_a_table_of_frames_is_averaged():
    """Cosmos: channels by frames, one row of numbers."""
    mean, std = [0.0, 1.0, 2.0, 2.0, 0.0, 0.0, 0.0, 4.0], [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0]
    space = latent_space({**configuration("AutoencoderKLCosmos"), "latents_mean": mean, "latents_std": std})
    draws = torch.distributions.Normal(torch.tensor(mean).view(4, 2), torch.tensor(std).view(4, 2))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        values = draws.sample((200_000,))
    assert space.mean == [0.5, 2.0, 0.0, 2.0]
    assert space.std == pytest.approx(values.permute(1, 0, 2).flatten(1).std(1).tolist(), rel=0.01)


@pytest.mark.parametrize("kind", ["AutoencoderTiny", "AutoencoderKLCosmos", "AutoencoderOobleck", "AutoencoderSAME"])
def test_a_scale_that_nobody_says_is_measured(kind, tokenizer):
    rough, samples = tokenizer(kind), [whole(kind, count) for count in (2, 3, 3)]
    assert rough.options()["mean"] is rough.options()["std"] is None
    fitted = rough.measured(iter(samples))
    latents = torch.cat([latents_of(fitted.encode(sample)).flatten(1) for sample in samples], dim=1)
    assert latents.mean(1).abs().max() < 1e-3 and (latents.std(1, correction=0) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("kind", ["AutoencoderKLFlux2", "AutoencoderKLLTXVideo"])
def test_statistics_that_nobody_filled_in_do_not_count(kind, tmp_path):
    import diffusers

    getattr(diffusers, kind).from_config(configuration(kind)).save_pretrained(tmp_path)
    rough, sample = Autoencoder(MEDIA[KINDS[kind][0]], source=str(tmp_path)), whole(kind, 3)
    values = rough.measured([sample]).encode(sample).values
    assert values.mean(0).abs().max() < 1e-3 and (values.std(0, correction=0) - 1).abs().max() < 1e-2


@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderKLFlux2", "AutoencoderKLWan"])
def test_known_statistics_can_be_left_aside(kind, tokenizer):
    ours, samples = tokenizer(kind), [whole(kind, 3), whole(kind, 2)]
    fitted = ours.unscaled().measured(samples)
    latents = torch.cat([latents_of(fitted.encode(sample)).flatten(1) for sample in samples], dim=1)
    assert latents.mean(1).abs().max() < 1e-3 and (latents.std(1, correction=0) - 1).abs().max() < 1e-3
    assert ours.measured([]).options()["mean"] != fitted.options()["mean"]


# Folders and options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_one_is_the_same_and_needs_no_source(kind, folder, tmp_path):
    config = configuration(kind)
    ours = Autoencoder(MEDIA[KINDS[kind][0]], source=folder(kind), config=config).measured([whole(kind, 3)])
    sample = whole(kind)
    ours.save_assets(tmp_path)
    options = json.loads(json.dumps(ours.options()))
    again = Autoencoder(MEDIA[KINDS[kind][0]], **{**options, "source": None})
    again.load_assets(tmp_path)
    assert again.options() == {**options, "source": None}
    tokens = again.encode(sample)
    assert torch.equal(tokens.values, ours.encode(sample).values)
    assert torch.equal(again.decode(tokens).data, ours.decode(tokens).data)
    assert again.moments_key() == ours.moments_key()
    # What is written anew does not claim what nobody said.
    stored = json.loads((tmp_path / "config.json").read_text())
    said = {key: stored.get(key) for key in ("scaling_factor", "latents_mean", "latents_std")}
    assert said == {key: config.get(key) for key in said}


def test_options_tell_what_probing_found(tokenizer):
    """With them a tokenizer is laid out without diffusers, which takes seconds to import."""
    options = {kind: (KINDS[kind][0], tokenizer(kind).options()) for kind in KINDS}
    code = ("import sys, json; from djepa_tokenizers.autoencoder import Autoencoder; from djepa.tokens import Axis, MediaSpec\n"
            "axes = {'picture': 'yx', 'clip': 'tyx', 'sound': 't'}\n"
            "for kind, (medium, options) in json.load(sys.stdin).items():\n"
            "    media = MediaSpec(2 if medium == 'sound' else 3, tuple(Axis(name, 'px') for name in axes[medium]))\n"
            "    made = Autoencoder(media, **options)\n"
            "    print(kind, *made.layout((media.channels, *[24] * len(media.axes))))\n"
            "assert 'diffusers' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(options), capture_output=True, text=True, timeout=120,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    grids = {kind: [str(1 + math.ceil((24 - start) / stride)) for stride, start in zip(strides, first, strict=True)]
             for kind, (_, strides, first, *_) in KINDS.items()}
    assert done.stdout.splitlines() == [" ".join([kind, *grid]) for kind, grid in grids.items()], done.stderr


@pytest.mark.parametrize("change", [{"strides": [4, 4]}, {"strides": [4, 0, 4]}, {"first": [5, 4, 4]}, {"channels": None},
                                    {"media_channels": "3"}, {"strides": 4}])
def test_options_that_probing_cannot_have_found_are_refused(change):
    known = {"media_channels": 3, "channels": 4, "strides": [4, 4, 4], "first": [1, 4, 4]}
    with pytest.raises(UsageError, match="Leave it out"):
        latent_space(configuration("AutoencoderKLWan"), {**known, **change})


# Caches --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["AutoencoderKLWan", "AutoencoderKLCosmos", "AutoencoderOobleck"])
def test_tokens_of_what_was_kept_are_the_same(kind, tokenizer):
    ours, medium = tokenizer(kind).measured([whole(kind)]), KINDS[kind][0]
    samples = [whole(kind, 3), sample_of(medium, *[7] * len(MEDIA[medium].axes))]
    kept = ours.moments(samples)
    noise = torch.randn(2, 4096, generator=torch.Generator().manual_seed(2))
    direct, again = (ours.encode_batch(items, lambda width: noise[:, :width]) for items in (samples, kept))
    assert torch.equal(direct.values, again.values) and torch.equal(direct.coords, again.coords)
    assert (direct.grids, direct.metas, direct.sizes) == (again.grids, again.metas, again.sizes)
    assert ours.measured(kept) is ours


def test_what_was_padded_for_other_patches_is_refused(tokenizer):
    kept = tokenizer("AutoencoderOobleck").moments([sample_of("sound", 16), sample_of("sound", 17)])
    other = tokenizer("AutoencoderOobleck", patch=2)
    assert torch.equal(other.encode_batch(kept[:1])[0].values, other.encode(sample_of("sound", 16)).values)
    with pytest.raises(UsageError, match="Make the cache anew"):
        other.encode_batch(kept[1:])


# Tiles, pictures, refusals -------------------------------------------------------------------------------------------------


def test_clips_are_cut_into_tiles_across_but_never_along_time(tokenizer):
    sample = sample_of("clip", 5, 40, 24)
    plain, tiled = (tokenizer("AutoencoderKLWan", tile=tile) for tile in (None, 16))
    tokens = tiled.encode(sample)
    assert tokens.grid == (2, 10, 6)
    error = (tokens.values - plain.encode(sample).values).abs().mean() / plain.encode(sample).values.std()
    assert 0 < error < 0.3
    assert tiled.decode(tokens).data.shape == sample.data.shape
    one = tokenizer("AutoencoderKLWan", tile={"x": 16}).encode(sample_of("clip", 5, 40, 16))
    assert torch.equal(one.values, plain.encode(sample_of("clip", 5, 40, 16)).values)  # y is not cut, x needs not be
    with pytest.raises(UsageError, match="causal along 't'"):
        tokenizer("AutoencoderKLWan", tile={"t": 8})
    with pytest.raises(UsageError, match="no axis 'z'"):
        tokenizer("AutoencoderKLWan", tile={"z": 8})


def test_sounds_are_cut_into_tiles(tokenizer):
    sample = sample_of("sound", 1001)
    plain, tiled = (tokenizer("AutoencoderOobleck", tile=tile).measured([sample]) for tile in (None, 256))
    error = (tiled.encode(sample).values - plain.encode(sample).values).abs().mean()
    assert 0 < error < 0.1
    assert tiled.decode(tiled.encode(sample)).data.shape == sample.data.shape


@pytest.mark.parametrize("kind", ["AutoencoderKLQwenImage", "AutoencoderKLWan", "AutoencoderKLCogVideoX"])
def test_a_picture_is_a_clip_of_one_frame(kind, tokenizer, folder):
    picture = sample_of("picture", 12, 18)
    ours, clips = tokenizer(kind, "picture"), tokenizer(kind)
    tokens = ours.encode(picture)
    clip = clips.encode(Sample(picture.data[:, None], {"fps": 1.0}))
    assert (tokens.grid, tokens.size, clip.grid) == ((3, 5), (12, 18), (1, 3, 5))
    assert torch.equal(tokens.values, clip.values) and torch.equal(tokens.coords, clip.coords[:, 1:])
    assert torch.allclose(ours.decode(tokens).data, clips.decode(clip).data[:, 0], atol=1e-5)
    rebuilt = Autoencoder(MEDIA["picture"], **{**ours.options(), "source": folder(kind)})
    assert rebuilt.layout((3, 12, 18)) == (3, 5)


def test_mono_sounds_are_refused_with_the_cure():
    mono = Autoencoder(MediaSpec(1, (AXES["s"],)), config=configuration("AutoencoderOobleck"))
    with pytest.raises(LayoutError, match=r"\(2, t\).*got \(1, 100\).*channels=2"):
        mono.layout((1, 100))


@pytest.mark.parametrize(("kind", "medium", "changes", "told"), [
    ("AutoencoderKLWan", "sound", {}, "3 axes"), ("AutoencoderOobleck", "picture", {}, "1 axes"),
    ("AutoencoderKLLTXVideo", "clip", {"decoder_inject_noise": [True, False, False]}, "draws noise"),
    ("AutoencoderKLWan", "clip", {"temperal_downsample": [False, True]}, "latents where two each were expected"),
    ("AutoencoderTiny", "picture", {"out_channels": 1}, "takes 3 channels and gives 1"),
    ("AutoencoderTiny", "picture", {"encoder_block_out_channels": [4] * 2, "num_encoder_blocks": [1] * 2}, "makes samples of"),
    ("AutoencoderKLFlux2", "picture", {"patch_size": [2, 1]}, "as high as it is wide"),
    ("AutoencoderKLMochi", "clip", {"encoder_block_out_channels": [8] * 3}, "cannot build AutoencoderKLMochi"),
])
def test_networks_that_make_no_tokens_are_refused(kind, medium, changes, told):
    with pytest.raises(UsageError) as caught:
        Autoencoder(MEDIA[medium], config={**configuration(kind), **changes})
    assert told in str(caught.value)


def test_what_was_kept_keeps_its_shape(tokenizer):
    kept = tokenizer("AutoencoderOobleck").moments([sample_of("sound", 17)])[0]
    assert isinstance(kept, Encoded) and kept.shape == (2, 17) and kept.data.shape == (8, 3)
