"""What may change in a run that goes on: how long it is, what it reports, and what the weights do not depend on.

Everything else has to be as it was when the newest checkpoint was written, whoever changed it: an override, or somebody who
edited the run's recipe by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from djepa.errors import UsageError
from djepa.recipe.layers import Leaf, layer
from djepa.recipe.recipe import Recipe, differences
from djepa.recipe.yaml_text import inline_yaml

RESUMABLE = {"description", "train.steps", "train.num_workers", "train.load_timeout", "train.on_error", "train.log_every",
             "checkpoint", "preview", "evaluate",  # each with all that lies below it
             # These change how sums are rounded, and which samples share a forward pass, but not what is learned.
             "train.micro_batch_size", "train.parallel", "train.activation_checkpointing", "train.compile"}


def resumed_recipe(
    path: Path, overrides: Sequence[str], stored: Mapping[str, Any] | None = None, source: str = "the newest checkpoint"
) -> Recipe:
    """The recipe that a run goes on with.

    Args:
        path: of the run's recipe.
        overrides: changes to it.
        stored: the recipe as the newest checkpoint has it; None where there is no checkpoint yet.
        source: what to call that.

    Raises:
        RecipeError: the run's recipe, an override or what is stored does not fit the schema.
        UsageError: more has changed than may; the message lists every difference with both values.
    """
    now = Recipe.load(path, overrides)
    begun = Recipe.load(path) if stored is None else Recipe.from_dict(stored, origin=source)
    where = str(path) if stored is None else source
    found = differences(layer(begun.resolved(), lambda _: where), now.layer_of(now.resolved()))
    refused = {name: pair for name, pair in found.items() if not _may_change(name)}
    if refused:
        raise UsageError("\n".join([
            f"A resumed run must stay the same run, and this is not as it was in {where}:",
            *(f"  {name} : was {_said(was)}, is {_said(is_now)}{f' ({is_now.origin})' if is_now else ''}"
              for name, (was, is_now) in refused.items()),
            f"Put it back, or start another run with it. What may change: {', '.join(sorted(RESUMABLE))}."]))
    return now


def _may_change(name: str) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:length]) in RESUMABLE for length in range(1, len(parts) + 1))


def _said(leaf: Leaf | None) -> str:
    return "nothing" if leaf is None else inline_yaml(leaf.value)
