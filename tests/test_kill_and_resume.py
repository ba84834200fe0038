"""A run that is killed at any moment and resumed ends with the very same bits as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from djepa import Recipe, Trainer

STEPS = 40
OVERRIDES = [
    "model.width=32", "model.num_heads=2", "model.encoder_depth=1", "model.predictor_depth=1", "model.dropout=0.3",
    "model.conditions.label.num_tokens=2", "model.streams.image.head.depth=1", "model.streams.image.head.width=32",
    f"train.steps={STEPS}", "train.batch_size=8", "train.warmup_steps=2", "train.log_every=1", "preview.every=0",
    "model.streams.image.tokenizer.mean=-0.4", "model.streams.image.tokenizer.std=0.75",
]
COMMAND = "from djepa.cli import main; main()"

# Stop for good while the checkpoint of step 8 is being written: with half of its weights on disk, or with all of it there
# but not yet under its name.
HALF = """
import djepa.storage, os, time
save = djepa.storage.save_file
def half(tensors, path, header):
    save(tensors, path, header)
    if "step_00000008" in str(path):
        os.truncate(path, os.path.getsize(path) // 2)
        print("now", flush=True)
        time.sleep(60)
djepa.storage.save_file = half
"""
NAMELESS = """
import djepa.files, time
sync = djepa.files._sync
def stop(path):
    sync(path)
    if "step_00000008" in path.name:
        print("now", flush=True)
        time.sleep(60)
djepa.files._sync = stop
"""
# Go on freely up to a step, and there wait to be stopped: on a busy machine a run could otherwise be over before it is.
HELD = """
import djepa.train.loop, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started all of this in the background
after = djepa.train.loop.Loop._after
def wait(self, step):
    after(self, step)
    if step == {step}:
        time.sleep(600)
djepa.train.loop.Loop._after = wait
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the processes: another number of threads may add up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    Trainer(Recipe.load("image/digits", [*OVERRIDES, "checkpoint.every=4"]), device="cpu").fit(run)
    return run


@pytest.fixture
def start(tmp_path):
    """Start `djepa`; whatever happens it does not outlive the test."""
    started = []

    def popen(*arguments, code=COMMAND):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)
        started.append(process)
        return process

    yield popen
    for process in started:
        kill(process)


def held(step):
    """`djepa`, whose run goes no further than this step."""
    return HELD.format(step=step) + COMMAND


def kill(process):
    """End a process and its workers, giving none of them a chance to clean up."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stderr.close()


def steps(run):
    return [record["step"] for record in records(run)]


def records(run):
    path = run / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def kill_at(process, run, step):
    """Kill a run as soon as its log has a step."""
    while not (done := steps(run)) or done[-1] < step:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)
    kill(process)
    assert process.returncode == -signal.SIGKILL and steps(run)[-1] < STEPS


def train(run, *overrides):
    return ["train", "image/digits", *OVERRIDES, "checkpoint.every=4", *overrides, "--out", run, "--device", "cpu"]


def assert_nothing_happened(run, whole):
    """The run ended as the one that nobody stopped, and nothing tells of what happened to it."""
    last = f"step_{STEPS:08d}"
    for name in ("model.safetensors", "training.safetensors", "progress.json"):
        ours, theirs = (folder / "checkpoints" / last / name for folder in (run, whole))
        assert ours.read_bytes() == theirs.read_bytes(), name
    logs = [[{key: value for key, value in record.items() if "second" not in key} for record in records(folder)]
            for folder in (run, whole)]
    assert logs[0] == logs[1] and steps(run) == list(range(1, STEPS + 1))
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "log.jsonl", "recipe.yaml"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [f"step_{STEPS - 4:08d}", last]


def test_killed_twice_while_workers_load_its_data(tmp_path, start, whole):
    run = tmp_path / "run"
    kill_at(start(*train(run, "train.num_workers=2"), code=held(14)), run, 6)
    first = steps(run)[-1]
    kill_at(start("resume", run, "--device", "cpu", code=held(30)), run, first + 6)
    last = start("resume", run, "--device", "cpu")
    output, _ = last.communicate(timeout=120)
    assert last.returncode == 0 and "Done" in output
    assert_nothing_happened(run, whole)


@pytest.mark.parametrize("moment", [HALF, NAMELESS], ids=["half of the weights written", "not yet under its name"])
def test_killed_while_it_saves(tmp_path, start, whole, moment):
    run = tmp_path / "run"
    process = start(*train(run), code=moment + COMMAND)
    assert process.stdout.readline() == "now\n"
    kill(process)
    names = [path.name for path in (run / "checkpoints").iterdir()]
    assert "step_00000004" in names and "step_00000008" not in names and len(names) == 2
    Trainer.resume(run, device="cpu")
    assert_nothing_happened(run, whole)


def test_killed_before_its_first_checkpoint(tmp_path, start, whole):
    run = tmp_path / "run"
    kill_at(start(*train(run, "checkpoint.every=1000"), code=held(14)), run, 3)
    assert not (run / "checkpoints").exists()
    Trainer.resume(run, ["checkpoint.every=4"], device="cpu")
    assert_nothing_happened(run, whole)


def test_interrupted_from_the_keyboard(tmp_path, start, whole):
    run = tmp_path / "run"
    process = start(*train(run), code=held(14))
    while not steps(run):
        assert process.poll() is None, "the run ended before it could be interrupted"
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130 and "djepa resume" in told and "Traceback" not in told
    Trainer.resume(run, device="cpu")
    assert_nothing_happened(run, whole)
