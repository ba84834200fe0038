"""One optimizer step: forward and backward over micro-batches, then the optimizer and the average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from djepa.dataset import Example
from djepa.random import seeded
from djepa.recipe import Recipe
from djepa.train.distributed import World
from djepa.train.engine import Engine, micro_batch_size
from djepa.train.micro_batch import MicroBatch, MicroBatches
from djepa.train.optimizer import ema_decay, update_average
from djepa.train.schedules import learning_rate, weight_decay
from djepa.train.stopwatch import Stopwatch


@dataclass(frozen=True)
class Work:
    """This process's share of a step."""

    parts: Sequence[MicroBatch]

    def counts(self, streams: Sequence[str]) -> list[int]:
        """Hidden tokens of every stream."""
        return [sum(part.num_hidden(name) for part in self.parts) for name in streams]


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Attributes:
        losses: this process's share of the global means.
        norm: of the gradient, before it was clipped.
        sound: whether it was finite, and the step was taken.
    """

    losses: Mapping[str, Tensor]
    norm: float
    sound: bool


class Steps:
    """Takes steps.

    Args:
        watch: is told what the time is spent on.

    Raises:
        UsageError: the global batch cannot be shared by the processes.
    """

    def __init__(self, recipe: Recipe, engine: Engine, world: World, watch: Stopwatch) -> None:
        self.seed, self.spec, self.engine, self.watch = recipe.seed, recipe.train, engine, watch
        self.micro = micro_batch_size(self.spec, world.team.size)
        share = self.spec.batch_size // world.team.size
        self.share = slice(world.team.rank * share, (world.team.rank + 1) * share)
        self.batches = MicroBatches(recipe.seed, self.spec, engine.tokenizers, engine.model, engine.spec.generate.order.build(),
                                    world.device)

    def prepare(self, step: int, examples: Sequence[Example]) -> Work:
        """Turn this process's examples of a step into micro-batches."""
        with self.watch("prepare"):
            return Work([self.batches.make(step, self.share.start + start, examples[start : start + self.micro])
                         for start in range(0, len(examples), self.micro)])

    def take(self, step: int, work: Work, counts: Mapping[str, int]) -> Outcome:
        """Take an optimizer step, unless its gradient is not finite.

        Args:
            counts: hidden tokens of every stream, of all processes.
        """
        losses: dict[str, Tensor] = {}
        for number, part in enumerate(work.parts, start=1):
            for name, loss in self._backward(part, counts, number == len(work.parts)).items():
                losses[name] = losses.get(name, torch.zeros(())) + loss
        engine = self.engine
        with self.watch("optimizer"):
            norm = engine.optimizer.clip(self.spec.max_grad_norm, engine.loss.total)
            sound = norm - norm == 0  # neither infinite nor no number, and the same in all processes
            if sound:
                engine.optimizer.step(learning_rate(self.spec, step), weight_decay(self.spec, step))
            engine.optimizer.forget()
        if sound:
            with self.watch("average"):
                update_average(engine.average, engine.model, ema_decay(self.spec, step))
        return Outcome(losses, norm, sound)

    def _backward(self, part: MicroBatch, counts: Mapping[str, int], last: bool) -> Mapping[str, Tensor]:
        """Accumulate the gradient of one micro-batch."""
        # Dropout inside of kernels cannot be keyed by sample. This way it is the same wherever micro-batches are.
        with seeded(self.seed, "dropout", part.step, part.start), self.engine.loss.accumulating(last):
            with self.watch("forward"):
                total, losses = self.engine.loss.module(part, counts)
            with self.watch("backward"):
                total.backward()
        return losses
