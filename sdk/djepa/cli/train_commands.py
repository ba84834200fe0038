"""``djepa train`` and ``djepa resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe: train.steps=500")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see: djepa recipes ls), or the path of a YAML file.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; by default runs/RECIPE.")] = None,
    device: Device = "auto",
    smoke: Annotated[bool, typer.Option("--smoke", help="In miniature, to see that all works: two tiny steps.")] = False,
) -> None:
    """Train a model from a recipe."""
    from djepa.recipe import Recipe

    loaded = Recipe.load(recipe, overrides or [], smoke=smoke)  # before torch is imported, so that mistakes are told at once
    from djepa.train import Trainer

    run = out or Path("runs") / Path(recipe).with_suffix("").name
    checkpoint = Trainer(loaded, device=device).fit(run)
    print(f"Done. The model is in {checkpoint}. Generate with: djepa generate {run} --out samples")


def resume(
    run: Annotated[Path, typer.Argument(help="The folder of a run that was stopped.")],
    overrides: Overrides = None,
    device: Device = "auto",
) -> None:
    """Go on with a run from its newest checkpoint, as if it had never stopped."""
    from djepa.train import Trainer

    checkpoint = Trainer.resume(run, overrides or [], device=device)
    print(f"Done. The model is in {checkpoint}. Generate with: djepa generate {run} --out samples")
