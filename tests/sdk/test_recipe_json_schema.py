"""The schema for editors, judged by a validator that is not ours."""

import json
from collections.abc import Mapping, Sequence

import pytest
import yaml
from jsonschema import Draft7Validator

import djepa
from djepa import Recipe
from djepa.errors import RecipeError
from djepa.plugins import host, temporary
from djepa.recipe import find_recipe, recipe_names
from djepa.recipe.component import DatasetNode, OrderNode
from djepa.recipe.json_schema import recipe_json_schema
from djepa.recipe.yaml_text import parse_yaml

BASE = {"data": "digits", "model": {"streams": {"image": {"modality": "image", "head": {"kind": "flow", "depth": 2}}}}}
WRONG = [  # each is refused by the recipe's own validation too
    {"trian": {}}, {"train": {"stpes": 3}}, {"train": {"steps": "many"}}, {"train": {"steps": 0}},
    {"train": {"ema_decay": 1.5}},
    {"train": {"precision": "float61"}}, {"train": {"betas": [0.9]}}, {"train": {"betas": [0.9, 0.9, 0.9]}}, {"train": 3},
    {"train": {"mask": "cosnie"}}, {"train": {"mask": {"kind": "cosine", "low": 0.5}}}, {"train": {"mask": {"lwo": 0.5}}},
    {"train": {"mask": {"low": 2}}}, {"data": "digts"}, {"data": {"kind": "digits", "splt": "all"}}, {"data": None, "model": 3},
    {"data": {"kind": "digits", "split": "some"}}, {"model": {"streams": {"a.b": {"modality": "image"}}}},
    {"model": {"streams": {"a": {"modality": "imgae"}}}}, {"model": {"streams": {"a": {"modality": "image", "haed": "flow"}}}},
    {"model": {"streams": {"a": {"modality": "image", "head": {"kind": "gaussian", "shift": 1.0}}}}},
    {"model": {"streams": {"a": {"modality": "image", "head": {"kind": "gausian"}}}}},
    {"model": {"streams": {"a": {"modality": "image", "head": {"dpeth": 1}}}}},
    {"model": {"streams": {"a": {"modality": "image", "shape": [0]}}}}, {"model": {"position": {"kind": "rotary", "tehta": 2}}},
    {"model": {"conditions": {"label": {"kind": "class", "names": 3}}}}, {"model": {"generate": {"order": {"kind": "rastr"}}}},
    {"smoke": {"train": {"stpes": 3}}}, {"smoke": 3}, {"extends": 3}, {"schema_version": 2}, {"seed": -1},
]
RIGHT = [
    {}, {"train": None}, {"train": {"steps": None, "mask": "cosine"}}, {"train": {"mask": {"low": 0.5}}},
    {"data": {"kind": "djepa:digits", "split": "all"}},
    {"model": {**BASE["model"], "position": {"kind": "rotary", "scale": {"y": 2}}}},
    {"model": {**BASE["model"], "conditions": {"label": {"kind": "class", "names": ["a", "b"]}}}},
    {"smoke": {"train": {"steps": 1}}}, {"preview": {"conditions": ["a text", {"label": 3}, None]}},
]


class Toy:
    """A head.

    Args:
        depth: how deep
            it is.
    """

    def __init__(self, channels: int, context: int, *, depth: int, sizes: tuple[int, float] = (1, 2.0),
                 odd: "Toy | None" = None):
        self.depth = depth


class Nest:
    """Components within a component."""

    def __init__(self, *, eggs: Mapping[str, DatasetNode], orders: Sequence[OrderNode] = ()) -> None:
        self.eggs, self.orders = eggs, orders


class Plugin:
    @djepa.hookimpl
    def djepa_register_datasets(self, register):
        register("nest", f"{__name__}:Nest")

    @djepa.hookimpl
    def djepa_register_heads(self, register):
        register("toy", f"{__name__}:Toy", summary="a toy")
        register("gone", "no_such_module:Head")


@pytest.fixture(scope="module")
def judge():
    schema = recipe_json_schema()
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def complaints(judge, document):
    return sorted(f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in judge.iter_errors(document))


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_fits(judge, name):
    assert complaints(judge, parse_yaml(find_recipe(name).read_text(encoding="utf-8"), name)) == []


@pytest.mark.parametrize("name", [name for name in recipe_names() if name in ("image/digits", "video/moving-digits")])
def test_a_resolved_recipe_fits(judge, name):
    for smoke in (False, True):
        recipe = Recipe.load(name, smoke=smoke)
        assert complaints(judge, recipe.dump()) == complaints(judge, recipe.resolved()) == []
        assert complaints(judge, yaml.safe_load(recipe.to_yaml())) == []


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_what_is_wrong_is_refused(judge, change):
    assert complaints(judge, {**BASE, **change})
    if "smoke" not in change:
        with pytest.raises(RecipeError):
            Recipe.from_dict({**BASE, **change})


@pytest.mark.parametrize("change", RIGHT, ids=str)
def test_what_is_right_is_let_pass(judge, change):
    Recipe.from_dict({**BASE, **change})
    assert complaints(judge, {**BASE, **change}) == []


def test_a_complaint_is_of_the_very_key(judge):
    wrong = {**BASE, "train": {"stpes": 3, "lr": -1}}
    assert complaints(judge, wrong) == [
        "train.lr: -1 is less than or equal to the minimum of 0",
        "train: Additional properties are not allowed ('stpes' was unexpected)"]
    head = {"model": {"streams": {"image": {"head": {"kind": "flow", "dpeth": 3}}}}, "extends": "image/digits"}
    assert complaints(judge, head) == [
        "model.streams.image.head: Additional properties are not allowed ('dpeth' was unexpected)"]


def test_a_file_without_a_parent_needs_data_and_a_model(judge):
    assert len(complaints(judge, {"seed": 3})) == 2 and complaints(judge, {"extends": "image/digits", "seed": 3}) == []


def test_every_installed_kind_is_offered(judge):
    for registry in ("head", "order", "dataset", "tokenizer", "conditioner", "attention"):
        kind = judge.schema["definitions"][registry]["properties"]["kind"]
        assert kind["anyOf"][0]["enum"] == host().names(registry)


def test_keys_say_what_they_are(judge):
    definitions = judge.schema["definitions"]
    assert definitions["TrainSpec"]["properties"]["steps"]["description"] == "optimizer steps"
    assert definitions["TrainSpec"]["properties"]["steps"]["default"] == 10_000
    assert definitions["TrainSpec"]["description"] == "How a model is trained."
    (flow,) = [case["then"] for case in definitions["head"]["allOf"]
               if case["if"].get("properties", {}).get("kind") == {"const": "flow"}]
    assert flow["description"] == "flow matching on straight paths" and flow["properties"]["depth"]["default"] == 6
    assert flow["properties"]["width"]["description"] == "of the denoising MLP"


def test_a_plugins_class_is_all_the_schema_it_needs():
    with temporary(Plugin()):
        judge = Draft7Validator(recipe_json_schema())

        def told(head):
            return complaints(judge, {"extends": "x", "model": {"streams": {"image": {"head": head}}}})

        assert told({"kind": "toy", "depth": 3, "sizes": [1, 2.5], "odd": "anything"}) == told("toy") == []
        assert told({"kind": "gone", "whatever": 1}) == []
        assert told({"kind": "toy", "dpeth": 3}) and told({"kind": "toy", "sizes": [1]}) and told({"kind": "toy", "depth": "x"})


def test_components_within_components_are_looked_into():
    with temporary(Plugin()):
        judge = Draft7Validator(recipe_json_schema())
        inner = {"kind": "nest", "eggs": {"c": {"kind": "digits", "split": "all"}}}
        right = {"kind": "nest", "eggs": {"a": "digits", "b": inner},
                 "orders": ["raster", {"kind": "causal", "axis": "y"}]}
        assert complaints(judge, {**BASE, "data": right}) == []
        recipe = Recipe.from_dict({**BASE, "data": right})
        assert recipe.resolved()["data"]["eggs"]["b"]["eggs"]["c"] == {"kind": "digits", "split": "all"}
        assert recipe.resolved()["data"]["eggs"]["a"] == {"kind": "digits", "split": "train"}
        assert complaints(judge, recipe.resolved()) == [] and Recipe.from_dict(recipe.resolved()).digest() == recipe.digest()
        for wrong in ({"a": {"kind": "digits", "splt": "all"}}, {"a": {"kind": "nest", "eggs": {"c": "digts"}}}):
            assert complaints(judge, {**BASE, "data": {"kind": "nest", "eggs": wrong}})
        with pytest.raises(RecipeError, match=r"data\.eggs\.a\.splt : unknown key - did you mean 'split'"):
            Recipe.from_dict({**BASE, "data": {"kind": "nest", "eggs": {"a": {"kind": "digits", "splt": 1}}}})


def test_the_command_writes_it_and_copies_tell_editors_of_it(command, tmp_path):
    path = tmp_path / "recipe.schema.json"
    assert command("recipes", "schema", "--out", path).out == f"{path}\n"
    assert json.loads(path.read_text()) == json.loads(command("recipes", "schema").out) == recipe_json_schema()
    assert command("recipes", "cp", "image/digits", tmp_path / "mine.yaml").code == 0
    assert "# yaml-language-server: $schema=recipe.schema.json" in (tmp_path / "mine.yaml").read_text().splitlines()[:2]
    (tmp_path / "elsewhere").mkdir()
    assert command("recipes", "cp", "image/digits", tmp_path / "elsewhere").code == 0
    assert "yaml-language-server" not in (tmp_path / "elsewhere" / "digits.yaml").read_text()


def test_the_schema_takes_no_torch(process):
    done = process("recipes", "schema", code="import sys\nfrom djepa.cli import main\ntry:\n    main()\nfinally:\n"
                                             "    print('torch' in sys.modules, file=sys.stderr)")
    assert done.err.strip() == "False"
