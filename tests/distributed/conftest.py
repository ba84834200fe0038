"""What tests of several processes share: a tiny recipe, the `djepa` command in processes of its own, and ways to end them."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from djepa import Recipe, Trainer

STEPS, EVERY = 24, 4
TINY = [
    "model.width=32", "model.num_heads=2", "model.encoder_depth=1", "model.predictor_depth=1", "model.dropout=0.3",
    "model.conditions.label.num_tokens=2", "model.streams.image.head.depth=1", "model.streams.image.head.width=32",
    "model.generate.num_steps=2", "model.generate.num_denoising_steps=2",
    f"train.steps={STEPS}", "train.batch_size=8", "train.warmup_steps=2", "train.log_every=1", "train.max_grad_norm=1",
    f"checkpoint.every={EVERY}", "preview.every=0",
    "model.streams.image.tokenizer.mean=-0.4", "model.streams.image.tokenizer.std=0.75",
]
COMMAND = "from djepa.cli import main; main()"


@pytest.fixture
def tiny():
    """Changes to the recipe of the digits that make a step take milliseconds."""
    return TINY


@contextmanager
def _one_thread():
    """As in the processes: another number of threads may add up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def one_thread():
    with _one_thread():
        yield


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The run that nobody stopped, of one process, which takes its batches in as many parts as two processes would."""
    run = tmp_path_factory.mktemp("whole") / "run"
    with _one_thread():
        Trainer(Recipe.load("image/digits", [*TINY, "train.micro_batch_size=4"]), device="cpu").fit(run)
    return run


class Started:
    """A `djepa` command that is running.

    Attributes:
        run: the folder it trains in.
    """

    def __init__(self, run, arguments, cwd):
        self.run = run
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)

    def workers(self):
        """Process ids of those that train."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def until(self, condition):
        """Wait until something is so."""
        while not condition():
            assert self.process.poll() is None, f"it ended by itself: {self.process.communicate()[1]}"
            time.sleep(0.001)
        return self

    def until_step(self, step):
        """Wait until its log has a step."""
        return self.until(lambda: steps(self.run)[-1:] >= [step])

    def kill(self):
        """End all of its processes at once."""
        for pid in [self.process.pid, *self.workers()]:
            os.kill(pid, signal.SIGKILL)
        self.close()

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # its workers notice
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def outcome(self):
        """Wait for its end: exit code, what it printed, what it complained of."""
        out, err = self.process.communicate(timeout=240)
        return self.process.returncode, out, err


@pytest.fixture
def start(tmp_path):
    """Start `djepa`; whatever happens it does not outlive the test."""
    started = []

    def begin(run, *arguments):
        started.append(Started(run, arguments, tmp_path))
        return started[-1]

    yield begin
    for one in started:
        one.close()


@pytest.fixture
def train(start):
    """Train in two processes."""
    return lambda run, *overrides: start(run, "train", "image/digits", *TINY, *overrides, "--out", run, "--device", "cpu",
                                         "--nproc", 2)


@pytest.fixture
def resume(start):
    """Go on, by default in as many processes as before."""
    return lambda run, *arguments: start(run, "resume", run, "--device", "cpu", *arguments)


def records(run):
    path = run / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def steps(run):
    return [record["step"] for record in records(run)]


@pytest.fixture
def read():
    """The records of a run's log without how long things took."""
    return lambda run: [{key: value for key, value in record.items() if "second" not in key} for record in records(run)]


@pytest.fixture
def assert_same(read):
    """Two runs ended with the same bits and said the same."""
    def check(run, other, step=STEPS):
        ours, theirs = (folder / "checkpoints" / f"step_{step:08d}" / "model.safetensors" for folder in (run, other))
        assert ours.read_bytes() == theirs.read_bytes()
        logs = [read(folder) for folder in (run, other)]
        assert [record["step"] for record in logs[0]] == [record["step"] for record in logs[1]] == list(range(1, step + 1))
        for one, another in zip(*logs, strict=True):  # a loss is summed up in another order, and only shown
            assert one == pytest.approx(another, rel=1e-5)

    return check
