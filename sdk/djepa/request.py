"""What a user asks of a generation, checked and laid out before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, TypedDict

import numpy as np

from djepa.errors import ConditionError, UsageError, suggest
from djepa.recipe.schema import GenerateSpec
from djepa.recipe.validation import validated

MAX_SEED = 2**63 - 1


class Settings(TypedDict, total=False):
    """Settings of one generation; each left out, or None, is the model's own (`djepa.recipe.schema.GenerateSpec`).

    Attributes:
        num_steps: generation steps; num_denoising_steps: evaluations of the head in each of them.
        temperature: how much noise the head adds; 1 as trained.
        guidance_scale: 1 is off; with the linear schedule the value at the end.
        guidance_schedule: "linear", "constant", or "interval" of the head's time (guidance_interval).
        order: a generation order: its name, or a mapping with its options.
        clamp: keep estimates of clean tokens in the tokenizer's range.
    """

    num_steps: int | None
    num_denoising_steps: int | None
    temperature: float | None
    guidance_scale: float | None
    guidance_schedule: Literal["linear", "constant", "interval"] | None
    guidance_interval: tuple[float, float] | None
    order: str | Mapping[str, Any] | None
    clamp: bool | None


@dataclass(frozen=True)
class Wanted:
    """One sample to generate.

    Attributes:
        condition: raw value of every condition; None for the null condition.
        seed: its own: the same seed and condition give the same sample, whatever else is generated with it.
    """

    condition: Mapping[str, Any]
    seed: int


def settings_from(defaults: GenerateSpec, given: Mapping[str, Any]) -> GenerateSpec:
    """The model's settings with those that were given (not None) in their place.

    Raises:
        RecipeError: a setting is out of range; all such are named.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    return validated(GenerateSpec, {**defaults.dump(), **chosen}, "the call")


def lay_out(conditions: Any, names: Sequence[str], num_samples: int, seed: int | Sequence[int]) -> list[Wanted]:
    """The samples to generate, condition by condition.

    Sample j of a condition has seed `seed + j`; a condition that is listed again goes on counting.

    Args:
        conditions: None, one condition or a list of them; each a value, or a mapping by condition name.
        names: the model's conditions.
        num_samples: per condition.
        seed: of the first sample of each condition; or a list with that of every sample.

    Raises:
        UsageError: the number or the seed is out of range.
        ConditionError: a condition names something the model does not have.
    """
    if not is_whole(num_samples) or num_samples < 1:
        raise UsageError(f"num_samples={num_samples!r}: expected a whole number, at least 1.")
    for one in seed if isinstance(seed, Sequence) else [seed]:
        if not is_whole(one) or not 0 <= one <= MAX_SEED:
            raise UsageError(f"seed={one!r}: expected a whole number from 0 to 2**63 - 1.")
    listed = list(conditions) if isinstance(conditions, Sequence) and not isinstance(conditions, str) else [conditions]
    if not listed:
        raise UsageError("The list of conditions is empty; give at least one, or None for unconditional samples.")
    if isinstance(seed, Sequence):
        return _with_seeds([_named(raw, names) for raw in listed for _ in range(num_samples)], seed)
    counts: dict[str, int] = {}
    wanted = []
    for raw in listed:
        condition = _named(raw, names)
        key = ", ".join(f"{name}={value}" for name, value in condition.items())  # 3 and "3" are one condition
        start = counts.get(key, 0)
        counts[key] = start + int(num_samples)
        wanted += [Wanted(condition, int(seed) + start + index) for index in range(num_samples)]
    if (last := max(item.seed for item in wanted)) > MAX_SEED:
        raise UsageError(f"seed={seed!r}: counting on from it leads to {last}; expected seeds from 0 to 2**63 - 1.")
    return wanted


def _with_seeds(conditions: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> list[Wanted]:
    if len(seeds) != len(conditions):
        raise UsageError(f"seed: a list of {len(seeds)} seeds for {len(conditions)} samples; expected one for each.")
    return [Wanted(condition, int(seed)) for condition, seed in zip(conditions, seeds, strict=True)]


def is_whole(value: object) -> bool:
    """Whole numbers of NumPy are as good as Python's; True is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _named(raw: Any, names: Sequence[str]) -> dict[str, Any]:
    """One condition by name."""
    if isinstance(raw, Mapping):
        unknown = [name for name in raw if name not in names]
        if unknown:
            raise ConditionError(f"This model has no condition {unknown[0]!r}. {suggest(unknown[0], names)}")
        return {name: _plain(raw.get(name)) for name in names}
    if raw is None:
        return dict.fromkeys(names)
    if not names:
        raise ConditionError(f"This model is unconditional and cannot be asked for {raw!r}; leave the condition out.")
    if len(names) > 1:
        example = ", ".join(f"{name!r}: ..." for name in names)
        raise ConditionError(f"This model has the conditions {', '.join(names)}; give a mapping {{{example}}}, not {raw!r}.")
    return {names[0]: _plain(raw)}


def _plain(value: Any) -> Any:
    """A scalar of NumPy as Python's own, so that metadata can be written; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value
