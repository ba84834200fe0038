"""YAML as recipes are written in it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djepa.errors import RecipeError
from djepa.recipe.yaml_text import parse_yaml, render_yaml

KEYS = st.text(max_size=20)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
                      max_leaves=8)
TRICKY = st.sampled_from(["1e-4", "no", "on", "~", "null", "true", "0o7", "010", "1_000", "2024-01-01", "1:30", ".inf", "=",
                          "<<", "- a", "a: b", "# a", "", " ", "'", '"', "&a", "*a", "!t", "a\nb", "\x85", "\u2028", "😀\n",
                          "\x7f"])


@given(st.dictionaries(KEYS | TRICKY, VALUES | TRICKY, max_size=4))
def test_what_is_written_reads_back_as_it_was(tree):
    assert parse_yaml(render_yaml(tree), "the text") == tree


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4), st.text(alphabet="abc /", max_size=10))
def test_comments_change_nothing(tree, comment):
    comments = {(key,): comment for key in tree}
    assert parse_yaml(render_yaml(tree, comments), "the text") == tree


@pytest.mark.parametrize(("text", "value"), [
    ("1e-4", 1e-4), ("1E3", 1000.0), ("-.5", -0.5), ("12", 12), ("010", 10), ("0o10", 8), ("0x1F", 31), (".inf", math.inf),
    ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("true", True), ("False", False),
    ("2024-01-01", "2024-01-01"), ("1:30", "1:30"), ("1_000", "1_000"), ("~", None), ("", None), ("null", None),
    ("[1, 2.0, a]", [1, 2.0, "a"]), ("{y: 2, x: 3}", {"y": 2, "x": 3}), ("'1'", "1"), ("!!str 1", "1"),
])
def test_plain_values_are_those_of_yaml_1_2(text, value):
    parsed = parse_yaml(text, "the text")
    assert parsed == value and type(parsed) is type(value)


def test_an_alias_stands_for_what_it_names():
    assert parse_yaml("a: &depth 3\nb: *depth\nc: [*depth]", "the text") == {"a": 3, "b": 3, "c": [3]}


@pytest.mark.parametrize(("text", "place", "problem"), [
    ("a: 1\nb: 2\na: 3", "line 3, column 1", "'a' is given twice"),
    ("x: {y: 1, y: 2}", "line 1, column 11", "'y' is given twice"),
    ("a: 1\n1: 2", "line 2, column 1", "a key must be text; put 1 in quotes"),
    ("? [a]\n: 1", "line 1, column 3", "a key must be text"),
    ("a: [1, 2", "line 1, column 9", "expected"),
    ("a: 1\n  b: 2", "line 2, column 4", "not allowed here"),
    ("a: *b", "line 1, column 4", "undefined alias"),
    ("a: &b [*b]", "line 1, column 4", "recursive"),
    ("a: 1\n---\nb: 2", "line 2, column 1", "another document"),
    ("a: !!python/object/apply:os.system [ls]", "line 1, column 4", "plain values only"),
    ("a: !!set {b}", "line 1, column 4", "plain values only"),
    ("a: !mine b", "line 1, column 4", "plain values only"),
    ("a: !!int many", "line 1, column 4", "not a number"),
    ("a: !!float many", "line 1, column 4", "not a number"),
])
def test_an_error_names_the_place_in_one_paragraph(text, place, problem):
    with pytest.raises(RecipeError, match=problem) as caught:
        parse_yaml(text, "my.yaml")
    assert str(caught.value).startswith(f"my.yaml, {place}, ")
    assert "\n" not in str(caught.value)


def test_an_unprintable_character_is_an_error():
    with pytest.raises(RecipeError, match="position 3"):
        parse_yaml("a: \x00", "my.yaml")


@pytest.mark.parametrize("text", [
    pytest.param("a: " + "[" * 5_000, id="deep"),
    pytest.param("a: '" + "x" * 1_000_001 + "'", id="long"),
    pytest.param("\n".join(["a0: &a0 [1, 2]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]), id="aliases"),
    pytest.param("a: " + "9" * 5000, id="digits"),
])
def test_a_text_made_to_do_harm_is_refused(text):
    with pytest.raises(RecipeError):
        parse_yaml(text, "my.yaml")
