"""The recipe a user holds: loaded by name or path, overridden, written out, fingerprinted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import PrivateAttr

from djepa.errors import RecipeError
from djepa.recipe.layers import LeafPath, Tree, layer, leaves, merge, override_layer
from djepa.recipe.load import load_tree, locate, tree_of
from djepa.recipe.schema import RecipeSchema
from djepa.recipe.validation import Problem, validated_tree
from djepa.recipe.yaml_text import render_yaml

DEFAULT = "default"
PYTHON = "Python"


class Recipe(RecipeSchema):
    """A whole run as frozen, validated data.

    >>> recipe = Recipe.load("image/digits", ["train.steps=500", "model.streams.image.head.kind=flow"])
    >>> recipe.train.steps
    500

    Two recipes are equal when they say the same, wherever they say it.
    """

    _origins: dict[LeafPath, str] | None = PrivateAttr(default=None)  # of what was given; None: made in Python

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Self:
        """A recipe of an installed package by its name, or any by its path.

        Args:
            name_or_path: "image/digits"; or a path, which ends in .yaml or .yml.
            overrides: "key=value", with dots in the key; values are YAML, and null brings back the default.

        Raises:
            UnknownNameError: there is no recipe of that name.
            RecipeError: it cannot be read, or does not fit its schema; the message lists every problem.
        """
        return cls._made(load_tree(name_or_path), overrides, locate(name_or_path)[0])

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], overrides: Sequence[str] = (), origin: str = "the dictionary") -> Self:
        """A recipe of plain values, such as `dump` gives; like a file, they may extend another recipe.

        Args:
            document: as in a YAML file.
            overrides: as in `load`.
            origin: what to call the document in an error and in `origins`.

        Raises:
            RecipeError: it does not fit its schema; the message lists every problem.
        """
        return cls._made(tree_of(document, origin), overrides, origin)

    def override(self, overrides: Sequence[str]) -> Self:
        """This recipe with some of its values replaced, as in `load`.

        Raises:
            RecipeError: the outcome does not fit its schema; the message lists every problem.
        """
        return self._made(merge({}, self._layer(self.dump())), overrides, "the recipe")

    def to_yaml(self, *, origins: bool = False) -> str:
        """The resolved recipe as YAML, if asked with the origin of every value as a comment beside it."""
        return render_yaml(self.resolved(), leaves(self._layer(self.resolved())) if origins else None)

    def digest(self) -> str:
        """SHA-256 of the resolved content, in hexadecimal: equal for recipes that make the same run."""
        return hashlib.sha256(json.dumps(self.resolved(), ensure_ascii=False).encode()).hexdigest()

    @property
    def origins(self) -> dict[str, str]:
        """Who gave each value of the resolved recipe, by dotted path.

        A recipe's name, a file's path, "override", "Python", or "default".
        """
        return {".".join(path): origin for path, origin in leaves(self._layer(self.resolved())).items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecipeSchema) and self.dump() == other.dump()

    def __hash__(self) -> int:
        return hash(self.digest())

    @classmethod
    def _made(cls, tree: Tree, overrides: Sequence[str], name: str) -> Self:
        if isinstance(overrides, str):
            raise RecipeError(f"Overrides are a list of 'key=value', and not the text {overrides!r}.")
        problems = []
        for text in overrides:
            try:
                tree = merge(tree, override_layer(text))
            except RecipeError as error:
                problems.append(Problem("", str(error)))
        recipe = validated_tree(cls, tree, name, problems)
        recipe._origins = {path: origin for path, origin in leaves(tree).items() if origin != DEFAULT}
        return recipe

    def _layer(self, document: Mapping[str, Any]) -> Tree:
        given = self._origins
        if given is None:
            given = leaves(layer(self.model_dump(mode="json", exclude_unset=True), lambda _: PYTHON))
        # A bare name was given as the node itself, and is its kind here.
        return layer(document, lambda path: given.get(path) or given.get(path[:-1] if path[-1] == "kind" else ()) or DEFAULT)
