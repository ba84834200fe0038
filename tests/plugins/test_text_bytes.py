"""Text as UTF-8 bytes: what a text is, its numbers, and tokens that depend on no neighbour."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from djepa.errors import ConditionError, UsageError
from djepa.random import seeded
from djepa_text.byte_text import ByteText, sinusoids
from djepa_text.text import NULL, PAD, cleaned

WIDTH = 16
TEXTS = ["a dog", "Zwölf Boxkämpfer", None, "犬", "a dog on a very long way home"]


@pytest.fixture(scope="module")
def reader():
    with seeded(0, "reader"):
        return ByteText(WIDTH, max_bytes=40, num_heads=2).eval()


def test_bytes_are_the_numbers_and_rows_are_padded(reader):
    prepared = reader.prepare(["añ", None, "abcd"])
    assert prepared.tolist() == [[97, 195, 177, PAD], [NULL, PAD, PAD, PAD], [97, 98, 99, 100]]
    assert prepared.dtype == torch.int64 and prepared.device.type == "cpu"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_what_is_read_is_the_text_in_composed_form(text):
    reader = ByteText(4, max_bytes=400, num_heads=1)
    try:
        wanted = cleaned(text)
    except ConditionError:
        assert not text.strip()
        return
    assert bytes(reader.prepare([text])[0].tolist()).decode() == wanted and cleaned(wanted) == wanted


def test_texts_that_look_alike_are_alike(reader):
    prepared = reader.prepare(["caf\u00e9", "cafe\u0301", " café\n"])
    assert torch.equal(prepared[0], prepared[1]) and torch.equal(prepared[0], prepared[2])


@pytest.mark.parametrize(("raw", "told"), [
    ("", "is empty"), (" \n", "is empty"), (3, "3 is none"), (True, "True is none"), (["a dog"], "is none"),
    (b"a dog", "is none"), ("half a \ud83d", "half a character at place 7"),
])
def test_what_is_no_text_is_refused(reader, raw, told):
    with pytest.raises(ConditionError, match=told):
        reader.prepare(["a dog", raw])


def test_a_long_text_is_refused_with_its_length_and_the_limit(reader):
    assert reader.prepare(["ä" * 20]).shape == (1, 40)
    with pytest.raises(ConditionError, match=r"'ä{40}\.\.\.' has 100 bytes; this model reads up to 40.*max_bytes.*truncate"):
        reader.prepare(["a dog", "ä" * 50])


def test_a_long_text_is_cut_after_a_character_where_that_was_asked_for():
    reader = ByteText(WIDTH, max_bytes=6, truncate=True)
    assert bytes(reader.prepare(["abcdä and so on"])[0].tolist()).decode() == "abcdä"
    assert bytes(reader.prepare(["abcdeä and so on"])[0].tolist()).decode() == "abcde"


@pytest.mark.parametrize("options", [{"max_bytes": 3}, {"depth": 0}, {"num_heads": 3}, {"num_heads": 0}], ids=str)
def test_settings_that_cannot_be(options):
    name, value = next(iter(options.items()))
    with pytest.raises(UsageError, match=f"{name}={value}"):
        ByteText(WIDTH, **options)


def test_a_text_gives_one_token_a_byte_and_the_null_condition_one(reader):
    tokens = reader(reader.prepare(TEXTS))
    assert tokens.values.shape == (5, 29, WIDTH) and tokens.valid.device.type == "cpu"
    assert tokens.valid.sum(dim=1).tolist() == [5, 18, 1, 3, 29] and not tokens.values[~tokens.valid].any()


def test_a_text_gives_the_same_tokens_alone_and_among_others(reader):
    together = reader(reader.prepare(TEXTS))
    for row, text in enumerate(TEXTS):
        alone = reader(reader.prepare([text])).values[0]
        torch.testing.assert_close(together.values[row, : len(alone)], alone, rtol=0, atol=1e-5)


def test_the_order_of_letters_counts(reader):
    one, other = reader(reader.prepare(["ab ba", "ba ab"])).values
    assert (one.sort(dim=0).values - other.sort(dim=0).values).abs().max() > 0.01


def test_dropped_texts_are_the_null_condition(reader):
    prepared = reader.prepare(["a dog", "cats", "long words"])
    before = prepared.clone()
    dropped = reader.null(prepared, torch.tensor([False, True, True]))
    assert torch.equal(dropped, reader.prepare(["a dog", None, None, "long words"])[:3]) and torch.equal(prepared, before)
    tokens = reader(dropped)
    assert tokens.valid.sum(dim=1).tolist() == [5, 1, 1] and torch.equal(tokens.values[1], tokens.values[2])


def test_everything_it_holds_is_trained(reader):
    trained = copy.deepcopy(reader)
    tokens = trained(trained.prepare(["a dog", None]))
    tokens.values.square().mul(torch.arange(1, WIDTH + 1)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in trained.parameters())
    read = trained.embedding.grad.abs().sum(dim=1) > 0
    assert read.nonzero().flatten().tolist() == sorted(set(b"a dog"))  # and nothing was learned of bytes that pad


def test_it_is_the_same_after_a_journey(reader):
    other = pickle.loads(pickle.dumps(reader))
    assert torch.equal(other(other.prepare(TEXTS)).values, reader(reader.prepare(TEXTS)).values)
    with seeded(1, "reader"):
        fresh = ByteText(WIDTH, max_bytes=40, num_heads=2)
    fresh.load_state_dict(reader.state_dict())
    assert torch.equal(fresh(fresh.prepare(TEXTS)).values, reader(reader.prepare(TEXTS)).values)


def test_it_is_no_closed_list(reader):
    assert reader.describe() is None and ByteText.fitted({"depth": 1}, None) == {"depth": 1}


@pytest.mark.parametrize("width", [4, 7, 16])
def test_places_are_told_apart(width):
    places = sinusoids(512, width)
    assert places.shape == (512, width) and places.abs().max() <= 1
    assert len(places.mul(1e6).round().unique(dim=0)) == 512
