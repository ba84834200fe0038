"""The loss of a micro-batch, as a module: what is replicated or sharded, and called once a forward pass."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from djepa.losses import training_losses
from djepa.model import MaskedModel
from djepa.random import Draws
from djepa.recipe.schema import ModelSpec, TrainSpec
from djepa.train.micro_batch import MicroBatch

Counts = Mapping[str, int]


class Objective(nn.Module):
    """What training minimizes.

    Args:
        model: that is trained.
        average: of its weights; its encoder is the target encoder. It is no part of this module.
        seed: of the run.
    """

    def __init__(self, model: MaskedModel, average: MaskedModel, seed: int, spec: TrainSpec, model_spec: ModelSpec) -> None:
        super().__init__()
        self.model = model
        self._target = [average] if spec.jepa_weight > 0 and model.feature_head is not None else [None]  # hidden from torch
        self.draws, self.spec = Draws(seed, "training"), spec
        self.weights = {name: stream.loss_weight for name, stream in model_spec.streams.items()}

    def forward(self, part: MicroBatch, counts: Counts) -> tuple[Tensor, dict[str, Tensor]]:
        """A micro-batch's share of the step's loss, and of its parts.

        Args:
            counts: hidden tokens of every stream in the global batch, over all of which the loss is a mean.
        """
        device = next(iter(part.tokens.values())).values.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.spec.precision == "bfloat16"):
            sums = training_losses(self.model, self._target[0], part.tokens, part.hidden, part.prepared, part.drop,
                                   part.samples, self.draws)
        total, losses = torch.zeros((), device=device), {}
        for name, stream in sums.items():
            for kind, value in stream.parts.items():
                mean = value / counts[name]
                total = total + self.weights[name] * (self.spec.jepa_weight if kind == "jepa" else 1.0) * mean
                losses[f"{name}/{kind}"] = mean.detach()
        absent = [name for name, count in counts.items() if count and name not in sums]
        return total + self._untouched(absent) if absent else total, {**losses, "loss": total.detach()}

    def _untouched(self, streams: list[str]) -> Tensor:
        """Zero, by way of what others use in this step: every process has to have gradients of the same parameters."""
        modules: list[nn.Module] = [self.model.stream(name).head for name in streams]
        if self._target[0] is not None and self.model.feature_head is not None:
            modules.append(self.model.feature_head)
        zeros = [0.0 * parameter.sum() for module in modules for parameter in module.parameters() if parameter.requires_grad]
        return torch.stack(zeros).sum()
