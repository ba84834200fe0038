"""From a canvas to tokens: conditions, orders and noise of some samples, brought to the generation loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from djepa.canvas import Canvas
from djepa.conditioner import Conditioner, ConditionTokens
from djepa.generate import Sampling, Schedule, Step, generate, keyed_noise
from djepa.model import MaskedModel
from djepa.random import Draws
from djepa.recipe.schema import GenerateSpec
from djepa.tokenizer import Tokenizer
from djepa.tokens import TokenBatch
from djepa.windows import Window


@dataclass(frozen=True)
class Filled:
    """How far the filling of a canvas is.

    Attributes:
        step, num_steps: generation steps, of all windows together.
        tokens: of every stream, whole; puts them together when called.
    """

    step: int
    num_steps: int
    tokens: Callable[[], Mapping[str, TokenBatch]]


OnFilled = Callable[[Filled], bool | None]


@dataclass(frozen=True)
class Filler:
    """Fills canvases by a model.

    Attributes:
        model: in evaluation mode, on `device`.
        tokenizers: by stream.
        device, dtype: where and in what precision the network computes.
    """

    model: MaskedModel
    tokenizers: Mapping[str, Tokenizer]
    device: torch.device
    dtype: torch.dtype

    def conditioners(self) -> dict[str, Conditioner]:
        """The conditioners of the model."""
        return {name: module for name, module in self.model.conditioners.items() if isinstance(module, Conditioner)}

    @torch.inference_mode()
    def fill(
        self, canvas: Canvas, windows: Sequence[Window], seeds: Sequence[int], prepared: Mapping[str, Tensor],
        settings: GenerateSpec, on_step: OnFilled | None = None,
    ) -> dict[str, TokenBatch]:
        """Tokens of every stream, one sample per seed, with everything unknown filled in.

        Args:
            canvas: what all samples start from.
            windows: in order; together they hold all that is unknown.
            seeds: of the samples.
            prepared: their conditions.
            settings: of generation.
            on_step: called after every generation step; returning False cancels.

        Raises:
            GenerationCancelled: `on_step` returned False.
        """
        batch = canvas.repeated(len(seeds), self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            condition, null = self._condition_tokens(prepared, len(seeds), settings)
            for window in windows:
                report = on_step and _reporter(on_step, batch, window, len(windows))
                made = self._fill_window(batch, window, torch.tensor(seeds), condition, null, settings, report)
                batch = {name: window.put(name, tokens, made[name]) for name, tokens in batch.items()}
        return batch

    def _fill_window(
        self, batch: Mapping[str, TokenBatch], window: Window, seeds: Tensor, condition: ConditionTokens,
        null: ConditionTokens | None, settings: GenerateSpec, on_step: Callable[[Step], bool | None] | None,
    ) -> dict[str, TokenBatch]:
        part = {name: window.cut(name, tokens) for name, tokens in batch.items()}
        schedules = {name: self._schedule(name, tokens, window, seeds, settings) for name, tokens in part.items()}
        sampling = Sampling(settings.num_steps, settings.num_denoising_steps, settings.temperature, settings.guidance_scale,
                            settings.guidance_schedule, settings.guidance_interval)
        bounds = {name: self._bounds(name, settings.clamp) for name in part}
        noise = keyed_noise(seeds, self.device, window.columns)
        return generate(self.model, part, schedules, condition, null, sampling, noise, bounds, on_step)

    def _schedule(
        self, name: str, tokens: TokenBatch, window: Window, seeds: Tensor, settings: GenerateSpec
    ) -> Schedule:
        axes = tuple(axis.name for axis in self.tokenizers[name].spec.axes)
        draws = Draws(0, "generation order", name)
        if window.number:
            draws = draws.within("window", window.number)
        permutations = settings.order.build().permutations(draws, seeds, tokens.coords.cpu(), axes)
        return Schedule.plan(permutations, window.unknown[name].expand(len(seeds), -1), settings.num_steps)

    def _condition_tokens(
        self, prepared: Mapping[str, Tensor], rows: int, settings: GenerateSpec
    ) -> tuple[ConditionTokens, ConditionTokens | None]:
        condition = self.model.condition(prepared, rows)
        if settings.guidance_scale == 1.0 or not prepared:
            return condition, None
        drop = torch.ones(rows, dtype=torch.bool)
        null = {name: conditioner.null(prepared[name], drop) for name, conditioner in self.conditioners().items()}
        return condition, self.model.condition(null, rows)

    def _bounds(self, name: str, clamp: bool) -> tuple[Tensor, Tensor] | None:
        bounds = self.tokenizers[name].spec.bounds
        return (bounds[0].to(self.device), bounds[1].to(self.device)) if clamp and bounds is not None else None


def _reporter(
    on_step: OnFilled, batch: Mapping[str, TokenBatch], window: Window, num_windows: int
) -> Callable[[Step], bool | None]:
    def report(step: Step) -> bool | None:
        return on_step(Filled(window.number * step.num_steps + step.step, num_windows * step.num_steps,
                              lambda: {name: window.put(name, tokens, step.batch[name]) for name, tokens in batch.items()}))

    return report
