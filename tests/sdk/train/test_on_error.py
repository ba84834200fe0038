"""Files that cannot be read: they stop a run with a reason, or others take their place and the log says so."""

import json
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image

from djepa import Pipeline, Trainer
from djepa.cache import Cached
from djepa.cache.index import Index
from djepa.dataset import Dataset, Example
from djepa.errors import MediaError, RecipeError
from djepa.skipping import NUM_DRAWN, Replacement, Skipping, left_out_of
from djepa.tokens import Sample
from djepa.train.data import DataOrder, batches

FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
NUM_PICTURES = 12


class Numbers(Dataset):
    """Example `i` holds i and a random number; those of `bad` cannot be read."""

    def __init__(self, size, bad):
        self.size, self.bad = size, bad

    def __len__(self):
        return self.size

    def load(self, index, rng=None):
        drawn = 0.0 if rng is None else rng.random()
        if index in self.bad:
            raise MediaError(f"number {index} is damaged")
        return Example({"number": Sample(torch.tensor([index, drawn], dtype=torch.float64))}, {"index": index})


class Sleeping(Numbers):
    def load(self, index, rng=None):
        time.sleep(600)
        return super().load(index, rng)


def loaded(bad, steps, num_workers=0, size=20, seed=3):
    dataset = Skipping(Numbers(size, bad))
    return [[(example.samples["number"].data.tolist(), dict(left_out_of([example]))) for example in examples]
            for examples in batches(dataset, DataOrder(seed, size, 4), steps, num_workers)]


# ---- the dataset

def test_others_take_the_place_of_what_cannot_be_read():
    dataset = Skipping(Numbers(20, bad := {0, 5, 6}))
    for index in range(20):
        example = dataset.load(index)
        assert example.conditions["index"] == example.samples["number"].data[0] not in bad
        assert (example.conditions["index"] == index) is (index not in bad) is (not isinstance(example, Replacement))
        assert left_out_of([example]).get(index) == (f"number {index} is damaged" if index in bad else None)
    assert dataset.left_out == {index: f"number {index} is damaged" for index in bad}


def test_a_replacement_depends_on_the_index_alone():
    chosen = [Skipping(Numbers(20, {7})).load(7, np.random.default_rng(seed)).conditions["index"] for seed in range(4)]
    assert len(set(chosen)) == 1
    views = [Skipping(Numbers(20, {7})).view(7, number).conditions["index"] for number in range(2)]
    assert views == chosen[:2]
    assert len({Skipping(Numbers(20, {*range(10)})).load(index).conditions["index"] for index in range(10)}) > 4


def test_a_whole_damaged_stretch_is_no_reason_to_give_up():
    damaged = set(range(100, 160))  # a folder whose copying was interrupted
    assert all(Skipping(Numbers(1000, damaged)).load(index).conditions["index"] not in damaged for index in damaged)


@pytest.mark.parametrize("size", [1, 2, 50])
def test_data_of_which_nothing_can_be_read_are_refused(size):
    with pytest.raises(MediaError, match="number 0 is damaged") as caught:
        Skipping(Numbers(size, set(range(size)))).load(0)
    assert f"none of {min(NUM_DRAWN, size - 1)} others" in str(caught.value)


def test_the_only_sound_one_of_two_is_found():
    assert Skipping(Numbers(2, {1})).load(1).conditions["index"] == 0


def test_a_fingerprint_can_be_taken_where_examples_are_damaged():
    assert Skipping(Numbers(9, {2})).fingerprint() != Skipping(Numbers(9, {3})).fingerprint()
    assert Skipping(Numbers(9, set())).fingerprint() == Numbers(9, set()).fingerprint()


@FORKS
def test_neither_workers_nor_history_change_what_is_shown(untouched):
    everything = loaded({1, 2, 11}, range(12))
    assert loaded({1, 2, 11}, range(12), num_workers=2) == everything
    assert loaded({1, 2, 11}, range(7, 12)) == everything[7:]
    left_out = [index for batch in everything for _, damaged in batch for index in damaged]
    assert {1, 2, 11} == set(left_out) and len(left_out) >= 6  # in every epoch


@FORKS
def test_a_worker_that_hangs_is_given_up():
    with pytest.raises(MediaError, match=r"example \d: not loaded within 1 seconds.*train\.load_timeout"):
        list(batches(Sleeping(4, ()), DataOrder(0, 4, 4), range(1), 1, load_timeout=1.0))


# ---- runs

@pytest.fixture
def pictures(tmp_path):
    """Two classes of small pictures; the first file is empty, and another one cut short."""
    rng = np.random.default_rng(0)
    for number in range(NUM_PICTURES):
        path = tmp_path / "pictures" / ("cats" if number % 2 else "ants") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    (tmp_path / "pictures/ants/00.png").write_bytes(b"")
    short = tmp_path / "pictures/cats/07.png"
    short.write_bytes(short.read_bytes()[:120])
    return tmp_path / "pictures"


@pytest.fixture
def recipe(make_recipe, pictures):
    return lambda *overrides, **options: make_recipe(
        "data.kind=image-folder", f"data.root={pictures}", "data.size=8", "train.steps=9", "train.batch_size=4",
        "checkpoint.every=3", *overrides, **options)


def records(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def left_out(run):
    return [record for record in records(run) if record.get("event") == "left_out"]


def weights(run):
    return Pipeline.from_pretrained(run, device="cpu").model.state_dict()


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def test_a_run_lists_each_file_that_it_left_out_once(recipe, tmp_path):
    run = tmp_path / "run"
    Trainer(recipe("train.on_error=skip"), device="cpu").fit(run)  # nine steps of four: three epochs
    events = left_out(run)
    assert len(events) == 2 and {event["example"] for event in events} == {0, 9}
    assert any("00.png" in event["reason"] and "empty" in event["reason"] for event in events)
    assert any("07.png" in event["reason"] for event in events)
    assert [record["left_out"] for record in records(run) if "loss" in record][-1] == 2


def test_what_is_left_out_while_the_data_are_measured_is_listed_too(recipe, tmp_path):
    Trainer(recipe("train.on_error=skip", "train.steps=1", measured=True), device="cpu").fit(tmp_path / "run")
    assert [(event["step"], event["example"]) for event in left_out(tmp_path / "run")] == [(0, 0), (0, 9)]


def test_a_run_that_is_resumed_leaves_out_the_same(recipe, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(recipe("train.on_error=skip", "checkpoint.keep=3"), device="cpu").fit(whole)
    shutil.copytree(whole, parts)
    for later in ("step_00000006", "step_00000009"):
        shutil.rmtree(parts / "checkpoints" / later)
    Trainer.resume(parts, device="cpu")
    assert same(weights(whole), weights(parts))
    assert left_out(whole) == left_out(parts) and len(left_out(whole)) == 2


def test_a_run_stops_at_a_damaged_file_and_says_how_to_go_on_without(recipe, tmp_path, pictures):
    Image.new("RGB", (8, 8)).save(pictures / "ants/00.png")  # the first is looked at before there is a run
    begins_well = (seed for seed in range(99)  # the other damaged file comes after the first checkpoint
                   if 9 not in [index for step in range(2) for _, index in DataOrder(seed, NUM_PICTURES, 4).places(step)])
    seed = next(begins_well)
    run = tmp_path / "run"
    with pytest.raises(MediaError, match=r"07\.png.*djepa resume .*run train\.on_error=skip"):
        Trainer(recipe(f"seed={seed}", "checkpoint.every=2"), device="cpu").fit(run)
    Trainer.resume(run, ["train.on_error=skip"], device="cpu")
    Trainer(recipe(f"seed={seed}", "train.on_error=skip"), device="cpu").fit(tmp_path / "from the start")
    assert same(weights(run), weights(tmp_path / "from the start"))


def test_data_of_which_nothing_can_be_read_stop_a_run_before_it_begins(recipe, tmp_path, pictures):
    for path in pictures.rglob("*.png"):
        path.write_bytes(b"no picture at all")
    with pytest.raises(MediaError, match="not a matter of a few damaged files"):
        Trainer(recipe("train.on_error=skip"), device="cpu").fit(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nobody_to_wait_for_is_refused(make_recipe):
    with pytest.raises(RecipeError, match="load_timeout=5 needs num_workers"):
        make_recipe("train.load_timeout=5")
    assert make_recipe("train.load_timeout=5", "train.num_workers=1").train.load_timeout == 5.0


# ---- a cache

@pytest.fixture
def encoding(recipe, tmp_path):
    from diffusers import AutoencoderKL

    from djepa.random import seeded

    with seeded(0, "autoencoder"):
        network = AutoencoderKL(block_out_channels=(4, 8), norm_num_groups=2, latent_channels=2,
                                down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    network.save_pretrained(tmp_path / "network", safe_serialization=True)
    return recipe("train.on_error=skip", "model.streams.image.tokenizer.kind=autoencoder",
                  f"model.streams.image.tokenizer.source={tmp_path / 'network'}")


def test_a_cache_says_what_it_left_out_and_trains_like_the_data(encoding, tmp_path):
    from djepa.cache import write_cache

    with pytest.raises(MediaError, match=r"00\.png"):
        write_cache(encoding.override(["train.on_error=raise"]), tmp_path / "refused", device="cpu")
    cache = write_cache(encoding, tmp_path / "cache", device="cpu", shard_size=5)
    assert sorted(Index.read(cache).left_out) == ["0", "9"] and len(Cached(root=str(cache))) == NUM_PICTURES
    from_cache = encoding.override(["data.kind=cached", f"data.root={cache}"])
    Trainer(encoding, device="cpu").fit(tmp_path / "plain")
    Trainer(from_cache, device="cpu").fit(tmp_path / "cached")
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "cached"))
