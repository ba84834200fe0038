"""Options of components: read from source as the imported class has them, or not read at all."""

import subprocess
import sys

import pytest

from djepa.plugins import host
from djepa.plugins.contributions import KINDS
from djepa.recipe.docstrings import described_arguments, field_comments, summary
from djepa.recipe.options import REQUIRED, inspected
from djepa.recipe.schema import TrainSpec
from djepa.recipe.source import read_options

COMPONENTS = [one for kind in KINDS.values() if kind != "recipes" for one in host().contributions(kind)]

READABLE = """
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from pydantic import Field
Mode = Literal["soft", "hard"]
RATE = 0.5

class Base:
    '''Parent.

    Args:
        depth: of all.
    '''
    def __init__(self, channels, *, depth: Annotated[int, Field(gt=0)], rate: "float | None" = RATE, mode: Mode = "soft",
                 sizes: Sequence[tuple[int, ...]] = (), more: Mapping[str, Any] | None = None, minus: int = -1,
                 old: typing.Optional[str] = None, free=None):
        self.depth = depth

class Heir(Base):
    pass

class Documented(Base):
    '''Child.

    Args:
        rate: of change.
    '''

class Nothing:
    pass
"""
UNREADABLE = {
    "decorated": "import dataclasses\n@dataclasses.dataclass(kw_only=True)\nclass Thing:\n    depth: int = 1",
    "two bases": "class A: pass\nclass B: pass\nclass Thing(A, B): pass",
    "a metaclass": "class Thing(metaclass=type): pass",
    "a type of its own": "class Size: pass\nclass Thing:\n    def __init__(self, *, size: Size | None = None): pass",
    "a computed default": "class Thing:\n    def __init__(self, *, size: int = max(1, 2)): pass",
    "made under a condition": "if True:\n    class Thing: pass",
    "__new__": "class Thing:\n    def __new__(cls, *, size: int = 1): return object.__new__(cls)",
    "no such name": "Thong = 1",
    "not Python": "class Thing(:",
    "a circle": "from odd_module import Thing",
}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that can be imported, and says so loudly if it is."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source, name="odd_module"):
        (tmp_path / f"{name}.py").write_text(source)
        return name

    yield write
    for name in ("odd_module", "odd_other"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda one: f"{one.kind} {one.name}")
def test_every_installed_class_is_read_as_it_is(component):
    assert read_options(component.target) == inspected(host().get(component.kind, component.name))


@pytest.mark.parametrize("name", ["Base", "Heir", "Documented", "Nothing"])
def test_source_and_class_agree(module, name):
    target = f"{module(READABLE)}:{name}"
    found = read_options(target)
    assert found is not None and "odd_module" not in sys.modules
    assert repr(found) == repr(inspected(getattr(__import__("odd_module"), name)))


def test_a_class_is_followed_to_where_it_is_written(module):
    module(READABLE, "odd_other")
    options = read_options(f"{module('from odd_other import Base as Thing')}:Thing")
    assert options is not None and [one.name for one in options] == [
        "depth", "rate", "mode", "sizes", "more", "minus", "old", "free"]
    assert options[0].default is REQUIRED and options[0].description == "of all" and options[1].default == 0.5


@pytest.mark.parametrize("source", UNREADABLE.values(), ids=list(UNREADABLE))
def test_what_only_importing_can_tell_is_left_to_it(module, source):
    assert read_options(f"{module('import os' + chr(10) + source)}:Thing") is None


@pytest.mark.parametrize("target", ["no_such_module:Thing", "sys:Thing", "math:Thing", "json:Missing", "json", ":", ""])
def test_a_target_that_is_none_is_not_read(target):
    assert read_options(target) is None


def test_an_edited_file_is_read_anew(module, tmp_path):
    target = f"{module('class Thing:' + chr(10) + '    def __init__(self, *, a: int = 1): pass')}:Thing"
    before = read_options(target)
    module("class Thing:\n    def __init__(self, *, longer: int = 1): pass")
    (tmp_path / "odd_module.py").touch()
    assert before != read_options(target)


def test_loading_a_recipe_imports_neither_torch_nor_what_its_components_are():
    code = ("import sys; from djepa import Recipe; from djepa.recipe import recipe_names\n"
            "[Recipe.load(name).to_yaml() for name in ('image/digits', 'audio/plucked-strings', 'video/moving-digits')]\n"
            "print([name for name in sys.modules if name in ('torch', 'djepa_image.digits', 'djepa.heads')])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_arguments_are_described_across_lines_and_names():
    text = "First.\n\nArgs:\n    a, b: both\n        of them.\n    c (int): one.\n\n    d: last\n\nRaises:\n    Error: no."
    assert described_arguments(text) == {"a": "both of them", "b": "both of them", "c": "one", "d": "last"}
    assert described_arguments("Nothing.") == {}


def test_fields_are_described_by_the_comment_beside_them():
    comments = field_comments(TrainSpec)
    assert comments["steps"] == "optimizer steps" and "lr" not in comments
    assert summary(TrainSpec.__doc__) == "How a model is trained."
