"""YAML as recipes are written in it: YAML 1.2's plain values, and nothing that could surprise or do harm.

`1e-4` is a number, `no` and `on` are text, a key given twice is an error, and the only tags are those of plain values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from djepa.errors import RecipeError

MAX_CHARACTERS = 1_000_000
MAX_VALUES = 100_000  # after aliases are followed, which can multiply a small file without bound

_TAG = "tag:yaml.org,2002:"
_PLAIN = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
              list("-+0123456789.")),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 (filled below; YAML 1.1's own must not be inherited)
    yaml_constructors = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or 1.2 would not read as text, and keeps every text on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar(f"{_TAG}str", data, style=None if data.isprintable() else '"')


def parse_yaml(text: str, source: str) -> Any:
    """The plain value that a YAML text holds.

    Args:
        text: one document.
        source: what to call it in an error.

    Raises:
        RecipeError: it is not YAML as we accept it; the message names the line and column.
    """
    if len(text) > MAX_CHARACTERS:
        raise RecipeError(f"{source} is too long for a recipe: {len(text)} characters, at most {MAX_CHARACTERS}.")
    try:
        value = _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        raise RecipeError(f"{source}{_place(error)} is not valid YAML: {error.problem}.") from None
    except yaml.reader.ReaderError as error:
        raise RecipeError(f"{source} is not valid YAML: the character {chr(int(error.character))!r} at position "
                          f"{error.position} is not allowed.") from None
    except RecursionError:
        raise RecipeError(f"{source} is nested too deeply for a recipe.") from None
    if _size(value, {}) > MAX_VALUES:
        raise RecipeError(f"{source} holds too much for a recipe: more than {MAX_VALUES} values once its aliases are "
                          f"followed.")
    return value


def render_yaml(tree: Mapping[str, Any], comments: Mapping[tuple[str, ...], str] | None = None) -> str:
    """A mapping of plain values as YAML, one line per leaf, with a trailing comment where `comments` has one for it."""
    lines = list(_lines(tree, (), comments or {})) or [("{}", None)]
    width = min(max((len(text) for text, comment in lines if comment), default=0), 60)
    return "".join(f"{text:<{width}}  # {comment}\n" if comment else f"{text}\n" for text, comment in lines)


def _lines(tree: Mapping[str, Any], path: tuple[str, ...], comments: Mapping[tuple[str, ...], str],
           ) -> Iterator[tuple[str, str | None]]:
    for key, value in tree.items():
        here = (*path, key)
        start = f"{'  ' * len(path)}{inline_yaml(key)}:"
        if isinstance(value, Mapping) and value:
            yield start, None
            yield from _lines(value, here, comments)
        else:
            yield f"{start} {inline_yaml(value)}", comments.get(here)


def inline_yaml(value: Any) -> str:
    """A plain value as YAML on one line."""
    return yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True,
                     width=float("inf")).removesuffix("\n").removesuffix("\n...")


def _place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f", line {mark.line + 1}, column {mark.column + 1}," if mark else ""


def _size(value: Any, known: dict[int, int]) -> int:
    if id(value) not in known:
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        known[id(value)] = 1 + sum(_size(child, known) for child in children)
    return known[id(value)]


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"a key must be text; put {key!r} in quotes",
                                                    key_node.start_mark)
        if key in result:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
        result[key] = loader.construct_object(value_node, deep=True)
    return result


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    bases = {"0o": 8, "0x": 16}
    try:
        return int(text, bases.get(text[:2], 10))
    except ValueError:
        raise yaml.constructor.ConstructorError(None, None, f"{text[:40]!r} is not a number that can be read",
                                                node.start_mark) from None


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node))
    try:
        return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    except ValueError:
        raise yaml.constructor.ConstructorError(None, None, f"{text[:40]!r} is not a number that can be read",
                                                node.start_mark) from None


def _unknown(loader: _Loader, node: yaml.Node) -> Any:
    raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag!r} means nothing in a recipe, which holds "
                                            f"plain values only", node.start_mark)


for _name, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)
    _Dumper.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)
for _name, _constructor in {
    "null": lambda loader, node: None,
    "bool": lambda loader, node: str(loader.construct_scalar(node)).lower() == "true",
    "int": _integer,
    "float": _float,
    "str": lambda loader, node: loader.construct_scalar(node),
    "seq": lambda loader, node: [loader.construct_object(item, deep=True) for item in node.value],
    "map": _mapping,
}.items():
    _Loader.add_constructor(_TAG + _name, _constructor)
_Dumper.add_representer(str, _Dumper.represent_str)
_Loader.add_constructor(None, _unknown)  # pyright: ignore[reportArgumentType] (None: every other tag)
