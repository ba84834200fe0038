"""Conditions as they are typed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djepa.cli.generate_command import parsed_condition


@pytest.mark.parametrize(("typed", "names", "meant"), [
    ("3", ["label"], "3"),
    ("label=3", ["label"], {"label": "3"}),
    ("crane, bird", ["label"], "crane, bird"),
    ("lable=3", ["label"], "lable=3"),
    ("x = 1, y = 2", ["text"], "x = 1, y = 2"),
    ("text=x, y=2", ["text"], {"text": "x, y=2"}),
    ("text=text=x", ["text"], {"text": "text=x"}),
    ("label=3,text=hello", ["label", "text"], {"label": "3", "text": "hello"}),
    (" text = well, yes , label = 3 ", ["label", "text"], {"text": "well, yes", "label": "3"}),
    ("label=3,text=it says, label=4", ["label", "text"], {"label": "3", "text": "it says, label=4"}),
    ("lable=3,text=hello", ["label", "text"], {"lable": "3", "text": "hello"}),
    ("hello", ["label", "text"], "hello"),
    ("label=3", [], "label=3"),
    ("", ["text"], ""),
])
def test_what_is_typed_and_what_is_meant(typed, names, meant):
    assert parsed_condition(typed, names) == meant


@given(st.text(), st.text(st.characters(exclude_characters=",")))
def test_any_text_can_be_said(text, label):
    names = ["label", "text"]
    assert parsed_condition(f"label={label},text={text}", names) == {"label": label.strip(), "text": text.strip()}
    assert parsed_condition(f"text={text}", ["text"]) == {"text": text.strip()}
