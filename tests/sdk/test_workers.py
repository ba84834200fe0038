"""Decoders that hang or crash, for real: they are killed, others take their place, and no process is left behind."""

import ctypes
import faulthandler
import json
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from djepa import Trainer
from djepa.dataset import Dataset, Example
from djepa.errors import MediaError, TrainingError
from djepa.loading import Workers, loaded
from djepa.skipping import Skipping, left_out_of
from djepa.tokens import Encoded, Sample
from djepa.train.data import DataOrder, batches

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def hang():
    """A decoder in an endless loop in C: it holds Python's lock and hears no signal but SIGKILL."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.PyDLL(None).sleep(3600)


def crash(how=lambda: ctypes.string_at(0)):
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    how()


def abort():
    crash(os.abort)


class Trouble(Dataset):
    """Example `i` holds i; what happens to some is up to others."""

    def __init__(self, size, trouble=()):
        self.size, self.trouble = size, dict(trouble)

    def __len__(self):
        return self.size

    def load(self, index, rng=None):
        if index in self.trouble:
            self.trouble[index]()
        return Example({"number": Sample(torch.tensor([float(index)]), {"index": index})}, {"index": index})


def damaged():
    raise MediaError("damaged")


def numbers(dataset, num_workers=2, steps=6, batch_size=4, **options):
    order = DataOrder(1, len(dataset), batch_size)
    found = list(batches(dataset, order, range(steps), num_workers, **options))
    shown = [[example.conditions["index"] for example in examples] for examples in found]
    return shown, left_out_of(chain.from_iterable(found))


@pytest.fixture(autouse=True)
def nobody_left():
    yield
    assert not multiprocessing.active_children()


# ---- hanging and crashing

@pytest.mark.parametrize(("trouble", "says"), [(hang, "not loaded within 1 seconds"), (crash, r"crashed \(SIGSEGV\)"),
                                               (abort, r"crashed \(SIGABRT\)")])
def test_what_hangs_or_crashes_is_left_out_like_a_damaged_file(trouble, says):
    shown, left_out = numbers(Skipping(Trouble(12, {5: trouble, 7: trouble})), load_timeout=1.0)
    expected, their_left_out = numbers(Skipping(Trouble(12, {5: damaged, 7: damaged})), num_workers=0)
    assert shown == expected and left_out.keys() == their_left_out.keys() == {5, 7}
    assert all(str(reason).startswith(f"example {index}: ") for index, reason in left_out.items())
    assert all(re.search(says, reason) for reason in left_out.values())


@pytest.mark.parametrize(("trouble", "says"), [(hang, "example 5: not loaded within 1 seconds"), (crash, r"5: .* \(SIGSEGV\)")])
def test_or_stops_the_run_where_nothing_may_take_its_place(trouble, says):
    began = time.monotonic()
    with pytest.raises(MediaError, match=says):
        numbers(Trouble(12, {5: trouble}), load_timeout=1.0)
    assert time.monotonic() - began < 10


def test_time_is_for_each_example_and_not_for_a_batch():
    slow = Trouble(8, dict.fromkeys(range(8), lambda: time.sleep(0.2)))
    shown, left_out = numbers(slow, num_workers=1, steps=1, batch_size=8, load_timeout=1.0)
    assert len(shown[0]) == 8 and not left_out


def test_a_worker_that_somebody_kills_stops_the_run():
    def killed():
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TrainingError, match="killed from outside"):
        numbers(Skipping(Trouble(12, {5: killed})))


def test_a_mistake_in_a_dataset_arrives_with_its_traceback():
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError"):
        numbers(Trouble(12, {5: lambda: 1 // 0}))


def test_an_iteration_that_is_given_up_leaves_nobody(monkeypatch):
    one = batches(Trouble(8, {3: hang}), DataOrder(0, 8, 2), range(99), 2)
    next(one)
    assert multiprocessing.active_children()
    one.close()


# ---- what is read

def test_results_come_in_order_and_as_they_were_whatever_the_number_of_workers():
    class Kinds(Trouble):
        def load(self, index, rng=None):
            time.sleep(0.01 * (index % 3))
            data = torch.arange(6.0).view(2, 3).T * index  # not contiguous
            samples = {"a": Sample(data, {"rate": 3.5}, "curve"), "b": Encoded(data + 1, {}, "curve", (1, 9))}
            return Example(samples, {"text": "ä", "number": index})

    tasks = [[3, 1], [], [0, 2, 4, 5, 6], [1]]
    here = list(loaded(Kinds(7), lambda dataset, index: dataset.load(index), tasks, 0))
    for num_workers in (1, 2, 3):
        there = list(loaded(Kinds(7), lambda dataset, index: dataset.load(index), tasks, num_workers))
        assert [[one.conditions for one in results] for results in there] == [[one.conditions for one in part] for part in here]
        for ours, theirs in zip(chain.from_iterable(here), chain.from_iterable(there), strict=True):
            for name in ("a", "b"):
                one, other = ours.samples[name], theirs.samples[name]
                assert torch.equal(one.data, other.data) and (one.meta, one.shape) == (other.meta, other.shape)
            theirs.samples["a"].data.add_(1)  # ours to change


def test_one_who_hangs_while_a_result_of_his_is_on_its_way_is_killed_all_the_same():
    class Large(Trouble):
        def load(self, index, rng=None):
            super().load(index, rng)
            return Example({"x": Sample(torch.full((1 << 22,), float(index)))}, {"index": index})

    dataset = Large(4, {index: hang for index in (2, 3)})  # 16 MB each, and Python's lock is held while they are sent
    shown = loaded(Skipping(dataset), lambda one, index: one.load(index), [[0], [2], [1], [3]], 1, timeout=1.0)
    assert [[example.conditions["index"] in (0, 1) for example in part] for part in shown] == [[True]] * 4


def test_a_large_result_does_not_wait_for_a_small_pipe():
    class Large(Trouble):
        def load(self, index, rng=None):
            return Example({"x": Sample(torch.full((1 << 21,), float(index)))})

    order = DataOrder(0, 4, 4)
    sums = [[float(example.samples["x"].data.mean()) for example in examples]
            for examples in batches(Large(4), order, range(4), 2)]
    assert sums == [[float(index) for _, index in order.places(step)] for step in range(4)]


def test_work_is_begun_ahead_but_not_without_end():
    begun = multiprocessing.Value("i", 0)

    class Counting(Trouble):
        def load(self, index, rng=None):
            with begun.get_lock():
                begun.value += 1
            return super().load(index, rng)

    one = batches(Counting(1000), DataOrder(0, 1000, 2), range(400), 2)
    next(one)
    time.sleep(0.5)
    ahead = begun.value
    one.close()
    assert 4 <= ahead <= 12


# ---- the end of all

KILLED = """
import multiprocessing, sys, time
sys.path.insert(0, {tests!r})
from test_workers import Trouble, hang
from djepa.train.data import DataOrder, batches
if __name__ == "__main__":
    one = batches(Trouble(100, dict.fromkeys(range(50, 100), hang)), DataOrder(0, 100, 1), range(100), 2)
    next(one)
    time.sleep(1)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    if sys.argv[1] == "wait":
        time.sleep(600)
"""


def gone(pids, seconds=10.0):
    """Whether these processes end (a zombie that nobody has buried yet has ended)."""
    def alive(pid):
        try:
            return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return False

    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


@LINUX
@pytest.mark.parametrize("how", ["killed", "left"])
def test_no_hanging_worker_outlives_its_parent(how):
    """Neither one that is killed with SIGKILL, nor one that comes to its end without having closed anything."""
    code = KILLED.format(tests=str(Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", code, "wait" if how == "killed" else "end"], stdout=subprocess.PIPE,
                               text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        if how == "killed":
            process.kill()
        assert process.wait(timeout=30) == (-signal.SIGKILL if how == "killed" else 0)
    finally:
        process.kill()
        process.communicate()
    assert len(pids) == 2 and gone(pids)


def test_a_run_goes_on_without_a_picture_on_which_its_decoder_hangs(make_recipe, tmp_path, monkeypatch):
    import djepa_image.folder

    rng = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "pictures" / ("cats" if number % 2 else "ants") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    decode = djepa_image.folder.decode
    monkeypatch.setattr(djepa_image.folder, "decode",
                        lambda path, channels: hang() if path.name == "4.png" else decode(path, channels))
    recipe = make_recipe("data.kind=image-folder", f"data.root={tmp_path / 'pictures'}", "data.size=8", "train.steps=3",
                         "train.batch_size=4", "train.num_workers=1", "train.load_timeout=1")
    with pytest.raises(MediaError, match=r"ants/4\.png': not loaded within 1 seconds.*djepa resume .*run train\.on_error=skip"):
        Trainer(recipe, device="cpu").fit(tmp_path / "run")
    assert Trainer.resume(tmp_path / "run", ["train.on_error=skip"], device="cpu").name == "step_00000003"
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    events = [record for record in records if record.get("event") == "left_out"]
    assert len(events) == 1 and "4.png': not loaded within 1 seconds" in events[0]["reason"]


def test_workers_can_be_closed_twice():
    workers = Workers(Trouble(3), lambda dataset, index: dataset.load(index), 1, on_lost=lambda index, reason: None)
    workers.close()
    workers.close()
