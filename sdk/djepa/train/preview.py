"""Samples drawn while training, for fixed conditions and seeds, from the averaged weights and from the raw ones."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice, product
from pathlib import Path
from typing import Any

from djepa.build import build_model, modality
from djepa.conditioner import Conditioner
from djepa.model import MaskedModel
from djepa.pipeline import Pipeline
from djepa.random import seeded
from djepa.recipe.schema import ModelSpec, PreviewSpec
from djepa.request import lay_out
from djepa.tokenizer import Tokenizer
from djepa.train.distributed import whole
from djepa.train.engine import Engine
from djepa.train.team import Team


def draw_previews(run: Path, step: int, engine: Engine, preview: PreviewSpec, team: Team) -> None:
    """Have the first process draw samples from the averaged and the raw weights; of a sharded model all have to call this."""
    models = {"averaged": engine.average, "raw": engine.model}
    models = {kind: standing_alone(model, engine, team) for kind, model in models.items()}
    if team.first:
        save_previews(run, step, models, engine.spec, engine.tokenizers, preview)


def standing_alone(model: MaskedModel, engine: Engine, team: Team) -> MaskedModel:
    """The model where it needs nobody else: itself, or of a sharded one, for which all have to call, a copy in the first."""
    if not engine.sharded:
        return model
    weights = {}
    for name, tensor in model.state_dict().items():
        full = whole(tensor)  # one at a time, so that the others never hold more
        if team.first:
            weights[name] = full
    if not team.first:
        return model
    with seeded(0, "overwritten"):
        copy = build_model(engine.spec, engine.tokenizers).train(model.training)
    copy.load_state_dict(weights)
    return copy.to(next(model.parameters()).device)


def save_previews(
    run: Path, step: int, models: Mapping[str, MaskedModel], spec: ModelSpec, tokenizers: Mapping[str, Tokenizer],
    preview: PreviewSpec,
) -> list[Path]:
    """Write one sheet per model ("averaged", "raw") and stream to `samples/`, and leave the models in their modes."""
    paths = []
    for kind, model in models.items():
        training = model.training
        device = next(model.parameters()).device
        pipeline = Pipeline(model, spec, tokenizers, name=f"{run.name}, step {step}", device=device)
        conditions = list(preview.conditions) or preview_conditions(pipeline, preview.num_conditions)
        for stream in spec.streams:
            samples = pipeline.generate(conditions, num_samples=preview.num_samples, seed=preview.seed, stream=stream)
            suffix = modality(spec.streams[stream]).sheet_extension
            name = f"step_{step:08d}_{kind}" + (f"_{stream}" if len(spec.streams) > 1 else "")
            paths.append(samples.grid(run / "samples" / f"{name}.{suffix}", columns=preview.num_samples))
        model.train(training)
    return paths


def preview_conditions(pipeline: Pipeline, count: int) -> list[Any]:
    """The first combinations of the model's conditions; the null condition where they are not closed lists."""
    choices = {name: values or [None] for name, values in pipeline.conditions().items()}
    return [dict(zip(choices, values, strict=True)) for values in islice(product(*choices.values()), count)] or [None]


def check_conditions(model: MaskedModel, preview: PreviewSpec) -> None:
    """Refuse conditions that could not be drawn, before a run has begun.

    Raises:
        ConditionError: the model does not know one of them.
    """
    if not preview.conditions:
        return
    wanted = lay_out(preview.conditions, list(model.conditioners), 1, 0)
    for name, conditioner in model.conditioners.items():
        if isinstance(conditioner, Conditioner):
            conditioner.prepare([item.condition[name] for item in wanted])
