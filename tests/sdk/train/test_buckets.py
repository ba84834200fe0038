"""Buckets: full batches of nearly one length, all examples equally often, and still a pure function of seed and step."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from djepa import Recipe, Trainer
from djepa.dataset import Dataset, Example
from djepa.errors import RecipeError, UsageError
from djepa.skipping import Skipping
from djepa.tokens import Sample
from djepa.train.buckets import BLOCK, bucket_numbers, data_order
from djepa.train.data import DataOrder, batches

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=60)
BUCKETS = st.integers(1, 6) | st.lists(st.integers(1, 30), min_size=1, max_size=5, unique=True).map(sorted)
CASES = {"seed": st.integers(0, 2**63 - 1), "lengths": LENGTHS, "batch_size": st.integers(1, 9), "buckets": BUCKETS}


class Lines(Dataset):
    """Example `i` is as long as its length says."""

    def __init__(self, lengths):
        self._lengths = lengths

    def __len__(self):
        return len(self._lengths)

    def load(self, index, rng=None):
        drawn = 0.0 if rng is None else rng.random()
        return Example({"line": Sample(torch.full((1, self._lengths[index]), index + drawn))})

    def lengths(self):
        return np.array(self._lengths, dtype=float)


@given(**CASES)
def test_every_batch_is_full_and_of_one_bucket(seed, lengths, batch_size, buckets):
    order = data_order(Lines(lengths), seed, batch_size, buckets)
    numbers = bucket_numbers(np.array(lengths, dtype=float), buckets)
    for step in range(2 * len(lengths)):
        places = order.places(step)
        assert len(places) == batch_size and len({numbers[index] for _, index in places}) == 1


@given(**CASES, num_steps=st.integers(1, 100))
def test_no_example_of_a_bucket_is_shown_again_before_all_were(seed, lengths, batch_size, buckets, num_steps):
    order = data_order(Lines(lengths), seed, batch_size, buckets)
    numbers = bucket_numbers(np.array(lengths, dtype=float), buckets)
    flat = [place for step in range(num_steps) for place in order.places(step)]
    for bucket in range(numbers.max() + 1):
        members = set(np.flatnonzero(numbers == bucket).tolist())
        shown = [place for place in flat if place[1] in members]
        for start in range(0, len(shown), len(members)):
            turn = shown[start : start + len(members)]
            assert {epoch for epoch, _ in turn} == {start // len(members)}  # what augmentation is keyed by
            assert len({index for _, index in turn}) == len(turn)


@given(**CASES)
def test_all_examples_are_shown_equally_often(seed, lengths, batch_size, buckets):
    order = data_order(Lines(lengths), seed, batch_size, buckets)
    shown = [index for step in range(len(lengths)) for _, index in order.places(step)]
    assert np.bincount(shown, minlength=len(lengths)).tolist() == [batch_size] * len(lengths)


@given(seed=st.integers(0, 99), lengths=st.lists(st.integers(1, 9), min_size=100, max_size=400), data=st.data())
@settings(max_examples=20)
def test_buckets_keep_pace(seed, lengths, data):
    order = data_order(Lines(lengths), seed, 4, 3)
    numbers = bucket_numbers(np.array(lengths, dtype=float), 3)
    num_steps = data.draw(st.integers(1, len(lengths)))
    turns = [numbers[order.places(step)[0][1]] for step in range(num_steps)]
    for bucket, size in enumerate(np.bincount(numbers)):
        assert abs(turns.count(bucket) - num_steps * size / len(lengths)) <= BLOCK


@given(**CASES, first=st.integers(0, 500))
def test_a_step_depends_on_nothing_but_seed_and_step(seed, lengths, batch_size, buckets, first):
    order = data_order(Lines(lengths), seed, batch_size, buckets)
    for step in (0, 7, first + 1):
        order.places(step)
    assert order.places(first) == data_order(Lines(lengths), seed, batch_size, buckets).places(first)


def test_one_bucket_is_the_order_without_buckets():
    plain, one = DataOrder(3, 20, 4), data_order(Lines(list(range(1, 21))), 3, 4, 1)
    assert [one.places(step) for step in range(12)] == [plain.places(step) for step in range(12)]


def test_seeds_and_epochs_differ_and_turns_are_shuffled():
    lengths = [1 + number % 4 for number in range(256)]
    numbers = bucket_numbers(np.array(lengths, dtype=float), 4)
    orders = [data_order(Lines(lengths), seed, 8, 4) for seed in (0, 1)]
    turns = [[int(numbers[order.places(step)[0][1]]) for step in range(64)] for order in orders]
    assert turns[0] != turns[1] and any(turns[0][step] == turns[0][step + 1] for step in range(63))
    assert [turn.count(bucket) for turn in turns for bucket in range(4)] == [16] * 8


@given(lengths=LENGTHS, buckets=BUCKETS)
def test_buckets_are_ranges_of_lengths(lengths, buckets):
    numbers = bucket_numbers(np.array(lengths, dtype=float), buckets)
    ordered = numbers[np.argsort(lengths, kind="stable")]
    assert ordered.tolist() == sorted(numbers) and set(numbers) == set(range(max(numbers) + 1))
    assert all(len({int(number) for number in numbers[np.array(lengths) == length]}) == 1 for length in lengths)


def test_limits_belong_to_the_bucket_below_and_files_without_a_length_to_the_middle():
    assert bucket_numbers(np.array([1.0, 2.0, 2.5, 9.0, np.nan]), [2.0, 3.0]).tolist() == [0, 0, 1, 2, 1]
    assert bucket_numbers(np.array([np.nan, np.nan]), 3).tolist() == [0, 0]


def test_what_counts_as_padding_falls():
    rng = np.random.default_rng(0)
    lengths = rng.gamma(4.0, 60.0, 2000).astype(int) + 10

    def padding(buckets):
        order = data_order(Lines(lengths.tolist()), 0, 16, buckets)
        sizes = [[lengths[index] for _, index in order.places(step)] for step in range(250)]
        return 1 - sum(map(sum, sizes)) / sum(16 * max(batch) for batch in sizes)

    assert padding(None) > 0.45 and padding(8) < 0.15 and padding(32) < 0.07


def test_lengths_that_cannot_be_told_are_refused(make_recipe, tmp_path):
    with pytest.raises(UsageError, match=r"train\.buckets: this dataset cannot tell"):
        Trainer(make_recipe("train.buckets=3"), device="cpu").fit(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for value, words in (("0", r"train\.buckets : expected a positive number"), ("[3, 2]", "rise"), ("[]", "at least one")):
        with pytest.raises(RecipeError, match=words):
            make_recipe(f"train.buckets={value}")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_workers_and_a_wrapper_change_nothing():
    dataset = Lines([1 + number % 5 for number in range(23)])

    def loaded(one, num_workers):
        order = data_order(one, 5, 4, 3)
        return [[example.samples["line"].data.tolist() for example in examples]
                for examples in batches(one, order, range(3, 12), num_workers)]

    assert loaded(dataset, 2) == loaded(dataset, 0) == loaded(Skipping(dataset), 0)


def test_a_run_with_buckets_is_resumed_as_if_it_had_never_stopped(tmp_path, monkeypatch):
    """Sounds of many lengths: the run in two parts, and the run in one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user cache"))
    root = tmp_path / "corpus"
    (root / "wavs").mkdir(parents=True)
    (root / "metadata.csv").write_text("".join(f"{name}|{name}|{name}\n" for name in map(str, range(12))))
    for number in range(12):
        sound = np.sin(np.arange(2000 + 1500 * (number % 6)) / (5 + number)) / 2
        soundfile.write(root / "wavs" / f"{number}.wav", sound, 22050)
    recipe = Recipe.load("audio/ljspeech", [
        f"data.root={root}", "data.num_heldout=0", "data.min_seconds=0", "model.conditions=null", "preview.conditions=null",
        "train.buckets=3", "train.steps=6", "train.batch_size=2", "train.micro_batch_size=null", "train.num_workers=0",
        "train.log_every=1", "checkpoint.every=3", "checkpoint.keep=2", "preview.every=0", "model.width=32",
        "model.num_heads=2", "model.predictor_num_heads=2", "model.predictor_width=32", "model.encoder_depth=1",
        "model.predictor_depth=1",
        "model.streams.audio.head.depth=1", "model.streams.audio.head.width=32"])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(recipe, device="cpu").fit(whole)
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "step_00000006")
    Trainer.resume(parts, device="cpu")

    def losses(run):
        records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        return [record["loss"] for record in records if "loss" in record]

    assert losses(whole) == losses(parts) and len(losses(whole)) == 6
