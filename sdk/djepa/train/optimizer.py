"""The optimizer, and the average of its path; both work on what a process holds of the parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from djepa.errors import CheckpointError
from djepa.model import MaskedModel
from djepa.recipe.schema import TrainSpec
from djepa.train.distributed import local

STATE = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps for a parameter
CLIP_EPS = 1e-6


class Optimizer:
    """AdamW with weight decay on the matrices of linear layers, and on nothing else.

    Args:
        model: whose parameters it moves: all of each, or where they are sharded this process's part.

    Attributes:
        adamw: torch's optimizer.
        parts: what it moves, by the parameter's name.
    """

    def __init__(self, model: nn.Module, spec: TrainSpec) -> None:
        self._parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
        # Shards are plain tensors here: every operation on a distributed one takes ten times as long on the host.
        self.parts = {name: one if local(one) is one else nn.Parameter(local(one.detach()))
                      for name, one in self._parameters.items()}
        decayed = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
        names = [{name for name, one in self._parameters.items() if (id(one) in decayed) is wanted} for wanted in (True, False)]
        groups = [{"params": [part for name, part in self.parts.items() if name in group], "weight_decay": decay}
                  for group, decay in zip(names, (spec.weight_decay, 0.0), strict=True)]
        on_gpu = next(iter(self.parts.values())).device.type == "cuda"
        # On a CPU the fused kernel rounds by where in memory a number stands, so that shards would learn other weights.
        how = {"fused": True} if on_gpu else {"foreach": True}
        self.adamw = torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, eps=spec.eps, **how)  # pyright: ignore[reportArgumentType]

    def clip(self, limit: float, total: Callable[[Tensor], Tensor]) -> float:
        """Scale the gradient down to a norm of at most `limit`, and return the norm it had.

        Args:
            total: sums a number over the processes among which the parameters are sharded.
        """
        gradients = self._gradients()
        # In double precision, so that parts and wholes add up to the same single.
        double = torch.float32 if gradients[0].device.type == "mps" else torch.float64
        squares = torch.stack(torch._foreach_norm(gradients, 2.0, double)).square().sum()
        norm = float(total(squares).sqrt().float())
        if norm > limit and math.isfinite(norm):
            torch._foreach_mul_(gradients, limit / (norm + CLIP_EPS))
        return norm

    def step(self, rate: float, decay: float | None = None) -> None:
        """Move the parameters.

        Args:
            rate: of learning.
            decay: of the weights that decay; None for that of before.
        """
        decaying, _ = self.adamw.param_groups
        if decay is not None:
            decaying["weight_decay"] = decay
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()

    def forget(self) -> None:
        """Drop the gradient."""
        for part, parameter in zip(self.parts.values(), self._parameters.values(), strict=True):
            part.grad = parameter.grad = None

    def _gradients(self) -> list[Tensor]:
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                self.parts[name].grad = local(parameter.grad)
        return [part.grad for part in self.parts.values() if part.grad is not None]

    def state(self) -> dict[str, Tensor]:
        """What it remembers, as "exp_avg.name"."""
        return {f"{key}.{name}": torch.as_tensor(value)
                for name, part in self.parts.items() for key, value in self.adamw.state.get(part, {}).items()}

    def blank_state(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Room for a state of these names, which this optimizer then has; to be filled in place.

        Raises:
            CheckpointError: they are of other parameters, or some are missing; the message names the first.
        """
        wanted = set(names)
        for full in wanted:
            key, _, name = full.partition(".")
            if key not in STATE or name not in self.parts:
                raise CheckpointError(f"The optimizer's {full!r} does not fit the model; the checkpoint is of another one.")
        for name in sorted({full.partition(".")[2] for full in wanted}):
            missing = [key for key in STATE if f"{key}.{name}" not in wanted]
            if missing:
                raise CheckpointError(f"The optimizer's '{missing[0]}.{name}' is missing; the checkpoint is not complete.")
            part = self.parts[name]
            counter = torch.zeros((), device=part.device if self.adamw.defaults["fused"] else "cpu")
            self.adamw.state[part] = {"step": counter, **{key: torch.zeros_like(part.detach()) for key in STATE[1:]}}
        return self.state()

    def parameter(self, state_name: str) -> Tensor | None:
        """The parameter that an entry of the state is laid out like; None for a counter."""
        key, _, name = state_name.partition(".")
        return None if key == "step" else self._parameters[name]


def ema_decay(spec: TrainSpec, step: int) -> float:
    """The share of the average that stays; with warm-up it starts low, so that a short run is not all initialization."""
    return min(spec.ema_decay, (1 + step) / (10 + step)) if spec.ema_warmup else spec.ema_decay


def averaged_copy(model: MaskedModel) -> MaskedModel:
    """A copy to hold the average: target encoder and generating model in one."""
    return copy.deepcopy(model).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model, in a few fused operations."""
    ours: list[Tensor] = [local(parameter.data) for parameter in average.parameters()]
    theirs: list[Tensor] = [local(parameter.data) for parameter in model.parameters()]
    torch._foreach_lerp_(ours, theirs, 1 - decay)
