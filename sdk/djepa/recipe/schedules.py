"""How the learning rate and the weight decay change over a run: nodes of a recipe; `djepa.train.schedules` computes them.

A schedule without settings may be written as its name alone: `lr_schedule: cosine`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from djepa.recipe.strict import Strict

NotNegative = Annotated[float, Field(ge=0.0)]


class ConstantSchedule(Strict):
    """The value itself at every step."""

    kind: Literal["constant"] = "constant"


class CosineSchedule(Strict):
    """Half a cosine from the value to `end`, which it has when all steps are done."""

    kind: Literal["cosine"] = "cosine"
    end: NotNegative = 0.0


class LinearSchedule(Strict):
    """A straight line from the value to `end`, which it has when all steps are done."""

    kind: Literal["linear"] = "linear"
    end: NotNegative = 0.0


class InverseSquareRootSchedule(Strict):
    """The value / sqrt(1 + steps since warm-up / timescale): a run may become longer without another past."""

    kind: Literal["inverse-square-root"] = "inverse-square-root"
    timescale: PositiveFloat | None = None          # steps; None: as many as the warm-up has [Vaswani et al., sec. 5.3]


class WarmupStableDecaySchedule(Strict):
    """The value, and in the last share of all steps down to `end` [arXiv 2405.18392]."""

    kind: Literal["warmup-stable-decay"] = "warmup-stable-decay"
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2  # share of all steps
    shape: Literal["linear", "sqrt"] = "linear"    # of the way down; sqrt: 1 - sqrt(share of it that is done)
    end: NotNegative = 0.0


LearningRateSchedule = Annotated[
    ConstantSchedule | CosineSchedule | LinearSchedule | InverseSquareRootSchedule | WarmupStableDecaySchedule,
    Field(discriminator="kind"),
]
WeightDecaySchedule = Annotated[ConstantSchedule | CosineSchedule, Field(discriminator="kind")]
