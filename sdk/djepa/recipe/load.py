"""From a name or a path to a document: the file, and all that it extends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from djepa.errors import RecipeError, UnknownNameError, suggest
from djepa.recipe.catalogue import find_recipe
from djepa.recipe.layers import Tree, layer, merge
from djepa.recipe.schema import SCHEMA_VERSION
from djepa.recipe.yaml_text import MAX_CHARACTERS, parse_yaml

SUFFIXES = (".yaml", ".yml")


def load_tree(reference: str | os.PathLike[str]) -> Tree:
    """The document of a recipe, with its parents underneath; every leaf knows the file that gives it.

    Raises:
        UnknownNameError: there is no recipe of that name.
        RecipeError: a file is missing or is not a YAML map, or `extends` goes in a circle.
    """
    return _extended(*locate(reference), chain=())


def tree_of(document: Mapping[str, Any], origin: str) -> Tree:
    """Like `load_tree`, of a document that is at hand; a path in its `extends` is relative to the current folder."""
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


def _extended(origin: str, path: Path, chain: tuple[tuple[str, Path], ...]) -> Tree:
    steps = [*chain, (origin, path.resolve())]
    if any(path.resolve() == earlier for _, earlier in chain):
        raise RecipeError(f"'extends' goes in a circle: {' -> '.join(step for step, _ in steps)}.")
    document = parse_yaml(read_text(path), origin)
    if not isinstance(document, dict):
        raise RecipeError(f"{origin} should be a map of keys such as 'model:' and 'train:', and is "
                          f"{'empty' if document is None else f'a {type(document).__name__}'}.")
    return _with_parents(document, origin, path.parent, tuple(steps))


def _with_parents(document: Mapping[str, Any], origin: str, folder: Path, chain: tuple[tuple[str, Path], ...]) -> Tree:
    _check_version(document, origin)
    own = layer({key: value for key, value in document.items() if key != "extends"}, lambda _: origin)
    parent = document.get("extends")
    if parent is None:
        return merge({}, own)
    if not isinstance(parent, str):
        raise RecipeError(f"'extends' in {origin} names one recipe, or one file ending in .yaml, and not {parent!r}.")
    try:
        return merge(_extended(*locate(parent, folder), chain), own)
    except UnknownNameError as error:
        raise RecipeError(f"{origin} extends a recipe that there is not. {error}") from error


def _check_version(document: Mapping[str, Any], origin: str) -> None:
    version = document.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RecipeError(f"{origin} has schema_version {version}, and this djepa knows versions up to {SCHEMA_VERSION}: "
                          f"upgrade djepa to use it (pip install -U djepa).")
