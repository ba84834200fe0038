"""Several processes that train one model: how they find each other, and how their gradients become one.

The one home of torch.distributed. A process that trains alone needs none of this and has no process group.

    world("cuda")        this process's device, and the teams it belongs to
    distributed(...)     the model replicated (DDP) or sharded (FSDP2), and gradients that are *sums* over the processes
    start_processes(...) torchrun's agent, which starts them and starts them again
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from djepa.device import resolve_device
from djepa.errors import UsageError
from djepa.recipe.schema import Sharded, TrainSpec, nearest_divisors
from djepa.train.pieces import Piece
from djepa.train.team import ALONE, Channel, Team

TIMEOUT = timedelta(minutes=60)  # others may wait that long while one measures data or draws previews


@dataclass(frozen=True)
class World:
    """Where this process stands.

    Attributes:
        device: it computes on.
        team: of the loop.
        savers: the same processes, for the threads that write checkpoints behind the loop's back.
    """

    device: torch.device
    team: Team = ALONE
    savers: Team = ALONE


@dataclass(frozen=True)
class Place:
    """A process among others, as its launcher told it."""

    rank: int
    size: int
    local_rank: int


def place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Where torchrun or SLURM's srun started this process; None when it is on its own."""
    for rank, size, local in (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")):
        if rank in environment and size in environment:
            found = Place(int(environment[rank]), int(environment[size]), int(environment.get(local, "0")))
            return found if found.size > 1 else None
    return None


@contextmanager
def world(device: str) -> Iterator[World]:
    """Meet the other processes, if there are any, for as long as the block runs.

    Args:
        device: by name; of several GPUs each process of a machine takes its own.

    Raises:
        UsageError: there is no such device.
    """
    here = place()
    if here is None:
        yield World(resolve_device(device))
        return
    import torch.distributed as dist

    chosen = resolve_device(device)
    if chosen.type == "cuda" and chosen.index is None:
        chosen = resolve_device(f"cuda:{here.local_rank}")
        torch.cuda.set_device(chosen)
    ours = not dist.is_initialized()  # a caller may have met the others already
    if ours:
        _meet(here, chosen)
    teams = [Team(dist.get_rank(), dist.get_world_size(), _Host()) for _ in range(2)]
    yield World(chosen, *teams)
    if ours:  # not after an error: the others may be gone, and would be waited for
        dist.destroy_process_group()


def tells_of_lost_process(error: RuntimeError) -> bool:
    """Whether an error says that another process could not be reached."""
    return any(word in str(error) for word in ("gloo", "NCCL", "Connection reset", "Connection closed", "recvValue"))


def _meet(here: Place, device: torch.device) -> None:
    import torch.distributed as dist

    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if "TORCHELASTIC_RESTART_COUNT" in os.environ:
        dist.init_process_group(backend, store=_fresh_store(here), rank=here.rank, world_size=here.size, timeout=TIMEOUT)
        return
    _name_slurm_master()
    dist.init_process_group(backend, init_method="env://", rank=here.rank, world_size=here.size, timeout=TIMEOUT)


def _fresh_store(here: Place) -> Any:
    """A store of this attempt's own, in the first process; the agent's, which outlives it, says where.

    The agent's would do, but for what earlier attempts left in it: processes that are started again often fail to connect.
    """
    import torch.distributed as dist

    agents = next(iter(dist.rendezvous("env://", here.rank, here.size, timeout=TIMEOUT)))[0]
    address = os.environ["MASTER_ADDR"]
    if here.rank == 0:
        store = dist.TCPStore(address, 0, here.size, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
        agents.set("djepa/port", str(store.port))
        return store
    while not _listens(address, port := int(agents.get("djepa/port"))):  # of the attempt before, as yet
        time.sleep(0.1)
    return dist.TCPStore(address, port, here.size, is_master=False, timeout=TIMEOUT)


def _listens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=5):
            return True
    except OSError:
        return False


def _name_slurm_master() -> None:
    """srun says who takes part, but not where to meet: on the first node, at a port that follows from the job."""
    if "SLURM_STEP_NODELIST" in os.environ:
        job = int(os.environ.get("SLURM_JOB_ID", "0"))
        os.environ.setdefault("MASTER_ADDR", _first_node(os.environ["SLURM_STEP_NODELIST"]))
        os.environ.setdefault("MASTER_PORT", str(15000 + job % 20000))


def _first_node(nodes: str) -> str:
    """The first of SLURM's list of nodes: "node[07-09,12],other" names node07."""
    prefix, bracket, rest = nodes.split(",")[0].partition("[")
    return prefix + rest.split("-")[0].rstrip("]") if bracket else prefix


class _Host(Channel):
    """A group of its own, on the hosts."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self._group: Any = dist.new_group(backend="gloo", timeout=TIMEOUT)

    def total(self, numbers: Sequence[float]) -> list[float]:
        import torch.distributed as dist

        sums = torch.tensor([float(number) for number in numbers], dtype=torch.float64)
        dist.all_reduce(sums, group=self._group)
        return sums.tolist()

    def all(self, thing: Any) -> list[Any]:
        import torch.distributed as dist

        things = [None] * dist.get_world_size(self._group)
        dist.all_gather_object(things, thing, group=self._group)
        return things


# One model in several processes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Distributed:
    """A module whose backward pass sums gradients over all processes.

    Attributes:
        module: what to call.
        shards: group over which the parameters are sharded; None where every process holds all of them.
    """

    module: nn.Module
    shards: Any = None
    _kind: str = field(default="alone")

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward pass of a micro-batch; only the `last` of a step talks to the other processes."""
        if self._kind == "fsdp":
            self.module.set_requires_gradient_sync(last)  # pyright: ignore[reportCallIssue]
        return self.module.no_sync() if self._kind == "ddp" and not last else nullcontext()  # pyright: ignore

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
    return Distributed(module, None, "ddp")


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
    fully_shard(objective, mesh=mesh, mp_policy=policy)
    for module in objective.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return Distributed(objective, mesh["shard"].get_group(), "fsdp")


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


# Starting them --------------------------------------------------------------------------------------------------------------


def start_processes(
    command: Sequence[str], *, num_processes: int, num_nodes: int, rendezvous: str, max_restarts: int, run_id: str, folder: Path
) -> dict[int, int]:
    """Run a command in several processes until all have ended well, starting all again when one is lost.

    Args:
        num_processes: on this machine.
        num_nodes: machines; the same call is made on each.
        rendezvous: HOST:PORT where the machines meet; not needed by one.
        folder: for what the agent keeps.

    Returns:
        Exit codes by rank of those that failed for good, negative ones for signals; none when all went well.
    """
    import logging

    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what went wrong the processes say themselves
    config = LaunchConfig(
        min_nodes=num_nodes, max_nodes=num_nodes, nproc_per_node=num_processes, run_id=run_id, rdzv_backend="c10d",
        rdzv_endpoint=rendezvous, max_restarts=max_restarts, monitor_interval=0.1, signals_to_handle="SIGINT,SIGHUP,SIGQUIT",
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)), local_addr=None if num_nodes > 1 else "localhost",
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    except SignalException as signal:
        raise KeyboardInterrupt from signal
    return {}
