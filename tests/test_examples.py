"""The programs beside the library do what they say, in a short form."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from digits_quality import main as digits_quality
from djepa_audio.modality import Audio
from djepa_video.modality import Video

ROOT = Path(__file__).resolve().parents[1]


def test_the_demo_leaves_pictures_a_loss_curve_and_a_run(tmp_path):
    earlier = tmp_path / "demo" / "run"
    earlier.mkdir(parents=True)
    (earlier / "recipe.yaml").write_text("what an earlier demo left")
    command = [sys.executable, ROOT / "examples" / "demo.py", "--out", "demo", "--steps", "10"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    for name, seconds in (("string.wav", 1.0), ("string-extended.wav", 2.0)):
        sound = Audio().load(tmp_path / "demo" / name)
        assert f"demo/{name}" in done.stdout and sound.shape[1] / sound.meta["sample_rate"] == pytest.approx(seconds, abs=0.1)
    for name, seconds in (("gliding.mp4", 1.0), ("gliding-extended.mp4", 3.0)):
        clip = Video().load(tmp_path / "demo" / name)
        assert f"demo/{name}" in done.stdout and clip.shape[1] / clip.meta["fps"] == pytest.approx(seconds)
        assert min(clip.shape[2:]) > 80
    for name in ("shipped.png", "trained.png", "loss.png", "strings.png"):
        assert f"demo/{name}" in done.stdout
        with Image.open(tmp_path / "demo" / name) as picture:
            picture.load()
            assert min(picture.size) > 80
    assert {"recipe.yaml", "log.jsonl", "checkpoints"} <= {path.name for path in (tmp_path / "demo" / "run").iterdir()}


def test_the_digits_protocol_prints_a_table_and_writes_every_figure(tmp_path, capsys):
    short = ["--num-samples", "2", "--num-steps", "2", "--num-denoising-steps", "3", "--json", str(tmp_path / "figures.json")]
    assert digits_quality(["image/digits", "image/digits", *short]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[1].split() == ["scans", "0.967", "67.6", "1.00", "1.000"]
    assert table[2].split()[:5] == table[3].split()[:5]
    assert table[4].startswith("mean +- std of 2")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["models"][0]["settings"]["num_denoising_steps"] == 3
    assert len(figures["models"][0]["right_by_class"]) == 10
    assert figures["summary"]["frechet"]["std"] == 0.0


def test_the_digits_protocol_says_what_is_wrong(capsys):
    assert digits_quality(["no/such-model"]) == 2
    assert "no/such-model" in capsys.readouterr().err
