"""Speech with its text: the layout of LJSpeech on made-up files, and a model trained on what a speech synthesizer says."""

import pickle
import shutil
import subprocess
import warnings

import numpy as np
import pytest
import soundfile
import torch

from djepa import Pipeline, Recipe, Trainer
from djepa.errors import ExtrapolationWarning, MediaError, UsageError
from djepa.random import seeded
from djepa.storage import newest_checkpoint
from djepa_audio.ljspeech import LJSpeech
from djepa_audio.modality import Audio

RATE = 22050
SENTENCES = ["Hello, world.", "How are you today?", "The quick brown fox jumps over the lazy dog.", "Bonjour – ça va?",
             "Seven times six is forty two.", "A bar was here.", "It rains.", "Nobody expects the unexpected."]
SPLITS = ("train", "heldout", "all")


def corpus(root, rows, seconds=0.25, rate=RATE):
    """A corpus of tones, each 0.05 s longer than the one before; rows are lines of metadata.csv."""
    (root / "wavs").mkdir(parents=True)
    (root / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for number, name in enumerate(dict.fromkeys(row.split("|")[0] for row in rows)):
        length = round((seconds + 0.05 * number) * rate)
        soundfile.write(root / "wavs" / f"{name}.wav", 0.5 * np.sin(2 * np.pi * 440 * np.arange(length) / rate), rate)
    return root


def rows(count):
    return [f"LJ-{number:03d}|Dr. {number}|Doctor number {number}" for number in range(count)]


def texts(dataset):
    return [dataset.load(index).conditions["text"] for index in range(len(dataset))]


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    """A user's cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user cache"))
    return tmp_path / "user cache" / "djepa" / "numbers"


# ---- the layout

def test_a_row_is_an_example_of_its_own_length(tmp_path):
    dataset = LJSpeech(root=str(corpus(tmp_path / "a", rows(4))), num_heldout=1)
    assert texts(dataset) == ["Doctor number 0", "Doctor number 1", "Doctor number 2"]
    samples = [dataset.load(index).samples["audio"] for index in range(3)]
    assert [sample.shape for sample in samples] == [(1, round((0.25 + 0.05 * number) * RATE)) for number in range(3)]
    assert all((sample.meta, sample.modality) == ({"sample_rate": RATE}, "audio") for sample in samples)
    assert dataset.classes() == {} and dataset.num_views() == 1
    rng = np.random.default_rng(0)
    assert torch.equal(dataset.load(1, rng).samples["audio"].data, samples[1].data)


def test_the_text_as_it_stands_or_written_out(tmp_path):
    root = str(corpus(tmp_path / "a", rows(2)))
    assert texts(LJSpeech(root=root, num_heldout=0, normalized=False)) == ["Dr. 0", "Dr. 1"]
    assert texts(LJSpeech(root=root, num_heldout=0, normalized=True)) == ["Doctor number 0", "Doctor number 1"]


def test_splits_share_nothing_and_leave_nothing(tmp_path):
    root = str(corpus(tmp_path / "a", rows(7)))
    train, heldout, everything = (texts(LJSpeech(root=root, num_heldout=3, split=split)) for split in SPLITS)
    assert (len(train), len(heldout)) == (4, 3) and train + heldout == everything


def test_lengths_are_filtered_within_their_split(tmp_path):
    root = str(corpus(tmp_path / "a", rows(6)))  # 0.25, 0.30 ... 0.50 s
    assert len(LJSpeech(root=root, num_heldout=2, min_seconds=0.29)) == 3
    assert len(LJSpeech(root=root, num_heldout=2, max_seconds=0.31)) == 2
    assert texts(LJSpeech(root=root, num_heldout=2, min_seconds=0.29, max_seconds=0.31)) == ["Doctor number 1"]
    with pytest.raises(UsageError, match=r"none of the 4 recordings.*'train'.*0\.6"):
        LJSpeech(root=root, num_heldout=2, min_seconds=0.6)


def test_quotes_marks_and_other_languages_are_kept_as_they_are(tmp_path):
    strange = ['a|"Open, he said|"Open", he said\r', "b|ça va? 日本|ça va? \u2028 日本", " c|x| y ", ""]
    root = corpus(tmp_path / "a", strange[:1])
    (root / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + "\n".join(strange).encode())
    for name in "b", " c":
        shutil.copy(root / "wavs" / "a.wav", root / "wavs" / f"{name}.wav")
    assert texts(LJSpeech(root=str(root), num_heldout=0)) == ['"Open", he said', "ça va? \u2028 日本", "y"]


def test_other_rates_and_stereo_are_converted(tmp_path):
    root = corpus(tmp_path / "a", rows(2), rate=16000)
    soundfile.write(root / "wavs" / "LJ-001.wav", np.full((8000, 2), (0.25, 0.75)), 16000)
    dataset = LJSpeech(root=str(root), num_heldout=0)
    assert dataset.load(0).samples["audio"].shape == (1, -(-4000 * RATE // 16000))
    sample = dataset.load(1).samples["audio"]
    assert sample.shape == (1, RATE // 2) and sample.data[0, 5000].item() == pytest.approx(0.5, abs=1e-3)


# ---- what is refused

def test_what_is_not_this_layout_is_named(tmp_path):
    root = corpus(tmp_path / "a", rows(2))
    with pytest.raises(UsageError, match=r"there is no .*nowhere"):
        LJSpeech(root=str(tmp_path / "nowhere"))
    (root / "metadata.csv").rename(root / "metadata.txt")
    with pytest.raises(UsageError, match=r"metadata\.csv'; root is"):
        LJSpeech(root=str(root))
    (root / "metadata.csv").write_text("\n \n")
    with pytest.raises(UsageError, match="lists no recordings"):
        LJSpeech(root=str(root))
    (root / "metadata.csv").write_bytes("a|grün|grün".encode("latin-1"))
    with pytest.raises(UsageError, match=r"not UTF-8.* byte 4"):
        LJSpeech(root=str(root))
    shutil.rmtree(root / "wavs")
    with pytest.raises(UsageError, match=r"there is no .*wavs"):
        LJSpeech(root=str(root))


def test_every_wrong_row_is_named_with_its_line(tmp_path):
    root = corpus(tmp_path / "a", rows(3))
    lines = ["LJ-000|x|y", "LJ-001|two columns", "", "LJ-009|x|y", "LJ-000|again|again", "LJ-002| |y", "LJ-001|a|b|c",
             "../a|x|y"]
    (root / "metadata.csv").write_text("\n".join(lines))
    with pytest.raises(UsageError) as caught:
        LJSpeech(root=str(root))
    for words in ("line 2 has 2 columns, not 3", "line 4: there is no wavs/LJ-009.wav",
                  "line 5 names 'LJ-000' again, after line 1", "line 6 (LJ-002) has an empty text",
                  "line 7 has 4 columns", "line 8: there is no wavs/../a.wav"):
        assert words in str(caught.value)


def test_of_many_wrong_rows_ten_are_named(tmp_path):
    root = corpus(tmp_path / "a", rows(1))
    (root / "metadata.csv").write_text("\n".join(["only one column"] * 25))
    with pytest.raises(UsageError, match=r"line 10 has 1 columns.*; and 15 more") as caught:
        LJSpeech(root=str(root))
    assert "line 11" not in str(caught.value)


@pytest.mark.parametrize("options", [{"split": "trian"}, {"num_heldout": 2}, {"num_heldout": -1}, {"sample_rate": 0}])
def test_settings_that_cannot_be_are_refused(tmp_path, options):
    root = str(corpus(tmp_path / "a", rows(2)))
    with pytest.raises(UsageError, match="Did you mean 'train'" if "split" in options else next(iter(options))):
        LJSpeech(root=root, **{"num_heldout": 0, **options})


def test_nothing_held_out_leaves_no_such_split(tmp_path):
    with pytest.raises(UsageError, match="none of the 0 recordings"):
        LJSpeech(root=str(corpus(tmp_path / "a", rows(2))), num_heldout=0, split="heldout")


def test_a_damaged_recording_is_named(tmp_path):
    root = corpus(tmp_path / "a", rows(2))
    path = root / "wavs" / "LJ-001.wav"
    path.write_bytes(path.read_bytes()[:1000])
    dataset = LJSpeech(root=str(root), num_heldout=0)
    with pytest.raises(MediaError, match=r"LJ-001\.wav.*cut short"):
        dataset.load(1)
    limited = LJSpeech(root=str(root), num_heldout=0, max_seconds=1.0)
    assert len(limited) == 2 and np.isnan(limited.lengths()).tolist() == [False, True]
    with pytest.raises(MediaError, match=r"LJ-001\.wav.*cut short"):
        limited.load(1)


def test_lengths_are_read_once_and_again_when_a_recording_changes(tmp_path, user_cache, monkeypatch):
    root = corpus(tmp_path / "a", rows(3))
    lengths = LJSpeech(root=str(root), num_heldout=0).lengths()
    assert lengths == pytest.approx([0.25, 0.3, 0.35], abs=1e-4) and len(list(user_cache.iterdir())) == 1
    with monkeypatch.context() as context:
        context.setattr("djepa_audio.ljspeech.opened", None)  # no header is looked at
        assert np.array_equal(LJSpeech(root=str(root), num_heldout=0).lengths(), lengths)
    soundfile.write(root / "wavs" / "LJ-001.wav", np.zeros(RATE), RATE)
    assert LJSpeech(root=str(root), num_heldout=0).lengths() == pytest.approx([0.25, 1.0, 0.35], abs=1e-4)
    for kept in user_cache.iterdir():
        kept.write_bytes(b"torn")
    assert LJSpeech(root=str(root), num_heldout=0).lengths()[1] == 1.0


def test_the_fingerprint_follows_texts_and_recordings(tmp_path):
    root = corpus(tmp_path / "a", rows(3))
    prints = [LJSpeech(root=str(root), num_heldout=0).fingerprint()]
    assert LJSpeech(root=str(root), num_heldout=0).fingerprint() == prints[0]
    (root / "metadata.csv").write_text("\n".join(rows(3)).replace("Doctor number 1", "Doctor one"))
    prints.append(LJSpeech(root=str(root), num_heldout=0).fingerprint())
    shutil.copy(root / "wavs" / "LJ-002.wav", root / "wavs" / "LJ-001.wav")
    prints.append(LJSpeech(root=str(root), num_heldout=0).fingerprint())
    prints.append(LJSpeech(root=str(root), num_heldout=1).fingerprint())
    assert len(set(prints)) == 4


def test_instances_pickle(tmp_path):
    dataset = LJSpeech(root=str(corpus(tmp_path / "a", rows(2))), num_heldout=0)
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again.load(1).samples["audio"].data, dataset.load(1).samples["audio"].data)


# ---- a model of speech

@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A corpus in the layout of LJSpeech, said by a speech synthesizer; not to be changed."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("needs a speech synthesizer: apt-get install espeak-ng")
    root = tmp_path_factory.mktemp("corpora") / "speech"
    (root / "wavs").mkdir(parents=True)
    for number, text in enumerate(SENTENCES):
        subprocess.run(["espeak-ng", "-s", "300", "-w", str(root / "wavs" / f"s{number}.wav"), text], check=True)
    lines = [f"s{number}|{text}|{text}" for number, text in enumerate(SENTENCES)]
    (root / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def run(speech, tmp_path_factory):
    """The folder of a finished run of the recipe audio/ljspeech, with a tiny model; not to be changed."""
    recipe = Recipe.load("audio/ljspeech", [
        f"data.root={speech}", "data.num_heldout=2", "data.min_seconds=0.1",
        "model.streams.audio.tokenizer.patch={t: 8, mel: 40}", "model.streams.audio.tokenizer.iterations=4",
        "model.streams.audio.head={kind: flow, depth: 1, width: 16}", "model.streams.audio.shape=[1, 22050]",
        "model.conditions.text={kind: bytes, depth: 1, num_heads: 2}",
        "model.width=32", "model.num_heads=2", "model.encoder_depth=1", "model.predictor_depth=1",
        "model.generate={num_steps: 3, num_denoising_steps: 3, guidance_scale: 2.0}",
        "train.steps=4", "train.batch_size=4", "train.micro_batch_size=2", "train.warmup_steps=0", "train.num_workers=0",
        "checkpoint={every: 2, keep: 9}", "preview={every: 4, num_samples: 1, conditions: [Hello]}",
    ])
    folder = tmp_path_factory.mktemp("runs") / "speech"
    Trainer(recipe, device="cpu").fit(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(run):
    return Pipeline.from_pretrained(run, device="cpu")


def test_a_model_knows_the_lengths_it_was_trained_on(speech, pipe):
    dataset = LJSpeech(root=str(speech), num_heldout=2, min_seconds=0.1)
    lengths = [dataset.load(index).samples["audio"].shape[1] for index in range(len(dataset))]
    assert pipe.spec.streams["audio"].sizes == ((min(lengths), max(lengths)),)
    assert pipe.spec.streams["audio"].shape == (1, RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.generate("Hello", seconds=1.9 * max(lengths) / RATE)
    with pytest.warns(ExtrapolationWarning, match="far outside"):
        pipe.generate("Hello", seconds=2.1 * max(lengths) / RATE)


def test_recordings_of_a_synthesizer_are_read(speech):
    dataset = LJSpeech(root=str(speech), num_heldout=0)
    assert texts(dataset) == SENTENCES
    samples = [dataset.load(index).samples["audio"] for index in range(len(dataset))]
    assert len({sample.shape for sample in samples}) > 5
    assert all(sample.data.abs().max() > 0.1 for sample in samples)


def test_previews_are_spectrograms_of_the_asked_texts(run):
    assert sorted(path.suffix for path in (run / "samples").iterdir()) == [".png", ".png"]


def test_a_resumed_run_ends_in_the_same_weights(run, tmp_path):
    half = shutil.copytree(run, tmp_path / "half")
    shutil.rmtree(half / "checkpoints" / "step_00000004")
    Trainer.resume(half, device="cpu")
    for name in ("model.safetensors", "training.safetensors"):
        assert (newest_checkpoint(half) / name).read_bytes() == (newest_checkpoint(run) / name).read_bytes()


@pytest.mark.parametrize("seconds", [0.6, 1.0, 1.234])
def test_a_text_becomes_a_file_of_the_asked_length(pipe, tmp_path, seconds):
    said, = pipe.generate({"text": "Hello, world. Grün!"}, seconds=seconds, seed=5)
    back = Audio().load(said.save(tmp_path / "said.wav"))
    assert back.shape == (1, round(seconds * RATE)) and back.data.abs().max() > 0
    assert back.meta["sample_rate"] == RATE
    assert (back.meta["condition"], back.meta["seed"]) == ({"text": "Hello, world. Grün!"}, 5)


@pytest.fixture
def stirred(run):
    """The model with no parameter still near zero, as some are at the start of training: texts make a difference."""
    pipe = Pipeline.from_pretrained(run, device="cpu")
    with seeded(0, "parameters"), torch.no_grad():
        for parameter in pipe.model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return pipe


@pytest.fixture
def generated(stirred, monkeypatch):
    """Tokens that the model generates, one batch per call. From a hair of difference Griffin-Lim makes another waveform."""
    batches, decode_batch = [], stirred.tokenizers["audio"].decode_batch

    def spy(tokens):
        batches.append(tokens)
        return decode_batch(tokens)

    monkeypatch.setattr(stirred.tokenizers["audio"], "decode_batch", spy)
    return batches


def test_texts_of_different_lengths_share_a_batch(stirred, generated):
    words = ["No.", "The quick brown fox jumps over the lazy dog."]
    for asked in (words, *words):
        stirred.generate(asked, seconds=0.5)
    together, *alone = generated
    assert len(together) == 2 and not torch.allclose(together[0].values, together[1].values, rtol=0, atol=0.01)
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours.values, theirs[0].values, rtol=0, atol=1e-4)
