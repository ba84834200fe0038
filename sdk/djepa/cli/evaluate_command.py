"""``djepa evaluate``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from djepa.evaluate import Progress
    from djepa.recipe.component import Component


def evaluate(
    model: Annotated[str, typer.Argument(help="A shipped name (image/digits), a model or run folder, or a Hub repository.")],
    recipe: Annotated[str, typer.Argument(help="Whose data to compare with: a recipe's name, or the path of a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe: "
                         "data.split=heldout, evaluate.num_real=10000, evaluate.features.source=FOLDER")] = None,
    metrics: Annotated[str | None, typer.Option(help="With commas: frechet,kernel,recall; see: djepa plugins list")] = None,
    features: Annotated[str | None, typer.Option(help="What to compare: values, torchscript, ...; by default what suits the "
                        "modality and needs no network.")] = None,
    torchscript: Annotated[Path | None, typer.Option(help="Features of the network in this TorchScript file. It is code, and "
                           "gets executed: name only files you trust.")] = None,
    num_samples: Annotated[int | None, typer.Option("--num-samples", "-n", help="To generate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first sample; the next has seed + 1.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for features and result.json, to go on with after an "
                   "interruption; by default one in evaluations/.")] = None,
    nproc: Annotated[int, typer.Option(help="Processes that generate.")] = 1,
    num_steps: Annotated[int | None, typer.Option(help="Generation steps; by default the model's own.")] = None,
    num_denoising_steps: Annotated[int | None, typer.Option(help="Evaluations of the head in each step.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Noise of the head; 1 as trained.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Strength of the condition; 1 is off.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples at a time; by default what fits memory.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Compare generated samples with the data of a recipe. The same command goes on with an evaluation that was stopped."""
    from djepa.evaluate import evaluate as compare
    from djepa.evaluate.torchscript import TRUSTED
    from djepa.recipe import Recipe

    if torchscript is not None:
        os.environ[TRUSTED] = os.pathsep.join(filter(None, [os.environ.get(TRUSTED), str(torchscript.resolve())]))
    changes = [*(overrides or []), *_asked(metrics, features, torchscript, num_samples, seed)]
    found = compare(
        model, Recipe.load(recipe, changes), out, training=_trained_on(recipe, overrides or []), nproc=nproc, device=device,
        dtype=dtype, batch_size=batch_size,  # pyright: ignore[reportArgumentType]
        on_progress=_bar(), num_steps=num_steps, num_denoising_steps=num_denoising_steps, temperature=temperature,
        guidance_scale=guidance_scale,
    )
    print(json.dumps(found.plain()) if as_json else found.table())


def _asked(
    metrics: str | None, features: str | None, torchscript: Path | None, num_samples: int | None, seed: int | None
) -> Iterator[str]:
    """The options as overrides of the recipe's `evaluate` block."""
    if metrics is not None:
        yield f"evaluate.metrics={json.dumps([name.strip() for name in metrics.split(',') if name.strip()])}"
    if features is not None or torchscript is not None:
        yield f"evaluate.features.kind={features or 'torchscript'}"
    if torchscript is not None:
        yield f"evaluate.features.path={json.dumps(str(torchscript.resolve()))}"
    if num_samples is not None:
        yield f"evaluate.num_samples={num_samples}"
    if seed is not None:
        yield f"evaluate.seed={seed}"


def _trained_on(recipe: str, overrides: list[str]) -> Component | None:
    """The data of the recipe as it is, where the overrides turn them into others; None where it has none of its own."""
    from djepa.errors import DjepaError
    from djepa.recipe import Recipe

    if not any(text.startswith("data.") for text in overrides):
        return None
    try:
        node = Recipe.load(recipe, [text for text in overrides if not text.startswith("data.")]).data
        node.build()
        return node
    except DjepaError:  # a recipe that does not say where its data are, or not where they are here
        return None


def _bar() -> Any:
    from tqdm import tqdm

    bar = tqdm(unit="sample", dynamic_ncols=True, disable=not sys.stderr.isatty())

    def show(progress: Progress) -> None:
        bar.total = progress.total
        bar.update(progress.done - bar.n)
        if progress.done == progress.total:
            bar.close()

    return show
