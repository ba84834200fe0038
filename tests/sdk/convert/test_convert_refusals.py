"""Files that cannot be converted: refused by name, nothing in them executed, nothing written."""

import argparse
import pickle
import re
import zipfile

import pytest
import torch

from djepa.convert import convert
from djepa.errors import CheckpointError, UsageError


class Payload:
    """Unpickling it runs code: a file appears."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def refusal(path, **options):
    out = path.parent / "out"
    with pytest.raises(CheckpointError) as caught:
        convert(path, out, **options)
    assert not out.exists() and not list(path.parent.glob(".*"))
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["top", "optimizer", "model"])
def test_code_in_a_file_is_not_run(zipped, place, content, tmp_path):
    path, marker = tmp_path / "evil.pth", tmp_path / "it-ran"
    state = {"top": Payload(marker), "optimizer": {**content(), "optimizer": Payload(marker)},
             "model": {"model": Payload(marker)}}[place]
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert "asks for io.open, which could run code" in refusal(path)
    assert not marker.exists()


def test_code_in_a_plain_pickle_is_not_run(tmp_path):
    path, marker = tmp_path / "evil.pth", tmp_path / "it-ran"
    path.write_bytes(pickle.dumps({"model": Payload(marker)}))
    assert "cannot be read as a checkpoint" in refusal(path)
    assert not marker.exists()


def test_allowing_settings_is_not_left_behind(published, tmp_path):
    before = set(torch.serialization.get_safe_globals())
    convert(published("mar"), tmp_path / "out")
    assert set(torch.serialization.get_safe_globals()) == before and argparse.Namespace not in before


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(share, published, tmp_path):
    whole = published("mar").read_bytes()
    path = tmp_path / "checkpoint-last.pth"
    path.write_bytes(whole[: int(share * len(whole))])
    assert "cannot be read as a checkpoint" in refusal(path)


@pytest.mark.parametrize(("name", "data"), [
    ("a.pth", b""), ("a.pth", b"These are not the weights you are looking for.\n" * 99), ("a.safetensors", b"text " * 99),
    ("a.pth", b"PK\x03\x04" + bytes(100)), ("a.ckpt", bytes(1000)), ("a.safetensors", b"")])
def test_another_kind_of_file_is_refused(name, data, tmp_path):
    path = tmp_path / name
    path.write_bytes(data)
    assert str(path) in refusal(path)


def test_an_archive_of_something_else_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert str(path) in refusal(path)


def test_what_is_not_there_is_refused(tmp_path):
    assert "does not exist" in refusal(tmp_path / "nothing.pth")
    (tmp_path / "folder").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder")


@pytest.mark.parametrize(("made", "words"), [
    ([1, 2, 3], "holds a list"), ({}, "holds no state dict"), ({"epoch": 3}, "found 'epoch'"), ({"model": 3}, "found 'model'"),
    ({"model": {"w": 3}, "model_ema": {"w": 3}}, "'w' of the state dict is a int"),
    ({"w": torch.zeros(3, dtype=torch.int64)}, "a tensor of torch.int64"),
    ({"w": torch.zeros(3, device="meta")}, "'w'"), ({"w": torch.zeros(3).to_sparse()}, "'w'"),
    ({"model": {1: torch.zeros(3)}, "model_ema": {1: torch.zeros(3)}}, "entry 1"),
    ({"layer.weight": torch.zeros(3)}, "neither MAR nor D-JEPA.*layer.weight"), ({"model_ema": {}}, "neither MAR nor D-JEPA"),
])
def test_a_checkpoint_of_something_else_is_refused(made, words, saved):
    assert re.search(words, refusal(saved(made)))


@pytest.mark.parametrize(("kind", "options", "words"), [
    ("mar", {"kind": "djepa"}, "holds mar, not djepa"), ("djepa-flow", {"kind": "mar"}, "holds djepa, not mar"),
    ("mar", {"kind": "kl16"}, "holds mar, not kl16"), ("djepa-flow", {"head": "gaussian"}, "has a flow head, not gaussian"),
    ("mar", {"head": "flow"}, "has a gaussian head, not flow"), ("mar", {"patch_size": 3}, "patches of 3x3"),
    ("mar", {"patch_size": 0}, "patches of 0x0")])
def test_what_contradicts_the_tensors_is_refused(kind, options, words, saved, content):
    assert words in refusal(saved(content(kind)), **options)


@pytest.mark.parametrize(("name", "changed", "words"), [
    ("z_proj.bias", None, "missing 'z_proj.bias'"),
    ("decoder_blocks.1.mlp.fc2.weight", torch.zeros(36, 12), r"'decoder_blocks.1.mlp.fc2.weight' has shape \[36, 12\] instead"),
    ("surprise", torch.zeros(2), "unknown 'surprise'"),
    ("mask_token", torch.zeros(1, 2, 36), "'mask_token' has shape"),
    ("z_proj.weight", torch.zeros(24, 8, 1), "expected 2 axes"),
    ("z_proj.weight", torch.zeros(24, 7), "outputs for tokens of 7 channels"),
    ("encoder_norm.weight", torch.zeros(()), "'encoder_norm.weight' has shape"),
    ("class_emb.weight", torch.zeros(0, 24), "none of them empty"),
    ("diffusion_pos_embed_learned", torch.zeros(1, 15, 36), "do not form a square"),
    ("encoder_blocks.7.norm1.weight", torch.zeros(24), "missing 'encoder_blocks.1.norm1.weight'"),
    ("decoder_embed.weight", torch.zeros(37, 24), "cannot have 3 attention heads"),
    ("encoder_blocks.0.mlp.fc1.weight", torch.zeros(95, 24), "one ratio|has shape"),
])
def test_tensors_that_do_not_fit_are_named(name, changed, words, saved, content):
    state = content("mar")
    state["model_ema"] = {**state["model_ema"], name: changed}
    if changed is None:
        del state["model_ema"][name]
    assert re.search(words, refusal(saved(state)))


def test_a_tensor_larger_than_its_file_is_refused(saved, content):
    state = content("mar")
    state["model_ema"]["class_emb.weight"] = torch.zeros(1, 24).expand(10**9, 24)  # saved as 24 numbers
    assert "'class_emb.weight' claims 24000000000 numbers" in refusal(saved(state))


def test_weights_of_another_name_are_refused(published, tmp_path):
    with pytest.raises(UsageError, match="expected 'ema' or 'raw'"):
        convert(published("mar"), tmp_path / "out", weights="average")


def test_many_problems_are_not_all_listed(saved, content):
    state = content("mar")
    state["model_ema"] = {name: tensor for name, tensor in state["model_ema"].items() if ".attn." not in name}
    assert re.search(r"and \d+ more", refusal(saved(state)))
