"""The reader of digits."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from djepa.errors import UsageError
from djepa.evaluate.inception_score import InceptionScore
from djepa.tokens import Sample
from djepa_image.digits import Digits
from djepa_image.reader import DigitsReader

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "train_digits_reader.py"


def scans(split):
    digits = Digits(split=split)
    examples = [digits.load(index) for index in range(len(digits))]
    return [example.samples["image"] for example in examples], torch.tensor([int(one.conditions["label"]) for one in examples])


def test_it_reads_scans_that_it_has_not_seen():
    pictures, labels = scans("heldout")
    found = DigitsReader().extract(pictures)
    assert found.vectors.shape == (397, 32) and found.logits.shape == (397, 10)
    assert (found.logits.argmax(1) == labels).float().mean() == pytest.approx(0.955, abs=0.002)
    assert InceptionScore().figure(found, found) > 8  # of ten: sure and varied


def test_of_noise_it_is_less_sure_and_of_one_digit_not_varied():
    pictures, labels = scans("heldout")
    reader, generator = DigitsReader(), torch.Generator().manual_seed(0)
    noise = reader.extract([Sample(torch.rand(1, 8, 8, generator=generator) * 2 - 1, {}, "image") for _ in range(200)])
    threes = reader.extract([picture for picture, label in zip(pictures, labels, strict=True) if label == 3])
    assert InceptionScore().figure(noise, noise) < 5 and InceptionScore().figure(threes, threes) < 2


def test_other_pictures_are_refused():
    with pytest.raises(UsageError, match=r"of shape \(1, 8, 8\); got \(3, 8, 8\)"):
        DigitsReader().extract([Sample(torch.zeros(3, 8, 8), {}, "image")])


def test_the_script_makes_a_reader_like_the_one_that_ships(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("train_digits_reader", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train_digits_reader", script)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "STEPS", 300)
    script.main(tmp_path / "reader.safetensors")
    assert float(capsys.readouterr().out.split()[1].rstrip("%")) > 88
    assert (tmp_path / "reader.safetensors").stat().st_size == pytest.approx(26_000, abs=500)
