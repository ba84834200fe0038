"""An evaluation that is killed at any moment goes on, and the numbers are the same for any number of processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from djepa import Recipe, Trainer
from djepa.evaluate import evaluate

OVERRIDES = [
    "model.width=32", "model.num_heads=2", "model.encoder_depth=1", "model.predictor_depth=1",
    "model.conditions.label.num_tokens=2", "model.streams.image.head.depth=1", "model.streams.image.head.width=32",
    "train.steps=2", "train.batch_size=8", "train.warmup_steps=2", "preview.every=0",
    "model.streams.image.tokenizer.mean=-0.4", "model.streams.image.tokenizer.std=0.75",
]
NUM_SAMPLES = 1000  # 16 blocks
COMMAND = "from djepa.cli import main; main()"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    run = tmp_path_factory.mktemp("model") / "run"
    Trainer(Recipe.load("image/digits", OVERRIDES), device="cpu").fit(run)
    return run


@pytest.fixture(scope="module")
def asked(model):
    return ["evaluate", model, "image/digits", "data.split=heldout", "evaluate.num_groups=0", "--metrics", "kernel,coverage",
            "-n", NUM_SAMPLES, "--device", "cpu", "--num-denoising-steps", 40, "--batch-size", 64]


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory):
    """The result of the evaluation that nobody stopped, by one process."""
    folder = tmp_path_factory.mktemp("whole") / "folder"
    assert finish(start(*asked, "--out", folder)) == (0, "")
    return (folder / "result.json").read_text()


def start(*arguments):
    return subprocess.Popen([sys.executable, "-c", COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
                            start_new_session=True)


def finish(process):
    """The exit code, and what was said."""
    said = process.communicate(timeout=200)[1]
    return process.returncode, said


def blocks(folder):
    return sorted(path.name for path in (folder / "generated").glob("0*.safetensors"))


def await_blocks(folder, count, process):
    end = time.monotonic() + 100
    while len(blocks(folder)) < count:
        assert process.poll() is None and time.monotonic() < end, process.stderr.read()
        time.sleep(0.01)


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def test_killed_twice_by_one_process_and_by_two_it_gives_the_same_numbers(asked, whole, tmp_path):
    folder = tmp_path / "folder"
    for count, nproc in ((2, 1), (7, 2)):
        process = start(*asked, "--out", folder, "--nproc", nproc)
        await_blocks(folder, count, process)
        os.killpg(process.pid, signal.SIGKILL)
        finish(process)
        assert len(blocks(folder)) < 16 and not (folder / "result.json").exists()
    there = {name: (folder / "generated" / name).stat().st_mtime_ns for name in blocks(folder)}
    assert finish(start(*asked, "--out", folder, "--nproc", 2)) == (0, "")
    assert (folder / "result.json").read_text() == whole
    assert all((folder / "generated" / name).stat().st_mtime_ns == made for name, made in there.items())


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the processes")
def test_processes_end_with_the_one_that_started_them_and_it_tells_of_their_death(asked, tmp_path):
    folder = tmp_path / "folder"
    process = start(*asked, "--out", folder, "--nproc", 2)
    await_blocks(folder, 1, process)
    first, second = children(process)
    os.kill(first, signal.SIGKILL)
    code, said = finish(process)
    assert code == 1 and gone(second)
    assert "was killed by signal 9" in said and "the same command goes on" in said and "Traceback" not in said

    process = start(*asked, "--out", folder, "--nproc", 2)
    await_blocks(folder, len(blocks(folder)) + 1, process)
    workers = children(process)
    process.kill()
    finish(process)
    end = time.monotonic() + 60
    while not all(map(gone, workers)):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert len(blocks(folder)) < 16


def test_a_process_that_fails_says_why(model, tmp_path):
    """A block that cannot be written: its name is taken by a folder."""
    folder = tmp_path / "folder"
    recipe = Recipe.load("image/digits", ["evaluate.num_samples=130", "evaluate.metrics=[kernel]", "evaluate.num_groups=0"])
    evaluate(model, recipe, folder, device="cpu", num_steps=1)
    (folder / "generated" / "00000128-00000130.safetensors").unlink()
    (folder / "generated" / "00000128-00000130.safetensors").mkdir()
    failed = start("evaluate", model, "image/digits", "evaluate.num_groups=0", "-n", 130, "--metrics", "kernel", "--device",
                   "cpu", "--num-steps", 1, "--out", folder, "--nproc", 2)
    code, said = finish(failed)
    assert code == 1 and said.startswith("error: Process 1 of 2 failed: Could not write") and "Traceback" not in said
    assert json.loads((folder / "evaluation.json").read_text())["format"] == 1
