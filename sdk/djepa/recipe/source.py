"""The options of a class, read from its source: nothing is imported and nothing runs.

What is understood is what constructors are written in: plain classes, defaults that are plain values, annotations made of
Python's own types, those of `typing`, `collections.abc` and pydantic, and module-level names for them. Everything else (a
decorated class, several bases, a type of the plugin's own) is left to whoever can import the class.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import operator
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from djepa.recipe.docstrings import described_arguments
from djepa.recipe.options import REQUIRED, Option, inspected

_TYPES = {"int", "float", "str", "bool", "bytes", "list", "dict", "tuple", "set", "frozenset", "object", "type"}
_HARMLESS = {"typing", "typing_extensions", "collections.abc", "pydantic", "annotated_types", "abc", "pathlib",
             "djepa.recipe.component"}
_CALLABLE = {"pydantic", "annotated_types"}  # whose notes on a type are written as calls: Field(gt=0)


class _Unreadable(Exception):
    """Only importing can tell."""


@dataclass(frozen=True)
class _Module:
    """A parsed module: its classes, its assignments, and where its other names come from."""

    classes: dict[str, ast.ClassDef]
    values: dict[str, ast.expr]
    imports: dict[str, tuple[str, str | None]]  # the module, and the name in it or None for the module itself


def read_options(target: str) -> tuple[Option, ...] | None:
    """The options of "package.module:Class"; None where they cannot be told without importing it."""
    module, _, name = target.partition(":")
    try:
        return _options(module, name)
    except (_Unreadable, AttributeError, TypeError, ValueError, SyntaxError, RecursionError):
        return None


def _options(module: str, name: str) -> tuple[Option, ...]:
    if module in _HARMLESS:
        return inspected(getattr(importlib.import_module(module), name))
    parsed = _parsed(_file(module))
    if name not in parsed.classes:
        return _options(*_imported(parsed, name))
    definition = parsed.classes[name]
    methods = {node.name: node for node in definition.body if isinstance(node, ast.FunctionDef)}
    constructor = methods.get("__init__")
    if definition.decorator_list or definition.keywords or "__new__" in methods:
        raise _Unreadable
    if constructor is None:
        return _inherited(module, parsed, definition)
    if constructor.decorator_list:
        raise _Unreadable
    return _of_constructor(parsed, constructor, ast.get_docstring(definition) or "")


def _inherited(module: str, parsed: _Module, definition: ast.ClassDef) -> tuple[Option, ...]:
    if not definition.bases:
        return ()
    base = definition.bases[0]
    if len(definition.bases) > 1 or not isinstance(base, ast.Name):
        raise _Unreadable
    found, docstring = _options(module, base.id), ast.get_docstring(definition)
    if docstring is None:  # then that of the base stands for it
        return found
    described = described_arguments(docstring)
    return tuple(replace(one, description=described.get(one.name, "")) for one in found)


def _of_constructor(parsed: _Module, constructor: ast.FunctionDef, docstring: str) -> tuple[Option, ...]:
    described = described_arguments(docstring)
    return tuple(
        Option(one.arg, Any if one.annotation is None else _annotation(parsed, one.annotation),
               REQUIRED if default is None else _plain(parsed, default), described.get(one.arg, ""))
        for one, default in zip(constructor.args.kwonlyargs, constructor.args.kw_defaults, strict=True))


# Values ---------------------------------------------------------------------------------------------------------------------


def _plain(parsed: _Module, node: ast.expr) -> Any:
    """A default, which may be the name of a constant of the module."""
    if isinstance(node, ast.Name) and node.id in parsed.values:
        return _plain(parsed, parsed.values[node.id])
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise _Unreadable from None


def _annotation(parsed: _Module, node: ast.expr) -> Any:
    """The type that an annotation means."""
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            return _annotation(parsed, ast.parse(text, mode="eval").body)
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _named(parsed, name)
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            return _member(_whole_module(parsed, name), attribute)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return operator.or_(_annotation(parsed, left), _annotation(parsed, right))
        case ast.Tuple(elts=elements):
            return tuple(_annotation(parsed, element) for element in elements)
        case ast.List(elts=elements):
            return [_annotation(parsed, element) for element in elements]
        case ast.Subscript(value=outer, slice=inner):
            generic = _annotation(parsed, outer)
            return generic[_plain(parsed, inner) if generic is Literal else _annotation(parsed, inner)]
        case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords) if parsed.imports.get(name, ("",))[0] in _CALLABLE:
            return _named(parsed, name)(**{str(one.arg): _plain(parsed, one.value) for one in keywords})
    raise _Unreadable


def _named(parsed: _Module, name: str) -> Any:
    if name in parsed.values:
        return _annotation(parsed, parsed.values[name])
    if name in parsed.imports:
        return _member(*parsed.imports[name])
    if name in _TYPES and name not in parsed.classes:
        return getattr(builtins, name)
    raise _Unreadable


def _member(module: str, name: str | None) -> Any:
    if module not in _HARMLESS or name is None:
        raise _Unreadable
    return getattr(importlib.import_module(module), name)


def _whole_module(parsed: _Module, name: str) -> str:
    module, member = parsed.imports.get(name, ("", None))
    if member is not None:
        raise _Unreadable
    return module


def _imported(parsed: _Module, name: str) -> tuple[str, str]:
    module, member = parsed.imports.get(name, ("", None))
    if not module or member is None:
        raise _Unreadable
    return module, member


# Modules --------------------------------------------------------------------------------------------------------------------


def _file(module: str) -> Path:
    """The source of a module. Its parents are found without being imported, as `importlib.util.find_spec` would."""
    search, spec = None, None
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        specs = (finder.find_spec(name, search) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((found for found in specs if found is not None), None)
        search = None if spec is None else spec.submodule_search_locations
        if spec is None or (search is None and length < len(parts)):
            raise _Unreadable
    path = Path(spec.origin or "") if spec else Path()
    if path.suffix != ".py" or not path.is_file():
        raise _Unreadable
    return path


def _parsed(path: Path) -> _Module:
    return _parse(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _parse(path: Path, changed: int) -> _Module:
    """The module of a file; `changed` is when it last was, so that an edited file is read anew."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        raise _Unreadable from None
    values = {node.targets[0].id: node.value for node in body
              if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)}
    imports: dict[str, tuple[str, str | None]] = {}
    for node in body:
        if isinstance(node, ast.Import):
            imports |= {alias.asname or alias.name: (alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            imports |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    return _Module({node.name: node for node in body if isinstance(node, ast.ClassDef)}, values, imports)
