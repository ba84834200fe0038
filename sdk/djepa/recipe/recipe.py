"""The recipe a user holds: loaded by name or path, overridden, written out, fingerprinted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, PrivateAttr

from djepa.errors import RecipeError
from djepa.recipe.kinds import overlaid
from djepa.recipe.layers import DEFAULT, Leaf, LeafPath, Tree, assignment_layer, layer, leaves, merge, override_layer, values
from djepa.recipe.load import Loaded, load, loaded, locate
from djepa.recipe.schema import RecipeSchema
from djepa.recipe.validation import Problem, validated_tree
from djepa.recipe.yaml_text import render_yaml

PYTHON = "Python"
REQUIRED = "required"

Overrides = Sequence[str] | Mapping[str, Any]


class Recipe(RecipeSchema):
    """A whole run as frozen, validated data.

    >>> recipe = Recipe.load("image/digits", ["train.steps=500", "model.streams.image.head.kind=flow"])
    >>> recipe.override({"train.steps": 20}).train.steps
    20

    Two recipes are equal when they say the same, wherever they say it.
    """

    _origins: dict[LeafPath, str] | None = PrivateAttr(default=None)  # of what was given; None: made in Python

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str], overrides: Overrides = (), *, smoke: bool = False) -> Self:
        """A recipe of an installed package by its name, or any by its path.

        Args:
            name_or_path: "image/digits"; or a path, which ends in .yaml or .yml.
            overrides: "key=value", with dots in the key; values are YAML, and null brings back the default. Or a mapping
                of such keys to plain values, components and specifications.
            smoke: the run in miniature (see `djepa.recipe.smoke`); overrides come on top.

        Raises:
            UnknownNameError: there is no recipe of that name.
            RecipeError: it cannot be read, or does not fit its schema; the message lists every problem.
        """
        return cls._made(_tree(load(name_or_path), smoke), overrides, locate(name_or_path)[0])

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], overrides: Overrides = (), origin: str = "the dictionary", *,
                  smoke: bool = False) -> Self:
        """A recipe of plain values, such as `dump` gives; like a file, they may extend another recipe.

        Args:
            document: as in a YAML file.
            overrides: as in `load`.
            origin: what to call the document in an error and in `origins`.
            smoke: as in `load`.

        Raises:
            RecipeError: it does not fit its schema; the message lists every problem.
        """
        return cls._made(_tree(loaded(document, origin), smoke), overrides, origin)

    def override(self, overrides: Overrides) -> Self:
        """This recipe with some of its values replaced, as in `load`.

        Raises:
            RecipeError: the outcome does not fit its schema; the message lists every problem.
        """
        return self._made(merge({}, self.layer_of(self.dump())), overrides, "the recipe")

    def to_yaml(self, *, origins: bool = False) -> str:
        """The resolved recipe as YAML, if asked with the origin of every value as a comment beside it."""
        return render_yaml(self.resolved(), leaves(self.layer_of(self.resolved())) if origins else None)

    def digest(self) -> str:
        """SHA-256 of the resolved content, in hexadecimal: equal for recipes that make the same run."""
        return hashlib.sha256(json.dumps(self.resolved(), ensure_ascii=False).encode()).hexdigest()

    @property
    def origins(self) -> dict[str, str]:
        """Who gave each value of the resolved recipe, by dotted path.

        A recipe's name, a file's path, "override", "Python", "smoke", or "default".
        """
        return {".".join(path): origin for path, origin in leaves(self.layer_of(self.resolved())).items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecipeSchema) and self.resolved() == other.resolved()

    def __hash__(self) -> int:
        return hash(self.digest())

    def layer_of(self, document: Mapping[str, Any]) -> Tree:
        """A document of this recipe's keys, each with who gave it."""
        given = self._origins
        if given is None:
            given = leaves(layer(self.model_dump(mode="json", exclude_unset=True), lambda _: PYTHON))
        # A bare name was given as the node itself, and is its kind here.
        return layer(document, lambda path: given.get(path) or given.get(path[:-1] if path[-1] == "kind" else ()) or DEFAULT)

    @classmethod
    def _made(cls, tree: Tree, overrides: Overrides, name: str, *, draft: bool = False) -> Self:
        if isinstance(overrides, str):
            raise RecipeError(f"Overrides are a list of 'key=value', and not the text {overrides!r}.")
        given = overrides.items() if isinstance(overrides, Mapping) else [(text, None) for text in overrides]
        problems = []
        for text, value in given:
            try:
                one = assignment_layer(text, _unbuilt(value)) if isinstance(overrides, Mapping) else override_layer(text)
                tree = overlaid(tree, one)
            except RecipeError as error:
                problems.append(Problem("", str(error)))
        recipe = validated_tree(cls, tree, name, problems, draft=draft)
        recipe._origins = {path: origin for path, origin in leaves(tree).items() if origin != DEFAULT}
        return recipe


def every_value(name_or_path: str | os.PathLike[str], overrides: Overrides = (), *, smoke: bool = False) -> Tree:
    """The resolved document of a recipe, each leaf with who gave it.

    Unlike `Recipe.load` it lets pass what only a user can say, such as the folder of the data: such a leaf is None and its
    origin "required".

    Raises:
        UnknownNameError, RecipeError: as by `Recipe.load`.
    """
    draft = Recipe._made(_tree(load(name_or_path), smoke), overrides, locate(name_or_path)[0], draft=True)
    document = draft.model_dump(mode="json", context={"resolved": True, "draft": True})
    there = values(layer(draft.resolved(), lambda _: ""))
    origins = leaves(draft.layer_of(document))
    return layer(document, lambda path: origins[path] if path in there else REQUIRED)


def differences(one: Tree, other: Tree) -> dict[str, tuple[Leaf | None, Leaf | None]]:
    """The leaves in which two documents differ, by dotted path in the order of the documents; None where there is none."""
    ours, theirs = values(one), values(other)
    paths = dict.fromkeys([*ours, *theirs])
    pairs = {".".join(path): (ours.get(path), theirs.get(path)) for path in paths}
    return {path: (a, b) for path, (a, b) in pairs.items() if a is None or b is None or a.value != b.value}


def _tree(found: Loaded, smoke: bool) -> Tree:
    return found.in_miniature() if smoke else found.tree


def _unbuilt(value: Any) -> Any:
    """A value of Python as a recipe has it: plain, and of a specification everything, defaults included."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _unbuilt(item) for key, item in value.items()}
    return [_unbuilt(item) for item in value] if isinstance(value, list | tuple) else value
