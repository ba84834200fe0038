"""How the processes of a run find each other, and agree on small things."""

from __future__ import annotations

import atexit
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from djepa.device import resolve_device
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


def world(device: str) -> World:
    """Meet the other processes, if there are any; once met, they stay together until they end.

    Args:
        device: by name; of several GPUs each process of a machine takes its own.

    Raises:
        UsageError: there is no such device.
    """
    here = place()
    if here is None:
        return World(resolve_device(device))
    import torch.distributed as dist

    chosen = resolve_device(device)
    if chosen.type == "cuda" and chosen.index is None:
        chosen = resolve_device(f"cuda:{here.local_rank}")
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():  # else a caller, or the run before this one, has met the others
        _meet(here, chosen)
        atexit.register(dist.destroy_process_group)
    return World(chosen, *[Team(dist.get_rank(), dist.get_world_size(), _Host()) for _ in range(2)])


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
