"""Starting the processes of a run on this machine, and what they and their launcher have to tell each other.

`djepa train --nproc 4` is a *launcher*: torchrun's agent in its own process, which starts four *workers* and starts all of them
again when one is lost. They talk through a folder of their own:

    stop       written by the launcher when it is asked to stop; workers look for it at every step
    outcome    written by a worker that knows why it ends: the exit code of the whole

A worker whose launcher is gone ends at once, so that a run that is killed leaves nobody behind who goes on with it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from djepa.errors import RunStopped, TrainingError, UsageError
from djepa.files import atomic_file

FOLDER, LAUNCHER = "DJEPA_LAUNCH_FOLDER", "DJEPA_LAUNCHER_PID"
STOP, OUTCOME, SPOKEN = "stop", "outcome", "spoken"
PROCESSES = "processes.json"  # in a run's folder
POLL = 0.3  # seconds in which a worker notices that its launcher is gone


@dataclass(frozen=True)
class Launch:
    """How many processes, and where.

    Attributes:
        num_processes: on this machine.
        num_nodes: machines; each runs the same command.
        rendezvous: HOST:PORT of one of them, where they meet.
        max_restarts: how often all processes are started again after one was lost.
    """

    num_processes: int = 1
    num_nodes: int = 1
    rendezvous: str = ""
    max_restarts: int = 0

    @property
    def needed(self) -> bool:
        """Whether a launcher has anything to do; what torchrun or srun started works in place."""
        started = any(name in os.environ for name in ("RANK", "SLURM_STEP_NUM_TASKS"))
        return not started and (self.num_processes, self.num_nodes, self.max_restarts) != (1, 1, 0)


def launch(plan: Launch, arguments: Sequence[str]) -> int:
    """Run the `djepa` command with these arguments in several processes, and return the exit code of the whole.

    Raises:
        UsageError: several machines, and no place to meet.
        TrainingError: a process was lost for good.
    """
    from djepa.train.distributed import start_processes

    if plan.num_nodes > 1 and not plan.rendezvous:
        raise UsageError(f"{plan.num_nodes} machines need a place to meet: --rendezvous HOST:PORT, the same on all of them.")
    folder = Path(tempfile.mkdtemp(prefix="djepa-launch-"))
    os.environ |= {FOLDER: str(folder), LAUNCHER: str(os.getpid())}
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // plan.num_processes)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # or it warns of every parameter that a step might have left out
    for one in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(one, lambda number, _: (folder / STOP).write_text(signal.Signals(number).name))
    try:
        lost = start_processes(
            [sys.executable, "-c", "from djepa.cli import main; main()", *arguments], num_processes=plan.num_processes,
            num_nodes=plan.num_nodes, rendezvous=plan.rendezvous, max_restarts=plan.max_restarts,
            run_id="djepa" if plan.num_nodes > 1 else uuid.uuid4().hex, folder=folder,
        )
        told = _told(folder)
        stopped = (folder / STOP).exists()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for name in (FOLDER, LAUNCHER):
            del os.environ[name]
    if told is None and lost:
        return _lost(lost, stopped)
    return told or 0


def _lost(lost: dict[int, int], stopped: bool) -> int:
    """What is said of workers that ended without a word."""
    if stopped:
        return RunStopped.exit_code
    rank, code = next(iter(lost.items()))
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    raise TrainingError(f"Process {rank} of the run {how}. Go on with: djepa resume RUN; and with --max-restarts 3 it would go "
                        f"on by itself.")


def remembered(run: Path) -> int:
    """In how many processes a run was last trained on this machine."""
    try:
        return max(1, int(json.loads((run / PROCESSES).read_text())["nproc"]))
    except (OSError, ValueError, KeyError, TypeError):
        return 1


def remember(run: Path, num_processes: int) -> None:
    """Write down in how many processes a run is trained, so that it goes on in as many; one goes without saying.

    Raises:
        StorageError: the disk refused.
    """
    if num_processes == 1:
        (run / PROCESSES).unlink(missing_ok=True)
    else:
        with atomic_file(run / PROCESSES) as temporary:
            temporary.write_text(json.dumps({"nproc": num_processes}) + "\n")


# In a worker --------------------------------------------------------------------------------------------------------------


def is_worker() -> bool:
    """Whether a launcher of ours started this process."""
    return FOLDER in os.environ and os.environ.get(LAUNCHER) != str(os.getpid())


def restarted() -> bool:
    """Whether this process takes the place of one that was lost."""
    return is_worker() and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def asked_to_stop() -> str:
    """The signal that asked the launcher to stop; "" when none did."""
    folder = os.environ.get(FOLDER)
    return (Path(folder) / STOP).read_text() if folder and os.path.exists(os.path.join(folder, STOP)) else ""


def begin_work() -> None:
    """To be called first in every process: watches the launcher, if there is one, and ends where all has been said already.

    Another start mends no error that a worker could name, so a worker that is started again after one just ends.
    """
    if not is_worker():
        return
    if (told := _told(Path(os.environ[FOLDER]))) is not None:
        sys.exit(told)
    threading.Thread(target=_watch, args=(int(os.environ[LAUNCHER]),), name="launcher", daemon=True).start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGKILL)


def end_work(code: int, silent: bool = False) -> tuple[int, bool]:
    """Leave word of why this process ends.

    Args:
        code: that the whole shall end with.
        silent: another process has more to say.

    Returns:
        The code that this process shall end with itself, and whether it is the one to tell the reader.
    """
    if silent or not is_worker():
        return code, not silent
    folder, own = Path(os.environ[FOLDER]), 0 if code == RunStopped.exit_code else code  # all stop together: nobody is lost
    try:
        os.close(os.open(folder / SPOKEN, os.O_CREAT | os.O_EXCL))
    except OSError:
        return own, False
    (folder / OUTCOME).write_text(str(code))
    return own, True


def _told(folder: Path) -> int | None:
    try:
        return int((folder / OUTCOME).read_text())
    except (OSError, ValueError):
        return None
