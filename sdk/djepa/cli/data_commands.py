"""``djepa data``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from djepa.corpus import Corpus

NUM_SHOWN = 20  # shapes and classes that are printed; problems are all printed

app = typer.Typer(help="What the data of a recipe are like.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """What the data of a recipe are like."""


@app.command("check")
def check(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see: djepa recipes ls), or the path of a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read; by default one a core.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that an example may take; 0 for any time.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Read every example of a recipe's data, and list those that cannot be read. Exits with 1 if there are any."""
    from tqdm import tqdm

    from djepa.corpus import check_corpus
    from djepa.recipe import Recipe

    dataset = Recipe.load(recipe, overrides or []).data.build()
    with tqdm(total=len(dataset), unit="example", dynamic_ncols=True, disable=not sys.stderr.isatty()) as bar:
        def show(done: int) -> None:
            bar.update(done - bar.n)

        num_workers = workers if workers is not None else os.cpu_count() or 1
        corpus = check_corpus(dataset, num_workers=num_workers, timeout=timeout, on_progress=show)
    print(json.dumps(corpus.plain()) if as_json else "\n".join(_lines(corpus)))
    if corpus.problems:
        raise typer.Exit(1)


def _lines(corpus: Corpus) -> Iterator[str]:
    bad = len(corpus.problems)
    yield f"{corpus.num_examples - bad} of {corpus.num_examples} examples are sound."
    for problem in corpus.problems:
        yield f"  {problem.name}: {problem.reason}"
    for name, shapes in corpus.shapes.items():
        sizes = ", ".join(f"{key.replace('_', ' ')} {size}" for key, size in corpus.sizes(name).items())
        yield f"{name}: {sizes} (steps)"
        yield from _counted({" x ".join(map(str, shape)): count for shape, count in shapes.most_common()}, "shapes")
    for name, counts in corpus.classes.items():
        yield f"{name}: {len(counts)} classes"
        yield from _counted(dict(counts.most_common()), "classes")


def _counted(counts: dict[str, int], what: str) -> Iterator[str]:
    yield from (f"  {count:>9}  {name}" for name, count in list(counts.items())[:NUM_SHOWN])
    if len(counts) > NUM_SHOWN:
        yield f"        ...  {len(counts)} {what} in all"
