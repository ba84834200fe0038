"""Documents laid over one another: what a child says replaces what its parent says, and every leaf knows who said it.

Maps merge, lists and plain values replace, null unsets, and a node that changes its `kind` replaces the whole node,
because the options of one kind mean nothing to another.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from djepa.errors import RecipeError
from djepa.recipe.yaml_text import parse_yaml

LeafPath = tuple[str, ...]
OVERRIDE, DEFAULT = "override", "default"


@dataclass(frozen=True)
class Leaf:
    """A value that is not a map with something in it, and where it was given."""

    value: Any
    origin: str


Tree = dict[str, "Tree | Leaf"]


def layer(document: Mapping[str, Any], origin_of: Callable[[LeafPath], str], path: LeafPath = ()) -> Tree:
    """A document whose leaves know their origin."""
    tree: Tree = {}
    for key, value in document.items():
        here = (*path, key)
        nested = isinstance(value, Mapping) and value
        tree[key] = layer(value, origin_of, here) if nested else Leaf(copy.deepcopy(value), origin_of(here))
    return tree


def merge(base: Tree, top: Tree) -> Tree:
    """`base` with `top` laid over it; neither is modified."""
    merged = dict(base)
    for key, given in top.items():
        if isinstance(given, Leaf) and given.value is None:
            merged.pop(key, None)
        else:
            merged[key] = _laid_over(merged.get(key), given)
    return merged


def plain(tree: Tree) -> dict[str, Any]:
    """The document without its origins."""
    return {key: copy.deepcopy(node.value) if isinstance(node, Leaf) else plain(node) for key, node in tree.items()}


def override_layer(text: str) -> Tree:
    """The document that one `a.b=value` stands for; the value is YAML.

    Raises:
        RecipeError: there is no "=", a part of the path is empty, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise RecipeError(f"the override {text!r} is not of the form key=value, such as train.steps=500")
    return assignment_layer(key, parse_yaml(value, f"the value of the override {text!r}"))


def assignment_layer(key: str, value: Any) -> Tree:
    """The document in which nothing but a dotted key has a value.

    Raises:
        RecipeError: a part of the key is empty.
    """
    path = [part.strip() for part in key.split(".")]
    if not all(path):
        raise RecipeError(f"the override {key!r} is not a dotted key, such as train.steps")
    for part in reversed(path):
        value = {part: value}
    return layer(value, lambda _: OVERRIDE)


def values(tree: Tree, path: LeafPath = ()) -> dict[LeafPath, Leaf]:
    """Every leaf by its path."""
    found: dict[LeafPath, Leaf] = {}
    for key, node in tree.items():
        here = (*path, key)
        found |= {here: node} if isinstance(node, Leaf) else values(node, here)
    return found


def leaves(tree: Tree) -> dict[LeafPath, str]:
    """The origin of every leaf."""
    return {path: leaf.origin for path, leaf in values(tree).items()}


def _laid_over(base: Tree | Leaf | None, top: Tree | Leaf) -> Tree | Leaf:
    if isinstance(base, dict) and "kind" in base:
        top = _node(top)
    if isinstance(top, dict) and base is not None:
        base = _node(base)
    if isinstance(top, Leaf):
        return base if isinstance(base, dict) and top.value == {} else top
    return merge(base if isinstance(base, dict) and _same_kind(base, top) else {}, top)


def _node(node: Tree | Leaf) -> Tree | Leaf:
    """A bare name is short for a map with nothing but its kind."""
    return {"kind": node} if isinstance(node, Leaf) and isinstance(node.value, str) else node


def _same_kind(base: Tree, top: Tree) -> bool:
    """Whether `top` speaks of options of the same kind; what it unsets is no part of its kind, as it is none of the outcome."""
    if "kind" not in base or "kind" not in top:
        return True
    return plain(merge({}, {"kind": base["kind"]})) == plain(merge({}, {"kind": top["kind"]}))
