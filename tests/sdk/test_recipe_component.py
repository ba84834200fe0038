"""Components: checked against the constructor they name."""

import json
import pickle
import subprocess
import sys
from typing import Literal

import pytest
from pydantic import ValidationError

import djepa
from djepa.errors import UsageError
from djepa.plugins import temporary
from djepa.recipe import Component, StreamSpec, validated
from djepa.recipe.component import HeadNode
from djepa.recipe.schema import Strict


class Toy:
    """A head that only remembers.

    Args:
        channels: of a token.
        depth (layers): how deep; at least one.
        copy: a name that pydantic has as well.
    """

    def __init__(self, channels: int, context: int = 5, *, depth: int, rate: float = 0.5,
                 patch: int | tuple[int, int] = 1, mode: Literal["soft", "hard"] = "soft", copy: list[int] | None = None,
                 made: object = object) -> None:
        self.provided = (channels, context)
        self.given = {"depth": depth, "rate": rate, "patch": patch, "mode": mode, "copy": copy}


class Unreadable:
    def __init__(self, *, depth: "Missing" = 1) -> None:
        pass


class Plugin:
    @djepa.hookimpl
    def djepa_register_heads(self, register):
        register("toy", f"{__name__}:Toy")
        register("unreadable", f"{__name__}:Unreadable")
        register("gone", "no_such_module:Head")


class Holder(Strict):
    head: HeadNode


@pytest.fixture(autouse=True)
def plugin():
    with temporary(Plugin()):
        yield


def head(node):
    return Holder.model_validate({"head": node}).head


def problems(node):
    with pytest.raises(ValidationError) as caught:
        head(node)
    return {error["loc"]: error["type"] for error in caught.value.errors()}


def test_options_are_the_keyword_only_parameters_and_positions_come_from_the_core():
    built = head({"kind": "toy", "depth": 3, "rate": 1}).build(8, 16)
    assert built.provided == (8, 16)
    assert built.given == {"depth": 3, "rate": 1.0, "patch": 1, "mode": "soft", "copy": None}


def test_values_are_made_what_the_constructor_asks_for():
    options = head({"kind": "toy", "depth": "3", "rate": 1, "patch": [2, 4], "copy": [1]}).options
    assert options == {"depth": 3, "rate": 1.0, "patch": (2, 4), "copy": [1]}
    assert isinstance(options["rate"], float)


def test_only_what_was_given_is_kept():
    assert head({"kind": "toy", "depth": 3}).options == {"depth": 3}
    assert head({"kind": "toy", "depth": 3, "copy": None}).options == {"depth": 3}


def test_resolved_options_add_the_plain_defaults_in_the_order_of_the_constructor():
    resolved = head({"kind": "toy", "mode": "hard", "depth": 3}).resolved_options()
    assert list(resolved.items()) == [("depth", 3), ("rate", 0.5), ("patch", 1), ("mode", "hard"), ("copy", None)]


@pytest.mark.parametrize(("node", "expected"), [
    ({"kind": "toy", "depth": "many", "rate": "x"}, {("head", "depth"): "int_parsing", ("head", "rate"): "float_parsing"}),
    ({"kind": "toy", "dpeth": 3}, {("head", "depth"): "missing", ("head", "dpeth"): "extra_forbidden"}),
    ({"kind": "toy", "depth": 3, "channels": 8}, {("head", "channels"): "extra_forbidden"}),
    ({"kind": "toy", "depth": 3, "option_0": 3}, {("head", "option_0"): "extra_forbidden"}),
    ({"kind": "toy", "depth": 3, "mode": "sfot"}, {("head", "mode"): "literal_error"}),
    ({"kind": "toy", "depth": 3, "rate": float("inf")}, {("head", "rate"): "finite_number"}),
    ({"depth": 3}, {("head", "kind"): "missing"}),
    ({"kind": 3}, {("head", "kind"): "string_type"}),
    ({"kind": "tyo"}, {("head", "kind"): "component"}),
    ({"kind": "gone"}, {("head", "kind"): "component"}),
    ({"kind": "unreadable"}, {("head", "kind"): "component"}),
    ("toy", {("head", "depth"): "missing"}),
    (3, {("head",): "model_type"}),
    ([], {("head",): "model_type"}),
])
def test_every_problem_has_its_place(node, expected):
    assert problems(node) == expected


@pytest.mark.parametrize(("kind", "words"), [
    ("tyo", ["'tyo'", "Did you mean 'toy'"]),
    ("gone", ["'gone'", "no_such_module"]),
    ("unreadable", ["Unreadable", "Missing", "TYPE_CHECKING"]),
])
def test_a_kind_that_cannot_be_used_says_why(kind, words):
    with pytest.raises(djepa.DjepaError) as caught:
        validated(Holder, {"head": {"kind": kind}}, "the text")
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(("node", "words"), [
    ({"kind": "toy", "dpeth": 3}, ["head.dpeth : unknown key - did you mean 'depth'?",
                                   "head.depth : required (how deep; at least one)"]),
    ({"kind": "toy", "depth": 1, "patch": "x"}, ["head.patch : expected a whole number or a list, got 'x'"]),
    ({"rate": 1}, ["head.kind : required (one of: "]),
    ("toy", ["head.depth : required"]),
    ({"kind": "toy", "depth": 1, "zzz": 1}, ["head.zzz : unknown key; known: kind, depth, rate, patch, mode, copy, made"]),
])
def test_problems_are_said_in_plain_words(node, words):
    with pytest.raises(djepa.DjepaError) as caught:
        validated(Holder, {"head": node}, "the text")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_bare_name_is_a_kind_without_options():
    assert Holder.model_validate({"head": "gaussian"}) == Holder.model_validate({"head": {"kind": "gaussian"}})


def test_equal_means_same_kind_and_options():
    one, other = Component(kind="toy", depth=3, rate=1.0), head({"kind": "toy", "rate": 1, "depth": 3})
    assert one == other and hash(one) == hash(other)
    assert one != Component(kind="toy", depth=3) and one != Component(kind="tyo", depth=3, rate=1.0)
    assert len({one, other, head({"kind": "toy", "depth": 3, "copy": [1]})}) == 2


def test_a_component_is_flat_plain_data():
    dumped = head({"kind": "toy", "depth": 3, "patch": [2, 4]}).model_dump(mode="json")
    assert json.loads(json.dumps(dumped)) == {"kind": "toy", "depth": 3, "patch": [2, 4]}


def test_a_component_is_frozen_and_what_it_hands_out_is_a_copy():
    node = head({"kind": "toy", "depth": 3, "copy": [1]})
    with pytest.raises(ValidationError):
        node.kind = "flow"
    node.options["depth"] = 4
    node.build(8).given["copy"].append(2)
    assert node.options == {"depth": 3, "copy": [1]}


def test_a_component_that_was_never_checked_cannot_be_built():
    with pytest.raises(UsageError, match="toy"):
        Component(kind="toy", depth=3).build(8)


def test_a_component_survives_the_way_to_another_process():
    node = pickle.loads(pickle.dumps(head({"kind": "toy", "depth": 3})))
    assert node.build(8).given["depth"] == 3


def test_a_default_is_checked_and_can_be_built():
    stream = StreamSpec(modality="image")
    assert stream.head == Component(kind="gaussian")
    assert stream.head.resolved_options()["depth"] > 0


def test_an_unknown_modality_is_an_error():
    with pytest.raises(djepa.DjepaError, match=r"modality : .*'imgae'.*'image'"):
        validated(StreamSpec, {"modality": "imgae"}, "the text")


def test_importing_recipes_loads_no_torch_and_no_plugin():
    code = ("import sys, djepa.recipe, djepa.plugins; "
            "print('torch' in sys.modules, 'djepa_image' in sys.modules, 'djepa_recipes' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]
