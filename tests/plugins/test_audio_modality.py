"""The audio modality and the plugin that registers it."""

import base64
import importlib
import io
import re
import subprocess
import sys

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import djepa_audio
from djepa import build
from djepa.dataset import Dataset
from djepa.errors import UsageError
from djepa.modality import Modality
from djepa.recipe.schema import StreamSpec
from djepa.tokens import Sample, Samples
from djepa_audio.files import read
from djepa_audio.modality import PAUSE, Audio
from djepa_audio.spectrogram import GAP, ROWS, picture, spectrogram, write_spectrogram

MODALITY = Audio()
RATE = 8000


def tone(hertz, seconds=0.5, rate=RATE, channels=1, loudness=0.5):
    time = torch.arange(round(seconds * rate)) / rate
    return Sample(loudness * torch.sin(2 * torch.pi * hertz * time).repeat(channels, 1), {"sample_rate": rate}, "audio")


def decoded(text, content=Image.open):
    return content(io.BytesIO(base64.b64decode(text, validate=True)))


# ---- the plugin

def test_every_registered_name_leads_to_a_class_of_its_kind():
    offers = {}

    def register_as(kind):
        return lambda name, target, *, summary="": offers.update({(kind, name): (target, summary)})

    djepa_audio.djepa_register_modalities(register_as(Modality))
    djepa_audio.djepa_register_datasets(register_as(Dataset))
    assert {name for _, name in offers} >= {"audio", "audio-folder", "ljspeech"}
    for (kind, _), (target, summary) in offers.items():
        module, _, attribute = target.partition(":")
        assert issubclass(getattr(importlib.import_module(module), attribute), kind)
        assert summary


def test_the_plugin_is_light():
    script = "import sys, djepa_audio\nprint([name for name in ('torch', 'numpy', 'soundfile') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_resampling_alone_needs_torchaudio():
    script = ("import sys, djepa_audio.modality, djepa_audio.folder, djepa_audio.ljspeech\n"
              "print([name for name in ('torchaudio', 'av', 'librosa') if name in sys.modules])")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# ---- the modality

@pytest.mark.parametrize("extension", Audio.extensions)
def test_save_and_load(tmp_path, extension):
    sample = MODALITY.example(3)
    sample.meta.update(seed=3, condition={"text": "cat"})
    back = MODALITY.load(MODALITY.save(sample, tmp_path / f"deep/er/a.{extension.upper()}"))
    assert (back.meta, back.modality, back.data.shape) == (sample.meta, "audio", sample.data.shape)
    error = (back.data - sample.data).abs()
    assert error.max() == 0 if extension in ("wav", "flac") else error.mean() < 0.02


def test_an_unknown_extension_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'flac'"):
        MODALITY.save(MODALITY.example(0), tmp_path / "a.flax")
    with pytest.raises(UsageError, match="audio files end in"):
        MODALITY.save(MODALITY.example(0), tmp_path / "a.png")
    with pytest.raises(UsageError, match="audio sheets end in"):
        MODALITY.sheet([MODALITY.example(0)], tmp_path / "a.jpg")


def test_examples_depend_on_the_seed_alone():
    first, again, other = (MODALITY.example(seed).data for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (1, 6000) and first.dtype == torch.float32
    assert 0.5 < first.abs().max() <= 1


def test_examples_fit_the_default_tokenizer():
    sample = MODALITY.example(0)
    tokenizer = build.tokenizer(StreamSpec(modality="audio", shape=sample.shape))
    back = tokenizer.decode(tokenizer.encode(sample))
    assert (back.shape, back.meta, back.modality) == (sample.shape, sample.meta, "audio")


def test_files_by_way_of_the_samples(tmp_path):
    samples = Samples([MODALITY.example(0), MODALITY.example(1)])
    assert [path.name for path in samples.save(tmp_path)] == ["00000.wav", "00001.wav"]
    assert samples.grid(tmp_path / "all.png").stat().st_size > 1000


# ---- spectrograms

@pytest.mark.parametrize("hertz", [100, 440, 1000, 3000])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_tone_is_a_line_at_its_height(hertz, rate):
    levels = spectrogram(tone(hertz, rate=rate).data, rate)
    assert levels.shape[0] == ROWS and levels.shape[1] in (100, 101)
    top = 2595 * torch.log10(torch.tensor(1 + rate / 2 / 700))
    height = float(2595 * torch.log10(torch.tensor(1 + hertz / 700)) / top) * (ROWS - 1)
    middle = levels[:, 50]
    assert ROWS - 1 - int(middle.argmax()) == pytest.approx(height, abs=2)
    assert middle.max() > 0.95 and middle.median() < 0.5


def test_a_click_is_a_line_at_its_time():
    data = torch.zeros(1, RATE)
    data[0, 6000] = 1.0
    levels = spectrogram(data, RATE)
    assert int(levels.mean(0).argmax()) == pytest.approx(150, abs=4)  # of 200 columns
    assert levels[:, :100].max() == 0


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 2), st.integers(1, 30_000), st.sampled_from([1, 100, 8000, 22050, 192_000]), st.floats(0, 1))
@example(1, 2311, 22050, 0.5)
def test_every_sound_has_a_picture(channels, length, rate, loudness):
    data = loudness * torch.randn(channels, length, generator=torch.Generator().manual_seed(length))
    levels = spectrogram(data, rate)
    rows, columns = levels.shape
    assert rows == ROWS and 1 <= columns <= min(length, 2000)
    if rate >= 8000 and length / rate < 9:
        wanted = length / rate * 200
        assert abs(columns - wanted) <= 1 + 0.01 * wanted  # a column that is begun counts, and is a whole number of samples
    assert bool(((levels >= 0) & (levels <= 1)).all())


def test_silence_is_dark_and_loudness_bright():
    silent, loud = picture(Sample(torch.zeros(1, 4000), {"sample_rate": RATE})), picture(tone(1000))
    assert silent.getextrema() == ((8, 8), (8, 8), (24, 24))
    assert max(channel[1] for channel in loud.getextrema()) > 240


def test_a_spectrogram_is_written(tmp_path):
    path = write_spectrogram(tone(440), tmp_path / "deep" / "a.png")
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (100, ROWS))


@pytest.mark.parametrize("sample", [Sample(torch.zeros(1, 100), {}), Sample(torch.zeros(100), {"sample_rate": RATE}),
                                    Sample(torch.zeros(3, 100), {"sample_rate": RATE})])
def test_what_is_no_sound_is_not_drawn(tmp_path, sample):
    with pytest.raises(UsageError):
        write_spectrogram(sample, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


# ---- sheets

def test_a_sheet_shows_every_sound_in_its_place(tmp_path):
    samples = [tone(hertz, seconds) for hertz, seconds in ((200, 0.5), (800, 0.25), (3000, 0.5))]
    with Image.open(MODALITY.sheet(samples, tmp_path / "all.png", columns=2)) as image:
        sheet = image.copy()
    assert sheet.size == (2 * (100 + GAP) + GAP, 2 * (ROWS + GAP) + GAP)
    for number, sample in enumerate(samples):
        drawn = picture(sample)
        left, top = GAP + number % 2 * (100 + GAP), GAP + number // 2 * (ROWS + GAP)
        assert sheet.crop((left, top, left + drawn.width, top + ROWS)).tobytes() == drawn.tobytes()
    assert sheet.getpixel((150 + 2 * GAP + 1, 10)) == (128, 128, 128)  # after the end of the shorter one


def test_a_sheet_of_sound_plays_one_after_the_other(tmp_path):
    samples = [tone(200), tone(400, 0.25, 2 * RATE, channels=2), tone(800)]
    for seed, sample in enumerate(samples):
        sample.meta |= {"model": "m", "seed": seed}
    data, meta = read(MODALITY.sheet(samples, tmp_path / "all.wav"))
    pause = round(PAUSE * 2 * RATE)
    assert meta == {"model": "m", "sample_rate": 2 * RATE}
    assert data.shape == (2, 8000 + pause + 4000 + pause + 8000)
    torch.testing.assert_close(data[:, 8000 + pause:12_000 + pause], samples[1].data, rtol=0, atol=1e-6)
    assert data[:, 8000:8000 + pause].abs().max() == 0


@pytest.mark.parametrize("name", ["all.png", "all.wav"])
def test_sheets_that_cannot_be_are_refused(tmp_path, name):
    with pytest.raises(UsageError):
        MODALITY.sheet([], tmp_path / name)
    with pytest.raises(UsageError):
        MODALITY.sheet([tone(200)], tmp_path / "all.png", columns=0)
    assert not list(tmp_path.iterdir())


# ---- notebooks

def test_a_preview_is_a_player_and_a_picture():
    sample = tone(440)
    shown = MODALITY.preview(sample)
    assert set(shown) == {"text/html", "image/png"}
    sound = re.search(r'<audio controls src="data:audio/wav;base64,([^"]+)">', shown["text/html"])
    drawn = re.search(r'<img src="data:image/png;base64,([^"]+)">', shown["text/html"])
    assert sound and base64.b64decode(sound[1])[:4] == b"RIFF"
    assert drawn and decoded(drawn[1]).size == decoded(shown["image/png"]).size == (100, ROWS)


def test_a_list_shows_a_player_for_each():
    samples = Samples([tone(200), tone(400), tone(800)])
    shown = samples._repr_mimebundle_()
    assert shown["text/html"].count("<audio") == shown["text/html"].count("<img") == 3
    assert decoded(shown["image/png"]).size == (2 * (100 + GAP) + GAP, 2 * (ROWS + GAP) + GAP)
