"""Evaluating while training."""

import json

import pytest
import torch

from djepa import Trainer
from djepa.errors import UsageError
from djepa.evaluate import evaluate
from djepa.storage import read_tensors

ASKED = ("train.steps=4", "checkpoint.every=2", "evaluate.num_samples=70", "evaluate.num_real=90", "evaluate.num_groups=5",
         "evaluate.data={kind: digits, split: heldout}", "evaluate.metrics=[frechet, density]")


def evaluations(run):
    records = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [record for record in records if record.get("event") == "evaluation"]


@pytest.fixture(scope="module")
def run(make_recipe, tmp_path_factory):
    """A run that was evaluated on the way; not to be changed."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    Trainer(make_recipe(*ASKED, "evaluate.every=2"), device="cpu").fit(folder)
    return folder


def test_figures_go_into_the_log(run):
    first, last = evaluations(run)
    assert (first["step"], last["step"]) == (2, 4)
    assert set(first["figures"]) == set(first["standard_errors"]) == {"frechet", "density"}
    assert first["figures"] != last["figures"] and first["num_samples"] == 70 and first["num_real"] == 90


def test_they_are_those_of_the_command(run, make_recipe, tmp_path):
    found = evaluate(run, make_recipe(*ASKED), tmp_path / "folder", device="cpu")
    assert found.num_training == 70
    assert {figure.name: figure.value for figure in found.figures} == pytest.approx(evaluations(run)[-1]["figures"], rel=1e-4)


def test_training_is_the_same_with_and_without(run, make_recipe, tmp_path):
    Trainer(make_recipe(*ASKED, "evaluate.every=0"), device="cpu").fit(tmp_path / "run")
    with_it, without = (read_tensors(folder / "checkpoints" / "step_00000004" / "model.safetensors")
                        for folder in (run, tmp_path / "run"))
    assert all(torch.equal(with_it[name], without[name]) for name in without)


def test_features_of_real_examples_are_made_once(run, make_recipe, tmp_path):
    folder = tmp_path / "run"
    Trainer(make_recipe(*ASKED, "evaluate.every=2"), device="cpu").fit(folder)
    files = {path: path.stat().st_mtime_ns for path in folder.glob("evaluation/*/real-90/*.safetensors")}
    assert len(files) == 2
    Trainer.resume(folder, ["train.steps=6"], device="cpu")
    assert len(evaluations(folder)) == 3
    assert files == {path: path.stat().st_mtime_ns for path in folder.glob("evaluation/*/real-90/*.safetensors")}


def test_what_cannot_be_is_said_before_a_run_begins(make_recipe, tmp_path):
    with pytest.raises(UsageError, match="gives no logits"):
        Trainer(make_recipe("evaluate.every=2", "evaluate.metrics=[inception-score]"), device="cpu").fit(tmp_path / "run")
    assert not (tmp_path / "run").exists()
