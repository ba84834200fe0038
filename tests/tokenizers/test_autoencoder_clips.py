"""Clips through a causal autoencoder, end to end: trained, saved, and generated in any length."""

import pytest
import torch

from djepa import Pipeline, Recipe, Trainer

WAN = {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 1], "num_res_blocks": 1, "temperal_downsample": [True, True],
       "in_channels": 1, "out_channels": 1, "latents_mean": [0.0] * 4, "latents_std": [0.3] * 4}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    """Of a model of six frames of 16x16 pixels: 3x4x4 latents, the last of which reaches three frames beyond."""
    from diffusers import AutoencoderKLWan

    folder = tmp_path_factory.mktemp("clips")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoencoderKLWan(**WAN).save_pretrained(folder / "network")
    recipe = Recipe.from_dict({
        "schema_version": 1,
        "data": {"kind": "moving-digits", "split": "heldout", "num_frames": 6},
        "model": {
            "streams": {"video": {"modality": "video", "head": {"kind": "flow", "depth": 1, "width": 16},
                                  "tokenizer": {"kind": "autoencoder", "source": str(folder / "network"),
                                                "patch": {"y": 2, "x": 2}}}},
            "conditions": {"digit": {"kind": "class", "num_tokens": 2}},
            "width": 24, "num_heads": 2, "encoder_depth": 1, "predictor_depth": 1,
            "position": {"kind": "rotary", "scale": {"t": 0.5, "y": 8, "x": 8}},
            "generate": {"num_steps": 2, "num_denoising_steps": 3},
        },
        "train": {"steps": 2, "batch_size": 4}, "preview": {"every": 0},
    })
    Trainer(recipe, device="cpu").fit(folder / "run")
    saved = Pipeline.from_pretrained(folder / "run", device="cpu").save_pretrained(folder / "saved")
    return Pipeline.from_pretrained(saved, device="cpu")


def test_clips_are_of_the_length_they_were_trained_on(pipe):
    sample = pipe.generate("3", seed=1)[0]
    assert sample.data.shape == (1, 6, 16, 16) and sample.meta["fps"] == 8.0
    tokens = pipe.tokenizers["video"].encode(sample)
    assert tokens.grid == (3, 2, 2) and tokens.size == (6, 16, 16)
    assert tokens.coords[::4, 0].tolist() == [0.5 / 8, 3 / 8, 7 / 8]


def test_clips_of_other_lengths_can_be_asked_for(pipe):
    assert pipe.generate("3", seconds=1.0)[0].data.shape == (1, 8, 16, 16)


def test_frames_that_are_kept_are_kept_exactly(pipe):
    """The first latent is of one frame: keeping that one leaves all others to be made anew."""
    sample = pipe.generate("3", seed=1)[0]
    mask = torch.ones(6, 16, 16, dtype=torch.bool)
    mask[0] = False
    made = pipe.inpaint(sample, mask, "4", seed=2)[0]
    assert torch.equal(made.data[:, 0], sample.data[:, 0])
    assert (made.data[:, 1:] != sample.data[:, 1:]).flatten(2).any(2).all()
