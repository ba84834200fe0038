"""One model in several processes: replicated or sharded, with gradients that are sums over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from djepa.errors import UsageError
from djepa.recipe.schema import Sharded, TrainSpec, nearest_divisors
from djepa.train.distributed.meeting import World
from djepa.train.pieces import Piece
from djepa.train.team import Team


@dataclass(frozen=True)
class Distributed:
    """A module whose backward pass sums gradients over all processes.

    Attributes:
        module: what to call.
        accumulating: around forward and backward pass of a micro-batch; is told whether it is the last of a step, the only one
            whose gradients travel.
        shards: group over which the parameters are sharded; None where every process holds all of them.
    """

    module: nn.Module
    accumulating: Callable[[bool], AbstractContextManager[Any]] = lambda last: nullcontext()
    shards: Any = None

    def total(self, number: Tensor) -> Tensor:
        """A sum over shards, of all shards."""
        if self.shards is not None:
            import torch.distributed as dist

            dist.all_reduce(number, group=self.shards)
        return number


def distribute(
    objective: nn.Module, average: nn.Module, blocks: Sequence[nn.Module], spec: TrainSpec, world: World
) -> Distributed:
    """Spread a module and the average of its weights over the processes.

    Args:
        objective: gives the loss, when called; its parameters become what its process keeps of them.
        average: of the same blocks; sharded in the same way.
        blocks: of both, that are worth being gathered on their own.

    Raises:
        UsageError: the processes cannot be grouped as asked.
    """
    if world.team.size == 1:
        return Distributed(objective)
    if isinstance(spec.parallel, Sharded):
        return _sharded(objective, average, blocks, spec.parallel, spec.precision == "bfloat16", world)
    return _replicated(objective, world)


def _replicated(objective: nn.Module, world: World) -> Distributed:
    # A step may leave a stream's head out (`given_probability`), or the JEPA loss a whole head, hence the search for unused
    # parameters. Their gradient stays None, as it does in one process.
    from torch.nn.parallel import DistributedDataParallel

    module = DistributedDataParallel(objective, device_ids=[world.device] if world.device.type == "cuda" else None,
                                     broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=True)
    module.register_comm_hook(None, _summed)
    return Distributed(module, lambda last: nullcontext() if last else module.no_sync())


def _summed(_, bucket):  # noqa: ANN001, ANN202 (torch reads annotations, and refuses those that are text)
    """Gradients are summed, not averaged: a loss is divided by the tokens of the global batch already."""
    import torch.distributed as dist

    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])


def _sharded(
    objective: nn.Module, average: nn.Module, blocks: Sequence[nn.Module], spec: Sharded, bfloat16: bool, world: World
) -> Distributed:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    size, replicas = world.team.size, spec.replicas
    if size % replicas:
        raise UsageError(f"train.parallel.replicas={replicas} must divide the number of processes, {size}; "
                         f"{nearest_divisors(size, replicas)} would.")
    names, shape = (("replicate", "shard"), (replicas, size // replicas)) if replicas > 1 else (("shard",), (size,))
    mesh = init_device_mesh(world.device.type, shape, mesh_dim_names=names)
    # Weights travel in bfloat16 where autocast would round them anyway; gradients are summed in float32.
    policy = MixedPrecisionPolicy(*(torch.bfloat16, torch.float32) if bfloat16 else (), cast_forward_inputs=False)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # The average is used without gradients: no backward pass would put its root's parameters back into shards.
    fully_shard(average, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    register_fsdp_forward_method(average, "target_features")
    root = fully_shard(objective, mesh=mesh, mp_policy=policy)
    for module in objective.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)

    def accumulating(last: bool) -> AbstractContextManager[Any]:
        root.set_requires_gradient_sync(last)
        return nullcontext()

    return Distributed(objective, accumulating, mesh["shard"].get_group())


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, sharing its memory."""
    shard = getattr(tensor, "to_local", None)
    return tensor if shard is None else shard()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered where it is sharded: every process has to ask."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor.detach() if gather is None else gather().detach()


def piece(tensor: Tensor, team: Team, part: Tensor | None = None) -> Piece:
    """What this process holds of a tensor, or of one that is sharded like it and of which it holds `part`."""
    data = local(tensor.detach()) if part is None else part
    mesh = getattr(tensor, "device_mesh", None)
    if mesh is None:
        return Piece(data, 0, tuple(data.shape), team.first)
    rows = -(-tensor.shape[0] // mesh["shard"].size())  # as torch.chunk deals them out
    row = min(mesh.get_local_rank("shard") * rows, tensor.shape[0])
    return Piece(data, row, tuple(tensor.shape), mesh.ndim == 1 or mesh.get_local_rank("replicate") == 0)
