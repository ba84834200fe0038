"""``djepa bench``: how fast it goes on this machine, and what would make it faster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from djepa.bench import DataBench

app = typer.Typer(help="Measure how fast things go on this machine.", no_args_is_help=True)


@app.callback()
def _bench() -> None:
    """One command or many: each has its name."""


@app.command("data")
def data(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see: djepa recipes ls), or the path of a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe.")] = None,
    steps: Annotated[int, typer.Option("--steps", "-n", help="Steps to time each part over.")] = 10,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")] = False,
) -> None:
    """Time the loading of a recipe's data beside the training step that needs them: samples a second of both."""
    from djepa.bench import bench_data
    from djepa.recipe import Recipe

    found = bench_data(Recipe.load(recipe, overrides or []), steps=steps, device=device)
    print(json.dumps(found.plain()) if as_json else "\n".join(_lines(recipe, found)))


def _lines(recipe: str, found: DataBench) -> Iterator[str]:
    size = found.batch_size
    yield f"{recipe}: batches of {size}, train.num_workers={found.num_workers}, on {found.device} and {found.num_cores} cores"
    yield f"  loading     {_rate(size / found.load)} samples/s   decoding and augmentation"
    yield f"  tokenizing  {_rate(size / found.tokenize)} samples/s"
    yield f"  loader      {_rate(found.loader)} samples/s   both"
    yield f"  training    {_rate(found.needed)} samples/s   what the step needs: forward, backward, optimizer"
    verdict = "the loader keeps up" if found.ratio >= 1 else "the loader is the slower"
    yield f"  ratio       {found.ratio:>10.3g}             {verdict}; {found.waiting:.0%} of a step nothing is trained"
    yield from (f"  {advice}".replace("RECIPE", recipe) for advice in found.advice())


def _rate(rate: float) -> str:
    return f"{rate:>10,.0f}" if rate >= 100 else f"{rate:>10.3g}"
