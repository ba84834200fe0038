"""Small checkpoints in the layout of the published ones."""

import argparse

import golden_vectors
import pytest
import torch


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """The checkpoint file of a small random model by its kind; not to be changed."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = golden_vectors.write_model(tmp_path_factory.mktemp("published") / kind, kind)
        return made[kind] / "checkpoint-last.pth"

    return get


@pytest.fixture(scope="session")
def published_autoencoder(tmp_path_factory):
    """The checkpoint of an autoencoder of stride 8 and two latent channels, which the small models fit; not to be changed."""
    folder = golden_vectors.write_autoencoder(
        tmp_path_factory.mktemp("published") / "kl", channels=(32, 32, 32, 64), latents=2,
        encoder_attention=(False, False, True, True), decoder_attention=(False, True, False, False))
    return folder / "kl16-tiny.ckpt"


@pytest.fixture(scope="session")
def content(published):
    """What the checkpoint file of a kind holds, loaded afresh."""
    def load(kind="mar"):
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(published(kind), weights_only=True)

    return load


@pytest.fixture
def saved(tmp_path):
    """Saves a checkpoint in a folder of its own, without any configuration beside it."""
    def save(content, name="checkpoint.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save
