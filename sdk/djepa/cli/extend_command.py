"""``djepa extend``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from djepa.cli.generate_command import check_out, parsed_condition, progress_bar, write


def extend(
    model: Annotated[str, typer.Argument(help="A shipped name, a model or run folder, or a Hub repository.")],
    file: Annotated[Path, typer.Argument(help="The clip or sound that shall go on.")],
    seconds: Annotated[float, typer.Option(help="How much longer.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A file (several samples: one sheet), or a folder for a file each.")],
    condition: Annotated[str | None, typer.Option("--condition", "-c", help="What it is of; as for djepa generate.")] = None,
    context: Annotated[float | None, typer.Option(help="Seconds looked back on; by default half of the trained.")] = None,
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", help="Different continuations.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the first; the next has seed + 1.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Let a clip or a sound go on: the file itself, and more of it."""
    from djepa.build import modality
    from djepa.pipeline import Pipeline

    pipeline = Pipeline.from_pretrained(model, device=device, dtype=dtype)  # pyright: ignore[reportArgumentType]
    sheet = check_out(pipeline, out, num_samples)
    sample = modality(next(iter(pipeline.spec.streams.values()))).load(file)
    chosen = None if condition is None else parsed_condition(condition, list(pipeline.spec.conditions))
    samples = pipeline.extend(sample, seconds, chosen, context=context, num_samples=num_samples, seed=seed,
                              on_step=progress_bar())
    paths = write(samples, out, sheet)
    if as_json:
        print(json.dumps({"paths": [str(path) for path in paths], "samples": [sample.meta for sample in samples]}))
    else:
        print(f"Wrote {len(samples)} sample{'s' if len(samples) > 1 else ''} to {out}")
