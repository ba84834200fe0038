"""Every recipe that ships."""

import pytest
import yaml

from djepa import Recipe
from djepa.build import complete
from djepa.recipe import find_recipe, model_names, recipe_names

NEEDS = {name: ["data.root=anywhere"] for name in recipe_names()  # what only the user can say
         if any(word in name for word in ("folder", "imagenet256", "ucf101", "ljspeech"))}


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_is_valid(name):
    recipe = Recipe.load(name, NEEDS.get(name, []))
    assert recipe.description


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_can_be_copied_anywhere(name):
    parent = yaml.safe_load(find_recipe(name).read_text(encoding="utf-8")).get("extends")
    assert parent is None or parent in recipe_names()


@pytest.mark.parametrize("name", [name for name in recipe_names() if name not in NEEDS])
def test_a_resolved_recipe_makes_the_same_model(name):
    recipe = Recipe.load(name)
    again = Recipe.from_dict(recipe.resolved())
    assert complete(again.model, again.data.build()).resolved() == complete(recipe.model, recipe.data.build()).resolved()


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_what_only_the_user_can_say_is_asked_for(name):
    with pytest.raises(ValueError, match=f"{NEEDS[name][0].split('=')[0]} : required"):
        Recipe.load(name)


def test_every_shipped_model_has_its_recipe():
    assert set(model_names()) <= set(recipe_names())
