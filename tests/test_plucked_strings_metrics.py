"""The figures of the plucked-strings protocol mean what they say."""

import numpy as np
import pytest

from djepa_audio.plucked_strings import NOTES, SAMPLE_RATE, TIMBRES, pluck
from plucked_strings_metrics import TimbreReader, cents, is_octave_error, is_right, pitch, seam, timbre_features

LENGTH = 8192
TIME = np.arange(LENGTH) / SAMPLE_RATE


def tone(frequency, harmonics=4):
    return sum(np.sin(2 * np.pi * frequency * number * TIME) / number for number in range(1, harmonics + 1)) * 0.3


def string(note, timbre, seed):
    return pluck(NOTES[note], TIMBRES[timbre], np.random.default_rng(seed)).numpy()


@pytest.fixture(scope="module")
def reader():
    asked = [timbre for timbre in TIMBRES for _ in range(24)]
    return TimbreReader([string(list(NOTES)[index % 24], timbre, index) for index, timbre in enumerate(asked)], asked)


@pytest.mark.parametrize("frequency", [131.0, 233.3, 490.0])
def test_pitch_is_the_fundamental(frequency):
    assert cents(pitch(tone(frequency), SAMPLE_RATE), frequency) == pytest.approx(0.0, abs=10.0)


def test_noise_and_silence_have_no_right_pitch():
    assert np.isnan(pitch(np.zeros(LENGTH), SAMPLE_RATE))
    assert not is_right(np.array([cents(float("nan"), 440.0)])).any()


def test_cents_count_a_hundred_for_a_semitone():
    assert cents(440.0 * 2 ** (1 / 12), 440.0) == pytest.approx(100.0)
    assert cents(220.0, 440.0) == pytest.approx(-1200.0)


def test_right_notes_and_octave_errors_exclude_each_other():
    off = np.array([0.0, 49.0, -50.0, 51.0, 1200.0, -1230.0, 2400.0, 1260.0, 600.0, np.nan])
    assert is_right(off).tolist() == [True, True, True] + [False] * 7
    assert is_octave_error(off).tolist() == [False] * 4 + [True] * 3 + [False] * 3


def test_timbres_of_new_strings_are_read(reader):
    asked = [timbre for timbre in TIMBRES for _ in range(12)]
    sounds = [string(list(NOTES)[2 * index % 24], timbre, 1000 + index) for index, timbre in enumerate(asked)]
    assert (reader.read(sounds) == np.array(asked)).mean() >= 0.97


def test_a_timbre_does_not_depend_on_loudness_or_onset():
    sound = string("A3", "steel", 0)
    np.testing.assert_allclose(timbre_features(0.1 * sound), timbre_features(sound), atol=1e-4)
    later = np.concatenate([np.zeros(512), sound[:-512]])  # four frames
    np.testing.assert_allclose(timbre_features(later), timbre_features(sound), atol=0.1)


def test_a_steel_string_without_its_brightness_is_no_steel_string(reader):
    sounds = [np.convolve(string("E4", "steel", seed), np.full(8, 1 / 8))[:LENGTH] for seed in range(8)]
    assert not (reader.read(sounds) == "steel").any()


def test_features_of_silence_are_finite():
    assert np.isfinite(timbre_features(np.zeros(LENGTH))).all()


@pytest.mark.parametrize("place", [2000, 3001, 4096])
def test_a_sound_that_goes_on_has_no_seam(place):
    assert seam(string("A3", "nylon", 2), place).flux <= 1.0
    steady = seam(tone(220.0), place)
    assert steady.flux <= 1.05 and steady.step <= 1.5  # nothing is larger than the 95th percentile by much


def test_a_step_is_a_click():
    sound = string("A3", "nylon", 2)
    sound[3000:] += 0.3
    found = seam(sound, 3000)
    assert found.step > 3 and found.flux > 1


def test_a_sound_that_starts_anew_shows_in_the_flux():
    sound = string("A3", "steel", 2)
    joined = np.concatenate([sound[:4000], string("D4", "steel", 3)[800:]])[:LENGTH]
    assert seam(joined, 4000).flux > 2


def test_what_is_too_quiet_to_be_heard_is_no_seam():
    sound = np.concatenate([string("A3", "muted", 1)[:4096], np.zeros(4096)])
    sound[6000:] += 1e-5
    found = seam(sound, 6000)
    assert found.step < 1 and found.flux < 1


def test_only_the_seam_counts():
    sound = string("A3", "nylon", 2)
    sound[4500:] += 0.3
    assert seam(sound, 3000).step <= 1.0
