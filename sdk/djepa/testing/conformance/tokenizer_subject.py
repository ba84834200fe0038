"""What checks of tokenizers share: a tokenizer with its options, on the examples of a modality."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from djepa import build
from djepa.errors import LayoutError
from djepa.modality import Modality
from djepa.plugins import host
from djepa.recipe.component import Component
from djepa.recipe.schema import StreamSpec
from djepa.testing.conformance.samples import cut
from djepa.testing.conformance.subject import Subject
from djepa.tokenizer import Tokenizer
from djepa.tokens import Sample, Tokens

NUM_SAMPLES = 3
NUM_MEASURED = 16
CLOSE = 1e-4  # of the largest value: what networks may differ by when they add in another order


class TokenizerSubject(Subject):
    """A tokenizer with some options, on the examples of a modality.

    Args:
        name, options, expected_failures: as in `Subject`.
        modality: registered name.
    """

    def __init__(self, name: str, modality: str, options: Mapping[str, Any], expected_failures: Mapping[str, str]) -> None:
        super().__init__("tokenizer", name, options, expected_failures)
        self.modality_name = modality

    def __str__(self) -> str:
        return f"{super().__str__()}@{self.modality_name}"

    def build(self) -> Tokenizer:
        """The tokenizer, with statistics measured on the examples where it has none."""
        return self.tokenizer

    @cached_property
    def modality(self) -> Modality:
        """The modality."""
        return host().get("modality", self.modality_name)()

    @cached_property
    def samples(self) -> list[Sample]:
        """Examples."""
        return [self.modality.example(seed) for seed in range(NUM_SAMPLES)]

    @cached_property
    def plain(self) -> Tokenizer:
        """The tokenizer as a recipe describes it, before anything was measured."""
        return self.made(self.options)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer with statistics."""
        return self.plain.measured(self.modality.example(seed) for seed in range(NUM_MEASURED))

    def made(self, options: Mapping[str, Any]) -> Tokenizer:
        """A tokenizer with these options, made as from a recipe."""
        node = Component(kind=self.name, **options)
        return build.tokenizer(StreamSpec(modality=self.modality_name, tokenizer=node, shape=self.samples[0].shape))

    def shorter(self) -> list[Sample]:
        """An example cut shorter along each axis, by as little as the tokenizer allows; none where it allows no other size."""
        found = []
        for axis, size in enumerate(self.samples[1].shape[1:]):
            before, after = self.samples[1].shape[: 1 + axis], self.samples[1].shape[2 + axis :]
            sizes = (smaller for smaller in range(size - 1, 0, -1) if self.accepts((*before, smaller, *after)))
            if (smaller := next(sizes, None)) is not None:
                found.append(cut(self.samples[1], axis, smaller))
        return found

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether samples of this shape can be tokenized."""
        try:
            self.tokenizer.layout(shape)
        except LayoutError:
            return False
        return True


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether numbers are equal, up to a share of the largest."""
    if one.shape != other.shape:
        return False
    return not one.numel() or bool((one - other).abs().max() <= tolerance * max(1.0, float(other.abs().max())))


def same_tokens(one: Tokens, other: Tokens, tolerance: float = 0.0) -> bool:
    """Whether tokens are the same: values up to a tolerance, all else exactly."""
    about = [(tokens.grid, dict(tokens.meta), tokens.modality, tokens.size) for tokens in (one, other)]
    return about[0] == about[1] and torch.equal(one.coords, other.coords) and close(one.values, other.values, tolerance)
