"""``djepa cache``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from djepa.cache import Progress


def cache(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name (see: djepa recipes ls), or a YAML file.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder to write, or to go on with.")] = None,
    check: Annotated[Path | None, typer.Option(help="Read the cache in this folder through instead.")] = None,
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="What is stored; float16 is half as large.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Encode the dataset of a recipe once, to train from that many times.

    A command that was stopped goes on where it was. Train with the same recipe and data.kind=cached data.root=FOLDER.
    """
    from djepa.cache import write_cache
    from djepa.cache.index import INDEX, Index
    from djepa.errors import UsageError
    from djepa.recipe import Recipe

    if check is not None:
        if recipe is not None or out is not None:
            raise UsageError("djepa cache either checks a cache (--check FOLDER) or makes one (RECIPE --out FOLDER).")
        _check(check, as_json)
        return
    if recipe is None or out is None:
        raise UsageError("Say which recipe's data to encode, and where to: djepa cache RECIPE --out FOLDER")
    write_cache(Recipe.load(recipe, overrides or []), out, device=device, dtype=dtype, on_shard=_bar())
    left_out = len(Index.read(out).left_out)
    if as_json:
        print(json.dumps({"folder": str(out), "left_out": left_out}))
    else:
        if left_out:
            print(f"{left_out} examples could not be read; others are in their place, and {out / INDEX} says of which.")
        others = [text for text in overrides or [] if not text.startswith("data.")]
        print("Done. Train with: " + " ".join(["djepa train", recipe, *others, "data.kind=cached", f"data.root={out}"]))


def _check(folder: Path, as_json: bool) -> None:
    from djepa.cache import check_cache
    from djepa.errors import CheckpointError

    problems = {}
    for name, problem in check_cache(folder):
        if problem:
            problems[name] = problem
    if as_json:
        print(json.dumps({"folder": str(folder), "problems": problems}))
    if problems:
        listed = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
        raise CheckpointError(f"The cache in {str(folder)!r} is not sound. {listed}.")
    if not as_json:
        print(f"{folder} is sound.")


def _bar() -> Any:
    from tqdm import tqdm

    bar = tqdm(unit="example", dynamic_ncols=True, disable=not sys.stderr.isatty())

    def show(progress: Progress) -> None:
        bar.total = progress.total
        bar.update(progress.done - bar.n)
        if not sys.stderr.isatty():
            print(f"{progress.done} of {progress.total} examples", file=sys.stderr)
        elif progress.done == progress.total:
            bar.close()

    return show
