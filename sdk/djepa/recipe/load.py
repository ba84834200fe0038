"""From a name or a path to a document: the file, and all that it extends."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from djepa.errors import RecipeError, UnknownNameError, suggest
from djepa.recipe.catalogue import find_recipe
from djepa.recipe.kinds import overlaid
from djepa.recipe.layers import Tree, layer
from djepa.recipe.migrations import up_to_date
from djepa.recipe.smoke import SMOKE, overlay, smoke_block
from djepa.recipe.yaml_text import MAX_CHARACTERS, parse_yaml

SUFFIXES = (".yaml", ".yml")
_EXTENDS = "extends"


@dataclass(frozen=True)
class Loaded:
    """A document with its parents underneath; every leaf knows the file that gives it.

    Attributes:
        tree: what the run is.
        smoke: what makes it a run in miniature, in the order in which it is to be laid over.
    """

    tree: Tree
    smoke: tuple[Tree, ...] = ()

    def in_miniature(self) -> Tree:
        """The document of the run in miniature."""
        return functools.reduce(overlaid, (overlay(), *self.smoke), self.tree)


def load(reference: str | os.PathLike[str]) -> Loaded:
    """A recipe's document.

    Raises:
        UnknownNameError: there is no recipe of that name.
        RecipeError: a file is missing or is not a YAML map, or `extends` goes in a circle.
    """
    return _extended(*locate(reference), chain=())


def loaded(document: Mapping[str, Any], origin: str) -> Loaded:
    """Like `load`, of a document that is at hand; a path in its `extends` is relative to the current folder."""
    return _with_parents(document, origin, Path.cwd(), chain=())


def read_text(path: Path) -> str:
    """The text of a recipe's file.

    Raises:
        RecipeError: it is missing, a folder, too large, or not text.
    """
    try:
        if path.stat().st_size > 4 * MAX_CHARACTERS:  # bytes; no character takes more than four
            raise RecipeError(f"{str(path)!r} is too large for a recipe: {path.stat().st_size} bytes.")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        nearby = [str(file) for suffix in SUFFIXES for file in path.parent.glob(f"*{suffix}")]
        raise RecipeError(f"No recipe file {str(path)!r}. {suggest(path, nearby)}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{str(path)!r} is not text in UTF-8: byte {error.start} is not.") from None
    except OSError as error:
        raise RecipeError(f"Cannot read the recipe {str(path)!r}: {error.strerror or error}.") from None


def locate(reference: str | os.PathLike[str], beside: Path | None = None) -> tuple[str, Path]:
    """What to call a recipe, and its file. Paths are relative to the folder `beside`.

    Raises:
        UnknownNameError: a name nobody registered.
    """
    if isinstance(reference, os.PathLike) or reference.endswith(SUFFIXES):
        path = (beside or Path()) / os.fspath(reference)
        return str(path), path
    try:
        return reference, find_recipe(reference)
    except UnknownNameError as error:
        if Path(reference).exists():
            raise RecipeError(f"{reference!r} is not the name of a recipe, and a file that holds one ends in "
                              f"{' or '.join(SUFFIXES)}.") from error
        raise


def _extended(origin: str, path: Path, chain: tuple[tuple[str, Path], ...]) -> Loaded:
    steps = [*chain, (origin, path.resolve())]
    if any(path.resolve() == earlier for _, earlier in chain):
        raise RecipeError(f"'extends' goes in a circle: {' -> '.join(step for step, _ in steps)}.")
    document = parse_yaml(read_text(path), origin)
    if not isinstance(document, dict):
        raise RecipeError(f"{origin} should be a map of keys such as 'model:' and 'train:', and is "
                          f"{'empty' if document is None else f'a {type(document).__name__}'}.")
    return _with_parents(document, origin, path.parent, tuple(steps))


def _with_parents(document: Mapping[str, Any], origin: str, folder: Path, chain: tuple[tuple[str, Path], ...]) -> Loaded:
    document = up_to_date(document, origin)
    own = layer({key: value for key, value in document.items() if key not in (_EXTENDS, SMOKE)}, lambda _: origin)
    smoke = smoke_block(document, origin)
    base = _parent(document.get(_EXTENDS), origin, folder, chain)
    return Loaded(overlaid(base.tree, own), (*base.smoke, smoke) if smoke else base.smoke)


def _parent(parent: Any, origin: str, folder: Path, chain: tuple[tuple[str, Path], ...]) -> Loaded:
    if parent is None:
        return Loaded({})
    if not isinstance(parent, str):
        raise RecipeError(f"'extends' in {origin} names one recipe, or one file ending in .yaml, and not {parent!r}.")
    try:
        return _extended(*locate(parent, folder), chain)
    except UnknownNameError as error:
        raise RecipeError(f"{origin} extends a recipe that there is not. {error}") from error
