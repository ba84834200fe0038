"""Checkpoints: everything a run needs to go on, and a model folder at the same time."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from djepa import Pipeline, Recipe
from djepa.build import build_model
from djepa.errors import CheckpointError
from djepa.storage import checkpoints, newest_checkpoint
from djepa.train.checkpoint import load_checkpoint, save_checkpoint, sweep
from djepa.train.optimizer import averaged_copy, make_optimizer, optimizer_tensors, update_average


@pytest.fixture(scope="module")
def recipe(trained):
    return Recipe.load(trained / "recipe.yaml")


@pytest.fixture
def parts(pipe, recipe):
    """A model, its average and its optimizer after two steps that moved everything."""
    def make(seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = build_model(pipe.spec, pipe.tokenizers).train()
            average, optimizer = averaged_copy(model), make_optimizer(model, recipe.train)
            for _ in range(2):
                for parameter in model.parameters():
                    parameter.grad = torch.randn_like(parameter)
                optimizer.step()
                update_average(average, model, 0.5)
        return model, average, optimizer

    return make


def tensors(model, average, optimizer):
    return {**{f"model.{name}": tensor for name, tensor in model.state_dict().items()},
            **{f"average.{name}": tensor for name, tensor in average.state_dict().items()},
            **{f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(optimizer, model).items()}}


@pytest.fixture
def save(pipe, parts):
    return lambda run, step, keep=2: save_checkpoint(run, step, pipe.spec, *parts(), {"description": "mine"}, keep)


def test_everything_comes_back_bit_for_bit(tmp_path, parts, save):
    path = save(tmp_path, 7)
    saved, fresh = tensors(*parts()), parts(seed=1)
    assert not torch.equal(tensors(*fresh)["model.encoder.norm_in.weight"], saved["model.encoder.norm_in.weight"])
    assert load_checkpoint(path, *fresh) == 7
    loaded = tensors(*fresh)
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], saved[name]) and loaded[name].dtype == saved[name].dtype for name in saved)


def test_a_checkpoint_is_a_model_folder_of_the_average(tmp_path, parts, save):
    path = save(tmp_path, 7)
    pipeline = Pipeline.from_pretrained(path, device="cpu")
    average = parts()[1].state_dict()
    assert all(torch.equal(tensor, average[name]) for name, tensor in pipeline.model.state_dict().items())
    assert pipeline.about == {"description": "mine", "step": 7}


def test_the_newest_are_kept(tmp_path, save):
    for step in (2, 4, 30, 100):
        save(tmp_path, step, keep=2)
    assert [step for step, _ in checkpoints(tmp_path)] == [30, 100]
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step_00000100"
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step_00000030", "step_00000100"}


def test_what_killed_writers_left_is_swept_away_and_nothing_else(tmp_path):
    ours = ["checkpoints/.step_00000002.0a1b2c3d.tmp/model.safetensors", "samples/.step_00000002_raw.0a1b2c3d.tmp.png",
            ".log.0a1b2c3d.tmp.jsonl", ".recipe.01234567.tmp.yaml"]
    theirs = ["checkpoints/step_00000002/progress.json", "samples/step_00000002_raw.png", "log.jsonl", ".notes.tmp", ".tmp/x",
              "elsewhere/.log.0a1b2c3d.tmp.jsonl"]
    for name in ours + theirs:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(theirs)
    assert not (tmp_path / "checkpoints" / ".step_00000002.0a1b2c3d.tmp").exists()


def test_a_run_without_checkpoints_has_none(tmp_path):
    (tmp_path / "checkpoints" / "step_00000002").mkdir(parents=True)  # not complete
    (tmp_path / "checkpoints" / "notes.txt").touch()
    assert checkpoints(tmp_path) == [] and newest_checkpoint(tmp_path) is newest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize(("name", "content"), [
    ("training.safetensors", None), ("training.safetensors", b"x" * 99), ("model.safetensors", None),
    ("model.safetensors", b""), ("progress.json", b"{"), ("progress.json", b"[1]"), ("progress.json", b'{"step": "x"}'),
    ("progress.json", b"\xff"),
])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, parts, save, name, content):
    path = save(tmp_path, 7)
    (path / name).unlink()
    if content is not None:
        (path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(path, *parts())


@pytest.mark.parametrize("lost", ["model.encoder.norm_in.weight", "optimizer.exp_avg.encoder.norm_in.weight"])
def test_a_lost_tensor_is_named(tmp_path, parts, save, lost):
    path = save(tmp_path, 7)
    training = load_file(path / "training.safetensors")
    del training[lost]
    save_file(training, path / "training.safetensors")
    with pytest.raises(CheckpointError, match=r"encoder\.norm_in\.weight"):
        load_checkpoint(path, *parts())


def test_a_finished_run_holds_its_last_checkpoints(trained):
    assert [step for step, _ in checkpoints(trained)] == [4, 6]
    assert json.loads((trained / "checkpoints" / "step_00000006" / "progress.json").read_text()) == {"step": 6}


def test_a_checkpoint_can_be_moved_anywhere(trained, tmp_path):
    moved = shutil.copytree(trained / "checkpoints" / "step_00000006", tmp_path / "my model")
    assert len(Pipeline.from_pretrained(moved, device="cpu").generate(3)) == 1
