"""``djepa export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    model: Annotated[str, typer.Argument(help="A shipped name, a model or run folder, or a Hub repository.")],
    out: Annotated[Path, typer.Argument(help="The model folder to write; one that is there is replaced.")],
    dtype: Annotated[Literal["float32", "float16", "bfloat16"], typer.Option(help="What to store weights in.")] = "float32",
    name: Annotated[str | None, typer.Option(help="What the model is called in its card.")] = None,
) -> None:
    """Write a model folder that holds what generation needs and nothing else."""
    import torch

    from djepa.errors import UsageError
    from djepa.pipeline import Pipeline
    from djepa.storage import CONFIG

    if out.exists() and not (out / CONFIG).is_file() and any(out.iterdir() if out.is_dir() else [out]):
        raise UsageError(f"{str(out)!r} is there and is no model folder; choose another place.")
    pipeline = Pipeline.from_pretrained(model, device="cpu")
    pipeline.name = name or pipeline.name
    pipeline.save_pretrained(out, dtype=getattr(torch, dtype))
    print(f"Wrote {out}")
