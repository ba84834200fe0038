"""``djepa convert``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from djepa.convert import Conversion

MAX_NAMED = 6  # of what was left out


def convert(
    src: Annotated[Path, typer.Argument(help="The checkpoint: .pth or .ckpt of MAR, D-JEPA or KL-16, or .safetensors.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; a model that is there is replaced.")],
    kind: Annotated[Literal["mar", "djepa", "kl16"] | None, typer.Option(help="What it holds; its tensors tell.")] = None,
    weights: Annotated[Literal["ema", "raw"], typer.Option(help="The averaged weights, or the raw ones.")] = "ema",
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub repository of the autoencoder (see --kind kl16); without "
                                                  "one the model makes latents.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Text file, one class name a line in the order of ids.")] = None,
    head: Annotated[Literal["gaussian", "flow"] | None, typer.Option(help="Refuse any other denoising head.")] = None,
    num_heads: Annotated[int | None, typer.Option(help="Attention heads, where nothing tells.")] = None,
    patch_size: Annotated[int | None, typer.Option(help="Latent cells along the side of a token, where nothing tells.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what became of every tensor as JSON.")] = False,
) -> None:
    """Turn a published MAR or D-JEPA checkpoint into a model folder, or their autoencoder into a folder of diffusers.

    Nothing in the file is executed, and nothing is written unless every tensor fits.
    """
    from djepa.convert import convert

    made = convert(src, out, kind=kind, weights=weights, tokenizer=tokenizer, labels=labels and _lines(labels), head=head,
                   num_heads=num_heads, patch_size=patch_size)
    if as_json:
        print(json.dumps({"folder": str(made.folder), "kind": made.kind, "sizes": dict(made.sizes), "used": dict(made.used),
                          "dropped": dict(made.dropped)}))
    else:
        print(_described(made, latents=made.kind != "kl16" and tokenizer is None))


def _lines(path: Path) -> Sequence[str]:
    from djepa.errors import UsageError

    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The labels in {str(path)!r} cannot be read ({error}); expected UTF-8 text, one a line.") from error


def _described(made: Conversion, latents: bool) -> str:
    sizes = ", ".join(f"{name} {value}" for name, value in made.sizes.items())
    lines = [f"Wrote {made.folder}: {made.kind}, {len(made.used)} tensors, all of them used.", f"Sizes: {sizes}"]
    if made.dropped:
        lines.append(f"Left out: {_left_out(made.dropped)}")
    if latents:
        lines.append("It makes latents. For pictures convert KL-16 too, and this again with --tokenizer FOLDER.")
    return "\n".join(lines)


def _left_out(dropped: Mapping[str, str]) -> str:
    named = [f"{name} ({reason})" for name, reason in list(dropped.items())[:MAX_NAMED]]
    more = f", and {len(dropped) - MAX_NAMED} more (all of them with --json)" if len(dropped) > MAX_NAMED else ""
    return ", ".join(named) + more
