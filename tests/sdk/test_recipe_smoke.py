"""Runs in miniature."""

import pytest

from djepa import Recipe
from djepa.errors import RecipeError
from djepa.recipe.smoke import OVERLAY

CHILD = """\
extends: image/digits
train: {load_timeout: 60, num_workers: 2}
model: {predictor_width: 256}
smoke:
  train: {steps: 3, max_grad_norm: null}
  model: {streams: {image: {head: {depth: 1}}}}
"""
GRANDCHILD = """\
extends: child.yaml
train: {max_grad_norm: 1.0}
model: {streams: {image: {head: {kind: flow, width: 64}}}}
smoke: {train: {batch_size: 2}, model: {encoder_depth: 2}}
"""


@pytest.fixture
def recipes(tmp_path):
    (tmp_path / "child.yaml").write_text(CHILD)
    (tmp_path / "grandchild.yaml").write_text(GRANDCHILD)
    return tmp_path


def test_any_recipe_has_a_miniature():
    recipe = Recipe.from_dict({"data": "digits", "model": {"streams": {"image": {"modality": "image"}}}}, smoke=True)
    assert (recipe.train.steps, recipe.train.batch_size, recipe.train.micro_batch_size, recipe.model.width) == (2, 4, 2, 32)
    assert recipe.origins["train.steps"] == "smoke"


def test_blocks_are_laid_over_the_whole_recipe_parents_first(recipes):
    recipe = Recipe.load(recipes / "grandchild.yaml", smoke=True)
    head = recipe.model.streams["image"].head
    assert (head.kind, head.options) == ("flow", {"depth": 1, "width": 32})  # the width is of the first block: digits'
    assert (recipe.train.steps, recipe.train.batch_size, recipe.model.encoder_depth) == (3, 2, 2)
    assert recipe.train.max_grad_norm == 3.0 and recipe.train.load_timeout == 0 and recipe.model.predictor_width is None
    assert recipe.origins["train.batch_size"] == f"smoke of {recipes / 'grandchild.yaml'}"


def test_overrides_come_on_top(recipes):
    assert Recipe.load(recipes / "child.yaml", ["train.steps=9"], smoke=True).train.steps == 9


def test_without_it_the_block_is_not_there(recipes):
    recipe = Recipe.load(recipes / "child.yaml")
    assert recipe.train.steps == 2000 and recipe.model.width == 128
    assert "smoke" not in recipe.to_yaml() and "smoke" not in Recipe.load(recipes / "child.yaml", smoke=True).resolved()


def test_a_miniature_can_be_written_out_like_any_recipe(recipes):
    recipe = Recipe.load(recipes / "grandchild.yaml", smoke=True)
    assert Recipe.from_dict(recipe.resolved()).digest() == recipe.digest()


@pytest.mark.parametrize(("block", "words"), [
    ("3", "'smoke' in .* is a map of keys"),
    ("{train: {stpes: 3}}", r"train\.stpes : unknown key - did you mean 'steps'\? \(given in smoke of "),
    ("{extends: image/digits}", "extends : unknown key"),
    ("{smoke: {}}", "smoke : unknown key"),
])
def test_what_a_block_says_is_checked(recipes, block, words):
    (recipes / "child.yaml").write_text(f"extends: image/digits\nsmoke: {block}")
    with pytest.raises(RecipeError, match=words):
        Recipe.load(recipes / "child.yaml", smoke=True)


def test_the_overlay_knows_no_component():
    assert set(OVERLAY) == {"model", "train", "checkpoint", "preview", "evaluate"} and "streams" not in OVERLAY["model"]


def test_a_run_in_miniature_from_the_command_line(command, tmp_path):
    outcome = command("train", "image/digits", "--smoke", "train.steps=1", "--out", tmp_path / "run", "--device", "cpu")
    assert outcome.code == 0 and "step 1/1 loss" in outcome.err
    assert "steps: 1" in (tmp_path / "run" / "recipe.yaml").read_text()
    assert {path.suffix for path in (tmp_path / "run" / "samples").iterdir()} == {".png"}
