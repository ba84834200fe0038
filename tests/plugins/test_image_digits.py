"""The digits that ship with the package."""

import pickle
from importlib.resources import files

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from djepa.errors import UsageError
from djepa.tokens import Sample
from djepa_image.digits import Digits, levels


@pytest.fixture(scope="module")
def original():
    return load_digits()


@pytest.mark.parametrize(("split", "chosen"), [
    ("train", slice(0, 1400)), ("heldout", slice(1400, 1797)), ("all", slice(0, 1797)),
])
def test_a_split_is_the_published_scans_in_their_order(original, split, chosen):
    digits = Digits(split=split)
    examples = [digits.load(index) for index in range(len(digits))]
    assert len(examples) == chosen.stop - chosen.start
    np.testing.assert_array_equal(levels([example.samples["image"] for example in examples]), original.data[chosen])
    assert [example.conditions["label"] for example in examples] == [str(label) for label in original.target[chosen]]


def test_pixels_span_the_range_exactly(original):
    digits = Digits(split="all")
    samples = [digits.load(index).samples["image"] for index in range(1797)]
    data = torch.stack([sample.data for sample in samples])
    assert (data.shape, data.dtype, {sample.modality for sample in samples}) == ((1797, 1, 8, 8), torch.float32, {"image"})
    assert torch.equal(data[:, 0], torch.from_numpy(original.images).float() / 8 - 1)
    assert (data.min(), data.max()) == (-1, 1)


def test_training_is_the_default_and_knows_every_class():
    digits = Digits()
    assert len(digits) == 1400
    assert digits.classes() == {"label": list("0123456789")}
    assert {digits.load(index).conditions["label"] for index in range(1400)} == set("0123456789")


def test_an_example_never_changes():
    digits, rng = Digits(), np.random.default_rng(0)
    state = rng.bit_generator.state
    first = digits.load(5, rng).samples["image"]
    kept = first.data.clone()
    first.data.fill_(9.0)
    assert torch.equal(digits.load(5).samples["image"].data, kept)
    assert rng.bit_generator.state == state


def test_one_example_pickles_as_one_example_and_the_dataset_as_itself():
    digits = Digits(split="heldout")
    assert len(pickle.dumps(digits.load(0))) < 2000
    assert torch.equal(pickle.loads(pickle.dumps(digits)).load(3).samples["image"].data, digits.load(3).samples["image"].data)


def test_there_is_no_such_example_or_split():
    with pytest.raises(IndexError):
        Digits(split="heldout").load(397)
    with pytest.raises(UsageError, match="Did you mean 'heldout'"):
        Digits(split="held-out")  # type: ignore[arg-type]


def test_levels_are_neither_rounded_nor_clipped():
    assert levels([Sample(torch.full((1, 8, 8), 1.5))]).tolist() == [[20.0] * 64]
    assert levels([]).shape == (0, 64)
    with pytest.raises(UsageError):
        levels([Sample(torch.zeros(3, 8, 8))])


def test_the_source_is_credited_beside_the_data():
    credit = (files("djepa_image") / "data" / "README.md").read_text()
    for words in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0"):
        assert words in credit
