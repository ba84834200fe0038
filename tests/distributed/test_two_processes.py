"""Two processes do what one does, to the last bit, whether they hold the model twice or share it; and go on when killed."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from djepa import Pipeline, Trainer
from djepa.storage import checkpoints

STEPS = 24


@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_does(tmp_path, train, whole, assert_same, kind):
    run = tmp_path / "run"
    code, out, err = train(run, f"train.parallel={kind}").outcome()
    assert code == 0 and out.startswith("Done") and out.count("\n") == 1 and "arning" not in err and "Traceback" not in err
    assert_same(run, whole)
    assert (run / "checkpoints" / f"step_{STEPS:08d}" / "training.safetensors").exists() is (kind == "ddp")


@pytest.mark.parametrize("kind", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_killed_three_times_once_while_it_saves(tmp_path, train, resume, whole, assert_same, kind):
    run, chance = tmp_path / "run", random.Random()

    def saving():
        folder = run / "checkpoints"
        return folder.is_dir() and any(path.name.startswith(".step") for path in folder.iterdir())

    first = train(run, f"train.parallel={kind}", f"preview.every={STEPS}", "preview.num_conditions=1")
    workers = first.until_step(chance.randrange(1, 10)).workers()
    os.kill(first.process.pid, signal.SIGKILL)  # the launcher alone: nobody is left to go on behind its back
    assert len(workers) == 2 and ended(workers)
    resume(run).until(saving).kill()
    assert saving(), "it was killed between two checkpoints"
    resume(run).until_step(chance.randrange(14, STEPS - 1)).kill()
    code, out, err = resume(run).outcome()
    assert code == 0 and "Done" in out, err
    assert_same(run, whole)
    assert {path.name for path in run.iterdir()} == {"checkpoints", "log.jsonl", "processes.json", "recipe.yaml", "samples"}
    assert [step for step, _ in checkpoints(run)] == [STEPS - 4, STEPS] and not saving()
    assert len(list((run / "samples").iterdir())) == 2 and len(Pipeline.from_pretrained(run, device="cpu").generate(3)) == 1


def ended(pids, seconds=5.0):
    """Whether processes are gone before long."""
    deadline = time.monotonic() + seconds
    while any(running(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_a_lost_process_is_replaced_by_nobodys_hand(tmp_path, start, train, resume, whole, assert_same, kind):
    run = tmp_path / "run"
    train(run, f"train.parallel={kind}").until_step(2).kill()
    going_on = resume(run, "--max-restarts", 1).until_step(7)
    os.kill(going_on.workers()[-1], signal.SIGKILL)
    code, out, err = going_on.outcome()
    assert code == 0 and "Done" in out and "Traceback" not in err, err
    assert_same(run, whole)


def test_a_lost_process_ends_the_others(tmp_path, train, whole):
    run = tmp_path / "run"
    running = train(run).until_step(6)
    os.kill(running.workers()[0], signal.SIGKILL)
    code, _, err = running.outcome()
    assert code == 1 and "was killed by SIGKILL" in err and "--max-restarts" in err and "Traceback" not in err, err
    assert [step for step, _ in checkpoints(run)] == [4]


@pytest.mark.parametrize("kind", ["fsdp", pytest.param("ddp", marks=pytest.mark.slow)])
def test_asked_to_stop_two_save_and_one_goes_on(tmp_path, train, whole, assert_same, kind, one_thread):
    run = tmp_path / "run"
    running = train(run, f"train.parallel={kind}", "checkpoint.every=1000").until_step(7)
    running.process.terminate()
    code, _, err = running.outcome()
    assert code == 75 and err.count("as asked by SIGTERM. Go on with: djepa resume") == 1 and "error" not in err, err
    (step, _), = checkpoints(run)
    assert step >= 7
    Trainer.resume(run, ["train.micro_batch_size=4"], device="cpu")
    assert_same(run, whole)
    assert not (run / "processes.json").exists()
