"""`djepa bench data`: what is slow is found to be slow, and the advice is about that."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from djepa.bench import DataBench, bench_data
from djepa.cli.bench_commands import _lines
from djepa.errors import UsageError
from djepa.random import seeded

FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
SECONDS = st.floats(1e-4, 10)
EVEN = DataBench(batch_size=8, num_workers=0, num_cores=4, device="cpu", load=1.0, tokenize=0.01, train=1.0, cacheable=False)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of pictures that take long to decode."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (700, 700, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def slow_files(make_recipe, pictures):
    return lambda *overrides: make_recipe("data.kind=image-folder", f"data.root={pictures}", "data.size=8",
                                          "model.conditions=null", "train.batch_size=4", "preview.every=0", *overrides)


# What the figures say ------------------------------------------------------------------------------------------------------


@given(SECONDS, SECONDS, SECONDS, st.integers(0, 8), st.booleans())
def test_a_step_waits_for_what_it_has_to_and_no_longer(load, tokenize, train, num_workers, cacheable):
    found = DataBench(8, num_workers, 4, "cpu", load, tokenize, train, cacheable)
    assert max(load, tokenize + train) <= found.step * (1 + 1e-9) <= (load + tokenize + train) * (1 + 1e-6)
    assert 0 < found.waiting < 1 and found.ratio == pytest.approx(found.loader / found.needed)
    assert found.loader <= 8 / max(load, tokenize) * (1 + 1e-9)
    assert json.loads(json.dumps(found.plain()))["advice"] == found.advice()


@given(SECONDS, st.integers(0, 8))
def test_where_the_loader_keeps_up_easily_there_is_no_advice(train, num_workers):
    found = DataBench(8, num_workers, 4, "cpu", train / 30, train / 30, train, True)
    assert found.ratio > 1 and found.advice() == []


@pytest.mark.parametrize(("changes", "said"), [
    ({}, ["train.num_workers=1"]),
    ({"load": 3.0}, ["train.num_workers=3"]),
    ({"load": 9.0}, ["train.num_workers=4 (it would take 9, on 4 cores)"]),
    ({"load": 2.0, "num_workers": 1}, ["train.num_workers=2"]),
    ({"load": 2.0, "num_workers": 4}, ["8 processes to load these files, on 4 cores. Make them smaller"]),
    ({"load": 2.0, "num_workers": 4, "cacheable": True}, ["djepa cache RECIPE --out FOLDER"]),
    ({"load": 0.9, "num_workers": 1}, []),
    ({"load": 0.01, "tokenize": 1.0}, ["Tokenizing takes 50% of a step. Its tokenizers have no network"]),
    ({"load": 0.01, "tokenize": 1.0, "cacheable": True}, ["of a step. Do it once for all: djepa cache RECIPE --out FOLDER"]),
    ({"load": 8.0, "tokenize": 2.0}, ["train.num_workers=3", "Tokenizing takes 18%"]),
], ids=str)
def test_advice_is_about_what_is_slow(changes, said):
    advice = replace(EVEN, **changes).advice()
    assert len(advice) == len(said) and all(words in line for words, line in zip(said, advice, strict=True))


# What is measured ----------------------------------------------------------------------------------------------------------


def test_large_files_are_slow_to_load(slow_files, make_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = bench_data(slow_files(), steps=3, device="cpu")
    assert (found.batch_size, found.num_workers, found.device, found.cacheable) == (4, 0, "cpu", False)
    assert found.num_cores == len(os.sched_getaffinity(0))
    scans = bench_data(make_recipe("train.batch_size=4"), steps=3, device="cpu")
    assert found.load > 5 * scans.load
    assert found.loader == pytest.approx(4 / (found.load + found.tokenize))
    assert list(tmp_path.iterdir()) == []


@FORKS
def test_workers_are_timed_as_they_are(slow_files):
    found = bench_data(slow_files("train.num_workers=1"), steps=3, device="cpu")
    assert found.num_workers == 1 and found.loader == pytest.approx(4 / max(found.load, found.tokenize))


def test_a_large_model_is_slow_to_train(make_recipe):
    found = bench_data(make_recipe("model.width=256", "model.encoder_depth=4", "train.batch_size=32"), steps=2, device="cpu")
    assert found.ratio > 1 and found.waiting < 0.5 and not any("num_workers" in line for line in found.advice())


def test_a_network_is_slow_to_tokenize(make_recipe, pictures, tmp_path):
    from diffusers import AutoencoderKL

    with seeded(0, "autoencoder"):
        network = AutoencoderKL(block_out_channels=(16, 32), norm_num_groups=2, latent_channels=2,
                                down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    network.save_pretrained(tmp_path, safe_serialization=True)
    node = "model.streams.image.tokenizer"
    found = bench_data(make_recipe(
        "data.kind=image-folder", f"data.root={pictures}", "data.size=128", "model.conditions=null", "train.batch_size=4",
        f"{node}={{kind: autoencoder, source: {tmp_path}, patch: 32}}", measured=True), steps=2, device="cpu")
    assert found.cacheable and any("djepa cache" in line for line in found.advice())


# The command ---------------------------------------------------------------------------------------------------------------


def test_the_command_prints_rates_the_ratio_and_advice(command, slow_files, tmp_path):
    path = tmp_path / "slow.yaml"
    path.write_text(slow_files().to_yaml())
    done = command("bench", "data", path, "--steps", 2, "--device", "cpu")
    assert (done.code, done.err) == (0, "")
    words = [line.split()[0] for line in done.out.splitlines()[1:6]]
    assert words == ["loading", "tokenizing", "loader", "training", "ratio"]


@pytest.mark.parametrize(("found", "verdict"), [(EVEN, "the loader is the slower; 50% of a step nothing is trained"),
                                                (replace(EVEN, load=0.1), "the loader keeps up; 10% of a step")])
def test_the_verdict_and_the_advice_are_in_words(found, verdict):
    lines = list(_lines("image/folder", replace(found, tokenize=0.9 * found.tokenize)))
    assert verdict in lines[5]
    cached = list(_lines("image/folder", replace(found, tokenize=1.0, cacheable=True)))
    assert "djepa cache image/folder --out FOLDER" in cached[-1]


def test_json_holds_the_same(command, slow_files, tmp_path):
    path = tmp_path / "slow.yaml"
    path.write_text(slow_files().to_yaml())
    found = json.loads(command("bench", "data", path, "--steps", 1, "--device", "cpu", "--json").out)
    assert found["ratio"] == pytest.approx(found["loader"] / found["needed"])
    assert set(found["seconds"]) == {"load", "tokenize", "train"} and isinstance(found["advice"], list)


@pytest.mark.parametrize(("arguments", "said"), [
    (["image/digits", "-n", "0"], "at least 1"), (["image/digits", "--device", "gpu"], "gpu"),
    (["image/digitz"], "image/digits"),
])
def test_what_cannot_be_measured_is_said(command, arguments, said):
    done = command("bench", "data", *arguments)
    assert done.code == 2 and said in done.error()


def test_no_steps_are_refused(make_recipe):
    with pytest.raises(UsageError, match="steps=0"):
        bench_data(make_recipe(), steps=0)
