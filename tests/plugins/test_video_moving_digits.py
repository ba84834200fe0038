"""Digits that move over a canvas without borders."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from djepa.errors import UsageError
from djepa.plugins import host, reset
from djepa_image.digits import Digits
from djepa_video.moving_digits import DIRECTIONS, MovingDigits, glide


@pytest.fixture(scope="module")
def clips():
    return MovingDigits(split="heldout")


def test_it_is_found_by_its_name():
    assert host().get("dataset", "moving-digits") is MovingDigits


def test_every_scan_moves_in_every_direction(clips):
    assert len(clips) == 397 * 8
    assert clips.classes() == {"digit": list("0123456789"), "direction": list(DIRECTIONS)}
    scans = Digits(split="heldout")
    seen = [clips.load(index).conditions for index in range(80)]
    assert [(one["digit"], one["direction"]) for one in seen] == [
        (scans.load(scan).conditions["label"], direction) for scan in range(10) for direction in DIRECTIONS]


def test_a_clip_is_what_the_video_modality_expects(clips):
    sample = clips.load(3).samples["video"]
    assert (sample.shape, sample.data.dtype) == ((1, 8, 16, 16), torch.float32)
    assert (sample.modality, sample.meta) == ("video", {"fps": 8.0})
    assert (sample.data.min(), sample.data.max()) == (-1, 1)


@given(st.integers(0, 397 * 8 - 1), st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(13, 20), st.integers(1, 3))
@settings(max_examples=30)
def test_each_frame_is_the_one_before_it_moved_along(index, seed, speed, size, num_frames):
    moving = MovingDigits(split="heldout", num_frames=num_frames, size=size, speed=speed)
    example = moving.load(index, np.random.default_rng(seed))
    step = tuple(speed * part for part in DIRECTIONS[example.conditions["direction"]])
    frames = example.samples["video"].data[0]
    assert frames.shape == (num_frames, size, size)
    for before, after in pairwise(frames):
        assert torch.equal(before.roll(step, dims=(0, 1)), after)


def test_the_first_frame_is_the_scan_somewhere_on_paper(clips):
    scan = Digits(split="heldout").load(5).samples["image"].data[0]
    placed = torch.full((16, 16), -1.0)
    placed[:8, :8] = scan
    frame = clips.load(5 * 8).samples["video"].data[0, 0]
    assert any(torch.equal(placed.roll((y, x), dims=(0, 1)), frame) for y in range(16) for x in range(16))


def test_down_is_where_y_grows():
    dot = torch.ones(1, 1)
    assert glide(dot, (15, 4), DIRECTIONS["down"], 2, 16, 1)[0, 1].argmax() == 4  # out at the bottom, in at the top
    assert glide(dot, (0, 15), DIRECTIONS["up-right"], 2, 16, 1)[0, 1].argmax() == 15 * 16


def test_without_a_generator_an_example_never_changes_and_with_one_only_its_start_does(clips):
    fixed = clips.load(9).samples["video"].data
    assert torch.equal(clips.load(9).samples["video"].data, fixed)
    drawn = [clips.load(9, np.random.default_rng(seed)) for seed in range(20)]
    assert {tuple(example.conditions.items()) for example in drawn} == {tuple(clips.load(9).conditions.items())}
    assert len({example.samples["video"].data.numpy().tobytes() for example in drawn}) > 10
    assert torch.equal(clips.load(9, np.random.default_rng(3)).samples["video"].data, drawn[3].samples["video"].data)


def test_fixed_starts_are_spread_over_the_canvas(clips):
    filled = torch.stack([clips.load(index).samples["video"].data[0, 0] for index in range(0, len(clips), 5)]) + 1.0
    ink = filled.mean(dim=0)
    assert ink.min() > 0.5 * ink.max()


def test_on_a_lattice_digits_start_at_its_points():
    moving, scan = MovingDigits(split="heldout", lattice=4), Digits(split="heldout").load(1).samples["image"].data[0]
    views = {moving.view(8, number).samples["video"].data[0, 0].numpy().tobytes() for number in range(moving.num_views())}
    starts = [glide(scan, (y, x), (0, 1), 1, 16, 1)[0, 0].numpy().tobytes() for y in range(0, 16, 4) for x in range(0, 16, 4)]
    assert (moving.num_views(), views) == (16, set(starts))


def test_views_are_all_the_starts_and_load_draws_one_of_them(clips):
    views = {clips.view(9, number).samples["video"].data.numpy().tobytes() for number in range(clips.num_views())}
    assert len(views) == clips.num_views() == 256
    assert clips.load(9).samples["video"].data.numpy().tobytes() == clips.view(9, 0).samples["video"].data.numpy().tobytes()
    assert clips.load(9, np.random.default_rng(1)).samples["video"].data.numpy().tobytes() in views


def test_the_fingerprint_tells_splits_and_options_apart_and_says_the_same_twice():
    kinds = [{}, {"split": "heldout"}, {"num_frames": 4}, {"size": 20}, {"speed": 2}, {"fps": 4.0}, {"lattice": 2}]
    prints = [MovingDigits(**options).fingerprint() for options in kinds]
    assert len(set(prints)) == len(kinds)
    assert MovingDigits(size=16).fingerprint() == prints[0]


def test_it_travels_to_other_processes(clips):
    copy = pickle.loads(pickle.dumps(clips))
    assert torch.equal(copy.load(11).samples["video"].data, clips.load(11).samples["video"].data)


@pytest.mark.parametrize(("options", "message"), [
    ({"split": "tests"}, "no split 'tests'"), ({"num_frames": 0}, "num_frames=0"), ({"size": 7}, "size=7"),
    ({"speed": 0}, "speed=0"), ({"speed": 8}, "below 8"), ({"fps": 0.0}, "fps=0"), ({"fps": float("nan")}, "fps=nan"),
    ({"lattice": 0}, "lattice=0"), ({"lattice": 5}, "does not divide"),
])
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        MovingDigits(**options)


def test_there_is_no_example_beyond_the_last(clips):
    for index in (len(clips), -1):
        with pytest.raises(IndexError):
            clips.load(index)


def test_without_the_scans_it_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("DJEPA_PLUGINS_OFF", "image")
    reset()
    try:
        with pytest.raises(UsageError, match=r"dataset 'digits'.*plugin 'image'"):
            MovingDigits()
    finally:
        reset()
