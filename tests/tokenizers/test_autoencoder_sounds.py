"""Stereo sounds through an autoencoder, end to end: files, a cache, training, generation."""

import json
import math
import warnings

import pytest
import torch

from djepa import Pipeline, Recipe, Sample, Trainer
from djepa.cache import Cached, write_cache
from djepa.errors import LayoutError
from djepa.measure import measure

RATE = 8000
SIZE = 250  # samples of a sound: 31 latents of 8 and a rest
OOBLECK = {"encoder_hidden_size": 8, "downsampling_ratios": [2, 4], "channel_multiples": [1, 2], "decoder_channels": 8,
           "decoder_input_channels": 4, "sampling_rate": RATE}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The folder of an autoencoder of sounds."""
    from diffusers import AutoencoderOobleck

    folder = tmp_path_factory.mktemp("oobleck")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's old weight norm
        torch.manual_seed(0)
        AutoencoderOobleck(**OOBLECK).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Two classes of stereo sounds."""
    folder = tmp_path_factory.mktemp("sounds")
    time = torch.arange(SIZE) / RATE
    for number in range(6):
        left, right = (0.6 * torch.sin(2 * math.pi * pitch * (1 + number) * time) for pitch in (220, 330))
        Sample(torch.stack([left, right]), {"sample_rate": RATE}, "audio").save(
            folder / ("high" if number > 2 else "low") / f"{number}.wav")
    return folder


@pytest.fixture
def recipe(network, sounds):
    def make(*overrides):
        return Recipe.from_dict({
            "schema_version": 1,
            "data": {"kind": "audio-folder", "root": str(sounds), "seconds": SIZE / RATE, "sample_rate": RATE, "channels": 2,
                     "crop": "center"},
            "model": {
                "streams": {"audio": {"modality": "audio", "head": {"kind": "flow", "depth": 1, "width": 16},
                                      "tokenizer": {"kind": "autoencoder", "source": str(network), "patch": 4}}},
                "conditions": {"label": {"kind": "class", "num_tokens": 2}},
                "width": 16, "num_heads": 2, "encoder_depth": 1, "predictor_depth": 1,
                "position": {"kind": "rotary", "scale": {"t": 0.004}},
                "generate": {"num_steps": 2, "num_denoising_steps": 3},
            },
            "train": {"steps": 2, "batch_size": 4}, "preview": {"every": 0},
        }, overrides)

    return make


def losses(run):
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return torch.tensor([record["loss"] for record in records if "loss" in record])


def test_a_model_is_trained_from_files_or_a_cache_and_generates_sounds_of_their_length(recipe, tmp_path):
    cache = write_cache(recipe(), tmp_path / "cache", device="cpu")
    direct, kept = recipe().data.build().load(4), Cached(root=str(cache)).load(4)
    assert kept.samples["audio"].shape == direct.samples["audio"].shape == (2, SIZE)
    for name, overrides in {"plain": [], "cached": ["data.kind=cached", f"data.root={cache}"]}.items():
        Trainer(recipe(*overrides), device="cpu").fit(tmp_path / name)
    torch.testing.assert_close(losses(tmp_path / "cached"), losses(tmp_path / "plain"), rtol=1e-6, atol=1e-6)
    pipe = Pipeline.from_pretrained(tmp_path / "cached", device="cpu")
    options = pipe.spec.streams["audio"].tokenizer.options
    assert options["latents"] == {"media_channels": 2, "channels": 4, "strides": [8], "first": [8]}
    assert len(options["mean"]) == 4
    sample = pipe.generate("low")[0]
    assert sample.data.shape == (2, SIZE) and sample.meta["sample_rate"] == RATE
    assert pipe.tokenizers["audio"].encode(sample).grid == (8,)


def test_mono_sounds_are_refused_with_the_cure(recipe, tmp_path):
    with pytest.raises(LayoutError, match="channels=2"):
        Trainer(recipe("data.channels=1"), device="cpu").fit(tmp_path / "run")


def test_what_is_measured_makes_tokens_unit_scale(recipe):
    rough = measure(recipe(), device="cpu")["audio"]
    assert (rough.kind, rough.num_samples, rough.shapes, rough.grid, rough.width) == ("autoencoder", 6, [(2, SIZE)], (8,), 16)
    assert rough.filled == (256,) and rough.statistics == "data"
    assert len(rough.mean) == len(rough.std) == 4
    pasted = measure(recipe(*rough.overrides("audio")), device="cpu")["audio"]
    assert pasted.statistics == "recipe" and pasted.mean == rough.mean
    assert pasted.token_mean == pytest.approx(0, abs=1e-4) and pasted.token_std == pytest.approx(1, abs=1e-4)
