"""Recipes of earlier schema versions."""

import logging

import pytest

from djepa import Recipe
from djepa.errors import RecipeError
from djepa.recipe import migrations
from djepa.recipe.migrations import Migration, up_to_date
from djepa.recipe.schema import SCHEMA_VERSION

OLD = """\
schema_version: -1
data: digits
model: {streams: {image: {modality: image}}, dim: 32, num_heads: 2}
train: {iterations: 7}
smoke: {train: {iterations: 1}}
"""


def renamed(group, old, new):
    def apply(document):
        if old in (document.get(group) or {}):
            document[group][new] = document[group].pop(old)
        return document

    return Migration(f"{group}.{old} is {group}.{new}", apply)


@pytest.fixture
def history(monkeypatch):
    """Two versions that there were before the first."""
    monkeypatch.setitem(migrations.MIGRATIONS, -1, renamed("train", "iterations", "steps"))
    monkeypatch.setitem(migrations.MIGRATIONS, 0, renamed("model", "dim", "width"))


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(OLD)
    return path


def test_an_old_recipe_is_read_as_todays_and_says_so(history, old, caplog):
    with caplog.at_level(logging.WARNING):
        recipe = Recipe.load(old, ["train.lr=1e-3"])
    assert (recipe.schema_version, recipe.train.steps, recipe.model.width) == (SCHEMA_VERSION, 7, 32)
    assert recipe.origins["train.steps"] == str(old)
    (note,) = [record.getMessage() for record in caplog.records]
    assert "old.yaml has schema_version -1 and was read as 1" in note
    assert "train.iterations is train.steps; model.dim is model.width" in note
    assert old.read_text() == OLD


def test_its_miniature_comes_along(history, old):
    assert Recipe.load(old, smoke=True).train.steps == 1


def test_each_file_of_a_chain_is_of_its_own_version(history, old, tmp_path, caplog):
    (tmp_path / "child.yaml").write_text("extends: old.yaml\ntrain: {steps: 9}")
    with caplog.at_level(logging.WARNING):
        assert Recipe.load(tmp_path / "child.yaml").train.steps == 9
    (tmp_path / "child.yaml").write_text("extends: old.yaml\nschema_version: 0\nmodel: {dim: 64}")
    assert Recipe.load(tmp_path / "child.yaml").model.width == 64
    assert [record.getMessage().split(" and was")[0].split("/")[-1] for record in caplog.records] == [
        "old.yaml has schema_version -1", "child.yaml has schema_version 0", "old.yaml has schema_version -1"]


def test_todays_recipes_are_read_without_a_word(caplog):
    with caplog.at_level(logging.DEBUG):
        Recipe.load("image/digits")
    assert not caplog.records


def test_the_document_at_hand_is_not_changed(history):
    document = {"schema_version": -1, "train": {"iterations": 3}}
    assert up_to_date(document, "it") == {"schema_version": SCHEMA_VERSION, "train": {"steps": 3}}
    assert document == {"schema_version": -1, "train": {"iterations": 3}}


@pytest.mark.parametrize(("version", "words"), [
    (-1, "schema_version -1, which this djepa cannot read"), (0, "today's is 1"), ("true", "a version is a number"),
    ("'1'", "schema_version : expected 1, got '1'"), ("1.5", "schema_version : expected 1, got 1.5"),
    ("null", "train.iterations : unknown key"),
])
def test_a_version_that_there_never_was_is_a_problem(old, version, words):
    old.write_text(OLD.replace("-1", str(version)))
    with pytest.raises(RecipeError) as caught:
        Recipe.load(old)
    assert words in str(caught.value)


def test_a_newer_version_is_refused_whatever_else_it_says(old):
    old.write_text(OLD.replace("-1", str(SCHEMA_VERSION + 1)))
    with pytest.raises(RecipeError, match=rf"old.yaml has schema_version {SCHEMA_VERSION + 1}.*pip install -U djepa") as caught:
        Recipe.load(old)
    assert "iterations" not in str(caught.value)
