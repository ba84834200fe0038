"""A folder of real sound files as a dataset."""

import multiprocessing
import os
import pickle

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from djepa.errors import MediaError, UsageError
from djepa.train.data import DataOrder, batches
from djepa_audio.folder import AudioFolder

RATE = 8000
KINDS = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"),
         "mp3": ("MP3", "MPEG_LAYER_III")}


def written(path, data, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind, subtype = KINDS[path.suffix.lower().lstrip(".")]
    soundfile.write(path, data.T, rate, subtype, format=kind)
    return path


def ramp(path, seconds=1.0, rate=RATE):
    """Grows from -1 to 1: where a part was cut can be read off it."""
    return written(path, np.linspace(-1, 1, round(seconds * rate))[None], rate)


def sound(dataset, index=0, rng=None):
    return dataset.load(index, rng).samples["audio"].data


def test_sub_folders_are_classes_and_every_kind_of_file_is_found(tmp_path):
    for extension in KINDS:
        ramp(tmp_path / "cats" / f"a.{extension}")
    ramp(tmp_path / "ants" / "deep" / "er" / "A.WAV")
    dataset = AudioFolder(root=str(tmp_path), seconds=0.5, sample_rate=RATE)
    assert len(dataset) == 6 and dataset.classes() == {"label": ["ants", "cats"]}
    assert [dataset.load(index).conditions["label"] for index in range(6)] == ["ants"] + ["cats"] * 5
    for index in range(6):
        sample = dataset.load(index).samples["audio"]
        assert (sample.shape, sample.meta, sample.modality) == ((1, 4000), {"sample_rate": RATE}, "audio")


def test_hidden_and_other_files_are_skipped(tmp_path):
    for name in ("cats/a.wav", "cats/.hidden.wav", "cats/.folder/a.wav", ".git/a.wav", "beside.wav"):
        ramp(tmp_path / name)
    (tmp_path / "cats" / "notes.txt").write_text("not a sound")
    dataset = AudioFolder(root=str(tmp_path))
    assert (len(dataset), dataset.classes()) == (1, {"label": ["cats"]})


def test_without_sub_folders_there_is_no_condition(tmp_path):
    for name in "b.wav", "a.wav":
        ramp(tmp_path / name)
    dataset = AudioFolder(root=str(tmp_path), channels=2, seconds=0.25)
    assert (len(dataset), dataset.classes(), dataset.load(0).conditions) == (2, {}, {})
    assert sound(dataset).shape == (2, 6000)


def test_a_missing_an_empty_and_a_half_empty_root_are_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        AudioFolder(root=str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"no sounds \(.wav"):
        AudioFolder(root=str(tmp_path))
    (tmp_path / "dogs").mkdir()
    ramp(tmp_path / "cats" / "a.wav")
    with pytest.raises(UsageError, match="dogs"):
        AudioFolder(root=str(tmp_path))


@pytest.mark.parametrize("options", [
    {"seconds": 0}, {"seconds": -1.0}, {"seconds": float("nan")}, {"seconds": 1e-9}, {"sample_rate": 0}, {"sample_rate": 0.5},
    {"channels": 3}, {"crop": "middle"}, {"short": "loop"},
])
def test_settings_that_cannot_be_are_refused(tmp_path, options):
    ramp(tmp_path / "a.wav")
    with pytest.raises(UsageError, match=next(iter(options))):
        AudioFolder(root=str(tmp_path), **options)


def test_a_damaged_sound_is_named(tmp_path):
    path = ramp(tmp_path / "cats" / "broken.wav")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(MediaError, match=r"broken\.wav.*cut short"):
        AudioFolder(root=str(tmp_path)).load(0)


def test_without_a_generator_the_middle_is_shown(tmp_path):
    ramp(tmp_path / "a.wav")
    for crop in "center", "random":
        data = sound(AudioFolder(root=str(tmp_path), seconds=0.5, sample_rate=RATE, crop=crop))
        torch.testing.assert_close(data, torch.linspace(-1, 1, 8000)[None, 2000:6000], rtol=0, atol=1e-3)


def test_draws_come_from_the_generator_alone_and_reach_both_ends(tmp_path):
    ramp(tmp_path / "a.wav")
    dataset = AudioFolder(root=str(tmp_path), seconds=0.25, sample_rate=RATE)
    for seed in range(5):
        assert torch.equal(*(sound(dataset, 0, np.random.default_rng(seed)) for _ in range(2)))
    rng = np.random.default_rng(0)
    first = [sound(dataset, 0, rng)[0, 0].item() for _ in range(200)]
    assert min(first) < -0.95 and 0.45 < max(first) <= 0.501 and len(set(first)) > 100


def test_a_whole_file_is_shown_from_its_first_sample_to_its_last(tmp_path):
    ramp(tmp_path / "a.wav")
    dataset = AudioFolder(root=str(tmp_path), seconds=1.0, sample_rate=RATE)
    data = sound(dataset, 0, np.random.default_rng(0))
    torch.testing.assert_close(data, torch.linspace(-1, 1, 8000)[None], rtol=0, atol=1e-3)


def test_short_sounds_are_padded_with_silence_or_refused(tmp_path):
    ramp(tmp_path / "short.wav", seconds=0.5)
    data = sound(AudioFolder(root=str(tmp_path), seconds=1.0, sample_rate=RATE), 0, np.random.default_rng(0))
    torch.testing.assert_close(data[0, :4000], torch.linspace(-1, 1, 4000), rtol=0, atol=1e-3)
    assert data.shape == (1, 8000) and data[0, 4000:].abs().max() == 0
    with pytest.raises(MediaError, match=r"short\.wav.* 0\.500 s, less than the 1\.000 s"):
        AudioFolder(root=str(tmp_path), seconds=1.0, sample_rate=RATE, short="error").load(0)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([8000, 16000, 22050, 44100]), st.sampled_from([8000, 11025, 22050, 48000]), st.integers(1, 3),
       st.floats(0.01, 0.4), st.floats(0.01, 0.4), st.integers(0, 99))
def test_any_file_gives_any_length(tmp_path, rate, new_rate, channels, has, wanted, seed):
    written(tmp_path / "a.wav", np.full((channels, round(has * rate)), 0.25), rate)
    dataset = AudioFolder(root=str(tmp_path), seconds=wanted, sample_rate=new_rate, short="pad")
    data = sound(dataset, 0, np.random.default_rng(seed))
    assert data.shape == (1, round(wanted * new_rate))
    inner = data[0, 200:max(200, round(min(has, wanted) * new_rate) - 200)]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.25), rtol=0, atol=0.01)


def test_views_can_be_counted_where_nothing_is_drawn(tmp_path):
    ramp(tmp_path / "a.wav")
    assert AudioFolder(root=str(tmp_path), crop="center").num_views() == 1
    assert AudioFolder(root=str(tmp_path), crop="random").num_views() is None


def test_the_fingerprint_follows_the_files(tmp_path):
    path = ramp(tmp_path / "cats" / "a.wav")
    first = AudioFolder(root=str(tmp_path)).fingerprint()
    assert AudioFolder(root=str(tmp_path)).fingerprint() == first
    ramp(path, 2.0)
    second = AudioFolder(root=str(tmp_path)).fingerprint()
    path.rename(path.with_name("b.wav"))
    assert len({first, second, AudioFolder(root=str(tmp_path)).fingerprint()}) == 3


def test_instances_pickle(tmp_path):
    ramp(tmp_path / "cats" / "a.wav")
    dataset = AudioFolder(root=str(tmp_path), seconds=0.5)
    assert torch.equal(sound(pickle.loads(pickle.dumps(dataset))), sound(dataset))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_worker_processes_see_what_this_process_sees(tmp_path, method, monkeypatch):
    for number in range(3):
        written(tmp_path / "cats" / f"{number}.flac", np.random.default_rng(number).uniform(-1, 1, (1, 8000)), RATE)
    dataset = AudioFolder(root=str(tmp_path), seconds=0.1, sample_rate=11025)
    order = DataOrder(0, len(dataset), 4)
    here = [sounds(examples) for examples in batches(dataset, order, range(2), num_workers=0)]  # in this process first
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        there = [sounds(examples) for examples in batches(dataset, order, range(2), num_workers=1)]
    finally:
        multiprocessing.set_start_method(before, force=True)
    torch.testing.assert_close(there, here, rtol=0, atol=0)


def sounds(examples):
    return torch.stack([example.samples["audio"].data for example in examples])


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts open files in /proc")
def test_five_hundred_examples_leave_nothing_open(tmp_path):
    for extension in KINDS:
        ramp(tmp_path / "cats" / f"a.{extension}")
    dataset = AudioFolder(root=str(tmp_path), seconds=0.2, sample_rate=RATE)
    rng = np.random.default_rng(0)
    sound(dataset, 0, rng)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(500):
        sound(dataset, number % len(dataset), rng)
    assert len(os.listdir("/proc/self/fd")) == before
