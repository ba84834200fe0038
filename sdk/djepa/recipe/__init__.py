"""Recipes: what a run is, as validated data.

    component.py    nodes that name something registered, checked against the class they name
    options.py      the options of such a class, told without importing it where source.py can (docstrings.py: in words)
    schema.py       the shape of a recipe (strict.py: what its parts have in common)
    yaml_text.py    YAML to plain values and back
    layers.py       a document over its parent, and overrides over both; who said what
    kinds.py        the same for recipes, whose nodes may leave their kind to a default
    catalogue.py    the recipes and models of installed packages, by name
    load.py         a name or path to a document, parents included; migrations.py: of earlier versions; smoke.py: in miniature
    validation.py   a document to a schema, or every problem at once (paths.py: where; wording.py: in plain words)
    json_schema.py  the same for editors
    recipe.py       Recipe: what a user holds; resuming.py: the one that a run goes on with
"""

from __future__ import annotations

from djepa.recipe.catalogue import find_model, find_recipe, model_names, recipe_names
from djepa.recipe.component import Component
from djepa.recipe.recipe import Recipe
from djepa.recipe.schema import GenerateSpec, ModelSpec, StreamSpec, TrainSpec
from djepa.recipe.validation import validated

__all__ = [
    "Component",
    "GenerateSpec",
    "ModelSpec",
    "Recipe",
    "StreamSpec",
    "TrainSpec",
    "find_model",
    "find_recipe",
    "model_names",
    "recipe_names",
    "validated",
]
