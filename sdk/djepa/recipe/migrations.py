"""Recipes of earlier schema versions, brought up to date as they are read; their files stay as they are.

A migration takes a document of one version to the next. It meets single files, which may extend others and then say only
what they change: any key may be missing. Overrides are of today's version already.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from djepa.errors import RecipeError
from djepa.recipe.schema import SCHEMA_VERSION

VERSION = "schema_version"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Migration:
    """One step from a version to the next.

    Attributes:
        note: what is different now, for whoever wrote the recipe: "train.lr_decay is train.lr_schedule".
        apply: takes a document, which it may change, and returns that of the next version.
    """

    note: str
    apply: Callable[[dict[str, Any]], dict[str, Any]]


MIGRATIONS: dict[int, Migration] = {}  # from version n to n + 1


def up_to_date(document: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """A document in today's version; one that does not say its version is of today's.

    Args:
        document: a file's, its `extends` and `smoke` included.
        origin: what to call it.

    Raises:
        RecipeError: it is of a version that is newer than this djepa, or that there never was.
    """
    version = document.get(VERSION, SCHEMA_VERSION)
    if version is True or version is False:  # which Python takes for numbers
        raise RecipeError(f"{origin} has schema_version {str(version).lower()}, and a version is a number: {SCHEMA_VERSION}.")
    if version == SCHEMA_VERSION or not isinstance(version, int):
        return dict(document)  # the schema will say what is wrong with it, if anything is
    if version > SCHEMA_VERSION:
        raise RecipeError(f"{origin} has schema_version {version}, and this djepa knows versions up to {SCHEMA_VERSION}: "
                          f"upgrade djepa to use it (pip install -U djepa).")
    if any(step not in MIGRATIONS for step in range(version, SCHEMA_VERSION)):
        raise RecipeError(f"{origin} has schema_version {version}, which this djepa cannot read; today's is {SCHEMA_VERSION}.")
    steps = [MIGRATIONS[step] for step in range(version, SCHEMA_VERSION)]
    logger.warning("%s has schema_version %d and was read as %d: %s. Its file is as it was.", origin, version,
                   SCHEMA_VERSION, "; ".join(step.note for step in steps))
    return {**_migrated(document, steps), VERSION: SCHEMA_VERSION}


def _migrated(document: Mapping[str, Any], steps: list[Migration]) -> dict[str, Any]:
    current = {key: copy.deepcopy(value) for key, value in document.items() if key != "smoke"}
    for step in steps:
        current = step.apply(current)
    smoke = document.get("smoke")
    if isinstance(smoke, Mapping):
        current["smoke"] = _migrated(smoke, steps)
    elif "smoke" in document:
        current["smoke"] = smoke
    return current
