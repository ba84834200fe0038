"""What the tokenizers of a recipe make of its data: how many tokens, of what scale, and the statistics that make it one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from djepa.build import modality, shaped_stream, spread_samples, tokenizer, tokenizer_kind
from djepa.dataset import Dataset, Example
from djepa.device import resolve_device
from djepa.errors import LayoutError, RecipeError, UsageError, suggest
from djepa.recipe import Recipe
from djepa.recipe.schema import StreamSpec
from djepa.tokenizer import Tokenizer
from djepa.tokens import Sample

NUM_AT_A_TIME = 16  # samples in memory
DIGITS = 6          # of statistics to paste


@dataclass(frozen=True)
class Measurement:
    """What one tokenizer makes of its samples.

    Attributes:
        kind: of the tokenizer.
        default: the tokenizer's node, where the recipe names none and has its modality's own; else empty.
        num_samples: that were measured.
        shapes: of the samples, channels first, each once; the first is that of the dataset's first example.
        grid, width: of the tokens of the first shape.
        filled: the sizes of a sample that fills these tokens; what lies beyond its own is padding.
        mean, std: that make tokens of this data unit scale, as options of the tokenizer; None if it has none.
        statistics: where those come from that tokens have now: "recipe", "tokenizer" (files of a network) or "data"; "" if
            there are none.
        token_mean, token_std: of all tokens as they are now.
        channel_means, channel_stds: the smallest and the largest of a token channel, likewise.
    """

    kind: str
    default: Mapping[str, Any]
    num_samples: int
    shapes: Sequence[tuple[int, ...]]
    grid: tuple[int, ...]
    width: int
    filled: tuple[int, ...]
    mean: list[float] | None
    std: list[float] | None
    statistics: str
    token_mean: float
    token_std: float
    channel_means: tuple[float, float]
    channel_stds: tuple[float, float]

    @property
    def num_tokens(self) -> int:
        """Tokens of a sample of the first shape."""
        return math.prod(self.grid)

    def overrides(self, stream: str) -> list[str]:
        """What to add to a command for a stream that has `mean` and `std`: `KEY=VALUE` texts."""
        if self.mean is None or self.std is None:
            return []
        rounded = {key: [float(f"{value:.{DIGITS}g}") for value in values]
                   for key, values in (("mean", self.mean), ("std", self.std))}
        return [f"model.streams.{stream}.tokenizer.{key}={value if isinstance(value, str) else json.dumps(value)}"
                for key, value in {**self.default, **rounded}.items()]


def measure(recipe: Recipe, *, num_samples: int = 256, device: str = "auto") -> dict[str, Measurement]:
    """Encode samples of the recipe's data with the tokenizer of every stream, and say what came out, by stream.

    Args:
        recipe: its `data` and the tokenizers of its streams.
        num_samples: at most, spread evenly over the data.
        device: where tokenizers with a network compute.

    Raises:
        RecipeError: the dataset has no such stream.
        LayoutError: its samples cannot be divided into tokens.
        UsageError: num_samples is below 1, or there is no such device.
    """
    if num_samples < 1:
        raise UsageError(f"num_samples={num_samples}: at least 1 is needed.")
    dataset: Dataset = recipe.data.build()
    first, where = dataset.load(0), resolve_device(device)
    for name in recipe.model.streams:
        if name not in first.samples:
            raise RecipeError(f"model.streams.{name}: the dataset gives no {name!r}. {suggest(name, first.samples)}")
    return {name: _measured(name, stream, first, dataset, num_samples, where) for name, stream in recipe.model.streams.items()}


def _measured(
    name: str, stream: StreamSpec, first: Example, dataset: Dataset, num_samples: int, device: torch.device
) -> Measurement:
    one = tokenizer(shaped_stream(name, stream, first)).to(device)
    dataset.check({name: one})
    samples = _repeatable(lambda: spread_samples(name, dataset, num_samples), one)
    bare, fitted = one.unscaled().measured(samples()).options(), one.measured(samples())
    now = fitted.options().get("mean")
    given = stream.tokenizer is not None and stream.tokenizer.options.get("mean") is not None
    statistics = "" if now is None else "recipe" if given else "data" if now == bare["mean"] else "tokenizer"
    shapes, means, stds = _tokens(fitted, samples())
    shape = first.samples[name].shape
    default = {} if stream.tokenizer else modality(stream).default_tokenizer()
    return Measurement(
        tokenizer_kind(stream), default, len(shapes), list(dict.fromkeys([shape, *shapes])), one.layout(shape), one.spec.width,
        _filled(one, shape), _listed(bare.get("mean")), _listed(bare.get("std")), statistics, float(means.mean()),
        float((stds.square() + (means - means.mean()).square()).mean().sqrt()),
        (float(means.min()), float(means.max())), (float(stds.min()), float(stds.max())),
    )


def _listed(value: Any) -> list[float] | None:
    return value if value is None or isinstance(value, list) else [value]


def _repeatable(load: Callable[[], Iterator[Sample]], one: Tokenizer) -> Callable[[], Iterator[Sample]]:
    """Samples as often as they are asked for: loaded again, or what a network found in them the first time."""
    if not one.cacheable:
        return load
    kept = [found for some in _parts(load()) for found in one.moments(some)]
    return lambda: iter(kept)


def _parts(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    left = iter(samples)
    while part := list(islice(left, NUM_AT_A_TIME)):
        yield part


def _tokens(one: Tokenizer, samples: Iterable[Sample]) -> tuple[list[tuple[int, ...]], Float[Tensor, "c"], Float[Tensor, "c"]]:
    """The shape of every sample, and the mean and standard deviation of each token channel."""
    shapes, num_tokens = [], 0
    total, squares = torch.zeros(2, one.spec.width, dtype=torch.float64)
    for some in _parts(samples):
        tokens = one.encode_batch(some)
        values = tokens.values.cpu().double()[tokens.valid]
        shapes, num_tokens = [*shapes, *(item.shape for item in some)], num_tokens + len(values)
        total, squares = total + values.sum(0), squares + values.square().sum(0)
    mean = total / num_tokens
    return shapes, mean, (squares / num_tokens - mean.square()).clamp(min=0).sqrt()


def _filled(one: Tokenizer, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The largest sizes, along one axis after the other, of a sample on the same token grid: by arithmetic."""
    grid = one.layout(shape)

    def fits(axis: int, size: int) -> bool:
        try:
            return one.layout((*shape[:axis], size, *shape[axis + 1 :])) == grid
        except LayoutError:
            return False

    return tuple(_largest(shape[axis], lambda size, axis=axis: fits(axis, size)) for axis in range(1, len(shape)))


def _largest(start: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to which all fit, from one on that does: by doubling steps, then halving them."""
    step = 1
    while fits(start + step):
        step *= 2
    low, high = start + step // 2, start + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
