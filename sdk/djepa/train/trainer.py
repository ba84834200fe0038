"""The training loop.

    for every step: load its examples; tokenize; draw masks; losses; clip; check; update; average

All randomness is keyed by the step and the sample's global position, so that a run that was killed and resumed takes the
very same steps as one that was not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from djepa import __version__
from djepa.build import build_model, build_tokenizers, complete
from djepa.conditioner import Conditioner
from djepa.dataset import Dataset, Example
from djepa.device import resolve_device
from djepa.errors import CheckpointError, MediaError, TrainingError, UsageError
from djepa.files import atomic_file
from djepa.losses import LossSums, training_losses
from djepa.masking import MaskRatio, cosine_ratio, draw_ratio, num_hidden, truncated_normal_ratio
from djepa.model import Batch, Masks
from djepa.order import GenerationOrder, hide_last
from djepa.random import Draws, seeded
from djepa.recipe import Recipe
from djepa.recipe.resuming import resumed_recipe
from djepa.recipe.schema import TrainSpec, TruncatedNormalMask
from djepa.skipping import Skipping, left_out_of
from djepa.storage import newest_checkpoint, read_config
from djepa.tokens import TokenBatch
from djepa.train.buckets import data_order
from djepa.train.checkpoint import load_checkpoint, save_checkpoint, sweep
from djepa.train.data import batches
from djepa.train.evaluation import EVALUATION, TrainingEvaluation
from djepa.train.initialize import Initialization, initialize, report_initialization
from djepa.train.log import LEFT_OUT, RunLog
from djepa.train.optimizer import averaged_copy, ema_decay, finite, make_optimizer, update_average
from djepa.train.preview import check_conditions, save_previews
from djepa.train.schedules import apply_schedules, learning_rate

MAX_SKIPPED = 10  # steps in a row whose gradient is not finite before a run gives up
RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass needs."""

    tokens: Batch
    hidden: Masks
    prepared: Mapping[str, Tensor]
    drop: Tensor
    samples: Tensor


class Trainer:
    """Trains the model of a recipe.

    Args:
        recipe: what to do.
        device: "auto" takes a GPU where there is one.

    Raises:
        RecipeError: the recipe does not fit its dataset.
        UsageError: the device is not to be had here.
    """

    def __init__(self, recipe: Recipe, *, device: str = "auto") -> None:
        self.recipe = recipe
        self.spec: TrainSpec = recipe.train
        self.device = resolve_device(device)
        dataset: Dataset = recipe.data.build()
        self.initialized: Initialization | None = None
        self.dataset: Dataset = Skipping(dataset) if self.spec.on_error == "skip" else dataset

    def fit(self, run: str | Path) -> Path:
        """Train from the start and return the last checkpoint, which is a model folder.

        Args:
            run: a new or empty folder; gets `recipe.yaml`, `checkpoints/`, `log.jsonl` and `samples/`.

        Raises:
            UsageError: the folder already holds a run.
            MediaError: an example cannot be read.
            TrainingError: the gradient is no longer finite, or a process that loads the data died or hangs.
            StorageError: the disk refused.
        """
        run = Path(run)
        if any((run / name).exists() for name in (RECIPE, "checkpoints", "log.jsonl")):
            raise UsageError(f"{str(run)!r} already holds a run. Go on with it (djepa resume {run}) or choose another folder.")
        self.build(run)  # first, so that a recipe that does not fit its data leaves no run behind
        self._write_recipe(run)
        return self._train(run)

    @classmethod
    def resume(cls, run: str | Path, overrides: Sequence[str] = (), *, device: str = "auto") -> Path:
        """Go on with a run from its newest complete checkpoint (from the start, if it has none).

        Args:
            run: its folder.
            overrides: changes to the recipe, which are kept; only lengths and what has no influence on the weights may change.

        Raises:
            CheckpointError: the folder holds no run.
            UsageError: an override, or an edit of its recipe by hand, would make it another run.
        """
        run = Path(run)
        if not (run / RECIPE).is_file():
            raise CheckpointError(f"{str(run)!r} holds no run: it has no {RECIPE}. "
                                  f"Start one with: djepa train RECIPE --out {run}")
        newest = newest_checkpoint(run)
        stored = read_config(newest)[1].get("recipe") if newest else None
        trainer = cls(resumed_recipe(run / RECIPE, overrides, stored, str(newest)), device=device)
        trainer.build(run)
        if overrides:
            trainer._write_recipe(run)
        return trainer._train(run)

    def _write_recipe(self, run: Path) -> None:
        with atomic_file(run / RECIPE) as temporary:
            temporary.write_text(self.recipe.to_yaml(), encoding="utf-8")

    def _train(self, run: Path) -> Path:
        sweep(run)
        start = self._restore(run)
        self.log = RunLog(run / "log.jsonl", start, self.spec.steps)
        self.left_out: set[int] = {event["example"] for event in self.log.events(LEFT_OUT)}
        if isinstance(self.dataset, Skipping):
            self._note(start, self.dataset.left_out)  # while the data were measured
        if self.initialized is not None:
            report_initialization(self.log, self.initialized)
        steps = range(start, self.spec.steps)
        skipped = 0
        loaded = batches(self.dataset, self.data_order, steps, self.spec.num_workers, self.spec.load_timeout)
        try:
            for step, examples in zip(steps, loaded, strict=True):
                self._note(step + 1, left_out_of(examples))
                skipped = 0 if self._step(step, examples) else skipped + 1
                if skipped >= MAX_SKIPPED:
                    raise TrainingError(
                        f"The gradient has not been finite for {skipped} steps up to step {step + 1}; the run stops. Its last "
                        f"checkpoint is sound. Try a lower train.lr, or train.precision=float32.")
                self._after(run, step + 1)
        except MediaError as error:
            if self.spec.on_error == "skip":
                raise
            raise MediaError(f"{error} To go on without what cannot be read: djepa resume {run} train.on_error=skip") from error
        finally:
            loaded.close()
            self.log.close()
        path = newest_checkpoint(run)
        assert path is not None
        return path

    def build(self, run: Path | None = None) -> None:
        """Model, average and optimizer, fresh as of step 0; those of a run's checkpoint, if it has one."""
        newest = newest_checkpoint(run) if run else None
        self.model_spec = read_config(newest)[0] if newest else complete(self.recipe.model, self.dataset, self.device)
        self.tokenizers = {name: one.to(self.device) for name, one in build_tokenizers(self.model_spec).items()}
        self.dataset.check(self.tokenizers)
        self.data_order = data_order(self.dataset, self.recipe.seed, self.spec.batch_size, self.spec.buckets)
        with seeded(self.recipe.seed, "initialization"):
            self.model = build_model(self.model_spec, self.tokenizers).to(self.device).train()
        if self.spec.init_from and newest is None:
            self.initialized = initialize(self.model, self.model_spec, self.spec.init_from)
        check_conditions(self.model, self.recipe.preview)
        self.evaluation = (TrainingEvaluation(self.recipe, self.model_spec, self.tokenizers, run, self.device)
                           if run and self.recipe.evaluate.every else None)
        self.average = averaged_copy(self.model)
        self.optimizer = make_optimizer(self.model, self.spec)
        self.order: GenerationOrder = self.model_spec.generate.order.build()
        self.ratio = _ratio(self.spec)

    def _restore(self, run: Path) -> int:
        newest = newest_checkpoint(run)
        return load_checkpoint(newest, self.model, self.average, self.optimizer) if newest else 0

    # One step ---------------------------------------------------------------------------------------------------------------

    def _step(self, step: int, examples: Sequence[Example]) -> bool:
        """Take one optimizer step; False when its gradient was not finite and the step was skipped."""
        losses, norm, sound = self.update(step, self.micro_batches(step, examples))
        if not sound:
            self.log.event(step + 1, "skipped", reason="the gradient is not finite")
        self._report(step + 1, losses, norm)
        return sound

    def micro_batches(self, step: int, examples: Sequence[Example]) -> list[MicroBatch]:
        """The examples of a step, tokenized, on the device."""
        micro = self.spec.micro_batch_size or self.spec.batch_size
        return [self._micro_batch(step, start, examples[start : start + micro]) for start in range(0, len(examples), micro)]

    def update(self, step: int, parts: Sequence[MicroBatch]) -> tuple[dict[str, Tensor], Tensor, bool]:
        """Losses, gradient and optimizer of a step: its losses, the norm of its gradient, and whether that was finite."""
        counts = {name: sum(int((part.hidden[name] & part.tokens[name].valid).sum()) for part in parts)
                  for name in self.model_spec.streams}
        losses: dict[str, Tensor] = {}
        with seeded(self.recipe.seed, "dropout", step):
            for part in parts:
                for name, loss in self._backward(part, counts).items():
                    losses[name] = losses.get(name, torch.zeros(())) + loss

        apply_schedules(self.optimizer, self.spec, step)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.max_grad_norm)
        sound = finite(norm)
        if sound:
            self.optimizer.step()
            update_average(self.average, self.model, ema_decay(self.spec, step))
        self.optimizer.zero_grad(set_to_none=True)
        return losses, norm, sound

    def _micro_batch(self, step: int, start: int, examples: Sequence[Example]) -> MicroBatch:
        """Tokens, masks and conditions of some of a step's examples, the first of which has place `start` in the batch."""
        samples = step * self.spec.batch_size + start + torch.arange(len(examples))
        tokens = {name: tokenizer.encode_batch([example.samples[name] for example in examples],
                                               partial(Draws(self.recipe.seed, "encoding", name).normal, samples, 0))
                  for name, tokenizer in self.tokenizers.items()}
        prepared = {name: module.prepare([example.conditions.get(name) for example in examples])
                    for name, module in self.model.conditioners.items() if isinstance(module, Conditioner)}
        drop = Draws(self.recipe.seed, "condition drop").uniform(samples, 0, 1)[:, 0] < self.spec.condition_drop
        hidden = self._masks(step, tokens, samples)
        return MicroBatch({name: one.to(self.device) for name, one in tokens.items()}, hidden, prepared, drop, samples)

    def _masks(self, step: int, tokens: Mapping[str, TokenBatch], samples: Tensor) -> dict[str, Tensor]:
        """Hidden tokens of every stream: one ratio per stream and step; with several streams, sometimes one is given whole."""
        draws = Draws(self.recipe.seed, "mask")
        chance, which = draws.within("given").uniform(torch.tensor(step), 0, 2).tolist()
        given = int(which * len(tokens)) if len(tokens) > 1 and chance < self.spec.given_probability else None
        hidden = {}
        for index, (name, one) in enumerate(tokens.items()):
            if index == given:
                hidden[name] = torch.zeros_like(one.valid)
                continue
            axes = tuple(axis.name for axis in self.tokenizers[name].spec.axes)
            order = self.order.permutations(draws.within("order", name), samples, one.coords, axes)
            ratio = draw_ratio(self.ratio, draws.within("ratio", name), step)
            hidden[name] = hide_last(order, one.valid, num_hidden(ratio, one.valid.sum(dim=1)))
        return hidden

    def _backward(self, part: MicroBatch, counts: Mapping[str, int]) -> dict[str, Tensor]:
        """Accumulate the gradient of one micro-batch; return its share of the step's losses."""
        use_jepa = self.spec.jepa_weight > 0 and self.model.feature_head is not None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.precision == "bfloat16"):
            sums = training_losses(self.model, self.average if use_jepa else None, part.tokens, part.hidden, part.prepared,
                                   part.drop, part.samples, Draws(self.recipe.seed, "training"))
        total, losses = self._weighted(sums, counts)
        total.backward()
        return losses | {"loss": total.detach()}

    def _weighted(self, sums: Mapping[str, LossSums], counts: Mapping[str, int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss, a mean over the hidden tokens of the global batch, and its parts."""
        total, losses = torch.zeros((), device=self.device), {}
        for name, stream in sums.items():
            for part, value in stream.parts.items():
                mean = value / counts[name]
                weight = self.spec.jepa_weight if part == "jepa" else 1.0
                total = total + self.model_spec.streams[name].loss_weight * weight * mean
                losses[f"{name}/{part}"] = mean.detach()
        return total, losses

    # After a step -----------------------------------------------------------------------------------------------------------

    def _report(self, step: int, losses: Mapping[str, Tensor], norm: Tensor) -> None:
        self.log.advance()
        if step % self.spec.log_every and step != self.spec.steps:
            return
        steps = step % self.spec.log_every or self.spec.log_every
        rate = steps * self.spec.batch_size / self.log.elapsed()
        values = {name: float(loss) for name, loss in losses.items()}
        left_out = {LEFT_OUT: len(self.left_out)} if self.left_out else {}
        self.log.record(step, {**values, "grad_norm": float(norm), "lr": learning_rate(self.spec, step - 1),
                               "samples_per_second": rate, **left_out})

    def _note(self, step: int, left_out: Mapping[int, str]) -> None:
        """Write down examples that could not be loaded, each when it is first met."""
        for index, reason in left_out.items():
            if index not in self.left_out:
                self.left_out.add(index)
                self.log.event(step, LEFT_OUT, example=index, reason=reason)

    def _after(self, run: Path, step: int) -> None:
        last = step == self.spec.steps
        every = self.recipe.preview.every
        if every and (step % every == 0 or last):
            save_previews(run, step, {"averaged": self.average, "raw": self.model}, self.model_spec, self.tokenizers,
                          self.recipe.preview)
        if self.evaluation and self.evaluation.due(step, last):
            self.log.event(step, EVALUATION, **self.evaluation(self.average))
        if step % self.recipe.checkpoint.every == 0 or last:
            save_checkpoint(run, step, self.model_spec, self.model, self.average, self.optimizer, self._about(),
                            self.recipe.checkpoint.keep)

    def _about(self) -> dict[str, Any]:
        return {"description": self.recipe.description, "recipe": self.recipe.resolved(), "djepa": __version__,
                "torch": torch.__version__, "examples": len(self.dataset)}


def _ratio(spec: TrainSpec) -> MaskRatio:
    if isinstance(spec.mask, TruncatedNormalMask):
        return truncated_normal_ratio(spec.mask.mean, spec.mask.std, spec.mask.low, spec.mask.high)
    return cosine_ratio
