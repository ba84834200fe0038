"""``djepa measure``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from djepa.measure import Measurement

MAX_ROWS = 8  # channels that are printed
SOURCES = {"recipe": "the recipe's statistics", "tokenizer": "the statistics in the network's files",
           "data": "statistics measured on them", "": "no statistics"}


def measure(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see: djepa recipes ls), or the path of a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe.")] = None,
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", help="Samples to encode, spread over the data.")] = 256,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, all channels included, as JSON.")] = False,
) -> None:
    """Encode samples of a recipe's data: how many tokens they make, of what scale, and the statistics that make it one."""
    from djepa.measure import measure
    from djepa.recipe import Recipe

    found = measure(Recipe.load(recipe, overrides or []), num_samples=num_samples, device=device)
    if as_json:
        print(json.dumps({name: _plain(name, one) for name, one in found.items()}))
        return
    print("\n\n".join("\n".join(_lines(name, one)) for name, one in found.items()))


def _plain(name: str, one: Measurement) -> dict[str, Any]:
    return {**asdict(one), "num_tokens": one.num_tokens, "overrides": one.overrides(name)}


def _lines(name: str, one: Measurement) -> Iterator[str]:
    first, *others = one.shapes
    varied = f", and {len(others)} other shapes" if others else ""
    yield f"{name}: {one.num_samples} samples of shape {_times(first)}{varied}, through {one.kind!r}"
    yield f"  tokens    {_times(one.grid)} = {one.num_tokens}, each of {one.width} channels"
    if one.filled != first[1:]:
        yield (f"  padding   sizes {_times(first[1:])} are padded to {_times(one.filled)}, and what is decoded is cropped: "
               f"{1 - math.prod(first[1:]) / math.prod(one.filled):.1%} of what tokens cover is padding")
    (lowest, highest), (narrowest, widest) = one.channel_means, one.channel_stds
    yield (f"  scale     mean {one.token_mean:.3f}, std {one.token_std:.3f} with {SOURCES[one.statistics]}; of a channel, mean "
           f"{lowest:.3f} to {highest:.3f}, std {narrowest:.3f} to {widest:.3f}")
    if one.mean is None or one.std is None:
        return
    yield f"  channel   {'mean':>10}  {'std':>10}    (of the data, before it is scaled)"
    yield from (f"  {number:>7}   {mean:>10.4g}  {std:>10.4g}"
                for number, (mean, std) in enumerate(zip(one.mean[:MAX_ROWS], one.std, strict=False)))
    if len(one.mean) > MAX_ROWS:
        yield f"      ...   {len(one.mean)} in all"
    yield "  To use these, add:"
    yield from (f"    '{text}'" for text in one.overrides(name))


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
