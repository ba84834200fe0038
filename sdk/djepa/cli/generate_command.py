"""``djepa generate``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from djepa.pipeline import Pipeline, Progress
    from djepa.tokens import Samples


def generate(
    model: Annotated[str, typer.Argument(help="A shipped name (image/digits), a model or run folder, or a Hub repository.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A file (several samples: one sheet), or a folder for a file each.")],
    condition: Annotated[list[str] | None, typer.Option("--condition", "-c", help="What to generate; repeat for several. "
                         "With several conditions: name=value,name=value; values may hold commas.")] = None,
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", help="Samples per condition.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the first sample of each condition; the next has seed + 1.")] = 0,
    seconds: Annotated[float | None, typer.Option(help="Length, of what lasts; by default as trained.")] = None,
    size: Annotated[str | None, typer.Option(help="In pixels, 64 or 48x64 (height x width); by default as trained.")] = None,
    num_steps: Annotated[int | None, typer.Option(help="Generation steps.")] = None,
    num_denoising_steps: Annotated[int | None, typer.Option(help="Evaluations of the head in each step.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Noise of the head; 1 as trained.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Strength of the condition; 1 is off.")] = None,
    guidance_schedule: Annotated[str | None, typer.Option(help="linear, constant or interval.")] = None,
    order: Annotated[str | None, typer.Option(help="Generation order: random, raster, ...")] = None,
    columns: Annotated[int | None, typer.Option(min=1, help="Of a sheet; by default one row per condition.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples at a time; by default what fits memory.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Generate samples from a model. Settings left out are the model's own."""
    from djepa.pipeline import Pipeline

    pipeline = Pipeline.from_pretrained(model, device=device, dtype=dtype)  # pyright: ignore[reportArgumentType]
    sheet = check_out(pipeline, out, num_samples * len(condition or [None]))
    samples = pipeline.generate(
        [parsed_condition(text, list(pipeline.spec.conditions)) for text in condition] if condition else None,
        num_samples=num_samples, seed=seed, seconds=seconds, size=_pixels(size), num_steps=num_steps,
        num_denoising_steps=num_denoising_steps, temperature=temperature, guidance_scale=guidance_scale,
        guidance_schedule=guidance_schedule,  # pyright: ignore[reportArgumentType]
        order=order, batch_size=batch_size, on_step=progress_bar(),
    )
    rows = len(condition or []) > 1 and num_samples > 1  # on a sheet, one row per condition
    paths = write(samples, out, sheet, columns or (num_samples if rows else None))
    if as_json:
        print(json.dumps({"paths": [str(path) for path in paths], "samples": [sample.meta for sample in samples]}))
    else:
        print(f"Wrote {len(samples)} sample{'s' if len(samples) > 1 else ''} to {out}")


def parsed_condition(text: str, names: Sequence[str]) -> Any:
    """A condition as typed: a bare value, or name=value pairs.

    Pairs begin with a name of the model's, or with any where it has several. A value ends where the next of the model's
    names begins that has not been given yet, so that texts may hold commas and equals signs.
    """
    first = re.match(r"\s*([A-Za-z][\w-]*)\s*=", text)
    if first is None or (len(names) < 2 and first[1] not in names):
        return text
    starts: dict[str, re.Match[str]] = {}
    for found in re.finditer(rf"(?:^|,)\s*({'|'.join({first[1], *names})})\s*=", text):
        starts.setdefault(found[1], found)
    ends = [*(found.start() for found in list(starts.values())[1:]), len(text)]
    return {name: text[found.end() : end].strip() for (name, found), end in zip(starts.items(), ends, strict=True)}


def _pixels(text: str | None) -> list[int] | int | None:
    from djepa.errors import UsageError

    if text is None:
        return None
    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        raise UsageError(f"--size {text!r}: expected pixels, such as 64, or 48x64 for height x width.") from None
    return sides if len(sides) > 1 else sides[0]


def check_out(pipeline: Pipeline, out: Path, num_samples: int) -> bool:
    """Refuse an output that could not be written before time is spent on samples.

    Returns:
        Whether it is a sheet: a file for several samples, or one of a kind that only sheets are.
    """
    from djepa.build import modality
    from djepa.errors import StorageError

    folder, sheet = out, False
    if out.suffix and not out.is_dir():
        medium = modality(next(iter(pipeline.spec.streams.values())))
        extension = out.suffix.lower().lstrip(".")
        sheet = num_samples > 1 or (extension in medium.sheet_extensions and extension not in medium.extensions)
        medium.check_extension(out, sheet)
        folder = out.parent
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise StorageError(f"Could not write {str(out)!r}: {str(nearest)!r} is a file and no folder; choose another place.")
    return sheet


def write(samples: Samples, out: Path, sheet: bool, columns: int | None = None) -> list[Path]:
    """Write samples to a file or a folder."""
    if not out.suffix or out.is_dir():
        return samples.save(out)
    return [samples.grid(out, columns) if sheet else samples[0].save(out)]


def progress_bar() -> Any:
    """A progress bar to hand to a generation; None where nobody would see it."""
    if not sys.stderr.isatty():
        return None
    from tqdm import tqdm

    bar = tqdm(unit="step", dynamic_ncols=True)

    def show(progress: Progress) -> None:
        bar.total = progress.num_steps * progress.num_chunks
        bar.update((progress.chunk - 1) * progress.num_steps + progress.step - bar.n)
        if bar.n == bar.total:
            bar.close()

    return show
