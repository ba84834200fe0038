"""The command line, as somebody types it."""

import json
import shutil
import struct
import zlib

import pytest
import torch

from djepa import Pipeline, Sample, __version__
from djepa_image.modality import Image


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


# 50,000 x 50,000 pixels in a hundred bytes.
BOMB = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes of three pictures."""
    root = tmp_path / "pictures"
    for number, name in enumerate(["cats/a", "cats/b", "cats/c", "dogs/a", "dogs/b", "dogs/c"]):
        waves = torch.sin(torch.arange(12.0)[:, None] * number + torch.arange(10.0)).expand(3, -1, -1)
        Sample(waves, {}, "image").save(root / f"{name}.png")
    return root


@pytest.fixture
def folder_recipe(tmp_path, make_recipe, pictures):
    """The file of a tiny recipe for those pictures, at 8x8 pixels."""
    def write(*overrides):
        recipe = make_recipe(f"data.root={pictures}", "data.size=8", "train.micro_batch_size=null", "train.steps=2", *overrides,
                             name="image/folder", measured=True)
        path = tmp_path / "pictures.yaml"
        path.write_text(recipe.to_yaml())
        return path

    return write


# What works


def test_a_whole_story_in_processes_of_their_own(process, tmp_path, folder_recipe):
    done = process("train", folder_recipe("train.num_workers=2", "preview.every=2", "preview.num_samples=1"), "--out", "run")
    assert done.code == 0, done.err
    assert done.out == "Done. The model is in run/checkpoints/step_00000002. Generate with: djepa generate run --out samples\n"
    assert "step 2/2 loss" in done.err and {path.suffix for path in (tmp_path / "run" / "samples").iterdir()} == {".png"}
    made = process("generate", "run", "--condition", "cats", "-c", "dogs", "-n", 2, "--seed", 7, "--out", "samples", "--json")
    assert (made.code, made.err) == (0, "")
    told = json.loads(made.out)
    assert told["paths"] == [f"samples/{number:05d}.png" for number in range(4)]
    assert [(meta["condition"], meta["seed"]) for meta in told["samples"]] == [
        ({"label": "cats"}, 7), ({"label": "cats"}, 8), ({"label": "dogs"}, 7), ({"label": "dogs"}, 8)]
    for path, meta in zip(told["paths"], told["samples"], strict=True):
        sample = Image().load(tmp_path / path)
        assert sample.meta == meta and sample.data.shape == (3, 8, 8)


def test_one_sample_goes_into_a_file(command, trained, pipe, tmp_path):
    outcome = command("generate", trained, "-c", "3", "--seed", 5, "--out", tmp_path / "deep" / "three.png", "--device", "cpu")
    assert (outcome.code, outcome.err) == (0, "") and outcome.out == f"Wrote 1 sample to {tmp_path}/deep/three.png\n"
    assert (Image().load(tmp_path / "deep" / "three.png").data - pipe.generate(3, seed=5)[0].data).abs().max() < 0.005


def test_several_samples_in_a_file_are_a_sheet(command, trained, tmp_path):
    outcome = command("generate", trained, "-c", "3", "-c", "label=4", "-n", 2, "--out", tmp_path / "all.png", "--json")
    assert outcome.code == 0 and [meta["condition"] for meta in json.loads(outcome.out)["samples"]] == [
        {"label": "3"}, {"label": "3"}, {"label": "4"}, {"label": "4"}]
    sheet = Image().load(tmp_path / "all.png")
    assert min(sheet.data.shape[1:]) > 2 * 8 and sheet.meta["model"] == str(trained)


def test_a_folder_that_is_there_is_added_to(command, trained, tmp_path):
    (tmp_path / "v1.0").mkdir()  # has a suffix and is a folder all the same
    (tmp_path / "v1.0" / "notes.txt").touch()
    assert command("generate", trained, "-n", 2, "--out", tmp_path / "v1.0").code == 0
    assert sorted(path.name for path in (tmp_path / "v1.0").iterdir()) == ["00000.png", "00001.png", "notes.txt"]


def test_settings_are_those_of_python(command, trained, tmp_path):
    outcome = command("generate", trained, "--out", tmp_path / "x.png", "--json", "--num-steps", 3, "--num-denoising-steps", 7,
                      "--temperature", 0.9, "--guidance-scale", 2.5, "--guidance-schedule", "constant", "--order", "raster",
                      "--batch-size", 1, "--dtype", "bfloat16")
    settings = json.loads(outcome.out)["samples"][0]["settings"]
    wanted = {"num_steps": 3, "num_denoising_steps": 7, "temperature": 0.9, "guidance_scale": 2.5,
              "guidance_schedule": "constant", "order": {"kind": "raster"}}
    assert {name: settings[name] for name in wanted} == wanted


def test_a_run_trains_and_goes_on(command, tmp_path, make_recipe, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(make_recipe("train.lr_schedule=constant").to_yaml())
    assert command("train", "mine.yaml", "train.steps=2").out.startswith("Done. The model is in runs/mine/checkpoints")
    outcome = command("resume", "runs/mine", "train.steps=3")
    assert outcome.code == 0 and "step_00000003" in outcome.out and "step 3/3" in outcome.err
    assert len(Pipeline.from_pretrained("runs/mine", device="cpu").generate(1)) == 1


def test_version_and_help(command):
    assert command("--version").out == f"djepa {__version__}\n"
    for words in (["--help"], ["generate", "--help"], ["train", "--help"], ["resume", "--help"]):
        assert command(*words).code == 0


# What cannot be asked for


@pytest.mark.parametrize(("arguments", "told"), [
    (["--condition", "33"], "'33'"), (["-c", "lable=3"], "lable"), (["--num-steps", "0"], "num_steps"),
    (["--num-denoising-steps", "-5"], "num_denoising_steps"), (["--num-samples", "0"], "num_samples=0"),
    (["--seed", "-1"], "seed=-1"),
    (["--batch-size", "-2"], "batch_size=-2"), (["--order", "rastr"], "'raster'"), (["--order", "causal"], "axis"),
    (["--guidance-schedule", "liner"], "'linear'"), (["--temperature", "-0.5"], "temperature"),
    (["--temperature", "nan"], "NaN"), (["--device", "gpu"], "'gpu'"), (["--dtype", "float64"], "'float64'"),
], ids=" ".join)
def test_a_generation_that_cannot_be(command, trained, tmp_path, arguments, told):
    outcome = command("generate", trained, "--out", tmp_path / "x.png", *arguments)
    assert outcome.code == 2 and told in outcome.error() and outcome.out == "" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("out", "code", "told"), [
    ("x.gif", 2, "png"), ("x.txt", 2, "jpg"), ("file/x.png", 1, "is a file"), ("file/deep/er", 1, "is a file"),
    ("file", 1, "is a file"),
])
def test_a_place_that_cannot_be_written(command, trained, tmp_path, out, code, told):
    (tmp_path / "file").write_text("mine")
    outcome = command("generate", trained, "-n", 100_000_000, "--out", tmp_path / out)  # told before anything is generated
    assert outcome.code == code and told in outcome.error() and str(tmp_path / out) in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("model", ["no/model", "nothing", "/no/such/folder", "empty", "torn"])
def test_a_model_that_is_none(command, trained, tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    torn = shutil.copytree(trained / "checkpoints" / "step_00000006", tmp_path / "torn") / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:1000])
    outcome = command("generate", model, "--out", "x.png")
    assert outcome.code == 2 and model in outcome.error()


@pytest.mark.parametrize(("arguments", "told"), [
    (["image/digts"], "Did you mean 'image/digits'"), (["nowhere.yaml"], "nowhere.yaml"),
    (["image/digits", "trian.steps=5"], "did you mean 'train'"), (["image/digits", "train.steps=-1"], "train.steps"),
    (["image/digits", "train.steps"], "train.steps"), (["image/digits", "data.splt=all"], "did you mean 'split'"),
    (["image/digits", "data.split=half"], "data.split"), (["image/folder"], "data.root"),
    (["image/folder", "data.root=/no/such/folder"], "/no/such/folder"), (["image/digits", "--device", "gpu"], "'gpu'"),
    (["image/digits", "model.streams.image.head=gausian"], "Did you mean 'gaussian'"),
    (["image/digits", "model.streams.image.tokenizer.patch.y=3"], "6 and 9"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_training_that_cannot_be(command, tmp_path, arguments, told):
    outcome = command("train", *arguments, "--out", tmp_path / "run")
    assert outcome.code == 2 and told in outcome.error() and list(tmp_path.iterdir()) == []


def test_a_run_below_a_file(command, tmp_path, folder_recipe):
    (tmp_path / "file").touch()
    outcome = command("train", folder_recipe(), "--out", tmp_path / "file" / "run")
    assert outcome.code == 1 and str(tmp_path / "file" / "run") in outcome.error()


def test_a_run_that_is_there_or_is_not(command, trained, tmp_path):
    for words, told in ((["train", "image/digits", "--out", trained], "djepa resume"), (["resume", tmp_path], "djepa train"),
                        (["resume", trained, "train.lr=1"], "train.lr : was 0.001, is 1.0 (override)")):
        outcome = command(*words)
        assert outcome.code == 2 and told in outcome.error()


@pytest.mark.parametrize("arguments", [["generate", "x"], ["train"], ["generate", "x", "--out"], ["--nonsense"], ["trian", "x"],
                                       ["generate", "x", "--out", "y", "--num-steps", "many"]], ids=" ".join)
def test_a_command_that_is_none(command, arguments):
    outcome = command(*arguments)
    assert outcome.code == 2 and "Traceback" not in outcome.err and outcome.err


# Pictures that cannot be read


@pytest.mark.parametrize(("spoil", "told"), [
    (lambda content: content[:len(content) // 2], "damaged or cut short"), (lambda content: b"just text\n" * 9, "no picture"),
    (lambda content: b"", "empty"), (lambda content: BOMB, "too large"),
], ids=["truncated", "text", "empty", "bomb"])
def test_a_picture_that_cannot_be_read_is_named(command, tmp_path, pictures, folder_recipe, spoil, told):
    bad = pictures / "dogs" / "b.png"
    bad.write_bytes(spoil(bad.read_bytes()))
    outcome = command("train", folder_recipe(), "--out", tmp_path / "run")
    assert outcome.code == 2 and told in outcome.error() and str(bad) in outcome.err
    assert not (tmp_path / "run").exists()  # mend the picture and try again


def test_a_size_that_patches_do_not_divide(command, tmp_path, folder_recipe):
    outcome = command("train", folder_recipe("data.size=[8, 10]"), "--out", tmp_path / "run")
    assert outcome.code == 2 and "8 and 12" in outcome.error()


def test_a_folder_without_classes_needs_a_model_without_conditions(command, tmp_path, pictures, folder_recipe):
    flat = f"data.root={pictures / 'cats'}"
    outcome = command("train", folder_recipe(flat), "--out", tmp_path / "run")
    assert outcome.code == 2 and "model.conditions.label" in outcome.error()
    assert command("train", folder_recipe(flat, "model.conditions=null"), "--out", tmp_path / "run").code == 0


# Disks that are full


def test_a_run_stops_where_the_disk_is_full_and_goes_on_elsewhere(process, command, small_disk, tmp_path, make_recipe):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(make_recipe("train.steps=4", "checkpoint.every=1", "checkpoint.keep=9").to_yaml())
    disk = small_disk(2500)
    outcome = process("train", recipe, "--out", disk / "run")
    told = outcome.err[outcome.err.index("error: "):]
    assert outcome.code == 1 and "No space left on device" in told and "Traceback" not in outcome.err
    complete = sorted(path.name for path in (disk / "run" / "checkpoints").iterdir())
    assert complete and complete[0] == "step_00000001" and "step_00000004" not in complete
    assert all(name.startswith("step_") for name in complete)
    moved = shutil.copytree(disk / "run", tmp_path / "run")
    outcome = command("resume", moved)
    assert outcome.code == 0 and "step_00000004" in outcome.out
