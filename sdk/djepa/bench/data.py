"""Whether data come as fast as training takes them.

A step waits for three things: its examples are loaded (decoding and augmentation, by `train.num_workers` processes ahead of
time, or by the training process itself), tokenized (by the training process), and trained on. Each is timed by itself, so
workers have the machine for themselves here; where the training step runs on the same cores they are slower beside it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch

from djepa.dataset import Example
from djepa.device import resolve_device
from djepa.errors import UsageError
from djepa.recipe import Recipe
from djepa.train import Trainer
from djepa.train.data import batches
from djepa.train.distributed import World
from djepa.train.step import Steps
from djepa.train.stopwatch import Stopwatch

TOLERABLE = 0.1  # share of a step that may be spent on something without advice


@dataclass(frozen=True)
class DataBench:
    """The three parts of a step.

    Attributes:
        batch_size: samples of a step.
        num_workers, num_cores: processes that load, and cores there are for everything.
        device: that tokenizes and trains.
        load, tokenize, train: seconds that each part of a step takes when it is not kept waiting.
        cacheable: whether a tokenizer has a network, so that `djepa cache` can keep what it finds.
    """

    batch_size: int
    num_workers: int
    num_cores: int
    device: str
    load: float
    tokenize: float
    train: float
    cacheable: bool

    @property
    def loader(self) -> float:
        """Samples a second that can be loaded and tokenized: one after the other, or at the same time where workers load."""
        return self.batch_size / (max(self.load, self.tokenize) if self.num_workers else self.load + self.tokenize)

    @property
    def needed(self) -> float:
        """Samples a second that the training step takes."""
        return self.batch_size / self.train

    @property
    def ratio(self) -> float:
        """Samples that can be had for each that is needed."""
        return self.loader / self.needed

    @property
    def step(self) -> float:
        """Seconds from one step to the next."""
        busy = self.tokenize + self.train
        return max(self.load, busy) if self.num_workers else self.load + busy

    @property
    def waiting(self) -> float:
        """Share of a step in which nothing is trained."""
        return 1 - self.train / self.step

    def advice(self) -> list[str]:
        """What would shorten the wait; nothing where it is short."""
        waits = self.step - self.tokenize - self.train
        found = [self._about_workers()] if waits > TOLERABLE * self.step else []
        if self.tokenize > TOLERABLE * self.step:
            cure = ("Do it once for all: djepa cache RECIPE --out FOLDER" if self.cacheable else
                    "Its tokenizers have no network, so that a cache would gain nothing.")
            found.append(f"Tokenizing takes {self.tokenize / self.step:.0%} of a step. {cure}")
        return found

    def _about_workers(self) -> str:
        wanted = math.ceil(self.load * max(1, self.num_workers) / (self.tokenize + self.train))
        best = min(wanted, self.num_cores)
        if best > self.num_workers:
            found = f"More processes can load at once: train.num_workers={best}"
            return found if wanted <= self.num_cores else f"{found} (it would take {wanted}, on {self.num_cores} cores)"
        cache = ", or keep what the tokenizer makes of them: djepa cache RECIPE --out FOLDER" if self.cacheable else ""
        return (f"It would take {wanted} processes to load these files, on {self.num_cores} cores. Make them smaller (shorter, "
                f"of fewer pixels) before training{cache}.")

    def plain(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return {"batch_size": self.batch_size, "num_workers": self.num_workers, "num_cores": self.num_cores,
                "device": self.device, "seconds": {"load": self.load, "tokenize": self.tokenize, "train": self.train},
                "loader": self.loader, "needed": self.needed, "ratio": self.ratio, "waiting": self.waiting,
                "advice": self.advice()}


def bench_data(recipe: Recipe, *, steps: int = 10, device: str = "auto") -> DataBench:
    """Time the parts of a recipe's training step on real batches; nothing is written.

    Args:
        recipe: to train, with its `train.batch_size` and `train.num_workers`.
        steps: to time each part over, after one that is not counted.
        device: to tokenize and train on.

    Raises:
        UsageError: steps is below 1, or there is no such device.
        RecipeError: the recipe does not fit its dataset.
        MediaError: an example cannot be read.
    """
    if steps < 1:
        raise UsageError(f"steps={steps}: at least 1 is needed.")
    trainer, alone = Trainer(recipe, device=device), World(resolve_device(device))
    trainer.build(alone)
    one = Steps(recipe, trainer.engine, alone, Stopwatch())
    load, examples = _loading(trainer, steps)
    tokenize = _seconds(lambda: one.prepare(0, examples), steps, alone.device)
    work, streams = one.prepare(0, examples), list(trainer.engine.spec.streams)
    counts = dict(zip(streams, work.counts(streams), strict=True))
    train = _seconds(lambda: one.take(0, work, counts), steps, alone.device)
    cacheable = any(tokenizer.cacheable for tokenizer in trainer.engine.tokenizers.values())
    return DataBench(recipe.train.batch_size, recipe.train.num_workers, _num_cores(), str(alone.device), load, tokenize, train,
                     cacheable)


def _loading(trainer: Trainer, steps: int) -> tuple[float, list[Example]]:
    """Seconds per batch, and the last one. As many come before as there are workers: these had started together."""
    spec = trainer.recipe.train
    ahead = max(1, spec.num_workers)
    start, examples = 0.0, []
    loaded = batches(trainer.dataset, trainer.order, range(ahead + steps), spec.num_workers, spec.load_timeout)
    with closing(loaded):
        for number, examples in enumerate(loaded, 1):  # noqa: B007 (the last ones are used)
            if number == ahead:
                start = perf_counter()
    return (perf_counter() - start) / steps, examples


def _seconds(work: Callable[[], object], times: int, device: torch.device) -> float:
    """What a piece of work takes, in the middle of several times."""
    def once() -> float:
        start = perf_counter()
        work()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return perf_counter() - start

    once()
    return median(once() for _ in range(times))


def _num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
