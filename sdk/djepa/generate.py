"""The generation loop: generalized next-token prediction.

    start with the unknown tokens hidden, and an order for each sample
    repeat: predict z; sample the tokens that leave the mask now; write them in

The next "token" is a set of tokens. Everything about its size is decided on the host before the loop starts, so that the
loop never waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from djepa.conditioner import ConditionTokens
from djepa.errors import DjepaError
from djepa.heads.head import Bounds, Guidance, Noise
from djepa.losses import token_places
from djepa.masking import Subset
from djepa.model import Batch, MaskedModel, Masks
from djepa.order import hidden_after, ranks
from djepa.random import Draws
from djepa.tokens import TokenBatch


class GenerationCancelled(DjepaError):
    """A callback asked a generation to stop."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; the meaning of each is in `djepa.recipe.schema.GenerateSpec`."""

    num_steps: int
    num_denoising_steps: int
    temperature: float = 1.0
    guidance_scale: float = 1.0
    guidance_schedule: str = "linear"
    guidance_interval: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Schedule:
    """When each token of one stream is generated.

    Attributes:
        rank: (b, n) its turn among the unknown tokens; -1 where a token is known or padding.
        hidden: (steps + 1, b) how many tokens of each sample are hidden before each step; the last row is 0.
    """

    rank: Int[Tensor, "b n"]
    hidden: Int[Tensor, "s b"]

    @classmethod
    def plan(cls, order: Int[Tensor, "b n"], unknown: Bool[Tensor, "b n"], num_steps: int) -> Schedule:
        """The cosine schedule over the unknown tokens of every sample."""
        totals = unknown.sum(dim=1)
        hidden = torch.tensor([[total, *hidden_after(total, num_steps)] for total in totals.tolist()]).T
        return cls(ranks(order, unknown), hidden)

    def still_hidden(self, step: int) -> Bool[Tensor, "b n"]:
        """The tokens hidden before `step`."""
        return self.rank >= (self.hidden[0] - self.hidden[step])[:, None].clamp(min=0)

    def progress(self, step: int) -> Float[Tensor, "b"]:
        """Share of each sample that is known after `step`, with at least one token counted as hidden."""
        total = self.hidden[0].clamp(min=1).double()
        return 1 - self.hidden[step + 1].clamp(min=1) / total


@dataclass(frozen=True)
class Step:
    """What a callback is told after each generation step.

    Attributes:
        step: 1 after the first.
        num_steps: of the whole generation.
        batch: the tokens so far; hidden ones are zero.
        hidden: which are still to come.
    """

    step: int
    num_steps: int
    batch: Batch
    hidden: Masks


OnStep = Callable[[Step], bool | None]
NoiseSource = Callable[[str, int, Subset, int], Noise]  # stream, step, revealed tokens, tokens a sample -> noise of the head


def keyed_noise(
    seeds: Int[Tensor, "b"], device: torch.device, places: Mapping[str, Int[Tensor, " n"] | None] | None = None
) -> NoiseSource:
    """Noise that is a function of each sample's own seed and each token's own position.

    Args:
        seeds: of the samples.
        device: where the noise is drawn.
        places: per stream, the positions its tokens count as, where these are not 0, 1, 2, ...
    """
    seeds = seeds.to(device)
    moved = {name: places.to(device) for name, places in (places or {}).items() if places is not None}

    def source(stream: str, step: int, revealed: Subset, num_tokens: int) -> Noise:
        rows, items = token_places(revealed, num_tokens)
        return Draws(0, "generate", stream).at(seeds[rows], moved[stream][items] if stream in moved else items)

    return source


@torch.inference_mode()
def generate(
    model: MaskedModel,
    batch: Batch,
    schedules: Mapping[str, Schedule],
    condition: ConditionTokens,
    null: ConditionTokens | None,
    sampling: Sampling,
    noise: NoiseSource,
    bounds: Mapping[str, Bounds | None],
    on_step: OnStep | None = None,
) -> dict[str, TokenBatch]:
    """Fill the unknown tokens of a batch.

    Args:
        model: in evaluation mode.
        batch: tokens of every stream; values of unknown ones are ignored.
        schedules: when each unknown token is generated.
        condition, null: condition tokens, and those of the null condition; None when guidance is off.
        sampling: the settings.
        noise: randomness of the heads.
        bounds: per stream, the range of clean tokens; None to leave them free.
        on_step: called after each step; returning False stops.

    Raises:
        GenerationCancelled: `on_step` returned False.
    """
    values = {name: tokens.values.masked_fill((schedules[name].rank >= 0)[..., None].to(tokens.values.device), 0.0)
              for name, tokens in batch.items()}
    for step in range(sampling.num_steps):
        hidden = {name: schedule.still_hidden(step) for name, schedule in schedules.items()}
        after = {name: schedule.still_hidden(step + 1) for name, schedule in schedules.items()}
        revealed = {name: mask & ~after[name] for name, mask in hidden.items() if bool((mask & ~after[name]).any())}
        current = {name: tokens.with_values(values[name]) for name, tokens in batch.items()}
        if revealed:
            vectors = _context_vectors(model, current, hidden, condition, null)
            for name, mask in revealed.items():
                subset = Subset.of(mask, values[name].device)
                z, z_null = (None if part is None else subset.take(part) for part in vectors[name])
                assert z is not None
                guidance = guidance_at(sampling, schedules[name].progress(step), subset)
                tokens = model.stream(name).head.sample(
                    z, z_null, noise(name, step, subset, mask.shape[1]), num_steps=sampling.num_denoising_steps,
                    temperature=sampling.temperature, guidance=guidance, bounds=bounds[name],
                )
                values[name] = subset.put(values[name], tokens)
        if on_step is not None:
            filled = {name: tokens.with_values(values[name]) for name, tokens in batch.items()}
            if on_step(Step(step + 1, sampling.num_steps, filled, after)) is False:
                raise GenerationCancelled(f"Generation was cancelled after step {step + 1} of {sampling.num_steps}.")
    return {name: tokens.with_values(values[name]) for name, tokens in batch.items()}


def _context_vectors(
    model: MaskedModel, batch: Batch, hidden: Masks, condition: ConditionTokens, null: ConditionTokens | None
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Context vectors of every stream under the condition and, when guided, under the null condition, in one pass."""
    if null is None:
        return {name: (z, None) for name, z in model.context_vectors(batch, hidden, condition).items()}
    both = ConditionTokens(torch.cat([condition.values, null.values]), torch.cat([condition.valid, null.valid]))
    twice = {name: tokens.repeated(2) for name, tokens in batch.items()}
    vectors = model.context_vectors(twice, {name: mask.repeat(2, 1) for name, mask in hidden.items()}, both)
    rows = len(condition.values)
    return {name: (z[:rows], z[rows:]) for name, z in vectors.items()}


def guidance_at(sampling: Sampling, progress: Float[Tensor, "b"], revealed: Subset) -> Guidance:
    """The guidance scale as a function of head time, at one generation step.

    "linear": 1 + (w - 1) * share of tokens known after this step; "constant": w; "interval": w while the head's time lies
    in the interval, else off (T. Kynkaanniemi et al., arXiv 2404.07724).
    """
    w = sampling.guidance_scale
    if sampling.guidance_schedule == "interval":
        low, high = sampling.guidance_interval
        return lambda time: w if low <= time <= high else 1.0
    if sampling.guidance_schedule == "constant":
        return lambda time: w
    scales = 1 + (w - 1) * progress
    if revealed.packing is None and bool((scales == scales[0]).all()):
        return partial(_constant, float(scales[0]))
    lengths = torch.tensor(revealed.lengths)
    return partial(_constant, scales.float().repeat_interleave(lengths)[:, None].to(revealed.index.device))


def _constant(scale: float | Tensor, time: float) -> float | Tensor:
    return scale
