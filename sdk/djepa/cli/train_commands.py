"""``djepa train`` and ``djepa resume``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from djepa.launch import Launch
    from djepa.recipe import Recipe

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe: train.steps=500")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
Nproc = Annotated[int, typer.Option(min=1, help="Processes on this machine, one a GPU.")]
Nnodes = Annotated[int, typer.Option(min=1, help="Machines; give the same command on each.")]
Rendezvous = Annotated[str, typer.Option(metavar="HOST:PORT", help="One of several machines, where they meet.")]
MaxRestarts = Annotated[int, typer.Option(min=0, help="How often to start again by itself when a process is lost.")]


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see: djepa recipes ls), or the path of a YAML file.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; by default runs/RECIPE.")] = None,
    device: Device = "auto",
    smoke: Annotated[bool, typer.Option("--smoke", help="In miniature, to see that all works: two tiny steps.")] = False,
    nproc: Nproc = 1,
    nnodes: Nnodes = 1,
    rendezvous: Rendezvous = "",
    max_restarts: MaxRestarts = 0,
) -> None:
    """Train a model from a recipe. SIGTERM and SIGUSR1 make it save and end with code 75."""
    from djepa.launch import Launch, restarted
    from djepa.recipe import Recipe

    loaded = Recipe.load(recipe, overrides or [], smoke=smoke)  # before torch is imported, so that mistakes are told at once
    run = out or Path("runs") / Path(recipe).with_suffix("").name
    plan = Launch(nproc, nnodes, rendezvous, max_restarts)
    if plan.needed:
        _launch(plan, loaded, ["train", recipe, *(overrides or []), "--out", str(run), "--device", device,
                               *(["--smoke"] if smoke else [])])
        return
    from djepa.train import Trainer

    _done(run, Trainer(loaded, device=device).fit(run, go_on=restarted()))


def resume(
    run: Annotated[Path, typer.Argument(help="The folder of a run that was stopped.")],
    overrides: Overrides = None,
    device: Device = "auto",
    nproc: Annotated[int | None, typer.Option(min=1, help="Processes on this machine; by default as many as before.")] = None,
    nnodes: Nnodes = 1,
    rendezvous: Rendezvous = "",
    max_restarts: MaxRestarts = 0,
) -> None:
    """Go on with a run from its newest checkpoint, as if it had never stopped. Any number of processes may."""
    from djepa.launch import Launch, remembered
    from djepa.train import Trainer

    plan = Launch(nproc or (remembered(run) if nnodes == 1 else 1), nnodes, rendezvous, max_restarts)
    if plan.needed:
        _launch(plan, Trainer.resumed_recipe(run, overrides or []), [
            "resume", str(run), *(overrides or []), "--device", device])
        return
    _done(run, Trainer.resume(run, overrides or [], device=device))


def _launch(plan: Launch, recipe: Recipe, arguments: Sequence[str]) -> None:
    """Start the processes, and end as they did, once the request is one that they can carry out."""
    from djepa.launch import launch
    from djepa.train.engine import micro_batch_size

    micro_batch_size(recipe.train, plan.num_processes * plan.num_nodes)
    sys.exit(launch(plan, arguments))


def _done(run: Path, checkpoint: Path) -> None:
    import os

    if os.environ.get("RANK", "0") == "0":
        print(f"Done. The model is in {checkpoint}. Generate with: djepa generate {run} --out samples")
