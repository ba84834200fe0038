"""Every recipe that ships builds at its full size, and trains in miniature on data of its kind."""

import json
import math

import pytest

from djepa import Pipeline, Recipe, Trainer
from djepa.outline import outline
from djepa.recipe import recipe_names

FULL_SIZE = {"audio/ljspeech": ["data.num_heldout=1", "data.min_seconds=null"]}  # what small data need of the large recipe


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_builds_at_full_size(name, supplies):
    found = outline(Recipe.load(name, [*supplies(name), *FULL_SIZE.get(name, [])]))
    assert found.num_parameters > 1_000_000 and all(math.prod(grid) >= 8 for grid in found.grids.values())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_takes_two_steps_in_miniature(name, supplies, tmp_path):
    recipe = Recipe.load(name, supplies(name), smoke=True)
    checkpoint = Trainer(recipe, device="cpu").fit(tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2]
    assert all(math.isfinite(record["loss"]) and record["grad_norm"] > 0 for record in records)
    assert checkpoint.name == "step_00000002" and any((tmp_path / "run" / "samples").iterdir())
    assert outline(recipe).num_parameters < 1_000_000
    full = Recipe.load(name, supplies(name))
    assert recipe.data.kind == full.data.kind
    assert recipe.model.streams.keys() == full.model.streams.keys()
    for stream, spec in full.model.streams.items():  # of the same parts, only smaller
        assert recipe.model.streams[stream].head.kind == spec.head.kind
        assert recipe.model.streams[stream].tokenizer.kind == spec.tokenizer.kind


def test_what_a_miniature_learned_can_be_used(supplies, tmp_path):
    Trainer(Recipe.load("audio/ljspeech", supplies("audio/ljspeech"), smoke=True), device="cpu").fit(tmp_path / "run")
    sound, = Pipeline.from_pretrained(tmp_path / "run", device="cpu").generate("A tone.", seed=0)
    assert sound.meta["sample_rate"] == 22050 and sound.data.isfinite().all()
