"""What one forward pass needs: tokens, which of them are hidden, conditions. All of it is keyed by step and global position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from djepa.conditioner import Conditioner
from djepa.dataset import Example
from djepa.masking import MaskRatio, cosine_ratio, draw_ratio, num_hidden, truncated_normal_ratio
from djepa.model import Batch, MaskedModel, Masks
from djepa.order import GenerationOrder, hide_last
from djepa.random import Draws
from djepa.recipe.schema import TrainSpec, TruncatedNormalMask
from djepa.tokenizer import Tokenizer
from djepa.tokens import TokenBatch


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass needs.

    Attributes:
        step: of the run.
        start: place of its first sample in the global batch.
        tokens, hidden: of every stream.
        prepared: conditions; `drop` says for which samples they are replaced by the null condition.
        samples: ids of the samples, unique over the run.
    """

    step: int
    start: int
    tokens: Batch
    hidden: Masks
    prepared: Mapping[str, Tensor]
    drop: Tensor
    samples: Tensor

    def num_hidden(self, stream: str) -> int:
        """Hidden tokens of a stream that are no padding: what its loss is summed over."""
        return int((self.hidden[stream] & self.tokens[stream].valid).sum())


class MicroBatches:
    """Makes them.

    Args:
        seed: of the run.
        conditioners: of the model; only what they do on the host is used.
        order: of generation, which masks follow.
        device: where the tokens go.
    """

    def __init__(
        self, seed: int, spec: TrainSpec, tokenizers: Mapping[str, Tokenizer], model: MaskedModel, order: GenerationOrder,
        device: torch.device,
    ) -> None:
        self.seed, self.spec, self.tokenizers, self.order, self.device = seed, spec, tokenizers, order, device
        self.conditioners = {name: one for name, one in model.conditioners.items() if isinstance(one, Conditioner)}
        self.ratio = _ratio(spec)

    def make(self, step: int, start: int, examples: Sequence[Example]) -> MicroBatch:
        """One of some of a step's examples, the first of which has place `start` in the global batch."""
        samples = step * self.spec.batch_size + start + torch.arange(len(examples))
        tokens = {name: tokenizer.encode_batch([example.samples[name] for example in examples],
                                               partial(Draws(self.seed, "encoding", name).normal, samples, 0))
                  for name, tokenizer in self.tokenizers.items()}
        prepared = {name: conditioner.prepare([example.conditions.get(name) for example in examples])
                    for name, conditioner in self.conditioners.items()}
        drop = Draws(self.seed, "condition drop").uniform(samples, 0, 1)[:, 0] < self.spec.condition_drop
        hidden = self._masks(step, tokens, samples)
        return MicroBatch(step, start, {name: one.to(self.device) for name, one in tokens.items()}, hidden, prepared, drop,
                          samples)

    def _masks(self, step: int, tokens: Mapping[str, TokenBatch], samples: Tensor) -> dict[str, Tensor]:
        """Hidden tokens of every stream: one ratio per stream and step; with several streams, sometimes one is given whole."""
        draws = Draws(self.seed, "mask")
        chance, which = draws.within("given").uniform(torch.tensor(step), 0, 2).tolist()
        given = int(which * len(tokens)) if len(tokens) > 1 and chance < self.spec.given_probability else None
        hidden = {}
        for index, (name, one) in enumerate(tokens.items()):
            if index == given:
                hidden[name] = torch.zeros_like(one.valid)
                continue
            axes = tuple(axis.name for axis in self.tokenizers[name].spec.axes)
            order = self.order.permutations(draws.within("order", name), samples, one.coords, axes)
            ratio = draw_ratio(self.ratio, draws.within("ratio", name), step)
            hidden[name] = hide_last(order, one.valid, num_hidden(ratio, one.valid.sum(dim=1)))
        return hidden


def _ratio(spec: TrainSpec) -> MaskRatio:
    if isinstance(spec.mask, TruncatedNormalMask):
        return truncated_normal_ratio(spec.mask.mean, spec.mask.std, spec.mask.low, spec.mask.high)
    return cosine_ratio
