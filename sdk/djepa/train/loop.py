"""The loop of a run: load, take a step, report, save; all processes together, so that what ends one ends all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from djepa import __version__
from djepa.dataset import Dataset, Example
from djepa.errors import DjepaError, PeerError, RunStopped, TrainingError
from djepa.recipe import Recipe
from djepa.skipping import Skipping, left_out_of
from djepa.train.checkpoint import take_snapshot
from djepa.train.data import Order, Part, batches
from djepa.train.distributed import World
from djepa.train.engine import Engine
from djepa.train.evaluation import EVALUATION, TrainingEvaluation
from djepa.train.initialize import report_initialization
from djepa.train.log import LEFT_OUT, RunLog
from djepa.train.preview import draw_previews, standing_alone
from djepa.train.saving import Saver
from djepa.train.schedules import learning_rate
from djepa.train.step import Outcome, Steps, Work
from djepa.train.stopping import StopRequest
from djepa.train.stopwatch import Stopwatch

MAX_SKIPPED = 10  # steps in a row whose gradient is not finite before a run gives up


class Loop:
    """Trains from a step to the last.

    Args:
        run: the run's folder.
        dataset, order: all of it; the loop knows which part of a batch is this process's.
        log: in the first process; None in the others.
        evaluation: of the averaged weights, by the first process; None for none.
    """

    def __init__(
        self, recipe: Recipe, run: Path, dataset: Dataset, order: Order, engine: Engine, world: World, log: RunLog | None,
        evaluation: TrainingEvaluation | None = None,
    ) -> None:
        self.recipe, self.spec, self.run, self.dataset = recipe, recipe.train, run, dataset
        self.engine, self.world, self.team, self.log = engine, world, world.team, log
        self.order, self.evaluation = order, evaluation
        self.watch = Stopwatch()
        self.steps = Steps(recipe, engine, world, self.watch)
        self.saver = Saver(run, recipe.checkpoint, world.savers)
        self.streams = list(engine.spec.streams)
        self.left_out: set[int] = {event["example"] for event in log.events(LEFT_OUT)} if log else set()
        self.values: Mapping[str, float] = log.last() if log else {}
        self._problem: Exception | None = None
        self._skipped = self._saved = 0

    def go(self, start: int) -> None:
        """Train.

        Args:
            start: steps already taken.

        Raises:
            RunStopped: as asked, after a checkpoint.
            TrainingError: the gradient is no longer finite, or a process that loads the data died or hangs.
            StorageError: the disk refused.
            PeerError: another process failed.
        """
        self._saved = start
        if isinstance(self.dataset, Skipping):
            self._note(start, self.dataset.left_out)  # while the data were measured
        if self.log and self.engine.initialized:
            report_initialization(self.log, self.engine.initialized)
        loaded = batches(self.dataset, Part(self.order, self.steps.share), range(start, self.spec.steps),
                         self.spec.num_workers, self.spec.load_timeout)
        try:
            with closing(loaded), StopRequest() as request:
                for step in range(start, self.spec.steps):
                    self._advance(step, loaded, request)
            with self._held():
                self.saver.wait()
            self._agree([])
        except DjepaError:  # the others know of it; after any other they may be gone, and their part with them
            self.saver.finish()
            raise

    def _advance(self, step: int, loaded: Iterator[list[Example]], request: StopRequest) -> None:
        work, examples = Work([]), []
        with self._held():
            self.saver.check()
            with self.watch("data"):
                examples = next(loaded)
            work = self.steps.prepare(step, examples)
        news = {index: reason for index, reason in left_out_of(examples).items() if index not in self.left_out}
        stop, num_news, *counts = self._agree([bool(request.reason), len(news), *work.counts(self.streams)])
        if stop:
            self._stop(step, request.reason)
        if num_news:
            self._note(step + 1, {index: reason for part in self.team.all(news) for index, reason in part.items()})
        outcome = self.steps.take(step, work, dict(zip(self.streams, counts, strict=True)))
        self._count_skipped(step + 1, outcome)
        self._report(step + 1, outcome)
        with self._held():
            self._guard(step + 1)
            self._after(step + 1)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold an error back until all processes have heard of it, or they would wait for this one for ever."""
        if self.team.size == 1:
            yield
            return
        try:
            yield
        except Exception as error:
            self._problem = self._problem or error

    def _agree(self, numbers: list[int]) -> list[int]:
        """The sums of some numbers over all processes.

        Raises:
            PeerError: another process holds an error back; where this is the one, that error.
        """
        failed, *sums = self.team.total([self._problem is not None, *numbers])
        if self._problem is not None:
            raise self._problem
        if failed:
            raise PeerError("Another process of this run failed; it says why.")
        return [int(number) for number in sums]

    def _stop(self, step: int, reason: str) -> None:
        with self._held():
            if step > self._saved:
                self._save(step)
            self.saver.wait()
        self._agree([])
        raise RunStopped(f"Stopped at step {step}, as asked{f' by {reason}' if reason else ''}. Go on with: djepa resume "
                         f"{self.run}")

    def _count_skipped(self, step: int, outcome: Outcome) -> None:
        """Write down a step that could not be taken."""
        self._skipped = 0 if outcome.sound else self._skipped + 1
        with self._held():
            if not outcome.sound and self.log:
                self.log.event(step, "skipped", reason="the gradient is not finite")

    def _guard(self, step: int) -> None:
        """Give up when too many steps in a row could not be taken."""
        if self._skipped >= MAX_SKIPPED:
            raise TrainingError(
                f"The gradient has not been finite for {self._skipped} steps up to step {step}; the run stops. Its last "
                f"checkpoint is sound. Try a lower train.lr, or train.precision=float32.")

    def _note(self, step: int, left_out: Mapping[int, str]) -> None:
        """Write down examples that could not be loaded, each when it is first met."""
        with self._held():
            for index, reason in left_out.items():
                if index not in self.left_out:
                    self.left_out.add(index)
                    if self.log:
                        self.log.event(step, LEFT_OUT, example=index, reason=reason)

    def _report(self, step: int, outcome: Outcome) -> None:
        if self.log:
            self.log.advance()
        if step % self.spec.log_every and step != self.spec.steps:
            return
        num_steps = step % self.spec.log_every or self.spec.log_every
        losses: dict[str, float] = {}
        for share in self.team.all({name: float(loss) for name, loss in outcome.losses.items()}):
            for name, loss in share.items():
                losses[name] = losses.get(name, 0.0) + loss
        self.values = {**losses, "grad_norm": outcome.norm, "lr": learning_rate(self.spec, step - 1)}
        seconds = self.watch.lap()
        with self._held():
            if self.log:
                left_out = {LEFT_OUT: len(self.left_out)} if self.left_out else {}
                self.log.record(step, {**self.values, "samples_per_second": num_steps * self.spec.batch_size / seconds["step"],
                                       **{f"seconds/{part}": value / num_steps for part, value in seconds.items()}, **left_out})

    def _after(self, step: int) -> None:
        last, every = step == self.spec.steps, self.recipe.preview.every
        if every and (step % every == 0 or last):
            with self.watch("preview"):
                draw_previews(self.run, step, self.engine, self.recipe.preview, self.team)
        if self.evaluation and self.evaluation.due(step, last):
            with self.watch("evaluation"):
                self._evaluate(step, self.evaluation)
        if step % self.recipe.checkpoint.every == 0 or last:
            self._save(step)

    def _evaluate(self, step: int, evaluation: TrainingEvaluation) -> None:
        average = standing_alone(self.engine.average, self.engine, self.team)
        if self.log:
            self.log.event(step, EVALUATION, **evaluation(average))

    def _save(self, step: int) -> None:
        best = self.recipe.checkpoint.keep_best
        value = self.values.get(best, math.nan) if best else math.nan
        with self.watch("save"):
            self.saver.save(take_snapshot(step, self.engine, self.team, self._about(),
                                          {best: value} if best and math.isfinite(value) else {}))
            self._saved = step

    def _about(self) -> dict[str, Any]:
        return {"description": self.recipe.description, "recipe": self.recipe.resolved(), "djepa": __version__,
                "torch": _torch_version(), "examples": len(self.dataset)}


def _torch_version() -> str:
    import torch

    return str(torch.__version__)
