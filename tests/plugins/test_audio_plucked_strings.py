"""Plucked strings: in tune, of a timbre, plucked anew by whoever draws."""

import pickle

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from djepa.errors import UsageError
from djepa.plugins import host
from djepa_audio.plucked_strings import LENGTH, LOUDNESS, MAX_ONSET, NOTES, SAMPLE_RATE, TIMBRES, PluckedStrings, pluck

STRINGS = PluckedStrings(per_class=2)
places = st.integers(0, len(STRINGS) - 1)
seeds = st.integers(0, 2**32 - 1)


def frequency_near(sound, note):
    """The strongest frequency within a semitone of a note, by a long transform."""
    spectrum, frequencies = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 2**20)), np.fft.rfftfreq(2**20, 1 / SAMPLE_RATE)
    near = slice(*np.searchsorted(frequencies, [note / 2 ** (1 / 12), note * 2 ** (1 / 12)]))
    return frequencies[near][spectrum[near].argmax()]


def test_it_is_found_by_its_name():
    assert host().get("dataset", "plucked-strings") is PluckedStrings


def test_every_note_comes_in_every_timbre_as_often():
    assert len(STRINGS) == 24 * 3 * 2
    assert STRINGS.classes() == {"note": list(NOTES), "timbre": ["nylon", "steel", "muted"]}
    seen = [tuple(STRINGS.load(index).conditions.values()) for index in range(len(STRINGS))]
    assert set(seen[:72]) == {(note, timbre) for note in NOTES for timbre in TIMBRES} and seen[:72] == seen[72:]


def test_notes_are_two_octaves_of_equal_temperament():
    assert (NOTES["A3"], NOTES["A4"]) == (220.0, 440.0)
    frequencies = list(NOTES.values())
    assert [*NOTES][:2] == ["C3", "C#3"] and [*NOTES][-1] == "B4"
    assert np.diff(1200 * np.log2(frequencies)) == pytest.approx(100.0)


@settings(deadline=None, max_examples=40)
@given(places, seeds)
def test_a_sound_is_what_the_audio_modality_expects(index, seed):
    sample = STRINGS.load(index, np.random.default_rng(seed)).samples["audio"]
    assert (sample.shape, sample.data.dtype) == ((1, LENGTH), torch.float32)
    assert (sample.modality, sample.meta) == ("audio", {"sample_rate": SAMPLE_RATE})
    assert LOUDNESS[0] <= float(sample.data.abs().max()) <= LOUDNESS[1] + 1e-6
    assert bool(sample.data[0, : int(MAX_ONSET * SAMPLE_RATE) + 50].any())


@settings(deadline=None, max_examples=40)
@given(places, seeds)
def test_the_fundamental_is_in_tune_to_two_cents(index, seed):
    example = STRINGS.load(index, np.random.default_rng(seed))
    note = NOTES[example.conditions["note"]]
    found = frequency_near(example.samples["audio"].data[0].numpy(), note)
    # A string that dies away within a tenth of a second has no sharper pitch than this.
    allowed = 8.0 if example.conditions["timbre"] == "muted" else 2.0
    assert abs(1200 * np.log2(found / note)) < allowed


@pytest.mark.parametrize("timbre", TIMBRES)
@pytest.mark.parametrize("note", ["C3", "F#3", "B4"])
def test_an_independent_tracker_hears_the_note(note, timbre):
    sound = pluck(NOTES[note], TIMBRES[timbre], np.random.default_rng(3)).numpy()
    frequency, voiced, _ = librosa.pyin(sound, fmin=100, fmax=640, sr=SAMPLE_RATE, frame_length=1024, hop_length=512)
    assert 1200 * np.log2(np.median(frequency[voiced]) / NOTES[note]) == pytest.approx(0.0, abs=10.0)


def test_the_fundamental_falls_by_60_db_in_the_time_of_its_timbre():
    for timbre in TIMBRES.values():
        sound = pluck(NOTES["A3"], timbre, np.random.default_rng(0)).double()
        wave = torch.exp(-2j * torch.pi * NOTES["A3"] / SAMPLE_RATE * torch.arange(len(sound)))
        start, elapsed = int((sound.abs() > 0.01).nonzero()[0]) + 400, round(min(0.3 * timbre.decay, 0.7) * SAMPLE_RATE)
        first, last = ((sound * wave)[place : place + 800].sum().abs() for place in (start, start + elapsed))  # 22 periods
        fallen = -60 * elapsed / SAMPLE_RATE / timbre.decay
        assert 20 * float((last / first).log10()) == pytest.approx(fallen, rel=0.15)


def test_timbres_differ_in_brightness_and_length():
    def brightness_and_length(timbre):
        sounds = torch.stack([pluck(220.0, TIMBRES[timbre], np.random.default_rng(seed)) for seed in range(8)])
        energy = torch.fft.rfft(sounds).abs().square().mean(0)
        late = sounds[:, LENGTH // 2 :].square().sum() / sounds.square().sum()
        return float((energy * torch.arange(len(energy))).sum() / energy.sum()), float(late)

    nylon, steel, muted = map(brightness_and_length, ("nylon", "steel", "muted"))
    assert muted[0] < nylon[0] < steel[0] / 1.5
    assert muted[1] < 0.01 < nylon[1] and 1.2 * nylon[1] < steel[1]


def test_without_a_generator_an_example_is_always_the_same_and_examples_differ():
    first, again, other = STRINGS.load(5), PluckedStrings(per_class=2).load(5), STRINGS.load(5 + 72)
    assert torch.equal(first.samples["audio"].data, again.samples["audio"].data)
    assert first.conditions == other.conditions
    assert not torch.equal(first.samples["audio"].data, other.samples["audio"].data)


@settings(deadline=None, max_examples=20)
@given(places, seeds)
def test_every_draw_comes_from_the_generator(index, seed):
    sounds = [STRINGS.load(index, np.random.default_rng(number)).samples["audio"].data for number in (seed, seed, seed + 1)]
    assert torch.equal(sounds[0], sounds[1]) and not torch.equal(sounds[0], sounds[2])


def test_it_can_be_sent_to_another_process():
    copy = pickle.loads(pickle.dumps(STRINGS))
    assert torch.equal(copy.load(7).samples["audio"].data, STRINGS.load(7).samples["audio"].data)


def test_the_fingerprint_tells_datasets_apart():
    assert STRINGS.fingerprint() == PluckedStrings(per_class=2).fingerprint() != PluckedStrings(per_class=3).fingerprint()


def test_no_examples_at_all_are_refused():
    with pytest.raises(UsageError, match="per_class must be at least 1; got 0"):
        PluckedStrings(per_class=0)
