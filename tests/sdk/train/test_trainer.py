"""Training: what a run leaves, what it refuses, and that stopping and going on changes nothing."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from djepa import Dataset, Example, Recipe, Sample, Trainer
from djepa.errors import CheckpointError, LayoutError, RecipeError, TrainingError, UsageError
from djepa.hookspecs import hookimpl
from djepa.plugins import temporary
from djepa.random import numpy_generator
from djepa.train.loop import MAX_SKIPPED
from djepa.train.optimizer import ema_decay
from djepa.train.stopwatch import PARTS

VARIANTS = {
    "plain": [],
    "dropout": ["model.dropout=0.3"],
    "micro-batches": ["train.micro_batch_size=2", "model.dropout=0.3"],
    "flow": ["model.streams.image.head={kind: flow, depth: 1, width: 32}"],
    "rotary": ["model.position=rotary"],
    "bfloat16": ["train.precision=bfloat16"],
    "no JEPA loss": ["train.jepa_weight=0"],
    "causal": ["model.generate.order={kind: causal, axis: y}", "train.lr_schedule=constant"],
}


class Poisoned(Dataset):
    """Noise; training meets `value` in the examples of `bad`."""

    def __init__(self, *, size: int, bad: list[int], value: float | str) -> None:
        self.size, self.bad, self.value = size, bad, float(value)

    def __len__(self):
        return self.size

    def load(self, index, rng=None):
        data = torch.from_numpy(numpy_generator(0, index).uniform(-1, 1, (1, 8, 8)).astype(np.float32))
        if rng is not None and index in self.bad:
            data[0, 0, 0] = self.value
        return Example({"image": Sample(data, {}, "image")}, {"label": str(index % 2)})

    def classes(self):
        return {"label": ["0", "1"]}


class Plugin:
    @hookimpl
    def djepa_register_datasets(self, register):
        register("poisoned", f"{__name__}:Poisoned")


@pytest.fixture
def poisoned(make_recipe):
    with temporary(Plugin()):
        yield lambda *overrides, size=8, bad=(), value="nan": make_recipe(
            f"data={{kind: poisoned, size: {size}, bad: {list(bad)}, value: {value}}}", *overrides)


def fitted(recipe, run):
    Trainer(recipe, device="cpu").fit(run)
    return run


def records(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def untimed(run):
    """The log without how long things took."""
    return [{key: value for key, value in record.items() if "second" not in key} for record in records(run)]


def weights(run, step):
    """Averaged and raw weights and optimizer state of a checkpoint."""
    folder = run / "checkpoints" / f"step_{step:08d}"
    return load_file(folder / "model.safetensors"), load_file(folder / "training.safetensors")


def assert_same(run, other, step):
    for ours, theirs in zip(weights(run, step), weights(other, step), strict=True):
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


# What a run leaves


def test_a_run_folder_holds_what_was_done(trained):
    assert {path.name for path in trained.iterdir()} == {"recipe.yaml", "checkpoints", "log.jsonl"}
    assert [record["step"] for record in records(trained)] == [1, 2, 3, 4, 5, 6]
    for record in records(trained):
        timed = {f"seconds/{part}" for part in (*PARTS, "other", "step")}
        assert set(record) - timed == {"step", "loss", "image/mse", "image/vb", "image/jepa", "grad_norm", "lr",
                                       "samples_per_second"} and timed < set(record)
        assert all(math.isfinite(value) for value in record.values())


def test_the_recipe_of_a_run_makes_the_same_run(trained, tmp_path):
    again = fitted(Recipe.load(trained / "recipe.yaml"), tmp_path / "again")
    assert_same(again, trained, 6)
    assert untimed(again) == untimed(trained)
    assert (again / "recipe.yaml").read_text() == (trained / "recipe.yaml").read_text()


def test_another_seed_is_another_run(trained, tmp_path, make_recipe):
    other = fitted(make_recipe("train.steps=1", "seed=1"), tmp_path / "other")
    assert records(other)[0]["loss"] != records(trained)[0]["loss"]


def test_the_last_checkpoint_is_returned_whatever_divides(tmp_path, make_recipe):
    path = Trainer(make_recipe("train.steps=3", "checkpoint.every=2", "train.log_every=2"), device="cpu").fit(tmp_path / "run")
    assert path == tmp_path / "run" / "checkpoints" / "step_00000003"
    assert [record["step"] for record in records(tmp_path / "run")] == [2, 3]


def test_training_leaves_global_random_states_alone(tmp_path, make_recipe, untouched):
    fitted(make_recipe("train.steps=2", "model.dropout=0.2", "preview.every=1", "preview.num_conditions=1"), tmp_path / "run")


def test_the_average_follows_the_weights_step_by_step(tmp_path, make_recipe):
    recipe = make_recipe("train.steps=5", "checkpoint.every=1", "checkpoint.keep=9", "train.ema_decay=0.3")
    run = fitted(recipe, tmp_path / "run")
    average = weights(run, 1)[0]
    for step in range(2, 6):
        raw = {name.removeprefix("model."): tensor for name, tensor in weights(run, step)[1].items()
               if name.startswith("model.")}
        decay = ema_decay(recipe.train, step - 1)
        average = {name: decay * tensor + (1 - decay) * raw[name] for name, tensor in average.items()}
        for name, tensor in weights(run, step)[0].items():
            assert torch.allclose(tensor, average[name], atol=1e-6), (step, name)


# Stopping and going on


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_goes_on_ends_where_one_in_one_piece_does(tmp_path, make_recipe, variant):
    recipe = make_recipe("train.steps=5", "checkpoint.every=2", "checkpoint.keep=9", *VARIANTS[variant])
    whole = fitted(recipe, tmp_path / "whole")
    stopped = shutil.copytree(whole, tmp_path / "stopped")
    for step in (4, 5):
        shutil.rmtree(stopped / "checkpoints" / f"step_{step:08d}")
    assert Trainer.resume(stopped, device="cpu").name == "step_00000005"
    assert_same(stopped, whole, 5)
    assert untimed(stopped) == untimed(whole)


def test_a_finished_run_stays_as_it_is(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    assert Trainer.resume(run, device="cpu") == run / "checkpoints" / "step_00000006"
    assert_same(run, trained, 6)
    assert records(run) == records(trained)


def test_a_run_can_be_made_longer(tmp_path, make_recipe):
    same = ["train.lr_schedule=constant", "checkpoint.every=2"]
    long = fitted(make_recipe("train.steps=5", *same), tmp_path / "long")
    short = fitted(make_recipe("train.steps=2", *same), tmp_path / "short")
    Trainer.resume(short, ["train.steps=5", "checkpoint.keep=1"], device="cpu")
    assert_same(short, long, 5)
    kept = Recipe.load(short / "recipe.yaml")  # so that the next resume goes to step 5 too
    assert kept.train.steps == 5 and [path.name for path in (short / "checkpoints").iterdir()] == ["step_00000005"]


@pytest.mark.parametrize(("override", "difference"), [
    ("train.lr=1", "train.lr : was 0.001, is 1.0 (override)"), ("seed=3", "seed : was 0, is 3 (override)"),
    ("train.batch_size=16", "train.batch_size : was 8, is 16 (override)"),
    ("model.width=64", "model.width : was 32, is 64 (override)"),
    ("data.split=all", "data.split : was train, is all (override)"),
    ("model.streams.image.head=flow", "model.streams.image.head.kind : was gaussian, is flow (override)"),
    ("train.nonsense=1", "train.nonsense : unknown key"), ("nonsense", "'nonsense'"),
])
def test_an_override_that_makes_another_run_is_refused(trained, override, difference):
    before = (trained / "recipe.yaml").read_text()
    with pytest.raises(UsageError) as caught:
        Trainer.resume(trained, ["train.num_workers=0", override], device="cpu")
    assert difference in str(caught.value)
    assert (trained / "recipe.yaml").read_text() == before


def test_an_override_that_changes_nothing_is_no_change(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    assert Trainer.resume(run, ["train.lr=1e-3", "train.batch_size=8"], device="cpu").name == "step_00000006"


def test_a_recipe_that_was_edited_by_hand_is_refused_with_every_difference(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("lr: 0.001", "lr: 0.002").replace("split: train", "split: heldout")
                      .replace("steps: 6", "steps: 7").replace("keep: 2", "keep: 3"))
    with pytest.raises(UsageError) as caught:
        Trainer.resume(run, device="cpu")
    told = str(caught.value).splitlines()
    assert told[0].endswith(f"not as it was in {run / 'checkpoints' / 'step_00000006'}:")
    assert told[1:-1] == [f"  data.split : was train, is heldout ({recipe})", f"  train.lr : was 0.001, is 0.002 ({recipe})"]
    recipe.write_text(recipe.read_text().replace("lr: 0.002", "lr: 0.001").replace("split: heldout", "split: train"))
    assert Trainer.resume(run, device="cpu").name == "step_00000007"  # steps and keep may change


def test_before_the_first_checkpoint_a_recipe_can_still_be_edited(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("lr: 0.001", "lr: 0.002"))
    with pytest.raises(UsageError, match=r"train\.lr : was 0\.002, is 1\.0 \(override\)"):
        Trainer.resume(run, ["train.lr=1"], device="cpu")
    Trainer.resume(run, device="cpu")


@pytest.mark.parametrize("override", ["train.steps=many", "train.steps=0", "checkpoint.keep=0", "train.steps"])
def test_a_length_that_is_none_is_refused(trained, override):
    with pytest.raises(RecipeError):
        Trainer.resume(trained, [override], device="cpu")


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_a_folder_without_a_run_cannot_go_on(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"recipe\.yaml.*djepa train"):
        Trainer.resume(tmp_path / name, device="cpu")


def test_a_run_is_not_written_over(trained, tmp_path, make_recipe):
    bare = tmp_path / "bare"
    shutil.copytree(trained / "checkpoints", bare / "checkpoints")  # its recipe is lost: no reason to mix it with a new one
    for run in (trained, bare):
        before = sorted(run.rglob("*"))
        with pytest.raises(UsageError, match="already holds a run"):
            fitted(make_recipe("train.steps=1"), run)
        assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(("override", "error"), [
    ("model.streams.image.tokenizer.patch.y=3", LayoutError),
    ("model.conditions={lable: {kind: class}}", RecipeError),
    ("model.streams={picture: {modality: image}}", RecipeError),
])
def test_a_recipe_that_does_not_fit_leaves_no_run_behind(tmp_path, make_recipe, override, error):
    with pytest.raises(error):
        fitted(make_recipe("train.steps=1", override), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Micro-batches


def test_micro_batches_change_nothing_but_rounding(tmp_path, make_recipe):
    same = ["train.steps=4", "train.lr=1e-4", "train.warmup_steps=0"]
    whole = fitted(make_recipe(*same), tmp_path / "whole")
    for size in (1, 4):
        parts = fitted(make_recipe(*same, f"train.micro_batch_size={size}"), tmp_path / f"parts of {size}")
        for ours, theirs in zip(weights(parts, 4), weights(whole, 4), strict=True):
            for name, tensor in ours.items():
                assert torch.allclose(tensor, theirs[name], atol=1e-5, rtol=1e-4), name
        for ours, theirs in zip(untimed(parts), untimed(whole), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)


# Gradients that are no numbers


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_step_without_a_finite_gradient_is_skipped(tmp_path, poisoned, value):
    recipe = poisoned("train.steps=8", "train.batch_size=4", "checkpoint.every=1", "checkpoint.keep=99", size=16, bad=[3],
                      value=value)
    run = fitted(recipe, tmp_path / "run")
    events = [record for record in records(run) if "event" in record]
    assert len(events) == 2 and all(event["event"] == "skipped" for event in events)  # once an epoch of four steps
    skipped = {event["step"] for event in events}
    for step in range(2, 9):
        before, after = weights(run, step - 1), weights(run, step)
        same = [all(torch.equal(tensor, new[name]) for name, tensor in old.items())
                for old, new in zip(before, after, strict=True)]
        assert same == [step in skipped] * 2, step
    assert all(bool(tensor.isfinite().all()) for part in weights(run, 8) for tensor in part.values())


def test_skipped_steps_here_and_there_stop_nothing(tmp_path, poisoned):
    run = fitted(poisoned("train.steps=24", "train.batch_size=1", size=2, bad=[0]), tmp_path / "run")
    assert sum(record.get("event") == "skipped" for record in records(run)) == 12 > MAX_SKIPPED
    assert [record["step"] for record in records(run) if "event" not in record] == list(range(1, 25))


def test_a_run_whose_gradient_stays_infinite_gives_up(tmp_path, poisoned):
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"train\.lr") as caught:
        fitted(poisoned("train.steps=99", "checkpoint.every=4", size=8, bad=range(8)), run)
    assert caught.value.exit_code == 1 and f"{MAX_SKIPPED} steps" in str(caught.value)
    assert [record["step"] for record in records(run) if record.get("event") == "skipped"] == list(range(1, MAX_SKIPPED + 1))
    averaged, training = weights(run, 8)
    assert all(torch.equal(tensor, training[f"model.{name}"]) for name, tensor in averaged.items())  # as they were drawn
    assert not [name for name in training if name.startswith("optimizer.")]


def test_the_command_says_so_in_one_paragraph(tmp_path, poisoned, command):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(poisoned("train.steps=99", bad=range(8)).to_yaml())
    outcome = command("train", recipe, "--out", tmp_path / "run", "--device", "cpu")
    assert outcome.code == 1 and "error: The gradient has not been finite" in outcome.err and "Traceback" not in outcome.err
