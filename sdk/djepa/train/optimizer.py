"""The optimizer, and the average of its path."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from djepa.errors import CheckpointError
from djepa.model import MaskedModel
from djepa.recipe.schema import TrainSpec
from djepa.train.schedules import DECAYED

STATE = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps for a parameter


def make_optimizer(model: nn.Module, spec: TrainSpec) -> torch.optim.AdamW:
    """AdamW with weight decay on the matrices of linear layers, and on nothing else."""
    decayed = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": spec.weight_decay, DECAYED: True},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0, DECAYED: False},
    ]
    on_gpu = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, eps=spec.eps, fused=on_gpu or None)


def ema_decay(spec: TrainSpec, step: int) -> float:
    """The share of the average that stays; with warm-up it starts low, so that a short run is not all initialization."""
    return min(spec.ema_decay, (1 + step) / (10 + step)) if spec.ema_warmup else spec.ema_decay


def averaged_copy(model: MaskedModel) -> MaskedModel:
    """A copy to hold the average: target encoder and generating model in one."""
    return copy.deepcopy(model).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model, in a few fused operations."""
    ours: list[Tensor] = [parameter.data for parameter in average.parameters()]
    theirs: list[Tensor] = [parameter.data for parameter in model.parameters()]
    torch._foreach_lerp_(ours, theirs, 1 - decay)


def finite(norm: Tensor) -> bool:
    """Whether a gradient norm is a number: one is enough to say so of all gradients."""
    return bool(torch.isfinite(norm))


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state by parameter name."""
    return {f"{key}.{name}": torch.as_tensor(value)
            for name, parameter in model.named_parameters() for key, value in optimizer.state.get(parameter, {}).items()}


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put the state of `optimizer_tensors` back.

    Raises:
        CheckpointError: it is of other parameters; the message names the first.
    """
    parameters = dict(model.named_parameters())
    by_name: dict[str, dict[str, Tensor]] = {}
    for full_name, value in tensors.items():
        key, _, name = full_name.partition(".")
        if key not in STATE or name not in parameters or (key != "step" and value.shape != parameters[name].shape):
            raise CheckpointError(f"The optimizer's {full_name!r} does not fit the model; the checkpoint is of another one.")
        by_name.setdefault(name, {})[key] = value
    for name, state in by_name.items():
        missing = [key for key in STATE if key not in state]
        if missing:
            raise CheckpointError(f"The optimizer's '{missing[0]}.{name}' is missing; the checkpoint is not complete.")
        device = parameters[name].device
        optimizer.state[parameters[name]] = {key: state[key].clone() if key == "step" else state[key].to(device).clone()
                                             for key in STATE}
