"""`djepa evaluate` and the digits protocol agree: the same samples, the same number."""

import numpy as np
import pytest
import torch

from digits_metrics import frechet_distance
from djepa import Recipe
from djepa.evaluate import evaluate
from djepa.evaluate.blocks import Blocks
from djepa.evaluate.extractor import Features
from djepa.evaluate.frechet import FrechetDistance
from djepa_image.digits import Digits, levels

LEVEL = 1 / 8  # of the scans' levels 0 to 16 on the scale of samples, -1 to 1


def scans(split):
    digits = Digits(split=split)
    return levels([digits.load(index).samples["image"] for index in range(len(digits))]).astype(np.float64)


def test_the_reference_of_the_protocol_is_the_frechet_distance_of_values():
    training, heldout = scans("train"), scans("heldout")
    found = FrechetDistance().figure(Features(torch.tensor(training)), Features(torch.tensor(heldout)))
    assert found == pytest.approx(frechet_distance(training, heldout), rel=1e-6)


def test_a_shipped_model_gets_the_same_number_from_both(tmp_path):
    recipe = Recipe.load("image/digits", ["data.split=heldout", "evaluate.num_samples=150", "evaluate.metrics=[frechet]",
                                          "evaluate.num_groups=0"])
    found = evaluate("image/digits", recipe, tmp_path / "folder", device="cpu", num_steps=4, num_denoising_steps=5)
    generated = (Blocks(tmp_path / "folder" / "generated", 150).read().vectors.double().numpy() + 1) / LEVEL
    assert found.num_real == 397
    assert found.value("frechet") / LEVEL**2 == pytest.approx(frechet_distance(generated, scans("heldout")), rel=1e-6)
