"""A run in miniature: `djepa train RECIPE --smoke` goes through everything a run does, in seconds on a CPU.

What a recipe says is overlaid first by `OVERLAY`, which fits any recipe, and then by the recipe's own `smoke:` block, which
knows its data and components:

    smoke:
      data: {size: 16}
      model: {streams: {image: {head: {depth: 1, width: 32}}}}

Neither is part of the recipe that comes of it, whose values are as if they had been given as overrides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from djepa.errors import RecipeError
from djepa.recipe.layers import Tree, layer

SMOKE = "smoke"
OVERLAY: Mapping[str, Any] = {
    "model": {
        "width": 32, "num_heads": 2, "predictor_width": None, "predictor_num_heads": None,
        "encoder_depth": 1, "predictor_depth": 1,
        "generate": {"num_steps": 2, "num_denoising_steps": 2},
    },
    "train": {"steps": 2, "batch_size": 4, "micro_batch_size": 2, "warmup_steps": 1, "num_workers": 0, "load_timeout": None,
              "log_every": 1},
    "checkpoint": {"every": 1},
    "preview": {"every": 2, "num_samples": 1, "num_conditions": 1},
    "evaluate": {"every": 0},
}


def overlay() -> Tree:
    """What makes any recipe small."""
    return layer(OVERLAY, lambda _: SMOKE)


def smoke_block(document: Mapping[str, Any], origin: str) -> Tree:
    """What a recipe's document says of its own run in miniature.

    Raises:
        RecipeError: that is not a map of keys.
    """
    block = document.get(SMOKE)
    if block is None:
        return {}
    if not isinstance(block, Mapping):
        raise RecipeError(f"'smoke' in {origin} is a map of keys like the recipe itself, and not {block!r}.")
    return layer(block, lambda _: f"{SMOKE} of {origin}")
