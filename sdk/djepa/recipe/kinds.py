"""Recipes laid over one another, where a node without a kind is of its default's.

`mask: {low: 0.5}` under `mask: cosine` has to give way as a whole, because it is a truncated normal though it does not say so.
"""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel

from djepa.recipe.layers import DEFAULT, Leaf, Tree, merge
from djepa.recipe.schema import RecipeSchema
from djepa.recipe.strict import Strict


def overlaid(base: Tree, top: Tree) -> Tree:
    """`base` with `top` laid over it, every node with its kind; neither is modified."""
    return _with_kinds(RecipeSchema, merge(base, top))


def _with_kinds(schema: type[BaseModel], tree: Tree) -> Tree:
    filled = dict(tree)
    for name, field in schema.model_fields.items():
        node = tree.get(name)
        if isinstance(node, dict):
            kind = getattr(field.get_default(), "kind", None)
            own: Tree = {} if kind is None or "kind" in node else {"kind": Leaf(kind, DEFAULT)}
            filled[name] = own | _below(field.annotation, node)
    return filled


def _below(annotation: Any, node: Tree) -> Tree:
    if get_origin(annotation) is dict:
        inner = get_args(annotation)[1]
        return {key: _below(inner, child) if isinstance(child, dict) else child for key, child in node.items()}
    is_schema = isinstance(annotation, type) and issubclass(annotation, Strict)
    return _with_kinds(annotation, node) if is_schema else node
