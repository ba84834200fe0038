"""`djepa measure`: what it says of tokens is so, and what it says to add makes them unit scale."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from djepa import Recipe
from djepa.build import complete, tokenizer
from djepa.random import seeded

CONFIG = {"in_channels": 3, "out_channels": 3, "latent_channels": 2, "block_out_channels": (4, 8), "norm_num_groups": 2,
          "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2, "sample_size": 8,
          "scaling_factor": 0.18215}
IMAGE = "model.streams.image.tokenizer"


def tokens_of(name, *overrides):
    """All tokens of a recipe's data, as training has them."""
    recipe = Recipe.load(name, overrides)
    dataset = recipe.data.build()
    stream = complete(recipe.model, dataset).streams["image"]
    samples = [dataset.load(index).samples["image"] for index in range(len(dataset))]
    return tokenizer(stream).encode_batch(samples)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Overrides for a recipe of 10 pictures through an autoencoder whose configuration says a scale that is not theirs."""
    from diffusers import AutoencoderKL

    folder, rng = tmp_path_factory.mktemp("measured"), np.random.default_rng(0)
    with seeded(0, "autoencoder"):
        AutoencoderKL(**CONFIG).save_pretrained(folder / "network", safe_serialization=True)
    for number in range(10):
        path = folder / "pictures" / ("cats" if number % 2 else "ants") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    return [f"data.root={folder / 'pictures'}", "data.size=9", f"{IMAGE}.kind=autoencoder",
            f"{IMAGE}.source={folder / 'network'}"]


def is_unit(tokens, channels):
    """Whether each channel of what tokens are blocks of has mean 0 and standard deviation 1."""
    values = tokens.values.double().unflatten(2, (channels, -1)).permute(2, 0, 1, 3).flatten(1)
    return bool(values.mean(1).abs().max() < 1e-4 and (values.std(1, correction=0) - 1).abs().max() < 1e-4)


def told(command, *arguments):
    done = command("measure", *arguments)
    assert (done.code, done.err) == (0, "")
    return done.out


def pasted(out):
    """The overrides as a reader copies them."""
    return re.findall(r"^    '(.*)'$", out, flags=re.MULTILINE)


def test_patches_of_digits(command):
    out = told(command, "image/digits", "--num-samples", 64)
    assert out.splitlines()[:2] == ["image: 64 samples of shape 1 x 8 x 8, through 'patchify'",
                                    "  tokens    4 x 4 = 16, each of 4 channels"]
    assert "mean 0.000, std 1.000 with statistics measured on them" in out or "mean -0.000, std 1.000 with" in out
    assert "padding" not in out
    recipe = Recipe.load("image/digits")
    first = torch.stack([recipe.data.build().load(index).samples["image"].data for index in range(0, 1400, 1400 // 64)][:64])
    mean, std = (float(text.split("=[")[1].rstrip("]")) for text in pasted(out))
    assert (mean, std) == (pytest.approx(float(first.mean()), abs=1e-4), pytest.approx(float(first.std()), abs=1e-3))


def test_an_autoencoder_with_another_scale_than_the_data(command, pictures):
    out = told(command, "image/folder", *pictures, f"{IMAGE}.patch=2")
    assert "  tokens    3 x 3 = 9, each of 8 channels" in out
    assert "sizes 9 x 9 are padded to 12 x 12" in out and "43.8% of what tokens cover is padding" in out
    assert "with the statistics in the network's files" in out
    found = json.loads(told(command, "image/folder", *pictures, f"{IMAGE}.patch=2", "--json"))["image"]
    tokens = tokens_of("image/folder", *pictures, f"{IMAGE}.patch=2").values.double()
    assert found["token_mean"] == pytest.approx(float(tokens.mean()), abs=1e-5)
    assert found["token_std"] == pytest.approx(float(tokens.std(correction=0)), abs=1e-5)
    assert not is_unit(tokens_of("image/folder", *pictures, f"{IMAGE}.patch=2"), 2)
    assert pasted(out) == found["overrides"]
    assert is_unit(tokens_of("image/folder", *pictures, f"{IMAGE}.patch=2", *pasted(out)), 2)
    verified = told(command, "image/folder", *pictures, f"{IMAGE}.patch=2", *pasted(out))
    assert "std 1.000 with the recipe's statistics" in verified and pasted(verified) == pasted(out)


def test_where_the_recipe_names_no_tokenizer_its_modality_does(command, pictures, tmp_path):
    raw = Recipe.load("image/folder", pictures[:2]).resolved()
    raw["data"]["size"], raw["model"]["streams"]["image"]["tokenizer"] = 8, None
    path = tmp_path / "plain.yaml"
    path.write_text(json.dumps(raw))
    out = told(command, path)
    assert "tokens    2 x 2 = 4, each of 48 channels" in out
    assert is_unit(tokens_of(str(path), *pasted(out)), 3)
    assert pasted(out)[:2] == [f"{IMAGE}.kind=patchify", f'{IMAGE}.patch={{"y": 4, "x": 4}}']


def test_of_many_channels_the_first_are_printed_and_all_are_pasted(command, pictures, tmp_path):
    with seeded(0, "autoencoder"):
        from diffusers import AutoencoderKL

        AutoencoderKL(**{**CONFIG, "latent_channels": 12}).save_pretrained(tmp_path, safe_serialization=True)
    out = told(command, "image/folder", *pictures, f"{IMAGE}.source={tmp_path}")
    assert len(re.findall(r"^ +[0-9]+ +[-.0-9e]+ +[-.0-9e]+$", out, flags=re.MULTILINE)) == 8
    assert "...   12 in all" in out and all(len(json.loads(text.split("=")[1])) == 12 for text in pasted(out))


@pytest.mark.parametrize(("arguments", "said"), [
    (["image/digits", "-n", "0"], "at least 1"), (["image/digits", "--device", "gpu"], "gpu"),
    (["image/digitz"], "image/digits"), (["image/digits", "model.streams.image.tokenizer.patch=3"], "do not divide"),
])
def test_what_cannot_be_measured_is_said(command, arguments, said):
    done = command("measure", *arguments)
    assert done.code == 2 and said in done.error()
