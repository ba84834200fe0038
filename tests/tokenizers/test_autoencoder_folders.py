"""Folders of autoencoders: diffusers' own are read, ours are diffusers' own, and what is wrong with one is said by name."""

import hashlib
import json
import shutil

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from djepa.errors import CheckpointError, UsageError

WEIGHTS = "diffusion_pytorch_model.safetensors"


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def renamed(folder, rename):
    tensors = load_file(folder / WEIGHTS)
    save_file({rename(name): tensor for name, tensor in tensors.items()}, folder / WEIGHTS)


def test_what_is_saved_is_read_by_diffusers_and_by_us(autoencoder, picture, network, tmp_path):
    from diffusers import AutoencoderKL

    autoencoder().save_assets(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", WEIGHTS}
    theirs = AutoencoderKL.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in theirs.state_dict().items())
    assert torch.equal(autoencoder(source=str(tmp_path)).encode(picture()).values, autoencoder().encode(picture()).values)


def test_a_saved_one_needs_no_source(autoencoder, own_autoencoder, picture, tmp_path):
    tokenizer = autoencoder(source=str(own_autoencoder))
    values = tokenizer.encode(picture()).values
    tokenizer.save_assets(tmp_path)
    shutil.rmtree(own_autoencoder)
    moved = shutil.copytree(tmp_path, own_autoencoder.with_name("moved"))
    loaded = autoencoder(**tokenizer.options())
    with pytest.raises(CheckpointError, match="own"):
        loaded.encode(picture())
    loaded.load_assets(moved)
    shutil.rmtree(moved)
    assert torch.equal(loaded.encode(picture()).values, values)


def test_a_configuration_alone_has_no_weights(autoencoder, config, picture, tmp_path):
    for use in (lambda one: one.encode(picture()), lambda one: one.save_assets(tmp_path)):
        with pytest.raises(UsageError, match="no weights yet"):
            use(autoencoder(source=None, config=config()))


def test_a_relative_source_is_found_from_anywhere(autoencoder, own_autoencoder, picture, monkeypatch):
    monkeypatch.chdir(own_autoencoder.parent)
    tokenizer = autoencoder(source="own")
    monkeypatch.chdir("/")
    tokenizer.encode(picture())
    assert tokenizer.options()["source"] == str(own_autoencoder)


def test_half_precision_weights_are_computed_in_full(autoencoder, own_autoencoder, picture):
    halves = {name: tensor.half() for name, tensor in load_file(own_autoencoder / WEIGHTS).items()}
    save_file(halves, own_autoencoder / WEIGHTS)
    values = autoencoder(source=str(own_autoencoder)).encode(picture()).values
    save_file({name: tensor.float() for name, tensor in halves.items()}, own_autoencoder / WEIGHTS)
    assert values.dtype == torch.float32
    assert torch.equal(values, autoencoder(source=str(own_autoencoder)).encode(picture()).values)


def test_files_with_the_old_names_of_attention_are_read(autoencoder, own_autoencoder, picture):
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def rename(name):
        return next((name.replace(new, before) for new, before in old.items() if new in name), name)

    renamed(own_autoencoder, rename)
    assert any(".proj_attn." in name for name in load_file(own_autoencoder / WEIGHTS))
    assert torch.equal(autoencoder(source=str(own_autoencoder)).encode(picture()).values,
                       autoencoder().encode(picture()).values)


def _truncated(folder):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


SPOILT = {
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), WEIGHTS),
    "pickled weights": (lambda folder: (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.bin"), "runs no code"),
    "truncated": (_truncated, "damaged"),
    "empty": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "damaged"),
    "another name": (lambda folder: renamed(folder, lambda name: name.replace("conv_in", "first")),
                     "missing 'encoder.conv_in.weight'"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_damaged_weights_are_refused_by_name(autoencoder, own_autoencoder, picture, case):
    spoil, told = SPOILT[case]
    spoil(own_autoencoder)
    for use in (lambda: autoencoder(source=str(own_autoencoder)).encode(picture()),
                lambda: autoencoder().load_assets(own_autoencoder)):
        with pytest.raises(CheckpointError) as caught:
            use()
        assert told in str(caught.value) and str(own_autoencoder) in str(caught.value)


@pytest.mark.parametrize(("spoil", "told"), [
    (lambda path: path.unlink(), "config.json"), (lambda path: path.write_text("{"), "damaged"),
    (lambda path: path.write_bytes(b"\xff"), "damaged"),
])
def test_a_missing_or_damaged_configuration_is_refused_by_name(autoencoder, own_autoencoder, spoil, told):
    spoil(own_autoencoder / "config.json")
    for use in (lambda: autoencoder(source=str(own_autoencoder)), lambda: autoencoder().load_assets(own_autoencoder)):
        with pytest.raises(CheckpointError) as caught:
            use()
        assert told in str(caught.value) and str(own_autoencoder) in str(caught.value)


def test_a_configuration_that_does_not_fit_is_refused(autoencoder, own_autoencoder, picture):
    path = own_autoencoder / "config.json"
    rewrite(path, norm_num_groups=2)  # the weights would fit
    with pytest.raises(CheckpointError, match="norm_num_groups is 2, not 4"):
        autoencoder().load_assets(own_autoencoder)
    rewrite(path, latent_channels=5)
    with pytest.raises(CheckpointError, match=r"has shape \[8, 8, 1, 1\] instead of \[10, 10, 1, 1\]"):
        autoencoder(source=str(own_autoencoder)).encode(picture())
    rewrite(path, norm_num_groups=3)
    with pytest.raises(CheckpointError, match="diffusers cannot build AutoencoderKL"):
        autoencoder(source=str(own_autoencoder)).encode(picture())


def test_a_source_of_another_kind_is_refused(autoencoder, own_autoencoder, tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    for source, told in ((own_autoencoder / WEIGHTS, "is a file"), (tmp_path, "whole pipeline")):
        with pytest.raises(UsageError, match=told) as caught:
            autoencoder(source=str(source))
        assert not isinstance(caught.value, CheckpointError)
    rewrite(own_autoencoder / "config.json", _class_name="UNet2DModel")
    with pytest.raises(UsageError, match=r"'UNet2DModel'. .*Known: .*AutoencoderKL"):
        autoencoder(source=str(own_autoencoder))
    (own_autoencoder / "config.json").write_text('{"format": 1}')
    with pytest.raises(UsageError, match="_class_name"):
        autoencoder(source=str(own_autoencoder))


@pytest.mark.parametrize(("source", "told"), [("nobody/nothing", "Hugging Face Hub"), ("./no/where", "no folder"),
                                              ("typo", "owner/name")])
def test_a_source_that_is_not_there_is_refused(autoencoder, source, told):
    with pytest.raises(CheckpointError, match=told):
        autoencoder(source=source)


@pytest.mark.parametrize("inside", ["", "vae"])
def test_a_repository_of_the_hub_is_a_source(saved_autoencoder, autoencoder, picture, tmp_path, monkeypatch, inside):
    """Out of the cache, which is laid out as a download leaves it."""
    commit = hashlib.sha1(b"commit").hexdigest()
    repository = tmp_path / "models--somebody--autoencoder"
    shutil.copytree(saved_autoencoder, repository / "snapshots" / commit / inside)
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    source = "/".join(["somebody/autoencoder", *filter(None, [inside])])
    tokenizer = autoencoder(source=source, revision="v1")
    assert torch.equal(tokenizer.encode(picture()).values, autoencoder().encode(picture()).values)
    assert (tokenizer.options()["source"], tokenizer.options()["revision"]) == (source, "v1")
    with pytest.raises(CheckpointError, match="Hugging Face Hub"):
        autoencoder(source=source, revision="v2")


def test_reading_a_network_draws_nothing(saved_autoencoder, autoencoder):
    before = torch.get_rng_state()
    autoencoder().load_assets(saved_autoencoder)
    assert torch.equal(torch.get_rng_state(), before)
