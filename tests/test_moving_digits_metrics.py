"""The figures of the moving-digits protocol mean what they say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import djepa
from digits_quality import load_protocol
from djepa_image.digits import Digits
from djepa_video.moving_digits import DIRECTIONS, MovingDigits
from moving_digits_metrics import Judge, changes, continuation, find_scan, places, points, shift_between, shifts
from moving_digits_quality import continued, levels, real_figures, summed_up

REAL = MovingDigits(split="heldout")


@pytest.fixture(scope="module")
def protocol():
    return load_protocol()


@pytest.fixture(scope="module")
def judge(protocol):
    return Judge(protocol)


def clip_of(index, **options):
    example = MovingDigits(split="heldout", **options).load(index)
    return levels(example.samples["video"]), int(example.conditions["digit"]), example.conditions["direction"]


def with_noise(clip, size, seed=0):
    return clip + np.random.default_rng(seed).normal(0.0, size, clip.shape)


def test_places_are_the_windows_of_the_wrapped_frame():
    frame = np.random.default_rng(0).random((16, 16))
    windows = places(frame)
    assert windows.shape == (256, 64)
    for place in (0, 37, 255):
        y, x = divmod(place, 16)
        np.testing.assert_array_equal(windows[place], np.roll(frame, (-y, -x), (0, 1))[:8, :8].ravel())


@given(st.integers(0, 1399), st.integers(0, 15), st.integers(0, 15))
@settings(max_examples=10)
def test_a_training_scan_is_found_wherever_it_is(protocol, index, y, x):
    scan = protocol.training[index]
    frame = np.zeros((16, 16))
    frame[:8, :8] = scan.reshape(8, 8)
    window, distance = find_scan(np.roll(frame, (y, x), (0, 1)), protocol.training)
    np.testing.assert_array_equal(window, scan)
    assert distance == pytest.approx(0.0, abs=1e-4)


def test_the_distance_counts_ink_outside_of_the_window(protocol):
    frame = np.zeros((16, 16))
    frame[:8, :8] = protocol.training[0].reshape(8, 8)
    frame[12, 12] = 5.0
    assert find_scan(frame, protocol.training)[1] == pytest.approx(5.0)


@given(st.integers(0, len(REAL) - 1), st.integers(-7, 7), st.integers(-7, 7))
@settings(max_examples=40)
def test_the_shift_of_a_rolled_frame_is_found_exactly(index, y, x):
    frame = levels(REAL.load(index).samples["video"])[0]
    assert shift_between(frame, np.roll(frame, (y, x), (0, 1))).tolist() == [y, x]


def test_frames_without_contrast_do_not_move_and_point_nowhere():
    moves = shifts(np.full((3, 16, 16), 4.0))
    assert moves.tolist() == [[0, 0], [0, 0]]
    assert not points(moves, "left").any()


@pytest.mark.parametrize(("direction", "step"), DIRECTIONS.items())
def test_a_shift_points_in_one_direction_only(direction, step):
    assert [name for name in DIRECTIONS if points(3 * np.array([step]), name)[0]] == [direction]


def test_points_allows_22_degrees_and_a_half():
    assert points(np.array([[2, 5], [-2, 5], [3, 5], [0, -1]]), "right").tolist() == [True, True, False, False]


def test_what_moves_unchanged_has_not_changed():
    clip, _, _ = clip_of(9)
    moves = shifts(clip)
    assert changes(clip, moves).max() == 0.0
    clip[4, 0, 0] += 3.0
    assert changes(clip, moves).tolist() == pytest.approx([0, 0, 0, 3, 3, 0, 0])


def test_real_clips_of_unseen_scans_are_read_as_well_as_the_scans(judge, protocol):
    real = real_figures(judge, MovingDigits(split="heldout", num_frames=2))  # all frames of a real clip are one, moved
    assert real["digit"] == pytest.approx(protocol.reader_accuracy, abs=0.01)
    assert real["digit"] >= 0.95
    assert real["direction"] == 1.0
    assert real["change"] == 0.0


@pytest.mark.parametrize("options", [{"speed": 2}, {"size": 20}, {"num_frames": 4}])
def test_other_speeds_and_sizes_are_read_too(judge, options):
    figures = [judge.figures(*clip_of(index, **options)) for index in range(0, 200, 9)]
    assert summed_up(figures)["direction"] == 1.0
    assert summed_up(figures)["digit"] >= 0.9


def test_noise_of_a_level_does_not_mislead_the_judge(judge):
    figures = []
    for index in range(0, 300, 9):
        clip, digit, direction = clip_of(index)
        figures.append(judge.figures(with_noise(clip, 1.0), digit, direction))
    assert summed_up(figures)["both"] >= 0.9
    assert summed_up(figures)["change"] == pytest.approx(1.0 * (2 * 256) ** 0.5, rel=0.05)


def test_another_digit_or_direction_is_wrong(judge):
    clip, digit, direction = clip_of(9 * 8 + 3)
    right = judge.figures(clip, digit, direction)
    assert (right.right_digit, right.right_direction) == (True, True)
    for other in set(range(10)) - {digit}:
        assert not judge.figures(clip[:2], other, direction).right_digit
    opposite = list(DIRECTIONS)[7]
    assert not judge.figures(clip, digit, opposite).right_direction


def test_a_digit_that_stands_still_or_jumps_about_does_not_move_as_asked(judge):
    clip, digit, direction = clip_of(8)
    assert not judge.figures(np.repeat(clip[:1], 8, axis=0), digit, direction).right_direction
    jumpy = [np.roll(clip[0], (3 * number % 7, 5 * number % 11), (0, 1)) for number in range(8)]
    assert judge.figures(np.array(jumpy), digit, direction).moves_right < 0.5


def test_a_real_clip_twice_as_long_is_the_ideal_continuation():
    for index in range(0, 200, 9):
        clip, _, direction = clip_of(index, num_frames=16)
        judged = continuation(clip, 8, direction)
        assert (judged.moves_right, judged.right_direction, judged.smooth) == (1.0, True, True)


def test_a_clip_that_turns_back_does_not_go_on_and_one_that_jumps_is_not_smooth():
    clip, _, direction = clip_of(9, num_frames=8)
    back = continuation(np.concatenate([clip, clip[::-1]]), 8, direction)
    assert not back.right_direction
    elsewhere = continuation(np.concatenate([clip, 16.0 - clip]), 8, direction)
    assert (elsewhere.right_direction, elsewhere.smooth) == (True, False)
    assert continued([back, elsewhere]) == {"goes_on": 0.5, "smooth": 0.5}


def test_levels_are_those_of_the_scans():
    scan = Digits(split="heldout").load(0).samples["image"].data
    clip = levels(REAL.load(0).samples["video"])
    assert sorted(clip[0].ravel().tolist())[-64:] == sorted(((scan + 1) * 8).flatten().tolist())
    assert torch.equal(torch.tensor(clip), torch.tensor(clip).round())


def test_the_shipped_model_shows_what_was_asked(judge):
    pipe = djepa.Pipeline.from_pretrained("video/moving-digits", device="cpu")
    asked = [{"digit": str(number % 10), "direction": direction} for number, direction in enumerate(2 * list(DIRECTIONS))]
    figures = summed_up(judge.figures(levels(sample), int(condition["digit"]), condition["direction"])
                        for sample, condition in zip(pipe.generate(asked, seed=0), asked, strict=True))
    assert figures["direction"] == 1.0 and figures["digit"] >= 0.8 and figures["fit_ratio"] < 25  # real clips: 18
