"""The recipes that ship with djepa, and the small models trained from them: data only, one folder per modality."""

from __future__ import annotations

from typing import Protocol

import pluggy

hookimpl = pluggy.HookimplMarker("djepa")


class Register(Protocol):
    """What the host hands the hook; declared here because this package imports nothing of djepa."""

    def __call__(self, name: str, target: str, *, summary: str = "") -> None:
        """Offer the package `target` under `name`."""
        ...


@hookimpl
def djepa_register_recipes(register: Register) -> None:
    """Offer this package."""
    register("djepa", "djepa_recipes", summary="recipes and models that ship with djepa")
