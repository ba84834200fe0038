"""What a run trains and trains with: model, average, objective and optimizer, spread over the processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from djepa.build import build_model
from djepa.errors import UsageError
from djepa.heads.mlp import ModulatedBlock
from djepa.model import MaskedModel
from djepa.nn.transformer import Block
from djepa.random import seeded
from djepa.recipe import Recipe
from djepa.recipe.schema import ModelSpec, TrainSpec, nearest_divisors
from djepa.tokenizer import Tokenizer
from djepa.train.distributed import Distributed, World, distribute
from djepa.train.initialize import Initialization, initialize
from djepa.train.objective import Objective
from djepa.train.optimizer import Optimizer, averaged_copy


@dataclass(frozen=True)
class Engine:
    """The parts.

    Attributes:
        spec: of the model, complete.
        model, average: their parameters may be sharded: then other processes have to take part in whatever is computed.
        loss: calls the objective.
        initialized: what was taken over from another model; None where nothing was.
    """

    spec: ModelSpec
    tokenizers: Mapping[str, Tokenizer]
    model: MaskedModel
    average: MaskedModel
    loss: Distributed
    optimizer: Optimizer
    initialized: Initialization | None = None

    @property
    def sharded(self) -> bool:
        """Whether no process holds all of the model."""
        return self.loss.shards is not None


def build_engine(
    recipe: Recipe, spec: ModelSpec, tokenizers: Mapping[str, Tokenizer], world: World, *, fresh: bool = True
) -> Engine:
    """Everything as of step 0.

    Args:
        fresh: whether this is a new run, which may start from another model (`train.init_from`).

    Raises:
        UsageError: the processes cannot be grouped as the recipe asks.
    """
    with seeded(recipe.seed, "initialization"):
        model = build_model(spec, tokenizers).to(world.device).train()
    source = recipe.train.init_from if fresh else None
    initialized = initialize(model, spec, source) if source else None
    average = averaged_copy(model)
    prepare_blocks(model, recipe.train)
    prepare_blocks(average, recipe.train)
    objective = Objective(model, average, recipe.seed, recipe.train, spec)
    blocks = [module for one in (model, average) for module in one.modules() if isinstance(module, Block | ModulatedBlock)]
    loss = distribute(objective, average, blocks, recipe.train, world)
    return Engine(spec, tokenizers, model, average, loss, Optimizer(model, recipe.train), initialized)


def prepare_blocks(model: nn.Module, spec: TrainSpec) -> None:
    """Have the blocks of the trunk compiled, and every k-th of them recomputed in the backward pass, as the recipe says."""
    every = {"none": 0, "full": 1}.get(str(spec.activation_checkpointing), spec.activation_checkpointing)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for number, block in enumerate(blocks):
        block.recompute = isinstance(every, int) and every > 0 and number % every == 0
        if spec.compile:
            block.compile_residual()


def micro_batch_size(spec: TrainSpec, num_processes: int) -> int:
    """Samples per forward pass in each process.

    Raises:
        UsageError: the global batch does not come out even; the message names the nearest sizes that do.
    """
    size = spec.batch_size
    if size % num_processes:
        below = size // num_processes * num_processes
        near = " or ".join(str(one) for one in (below, below + num_processes) if one)
        raise UsageError(f"train.batch_size={size} cannot be shared evenly by {num_processes} processes; "
                         f"train.batch_size={near} can, or {nearest_divisors(size, num_processes)} processes.")
    share = size // num_processes
    micro = spec.micro_batch_size or share
    if share % micro:
        raise UsageError(f"train.micro_batch_size={micro} does not divide the {share} samples that each of {num_processes} "
                         f"processes gets of train.batch_size={size}; train.micro_batch_size={nearest_divisors(share, micro)} "
                         f"does.")
    return micro
