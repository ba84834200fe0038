"""Evaluating a model while it is trained, by the recipe's `evaluate` block."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from djepa.evaluate.blocks import Blocks
from djepa.evaluate.extractor import Features
from djepa.evaluate.result import build_metrics, figures_of, notes_on
from djepa.evaluate.run import check_work, digest, real_key
from djepa.evaluate.task import Task, spread
from djepa.evaluate.work import Workshop, features_at_once, make_blocks
from djepa.model import MaskedModel
from djepa.pipeline import Pipeline
from djepa.recipe import Recipe
from djepa.recipe.schema import ModelSpec
from djepa.tokenizer import Tokenizer

EVALUATION = "evaluation"  # event of the log, and the folder in a run with the features of real examples


class TrainingEvaluation:
    """Compares samples of a model in training with real ones, always by the same seeds.

    The features of the real examples are made at the first evaluation and kept in the run's folder.

    Args:
        recipe: its `evaluate` block.
        spec: of the model, complete.
        tokenizers: by stream, on the device to compute on.
        run: the run's folder; nothing is written before the first evaluation.
        device: to compute on.

    Raises:
        UsageError: something asked for cannot be: said before a run begins.
    """

    def __init__(self, recipe: Recipe, spec: ModelSpec, tokenizers: dict[str, Tokenizer], run: Path, device: Any) -> None:
        self.spec, self.tokenizers, self.run = spec, tokenizers, run
        self.wanted = recipe.evaluate
        self.metrics = build_metrics(self.wanted.metrics)
        self._task = Task.of(spec, recipe)
        self._shop = Workshop(self._task, device)
        check_work(self._shop, spec, self.metrics)
        self._real: Features | None = None

    def due(self, step: int, last: bool) -> bool:
        """Whether there is an evaluation after this step."""
        return self.wanted.every > 0 and (step % self.wanted.every == 0 or last)

    def __call__(self, model: MaskedModel) -> dict[str, Any]:
        """The figures of a model, whose weights and mode stay as they are, for `RunLog.event(step, EVALUATION, ...)`.

        Returns:
            "figures" and their "standard_errors" by metric, "num_samples", "num_real", "seconds", and "notes" if there are any.
        """
        start, training = time.perf_counter(), model.training
        real = self._real_features()
        self._shop.pipeline = Pipeline(model, self.spec, self.tokenizers, name=self.run.name, device=self._shop.device)
        generated = features_at_once(self._shop, "generated", self.wanted.num_samples)
        model.train(training)
        figures = figures_of(self.metrics, self.wanted, generated, real, None)
        notes = list(notes_on(self.metrics, generated, real))
        return {
            "figures": {figure.name: figure.value for figure in figures},
            "standard_errors": {figure.name: figure.standard_error for figure in figures if figure.standard_error is not None},
            "num_samples": len(generated), "num_real": len(real), "seconds": round(time.perf_counter() - start, 3),
        } | ({"notes": notes} if notes else {})

    def _real_features(self) -> Features:
        if self._real is None:
            total = len(spread(len(self._shop.dataset("real")), self.wanted.num_real))
            blocks = Blocks(self.run / EVALUATION / digest(real_key(self._shop)) / f"real-{total}", total)
            blocks.sweep()
            for _ in make_blocks(self._shop, {"real": blocks}):
                pass
            self._real = blocks.read()
        return self._real
