"""An evaluation that is killed at any moment goes on, and the numbers are the same for any number of processes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from djepa import Recipe, Trainer
from djepa.cli import main
from djepa.errors import DjepaError
from djepa.evaluate import evaluate

OVERRIDES = [
    "model.width=32", "model.num_heads=2", "model.encoder_depth=1", "model.predictor_depth=1",
    "model.conditions.label.num_tokens=2", "model.streams.image.head.depth=1", "model.streams.image.head.width=32",
    "train.steps=2", "train.batch_size=8", "train.warmup_steps=2", "preview.every=0",
    "model.streams.image.tokenizer.mean=-0.4", "model.streams.image.tokenizer.std=0.75",
]
NUM_BLOCKS = 20
COMMAND = "from djepa.cli import main; main()"
PATIENCE = 200  # seconds, on a machine that has other work to do


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the processes: another number of threads may add up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    run = tmp_path_factory.mktemp("model") / "run"
    Trainer(Recipe.load("image/digits", OVERRIDES), device="cpu").fit(run)
    return run


@pytest.fixture
def asked(model):
    return ["evaluate", model, "image/digits", "data.split=heldout", "evaluate.num_groups=0", "--metrics", "kernel,coverage",
            "-n", 64 * NUM_BLOCKS - 10, "--device", "cpu", "--num-denoising-steps", 40, "--batch-size", 64]


@pytest.fixture
def here(monkeypatch):
    """Run `djepa` in this process."""
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["djepa", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code

    return run


@pytest.fixture
def start():
    """Start `djepa` in a process; whatever happens it does not outlive the test, nor do those that it starts."""
    started = []

    def popen(*arguments):
        process = subprocess.Popen([sys.executable, "-c", COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
                                   start_new_session=True)
        started.append(process)
        return process

    yield popen
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def blocks(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "generated").glob("0*.safetensors")}


def wait_until(condition, process):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        if process is not None and process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        time.sleep(0.01)


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


@pytest.mark.timeout(600)  # six processes import torch: half a minute on a machine that has nothing else to do
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the processes")
def test_killed_twice_and_by_any_number_of_processes_it_gives_the_same_numbers(asked, start, here, tmp_path):
    folder, whole = tmp_path / "folder", tmp_path / "whole"
    # One of two processes dies: the command stops the other and says so.
    process = start(*asked, "--out", folder, "--nproc", 2)
    wait_until(lambda: len(blocks(folder)) >= 2, process)
    first, second = children(process)
    os.kill(first, signal.SIGKILL)
    said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 1 and gone(second)
    assert "was killed by signal 9" in said and "the same command goes on" in said and "Traceback" not in said

    # The command itself dies: its processes end, with blocks still to be made.
    before = blocks(folder)
    process = start(*asked, "--out", folder, "--nproc", 2)
    wait_until(lambda: len(blocks(folder)) > len(before), process)
    workers = children(process)
    process.kill()
    wait_until(lambda: all(map(gone, workers)), None)
    there = blocks(folder)
    assert len(there) < NUM_BLOCKS and not (folder / "result.json").exists()

    here(*asked, "--out", folder)
    here(*asked, "--out", whole)
    assert (folder / "result.json").read_bytes() == (whole / "result.json").read_bytes()
    assert there.items() <= blocks(folder).items() and before.items() <= there.items()


def test_a_process_that_fails_says_why(model, tmp_path):
    """A block that cannot be written: its name is taken by a folder."""
    folder = tmp_path / "folder"
    recipe = Recipe.load("image/digits", ["evaluate.num_samples=130", "evaluate.metrics=[kernel]", "evaluate.num_groups=0"])
    evaluate(model, recipe, folder, device="cpu", num_steps=1)
    (folder / "generated" / "00000128-00000130.safetensors").unlink()
    (folder / "generated" / "00000128-00000130.safetensors").mkdir()
    with pytest.raises(DjepaError, match=r"^Process 1 of 2 failed: Could not write .*00000130\.saf.*the same command goes"):
        evaluate(model, recipe, folder, device="cpu", nproc=2, num_steps=1)
