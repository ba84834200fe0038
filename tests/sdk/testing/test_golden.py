"""`python -m djepa.testing.golden`: equal to recorded numbers, in any size, and never satisfied by less than all of them."""

import json
import shutil
from pathlib import Path

import golden_vectors
import pytest
import torch
from safetensors.torch import load_file, save_file

from djepa.testing.golden import main

RECORDED = Path(__file__).resolve().parents[4] / "shared" / "golden"
needs_recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason=f"the reference's recorded numbers are not at {RECORDED}")

SIZES = [
    ("mar", {"seed": 1}),
    ("djepa-gauss", {"seed": 2, "num_sampling_steps": "21", "class_num": 7, "buffer_size": 1}),
    ("djepa-flow", {"seed": 3, "num_sampling_steps": "5", "diffusion_batch_mul": 4, "mlp_ratio": 2}),
    ("mar", {"seed": 4, "patch_size": 1, "vae_embed_dim": 4, "masked": 64, "batch": 1, "num_sampling_steps": "4"}),
    ("djepa-gauss", {"seed": 5, "img_size": 32, "vae_stride": 8, "masked": 1, "qk_norm": False, "num_sampling_steps": "9"}),
]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    return golden_vectors.write_model(tmp_path_factory.mktemp("golden") / "djepa-flow", "djepa-flow")


@pytest.fixture
def spoilt(vectors, tmp_path):
    """A copy of the directory with its recorded tensors changed by a function."""
    def make(change):
        folder = shutil.copytree(vectors, tmp_path / "spoilt")
        tensors = load_file(folder / "golden.safetensors")
        change(tensors)
        save_file(tensors, folder / "golden.safetensors")
        return folder

    return make


def run(directory, capsys):
    """Exit code and what `--json` tells."""
    code = main([str(directory), "--json"])
    return code, json.loads(capsys.readouterr().out)


@needs_recorded
@pytest.mark.parametrize("kind", ["mar", "djepa-gauss", "djepa-flow", "kl16"])
def test_the_reference_is_reproduced(kind, capsys):
    if kind == "kl16":
        pytest.importorskip("diffusers")
    code, told = run(RECORDED / kind, capsys)
    recorded = set(load_file(RECORDED / kind / "golden.safetensors"))
    compared = {row["name"].split("[")[0] for row in told["rows"]}
    assert code == 0 and told["ok"] and compared | set(told["inputs"]) == recorded and told["uncompared"] == []


@pytest.mark.parametrize(("kind", "sizes"), SIZES)
def test_other_sizes_are_reproduced(kind, sizes, tmp_path, capsys):
    folder = golden_vectors.write_model(tmp_path / kind, kind, **sizes)
    code, told = run(folder, capsys)
    assert code == 0, [row for row in told["rows"] if not row["ok"]] + told["uncompared"]
    assert {"tokens", "z", "head_out", "loss", "sample_cfg3/latents"} <= {row["name"] for row in told["rows"]}


def test_an_autoencoder_of_other_sizes_is_reproduced(tmp_path, capsys):
    pytest.importorskip("diffusers")
    folder = golden_vectors.write_autoencoder(tmp_path / "kl", channels=(32, 32, 64), encoder_attention=(False, False, True),
                                              decoder_attention=(False, False, False))
    code, told = run(folder, capsys)
    assert code == 0 and [row["name"] for row in told["rows"]] == ["moments", "mean", "logvar", "decoded"]


@pytest.mark.parametrize("name", ["encoder_out", "z", "loss", "target_encoder_out", "sample_cfg2c/latents"])
def test_a_number_that_differs_is_found(name, spoilt, capsys):
    code, told = run(spoilt(lambda tensors: tensors[name].view(-1)[-1:].add_(2e-3)), capsys)
    assert code == 1 and not told["ok"]
    assert [row["name"] for row in told["rows"] if not row["ok"]] == [name]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_differs(number, spoilt, capsys):
    code, told = run(spoilt(lambda tensors: tensors["z"].view(-1)[:1].fill_(number)), capsys)
    row = next(row for row in told["rows"] if row["name"] == "z")
    assert code == 1 and not row["ok"] and row["difference"] is None


def test_another_shape_differs(spoilt, capsys):
    code, _ = run(spoilt(lambda tensors: tensors.update(head_out=tensors["head_out"][:-1].clone())), capsys)
    assert code == 1


def test_a_tensor_that_nobody_compares_is_an_error(spoilt, capsys):
    code, told = run(spoilt(lambda tensors: tensors.update({"sample_cfg9/latents": torch.zeros(3)})), capsys)
    assert code == 1 and told["uncompared"] == ["sample_cfg9/latents"] and all(row["ok"] for row in told["rows"])


def test_the_table_names_every_tensor(vectors, capsys):
    assert main([str(vectors)]) == 0
    out = capsys.readouterr().out
    recorded = load_file(vectors / "golden.safetensors")
    assert all(name in out for name in recorded) and "13 of 13 equal, 0 not compared" in out


def remove_noise(tensors):
    del tensors["sample_cfg1/step2/init_noise"]


def shorten_noise(tensors):
    tensors["sample_cfg1/step2/init_noise"] = tensors["sample_cfg1/step2/init_noise"][:-1].clone()


@pytest.mark.parametrize(("change", "words"), [
    (lambda tensors: tensors.pop("z"), "has no tensor 'z'"),
    (lambda tensors: tensors.pop("latents"), "has no tensor 'latents'"),
    (remove_noise, "has no tensor 'sample_cfg1/step2/init_noise'"), (shorten_noise, "at sample_cfg1/step2"),
    (lambda tensors: tensors.update(latents=tensors["latents"][:, :, :-1].clone()), "latents have shape"),
])
def test_a_directory_that_lacks_something_is_refused(change, words, spoilt, capsys):
    assert main([str(spoilt(change))]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and "Traceback" not in error


def test_what_is_no_such_directory_is_refused(vectors, tmp_path, capsys):
    for change, words in [
        (lambda folder: (folder / "golden.safetensors").unlink(), "it has no golden.safetensors"),
        (lambda folder: (folder / "golden.safetensors").write_bytes(b"text"), "damaged"),
        (lambda folder: (folder / "checkpoint-last.pth").unlink(), "found none"),
        (lambda folder: (folder / "other.ckpt").write_bytes(b""), "found checkpoint-last.pth, other.ckpt"),
        (lambda folder: (folder / "checkpoint-last.pth").write_bytes(b"text"), "cannot be read as a checkpoint"),
        (lambda folder: (folder / "config.json").unlink(), "num_sampling_steps"),
        (lambda folder: (folder / "config.json").write_text('{"num_sampling_steps": "ddim10"}'), "num_sampling_steps"),
        (lambda folder: (folder / "config.json").write_text('{"num_sampling_steps": 1}'), "not between 2 and 1000"),
    ]:
        folder = shutil.copytree(vectors, tmp_path / "broken")
        change(folder)
        assert main([str(folder)]) == 2
        assert words in capsys.readouterr().err
        shutil.rmtree(folder)
    assert main([str(tmp_path / "nothing")]) == 2
