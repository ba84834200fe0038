"""Starting the processes of a run on this machine, by torchrun's agent."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from djepa.errors import TrainingError


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

    Raises:
        TrainingError: the machines do not reach each other.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what went wrong the processes say themselves
    config = LaunchConfig(
        min_nodes=num_nodes, max_nodes=num_nodes, nproc_per_node=num_processes, run_id=run_id, rdzv_backend="c10d",
        rdzv_endpoint=rendezvous or "localhost:0",  # a port of its own: at the default one are other runs
        max_restarts=max_restarts, monitor_interval=0.1, signals_to_handle="SIGINT,SIGHUP,SIGQUIT",
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)), local_addr=None if num_nodes > 1 else "localhost",
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    except RendezvousError as error:
        raise TrainingError(f"The processes of the run could not meet, or lost touch of each other: {error} Go on with: djepa "
                            f"resume RUN") from error
    except SignalException as signal:
        raise KeyboardInterrupt from signal
    return {}
