"""A model over an autoencoder, end to end: trained on picture files, saved, moved, and generating without what it came from."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from djepa import Pipeline, Recipe, Trainer
from djepa.errors import CheckpointError, LayoutError
from djepa.storage import newest_checkpoint


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(6):
        kind = folder / ("light" if number % 2 else "dark")
        kind.mkdir(exist_ok=True)
        colour = (40 * number, 255 - 40 * number, 128 + 100 * (number % 2))
        Image.new("RGB", (20, 16), colour).save(kind / f"{number}.png")
    return folder


@pytest.fixture
def recipe(pictures, own_autoencoder):
    """Two steps on six pictures of 16x16 pixels: 4x4 tokens of 16 channels."""
    def make(*overrides, **tokenizer):
        return Recipe.from_dict({
            "schema_version": 1,
            "data": {"kind": "image-folder", "root": str(pictures), "size": 16},
            "model": {
                "streams": {"image": {"modality": "image", "head": {"kind": "gaussian", "depth": 1, "width": 16},
                                      "tokenizer": {"kind": "autoencoder", "source": str(own_autoencoder), "patch": 2,
                                                    **tokenizer}}},
                "conditions": {"label": {"kind": "class", "num_tokens": 2}},
                "width": 16, "num_heads": 2, "encoder_depth": 1, "predictor_depth": 1,
                "generate": {"num_steps": 2, "num_denoising_steps": 3},
            },
            "train": {"steps": 2, "batch_size": 4},
            "preview": {"every": 2, "num_samples": 1, "num_conditions": 2},
        }, overrides)

    return make


def weights(run):
    checkpoint = newest_checkpoint(run)
    return load_file(checkpoint / "model.safetensors") | load_file(checkpoint / "training.safetensors")


def test_a_saved_model_needs_nothing_of_what_it_was_made_of(recipe, own_autoencoder, tmp_path):
    Trainer(recipe(), device="cpu").fit(tmp_path / "run")
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 2
    pipe = Pipeline.from_pretrained(tmp_path / "run", device="cpu")
    made = pipe.generate(["dark", "light"], seed=3)
    pipe.save_pretrained(tmp_path / "saved")
    shutil.rmtree(own_autoencoder)
    shutil.rmtree(tmp_path / "run")
    moved = shutil.move(tmp_path / "saved", tmp_path / "elsewhere")
    loaded = Pipeline.from_pretrained(moved, device="cpu")
    again = loaded.generate(["dark", "light"], seed=3)
    assert all(torch.equal(one.data, other.data) for one, other in zip(again, made, strict=True))
    assert again[0].data.shape == (3, 16, 16) and again[0].data.std() > 0 and again[0].data.abs().max() <= 1
    loaded.save_pretrained(moved)  # over what it was loaded from
    third = Pipeline.from_pretrained(moved, device="cpu").generate(["dark", "light"], seed=3)
    assert torch.equal(third[0].data, made[0].data)


def test_a_damaged_network_in_a_model_folder_is_refused_by_name(recipe, tmp_path):
    Trainer(recipe("preview.every=0"), device="cpu").fit(tmp_path / "run")
    saved = Pipeline.from_pretrained(tmp_path / "run", device="cpu").save_pretrained(tmp_path / "saved")
    (damaged,) = saved.rglob("diffusion_pytorch_model.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(CheckpointError) as caught:
        Pipeline.from_pretrained(saved, device="cpu")
    assert str(damaged) in str(caught.value)


def test_the_draws_of_a_run_are_keyed(recipe, tmp_path):
    """The same run twice gives the same weights; another posterior gives others, so there was something to draw."""
    runs = {"first": {}, "second": {}, "mode": {"posterior": "mode"}}
    for name, tokenizer in runs.items():
        Trainer(recipe("preview.every=0", **tokenizer), device="cpu").fit(tmp_path / name)
    first, second, mode = (weights(tmp_path / name) for name in runs)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], mode[name]) for name in first)


def test_an_unknown_scale_is_measured_once_and_stored(recipe, own_autoencoder, tmp_path):
    path = own_autoencoder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "scaling_factor": None}))
    Trainer(recipe("preview.every=0"), device="cpu").fit(tmp_path / "run")
    pipe = Pipeline.from_pretrained(tmp_path / "run", device="cpu")
    stored = pipe.spec.streams["image"].tokenizer.options
    assert len(stored["mean"]) == len(stored["std"]) == 4 and stored["config"]["scaling_factor"] is None
    assert pipe.tokenizers["image"].options()["std"] == stored["std"]


def test_pictures_it_cannot_take_are_refused_before_training(recipe, tmp_path):
    with pytest.raises(LayoutError, match=r"\(3, y, x\)"):
        Trainer(recipe("data.channels=1"), device="cpu").fit(tmp_path / "run")


def test_pictures_that_whole_tokens_do_not_fill_are_generated_in_their_size(recipe, tmp_path):
    Trainer(recipe("data.size=18"), device="cpu").fit(tmp_path / "run")
    pipe = Pipeline.from_pretrained(tmp_path / "run", device="cpu")
    sample = pipe.generate("dark")[0]
    assert sample.data.shape == (3, 18, 18)
    mask = torch.zeros(18, 18, dtype=torch.bool)
    mask[16:] = True
    made = pipe.inpaint(sample, mask, "dark", seed=5)[0]
    assert torch.equal(made.data[:, :16], sample.data[:, :16]) and not torch.equal(made.data, sample.data)


def test_what_was_generated_can_be_inpainted(recipe, tmp_path):
    Trainer(recipe("preview.every=0"), device="cpu").fit(tmp_path / "run")
    pipe = Pipeline.from_pretrained(tmp_path / "run", device="cpu")
    sample = pipe.generate("dark")[0]
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[:, 8:] = True
    made = pipe.inpaint(sample, mask, "light", seed=5)[0]
    assert torch.equal(made.data[:, :, :8], sample.data[:, :, :8])
    assert not torch.equal(made.data[:, :, 8:], sample.data[:, :, 8:])
