"""Training: what a user calls.

Nothing here or in the loop keeps random state: the order of the data, masks, noise, augmentation, dropped conditions and
dropout are functions of the seed, the step and the sample's global position, so that a run that was killed and resumed takes
the very same steps as one that was not, and several processes take the steps of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from djepa.build import build_tokenizers, complete
from djepa.dataset import Dataset
from djepa.device import resolve_device
from djepa.errors import CheckpointError, MediaError, PeerError, UsageError
from djepa.files import atomic_file
from djepa.launch import remember
from djepa.recipe import Recipe
from djepa.recipe.resuming import resumed_recipe
from djepa.recipe.schema import ModelSpec
from djepa.skipping import Skipping
from djepa.storage import newest_checkpoint, read_config
from djepa.train.buckets import data_order
from djepa.train.checkpoint import load_checkpoint, sweep
from djepa.train.data import Order
from djepa.train.distributed import World, tells_of_lost_process, world
from djepa.train.engine import Engine, build_engine, micro_batch_size
from djepa.train.evaluation import TrainingEvaluation
from djepa.train.locking import RunLock
from djepa.train.log import RunLog
from djepa.train.loop import Loop
from djepa.train.preview import check_conditions

RECIPE = "recipe.yaml"


class Trainer:
    """Trains the model of a recipe.

    Args:
        recipe: what to do.
        device: "auto" takes a GPU where there is one.

    Attributes:
        engine: what is trained; there once training has begun.

    Raises:
        RecipeError: the recipe does not fit its dataset.
        UsageError: the device is not to be had here.
    """

    engine: Engine
    order: Order
    evaluation: TrainingEvaluation | None

    def __init__(self, recipe: Recipe, *, device: str = "auto") -> None:
        self.recipe, self.device = recipe, device
        resolve_device(device)
        dataset: Dataset = recipe.data.build()
        self.dataset: Dataset = Skipping(dataset) if recipe.train.on_error == "skip" else dataset

    def fit(self, run: str | Path, *, go_on: bool = False) -> Path:
        """Train from the start and return the last checkpoint, which is a model folder.

        Under torchrun or srun, all processes of which make this call, they train together.

        Args:
            run: a new or empty folder; gets `recipe.yaml`, `checkpoints/`, `log.jsonl` and `samples/`.
            go_on: if it holds a run already, that is this one, begun by processes that were lost.

        Raises:
            UsageError: the folder already holds a run, or another process trains there.
            MediaError: an example cannot be read.
            TrainingError: the gradient is no longer finite, or a process that loads the data died or hangs.
            RunStopped: asked to by SIGTERM or SIGUSR1, after a checkpoint.
            StorageError: the disk refused.
        """
        run = Path(run)
        here = world(self.device)
        fresh = here.team.shared(lambda: not (go_on and (run / RECIPE).is_file()))
        if fresh:
            here.team.shared(lambda: _refuse_a_run(run))
        self.build(here, run)  # first, so that a recipe that does not fit its data leaves no run behind
        return self._train(run, here, fresh=fresh, write_recipe=fresh)

    @classmethod
    def resume(cls, run: str | Path, overrides: Sequence[str] = (), *, device: str = "auto") -> Path:
        """Go on with a run from its newest complete checkpoint (from the start, if it has none).

        Any number of processes may go on with what any number began. With as many as before, the weights end the same to the
        last bit; with more or fewer they do but for rounding.

        Args:
            run: its folder.
            overrides: changes to the recipe, which are kept; only lengths and what has no influence on the weights but rounding
                may change.

        Raises:
            CheckpointError: the folder holds no run.
            UsageError: an override, or an edit of its recipe by hand, would make it another run; or another process trains
                there.
        """
        run = Path(run)
        trainer = cls(cls.resumed_recipe(run, overrides), device=device)
        here = world(device)
        trainer.build(here, run)
        return trainer._train(run, here, fresh=False, write_recipe=bool(overrides))

    @staticmethod
    def resumed_recipe(run: Path, overrides: Sequence[str] = ()) -> Recipe:
        """The recipe that a run goes on with; errors as in `resume`."""
        if not (run / RECIPE).is_file():
            raise CheckpointError(f"{str(run)!r} holds no run: it has no {RECIPE}. "
                                  f"Start one with: djepa train RECIPE --out {run}")
        newest = newest_checkpoint(run)
        stored = read_config(newest)[1].get("recipe") if newest else None
        return resumed_recipe(run / RECIPE, overrides, stored, str(newest))

    def build(self, here: World, run: Path | None = None) -> None:
        """Everything as of step 0; what is in a run's checkpoint says which model it is, if there is one."""
        micro_batch_size(self.recipe.train, here.team.size)
        newest, spec = here.team.shared(lambda: self._model_spec(run, here))
        tokenizers = {name: one.to(here.device) for name, one in build_tokenizers(spec).items()}
        self.dataset.check(tokenizers)
        self.order = data_order(self.dataset, self.recipe.seed, self.recipe.train.batch_size, self.recipe.train.buckets)
        self.engine = build_engine(self.recipe, spec, tokenizers, here, fresh=newest is None)
        check_conditions(self.engine.model, self.recipe.preview)
        self.evaluation = (TrainingEvaluation(self.recipe, spec, tokenizers, run, here.device)
                           if run and self.recipe.evaluate.every else None)

    def _model_spec(self, run: Path | None, here: World) -> tuple[Path | None, ModelSpec]:
        newest = newest_checkpoint(run) if run else None
        return newest, read_config(newest)[0] if newest else complete(self.recipe.model, self.dataset, here.device)

    def _train(self, run: Path, here: World, *, fresh: bool, write_recipe: bool) -> Path:
        team, log = here.team, None
        with ExitStack() as stack:
            with team.together():
                if team.first:
                    stack.enter_context(RunLock(run))
                    self._enter(run, fresh, write_recipe, team.size)
            newest = team.shared(lambda: newest_checkpoint(run))
            with team.together():
                start = load_checkpoint(newest, self.engine, team) if newest else 0
            with team.together():
                if team.first:
                    log = RunLog(run / "log.jsonl", start, self.recipe.train.steps)
                    stack.callback(log.close)
            self._go(run, here, log, start)
        path = team.shared(lambda: newest_checkpoint(run))
        assert path is not None
        return path

    def _enter(self, run: Path, fresh: bool, write_recipe: bool, num_processes: int) -> None:
        """Make a folder this run's; in one process, which holds its lock."""
        if fresh:
            _refuse_a_run(run)  # once more: another process may have been faster
        if write_recipe:
            with atomic_file(run / RECIPE) as temporary:
                temporary.write_text(self.recipe.to_yaml(), encoding="utf-8")
        remember(run, num_processes)
        sweep(run)

    def _go(self, run: Path, here: World, log: RunLog | None, start: int) -> None:
        try:
            Loop(self.recipe, run, self.dataset, self.order, self.engine, here, log, self.evaluation).go(start)
        except MediaError as error:
            if self.recipe.train.on_error == "skip":
                raise
            raise MediaError(f"{error} To go on without what cannot be read: djepa resume {run} train.on_error=skip") from error
        except RuntimeError as error:
            if here.team.size > 1 and tells_of_lost_process(error):
                raise PeerError("Another process of this run is gone.") from error
            raise


def _refuse_a_run(run: Path) -> None:
    if any((run / name).exists() for name in (RECIPE, "checkpoints", "log.jsonl")):
        raise UsageError(f"{str(run)!r} already holds a run. Go on with it (djepa resume {run}) or choose another folder.")
