"""Several processes that make an evaluation's features, each its share of the blocks; they need not speak to each other."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import torch

from djepa.errors import DjepaError, UsageError
from djepa.evaluate.blocks import Blocks

PATIENCE = 0.2  # seconds between looks at the processes
GRACE = 5.0     # seconds that a process has to end when it is told to


def run_workers(
    folder: Path, sets: Mapping[Any, Blocks], nproc: int, device: torch.device, report: Callable[[], Any]
) -> None:
    """Start the processes and wait until all blocks are there.

    Args:
        folder: of the evaluation, begun.
        sets: what is to be there in the end.
        nproc: how many processes.
        device: they compute on; where it is "cuda" and there are several, each takes the next.
        report: called now and then.

    Raises:
        DjepaError: a process failed; the others are stopped, and finished blocks stay.
    """
    if not any(blocks.missing() for blocks in sets.values()):
        return
    workers: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(nproc)]
        stack.callback(_stop, workers)
        for rank in range(nproc):
            workers.append(_start(folder, rank, nproc, device, said[rank]))
        while any(worker.poll() is None for worker in workers):
            _check(workers, said)
            report()
            time.sleep(PATIENCE)
        _check(workers, said)
    report()
    if any(blocks.missing() for blocks in sets.values()):
        raise DjepaError(f"Not all features were made, though every process ended well; is something removing files from "
                         f"{str(folder)!r}?")


def _start(folder: Path, rank: int, nproc: int, device: torch.device, said: IO[bytes]) -> subprocess.Popen[bytes]:
    place = str(device)
    if place == "cuda" and torch.cuda.device_count() > 1:
        place = f"cuda:{rank % torch.cuda.device_count()}"
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // nproc))}
    # -P: what happens to lie in the current folder is not imported, as with the `djepa` command itself.
    command = [sys.executable, "-P", "-m", "djepa.evaluate.worker", str(folder), str(rank), str(nproc), place]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=threads | os.environ)


def _check(workers: Sequence[subprocess.Popen[bytes]], said: Sequence[IO[bytes]]) -> None:
    for rank, (worker, file) in enumerate(zip(workers, said, strict=True)):
        code = worker.poll()
        if not code:
            continue
        file.seek(0)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        last = lines[-1].removeprefix("error: ").strip().removesuffix(".") if lines else "it said nothing"
        how = f"was killed by signal {-code} (is there enough memory?)" if code < 0 else f"failed: {last}"
        error = UsageError if code == UsageError.exit_code else DjepaError
        raise error(f"Process {rank + 1} of {len(workers)} {how}. Finished samples stay; the same command goes on with them.")


def _stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    for worker in workers:
        try:
            worker.wait(GRACE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
