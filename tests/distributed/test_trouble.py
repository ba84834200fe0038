"""What goes wrong in one process of several, or around them: said once, and what was saved stays."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from djepa import Trainer
from djepa.storage import checkpoints

SCRIPT = Path(__file__).with_name("recorded.py")


@pytest.fixture
def torchrun(tmp_path):
    """A user's own script under torchrun, in two processes; and alone."""
    def call(run, *overrides, alone=False):
        how = [] if alone else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        return subprocess.run([sys.executable, *how, SCRIPT, run, *overrides], capture_output=True, text=True, timeout=200,
                              env={**os.environ, "OMP_NUM_THREADS": "1"})

    return call


def loaded(folder):
    """How often each example was loaded with which augmentation, by process."""
    return {path.stem: Counter(path.read_text().splitlines()) for path in folder.iterdir()}


def test_a_users_script_under_torchrun_sees_each_example_once_however_many_processes_there_are(tmp_path, torchrun, tiny, read):
    folders = [tmp_path / name for name in ("two", "one")]
    for folder in folders:
        folder.mkdir()
    settings = [*tiny, "train.steps=6", "checkpoint.every=3", "train.micro_batch_size=4"]
    data = "data={{kind: recorded, folder: {}, bad: [3]}}"
    done = torchrun(tmp_path / "run", *settings, data.format(folders[0]))
    assert done.returncode == 0, done.stderr
    one = torchrun(tmp_path / "alone", *settings, data.format(folders[1]), alone=True)
    assert one.returncode == 0, one.stderr
    shares, everything = loaded(folders[0]), loaded(folders[1])["alone"]
    assert set(shares) == {"0", "1"} and shares["0"].total() == shares["1"].total() == 24
    assert shares["0"] + shares["1"] == everything
    skipped = [record["step"] for record in read(tmp_path / "run") if record.get("event") == "skipped"]
    assert len(skipped) == 3 and skipped == [record["step"] for record in read(tmp_path / "alone") if "event" in record]
    ends = [tmp_path / name / "checkpoints" / "step_00000006" / "model.safetensors" for name in ("run", "alone")]
    assert ends[0].read_bytes() == ends[1].read_bytes()


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(16):
        path = tmp_path / "pictures" / ("cats" if number % 2 else "ants") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


def test_data_that_vanish_stop_a_run_which_goes_on_when_they_are_back(tmp_path, train, resume, pictures):
    run = tmp_path / "run"
    running = train(run, f"data={{kind: image-folder, root: {pictures}, size: 8}}", "checkpoint.every=2").until_step(3)
    shutil.move(pictures, tmp_path / "elsewhere")
    code, _, err = running.outcome()
    assert code in (1, 2) and err.count("error:") == 1 and str(pictures) in err and "Traceback" not in err, err
    assert checkpoints(run)
    shutil.move(tmp_path / "elsewhere", pictures)
    code, out, err = resume(run, "--nproc", 1).outcome()
    assert code == 0 and "Done" in out, err


def test_a_disk_that_fills_up_while_a_part_is_written(tmp_path, train, small_disk):
    disk = small_disk(2500)
    code, _, err = train(disk / "run", "train.parallel=fsdp", "checkpoint.every=1", "checkpoint.keep=9").outcome()
    assert code == 1 and err.count("\nerror: ") == 1 and "No space left" in err and "Traceback" not in err, err
    complete = [step for step, _ in checkpoints(disk / "run")]
    assert complete and complete == list(range(1, len(complete) + 1))
    assert all(path.name.startswith("step_") for path in (disk / "run" / "checkpoints").iterdir())
    moved = shutil.copytree(disk / "run", tmp_path / "run")
    assert Trainer.resume(moved, ["train.steps=8", "checkpoint.keep=1"], device="cpu").name == "step_00000008"


def test_a_disk_that_has_become_read_only(tmp_path, whole, small_disk, start):
    run = shutil.copytree(whole, small_disk(4000) / "run")
    subprocess.run(["mount", "-o", "remount,ro", run.parent], check=True)
    code, _, err = start(run, "resume", run, "train.steps=30", "--device", "cpu").outcome()
    assert code == 1 and "Read-only file system" in err and str(run) in err and "Traceback" not in err, err
    assert [step for step, _ in checkpoints(run)] == [step for step, _ in checkpoints(whole)]


def test_two_on_one_folder(tmp_path, train, start):
    run = tmp_path / "run"
    running = train(run, "train.steps=100000").until_step(1)
    owner = json.loads((run / ".lock").read_text())["pid"]
    assert owner in running.workers()
    before = (run / "recipe.yaml").read_bytes()
    code, _, err = start(run, "resume", run, "train.steps=7", "--nproc", 1, "--device", "cpu").outcome()
    assert code == 2 and f"trained by another process ({owner} on" in err and "Traceback" not in err, err
    assert (run / "recipe.yaml").read_bytes() == before
    running.process.terminate()
    assert running.outcome()[0] == 75
    assert not (run / ".lock").exists()


@pytest.mark.parametrize(("override", "told"), [
    ("train.batch_size=9", "train.batch_size=8 or 10"),
    ("train.micro_batch_size=8", "train.micro_batch_size=4"),
])
def test_a_batch_that_does_not_come_out_even_is_refused_before_anything_starts(tmp_path, train, override, told):
    code, _, err = train(tmp_path / "run", override).outcome()
    assert code == 2 and told in err and err.startswith("error: ") and not (tmp_path / "run").exists()
