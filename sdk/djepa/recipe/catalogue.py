"""The recipes and models that installed packages bring along, by name: `image/digits`.

A package is registered through the hook `djepa_register_recipes`. A name that several packages offer means ours if we
are among them, and is ambiguous otherwise; `distribution:image/digits` is always clear.
"""

from __future__ import annotations

import importlib.resources
import logging
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from djepa.errors import PluginError, UnknownNameError, suggest
from djepa.plugins import host
from djepa.plugins.contributions import OURS, Contribution, normalized

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A recipe or a model of an installed package.

    Attributes:
        name: `folder/name` inside the package.
        distribution: whose it is.
        path: of the recipe's file or the model's folder.
    """

    name: str
    distribution: str
    path: Path


def recipe_names() -> list[str]:
    """The names of all recipes of installed packages, sorted."""
    return _names(_recipes())


def find_recipe(name: str) -> Path:
    """The file of a recipe of an installed package.

    Raises:
        UnknownNameError: there is none of that name, or more than one.
    """
    entry = _find(name, _recipes())
    if entry is None:
        raise UnknownNameError(f"No recipe {name!r}. {suggest(name, recipe_names())} A recipe of your own is given by its "
                               f"path, which ends in .yaml.")
    return entry.path


def model_names() -> list[str]:
    """The names of all models that come with installed packages, sorted."""
    return _names(_models())


def find_model(name: str) -> Path | None:
    """The folder of a model that comes with an installed package; None if there is none of that name.

    Raises:
        UnknownNameError: there is more than one.
    """
    entry = _find(name, _models())
    return entry.path if entry else None


def _recipes() -> list[Entry]:
    return [Entry(f"{path.parent.name}/{path.stem}", distribution, path)
            for distribution, folder in _folders() for path in sorted(folder.glob("*/*.yaml"))]


def _models() -> list[Entry]:
    return [Entry(f"{path.parent.parent.name}/{path.parent.name}", distribution, path.parent)
            for distribution, folder in _folders() for path in sorted(folder.glob("*/*/config.json"))]


def _folders() -> list[tuple[str, Path]]:
    """The folder of every registered package; one that cannot be used is reported and left out."""
    found = []
    for contribution in host().contributions("recipes"):
        try:
            found.append((contribution.distribution, _folder(contribution)))
        except PluginError as error:
            logger.warning("%s", error)
    return found


def _folder(contribution: Contribution) -> Path:
    package = host().get("recipes", contribution.qualified)
    if not isinstance(package, ModuleType) or not hasattr(package, "__path__"):
        raise PluginError(f"Recipes {contribution.qualified!r} point at {contribution.target!r}, which is not a package.")
    folder = importlib.resources.files(package)
    if not isinstance(folder, Path):
        raise PluginError(f"Recipes {contribution.qualified!r} lie in {contribution.target!r}, which is not one folder on "
                          f"disk: install the package unpacked, and give it an __init__.py.")
    return folder


def _names(entries: list[Entry]) -> list[str]:
    return sorted(_shortest(entry, entries) for entry in entries)


def _shortest(entry: Entry, entries: list[Entry]) -> str:
    alone = sum(other.name == entry.name for other in entries) == 1
    return entry.name if alone or entry.distribution == OURS else f"{entry.distribution}:{entry.name}"


def _find(name: str, entries: list[Entry]) -> Entry | None:
    distribution, _, bare = name.rpartition(":")
    matches = [entry for entry in entries
               if entry.name == bare and (not distribution or entry.distribution == normalized(distribution))]
    ours = [entry for entry in matches if entry.distribution == OURS]
    if len(matches) > 1 and not ours:
        choices = " or ".join(repr(f"{entry.distribution}:{entry.name}") for entry in matches)
        raise UnknownNameError(f"{name!r} is ambiguous, because more than one package offers it: say {choices}.")
    return next(iter(ours or matches), None)
