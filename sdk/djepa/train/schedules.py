"""Learning rate and weight decay as functions of the step, which counts from 0; nothing about them has to be saved.

`progress` runs from 0 (the warm-up is over) to 1 (all steps are done), so that the last step is one short of the end.
"""

from __future__ import annotations

import math

from djepa.recipe.schedules import (
    CosineSchedule,
    InverseSquareRootSchedule,
    LinearSchedule,
    WarmupStableDecaySchedule,
)
from djepa.recipe.schema import TrainSpec


def learning_rate(spec: TrainSpec, step: int) -> float:
    """A straight line up during the warm-up, then as `lr_schedule` says."""
    warm = min(1.0, (step + 1) / spec.warmup_steps) if spec.warmup_steps else 1.0
    return warm * _scheduled_rate(spec, step)


def weight_decay(spec: TrainSpec, step: int) -> float:
    """From the first step to the end as `weight_decay_schedule` says; warm-up has no part in it [arXiv 2301.08243, app. A]."""
    schedule = spec.weight_decay_schedule
    if isinstance(schedule, CosineSchedule):
        return cosine(spec.weight_decay, schedule.end, step / spec.steps)
    return spec.weight_decay


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine between two values."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def linear(start: float, end: float, progress: float) -> float:
    """A straight line between two values."""
    return start + (end - start) * min(1.0, progress)


def inverse_square_root(start: float, since: float, timescale: float) -> float:
    """`start`, and a half of it three timescales later; with the warm-up's length as timescale, sqrt(warm-up / steps)."""
    return start / math.sqrt(1 + since / timescale)


def stable_decay(start: float, end: float, step: int, first: float, steps: int, shape: str) -> float:
    """`start` until step `first`, and from there down to `end` at step `steps`."""
    down = min(1.0, max(0.0, step - first) / max(1.0, steps - first))
    return linear(start, end, math.sqrt(down) if shape == "sqrt" else down)


def _scheduled_rate(spec: TrainSpec, step: int) -> float:
    since = max(0, step - spec.warmup_steps)
    progress = since / max(1, spec.steps - spec.warmup_steps)
    match spec.lr_schedule:
        case CosineSchedule(end=end):
            return cosine(spec.lr, end, progress)
        case LinearSchedule(end=end):
            return linear(spec.lr, end, progress)
        case InverseSquareRootSchedule(timescale=timescale):
            return inverse_square_root(spec.lr, since, timescale or max(1, spec.warmup_steps))
        case WarmupStableDecaySchedule(decay=decay, shape=shape, end=end):
            return stable_decay(spec.lr, end, step, max(spec.warmup_steps, spec.steps * (1 - decay)), spec.steps, shape)
        case _:
            return spec.lr
