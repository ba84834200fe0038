"""Several processes that train one model. The one home of torch.distributed; a process that trains alone has no process group.

    world("cuda")        this process's device, and the teams it belongs to
    distribute(...)      the model replicated (DDP) or sharded (FSDP2), and gradients that are *sums* over the processes
    start_processes(...) torchrun's agent, which starts them and starts them again
"""

from djepa.train.distributed.meeting import World, tells_of_lost_process, world
from djepa.train.distributed.sharing import Distributed, distribute, local, piece, whole
from djepa.train.distributed.starting import start_processes

__all__ = ["Distributed", "World", "distribute", "local", "piece", "start_processes", "tells_of_lost_process", "whole", "world"]
