"""pydantic's errors in plain words: what was expected, and what was given."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "literal_error": "{expected}",
    "union_tag_invalid": "one of {expected_tags}",
    "list_type": "a list",
    "sequence_str": "a list",
    "tuple_type": "a list",
    "dict_type": "a group of keys",
    "mapping_type": "a group of keys",
    "model_type": "a group of keys",
    "model_attributes_type": "a group of keys",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "string_pattern_mismatch": "a name of letters, digits, '_' and '-' that begins with a letter",
    "none_required": "null",
}
_ALREADY_SAID = {"value_error": "error", "component": "problem"}  # the entry of the context that holds our own text


def in_words(details: ErrorDetails) -> str:
    """One error as a phrase: "expected a whole number, got 'many'"."""
    kind, context = details["type"], details.get("ctx") or {}
    if kind in _ALREADY_SAID:
        return str(context[_ALREADY_SAID[kind]])
    given = context.get("tag", details["input"])
    return f"expected {_expected(kind, context, details['msg'])}, got {_given(given)}{_near(given, context)}"


def joined(phrases: list[str]) -> str:
    """Several phrases about one value, such as those of the alternatives it might have been, as one."""
    pattern = re.compile(r"expected (?P<what>.*), got (?P<given>.*)", re.DOTALL)
    matches = [pattern.fullmatch(phrase) for phrase in dict.fromkeys(phrases)]
    if len(matches) > 1 and all(matches) and len({match["given"] for match in matches if match}) == 1:
        what = " or ".join(dict.fromkeys(match["what"] for match in matches if match))
        return f"expected {what}, got {matches[0]['given'] if matches[0] else ''}"
    return "; ".join(dict.fromkeys(phrases))


def _expected(kind: str, context: Mapping[str, Any], message: str) -> str:
    if kind == "greater_than" and context["gt"] == 0:
        return "a positive number"
    if kind in _EXPECTED:
        return _EXPECTED[kind].format_map(context)
    return message[:1].lower() + message[1:]


def _given(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _near(given: Any, context: Mapping[str, Any]) -> str:
    choices = re.findall(r"'([^']*)'", str(context.get("expected") or context.get("expected_tags") or ""))
    near = difflib.get_close_matches(given, choices, n=1) if isinstance(given, str) else []
    return f" - did you mean {near[0]!r}?" if near else ""
