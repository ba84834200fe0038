"""Checkpoints: everything a run needs to go on, and a model folder at the same time."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from djepa import Pipeline, Recipe
from djepa.errors import CheckpointError
from djepa.recipe.schema import CheckpointSpec
from djepa.storage import checkpoints, newest_checkpoint
from djepa.train.checkpoint import load_checkpoint, sweep, take_snapshot, write_checkpoint
from djepa.train.distributed import World
from djepa.train.engine import build_engine
from djepa.train.optimizer import update_average
from djepa.train.team import ALONE


@pytest.fixture(scope="module")
def recipe(trained):
    return Recipe.load(trained / "recipe.yaml")


@pytest.fixture
def parts(pipe, recipe):
    """Everything a run is made of, after two steps that moved all of it."""
    def make(seed=0):
        engine = build_engine(recipe.override([f"seed={seed}"]), pipe.spec, pipe.tokenizers, World(torch.device("cpu")))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for _ in range(2):
                for parameter in engine.model.parameters():
                    parameter.grad = torch.randn_like(parameter)
                engine.optimizer.step(1e-3)
                update_average(engine.average, engine.model, 0.5)
        return engine

    return make


def tensors(engine):
    return {**{f"model.{name}": tensor for name, tensor in engine.model.state_dict().items()},
            **{f"average.{name}": tensor for name, tensor in engine.average.state_dict().items()},
            **{f"optimizer.{name}": tensor for name, tensor in engine.optimizer.state().items()}}


@pytest.fixture
def save(parts):
    engine = parts()

    def write(run, step, value=None, **spec):
        snapshot = take_snapshot(step, engine, ALONE, {"description": "mine"}, {} if value is None else {"loss": value})
        return write_checkpoint(run, snapshot, CheckpointSpec(**spec), ALONE)

    return write


def test_everything_comes_back_bit_for_bit(tmp_path, parts, save):
    path = save(tmp_path, 7)
    saved, fresh = tensors(parts()), parts(seed=1)
    assert not torch.equal(tensors(fresh)["model.encoder.norm_in.weight"], saved["model.encoder.norm_in.weight"])
    assert load_checkpoint(path, fresh, ALONE) == 7
    loaded = tensors(fresh)
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], saved[name]) and loaded[name].dtype == saved[name].dtype for name in saved)


def test_a_checkpoint_is_a_model_folder_of_the_average(tmp_path, parts, save):
    path = save(tmp_path, 7)
    pipeline = Pipeline.from_pretrained(path, device="cpu")
    average = parts().average.state_dict()
    assert all(torch.equal(tensor, average[name]) for name, tensor in pipeline.model.state_dict().items())
    assert pipeline.about == {"description": "mine", "step": 7}


def test_the_newest_are_kept(tmp_path, save):
    for step in (2, 4, 30, 100):
        save(tmp_path, step, keep=2)
    assert [step for step, _ in checkpoints(tmp_path)] == [30, 100]
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step_00000100"
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step_00000030", "step_00000100"}


def test_those_of_every_so_many_steps_and_the_best_are_kept_too(tmp_path, save):
    for step, value in ((2, 0.5), (4, 0.1), (6, 0.4), (8, None), (10, 0.2), (12, 0.3)):
        save(tmp_path, step, value, keep=1, keep_every=5, keep_best="loss")
    assert [step for step, _ in checkpoints(tmp_path)] == [4, 10, 12]


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
        load_checkpoint(path, parts(), ALONE)


@pytest.mark.parametrize("lost", ["model.encoder.norm_in.weight", "optimizer.exp_avg.encoder.norm_in.weight"])
def test_a_lost_tensor_is_named(tmp_path, parts, save, lost):
    path = save(tmp_path, 7)
    training = load_file(path / "training.safetensors")
    del training[lost]
    save_file(training, path / "training.safetensors")
    with pytest.raises(CheckpointError, match=r"encoder\.norm_in\.weight"):
        load_checkpoint(path, parts(), ALONE)


def test_a_finished_run_holds_its_last_checkpoints(trained):
    assert [step for step, _ in checkpoints(trained)] == [4, 6]
    assert json.loads((trained / "checkpoints" / "step_00000006" / "progress.json").read_text()) == {"step": 6}


def test_a_checkpoint_can_be_moved_anywhere(trained, tmp_path):
    moved = shutil.copytree(trained / "checkpoints" / "step_00000006", tmp_path / "my model")
    assert len(Pipeline.from_pretrained(moved, device="cpu").generate(3)) == 1
