"""Fine-tuning: what fits is taken, classes by their names, and a report says what was not."""

import json
import shutil

import pytest
import torch

from djepa import Pipeline, Trainer
from djepa.build import build_model, build_tokenizers
from djepa.errors import CheckpointError
from djepa.locate import locate_model
from djepa.random import seeded
from djepa.recipe.schema import ModelSpec
from djepa.storage import load_model, read_tensors, save_model
from djepa.train.checkpoint import TRAINING
from djepa.train.initialize import initialize

EMBEDDING = "conditioners.label.embedding"


def fresh(spec, seed=1):
    with seeded(seed, "initialization"):
        return build_model(spec, build_tokenizers(spec))


def changed(spec, **changes):
    raw = spec.model_dump(mode="json")
    for path, value in changes.items():
        node = raw
        *way, last = path.split("__")
        for key in way:
            node = node[key]
        node[last] = value
    return ModelSpec.model_validate(raw)


@pytest.fixture(scope="module")
def source(trained):
    """The folder of a trained model, its weights and what it is."""
    model, spec, _, _ = load_model(locate_model(trained))
    return trained, model.state_dict(), spec




def test_a_model_of_the_same_shape_is_taken_whole(source):
    run, tensors, spec = source
    model = fresh(spec)
    report = initialize(model, spec, str(run))
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())
    assert sorted(report.matched) == sorted(tensors) and not report.new and not report.left_over and not report.differences
    assert report.lines() == [f"Weights from {run}: {len(tensors)} of {len(tensors)} tensors are taken as they are."]


def test_classes_are_matched_by_name(source):
    run, tensors, spec = source
    names = ["7", "a new one", "3", "0"]
    wanted = changed(spec, conditions__label__names=names)
    model, before = fresh(wanted), fresh(wanted).state_dict()[EMBEDDING]
    report = initialize(model, wanted, str(run))
    rows = model.state_dict()[EMBEDDING]
    for row, name in enumerate(names):
        expected = before[row] if name == "a new one" else tensors[EMBEDDING][int(name)]
        assert torch.equal(rows[row], expected), name
    assert report.classes == {EMBEDDING: ["7", "3", "0"]} and EMBEDDING not in report.new
    assert "3 classes of the same name (7, 3, 0)" in report.lines()[1]


def test_the_same_classes_in_another_order_are_not_mixed_up(source):
    run, tensors, spec = source
    names = [str(digit) for digit in reversed(range(10))]
    wanted = changed(spec, conditions__label__names=names)
    model = fresh(wanted)
    initialize(model, wanted, str(run))
    assert torch.equal(model.state_dict()[EMBEDDING], tensors[EMBEDDING].flip(0))


def test_what_does_not_fit_stays_as_it_was_drawn_and_is_named(source):
    run, tensors, spec = source
    wanted = changed(spec, encoder_depth=2, conditions__label__names=["x", "y"], streams__image__head__depth=2,
                     conditions__label__num_tokens=5)
    model, before = fresh(wanted), fresh(wanted).state_dict()
    report = initialize(model, wanted, str(run))
    after = model.state_dict()
    for name in report.new:
        assert torch.equal(after[name], before[name])
    for name in report.matched:
        assert torch.equal(after[name], tensors[name])
    assert sorted([*report.new, *report.matched]) == sorted(after)
    assert report.new[EMBEDDING] == "no class of the same name"
    assert report.new["conditioners.label.tokens"] == "was 2x32, is 5x32"
    assert any(name.startswith("encoder.transformer") and why == "not there" for name, why in report.new.items())
    assert EMBEDDING in report.left_over


def test_other_tokens_are_told_apart(source):
    run, _, spec = source
    report = initialize(fresh(spec), changed(spec, streams__image__tokenizer__mean=[0.5]), str(run))
    assert len(report.differences) == 1 and report.differences[0].startswith("image.mean was ")


def test_a_model_of_which_nothing_fits_is_refused(source):
    run, _, spec = source
    wanted = changed(spec, width=64, predictor_width=64, conditions__label__names=["x"], feature_head=False,
                     streams__image__head={"kind": "gaussian", "depth": 1, "width": 48},
                     streams__image__tokenizer={"kind": "patchify", "patch": {"y": 4, "x": 4}, "mean": [0.0], "std": [1.0]})
    model = fresh(wanted)
    with pytest.raises(CheckpointError, match=r"nothing of the model .* fits this one, as in: .*was 1x32, is 1x64"):
        initialize(model, wanted, str(run))


def records(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_run_starts_from_the_weights_and_says_so_once(make_recipe, trained, tmp_path, capsys):
    run = tmp_path / "run"
    recipe = make_recipe(f"train.init_from={trained}", "train.steps=2", "checkpoint.every=1", "checkpoint.keep=2",
                         "train.lr=1e-12", measured=True)
    Trainer(recipe, device="cpu").fit(run)
    ours, theirs = (Pipeline.from_pretrained(place, device="cpu").model.state_dict() for place in (run, trained))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)  # the average starts there too
    raw = read_tensors(run / "checkpoints/step_00000001" / f"{TRAINING}.safetensors")
    assert all(torch.allclose(raw[f"model.{name}"], theirs[name], atol=1e-6) for name in theirs)
    assert f"Weights from {trained}: " in capsys.readouterr().err
    event, = [record for record in records(run) if record.get("event") == "initialized"]
    assert event["step"] == 0 and len(event["matched"]) == len(theirs) and event["new"] == {}
    shutil.rmtree(run / "checkpoints")  # as if it had been killed before its first checkpoint
    Trainer.resume(run, device="cpu")
    assert sum(record.get("event") == "initialized" for record in records(run)) == 1
    again = Pipeline.from_pretrained(run, device="cpu").model.state_dict()
    assert all(torch.equal(again[name], ours[name]) for name in ours)


def test_a_resumed_run_does_not_need_the_model_it_began_with(make_recipe, pipe, tmp_path):
    source, run = tmp_path / "source", tmp_path / "run"
    save_model(source, pipe.spec, pipe.model.state_dict(), pipe.tokenizers, about={})
    recipe = make_recipe(f"train.init_from={source}", "train.steps=2", "checkpoint.every=1", measured=True)
    Trainer(recipe, device="cpu").fit(run)
    shutil.rmtree(source)
    shutil.rmtree(run / "checkpoints/step_00000002")
    assert Trainer.resume(run, device="cpu").name == "step_00000002"


def test_a_shipped_model_of_another_size_gives_what_it_can(make_recipe, tmp_path):
    recipe = make_recipe("train.init_from=image/digits", "train.steps=1", "model.width=128", "model.num_heads=4",
                         "model.conditions.label.num_tokens=4")
    Trainer(recipe, device="cpu").fit(tmp_path / "run")
    event, = [record for record in records(tmp_path / "run") if record.get("event") == "initialized"]
    assert len(event["matched"]) > 20 and len(event["left_over"]) > 20


def test_a_name_that_there_is_not_stops_before_there_is_a_run(make_recipe, tmp_path):
    with pytest.raises(CheckpointError, match=r"no model 'image/digit'.*Did you mean 'image/digits'"):
        Trainer(make_recipe("train.init_from=image/digit"), device="cpu").fit(tmp_path / "run")
    assert not (tmp_path / "run").exists()
