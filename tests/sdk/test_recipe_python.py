"""What can be said in YAML can be said in Python, with the same errors."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from djepa import Recipe
from djepa.errors import RecipeError
from djepa.recipe import Component, GenerateSpec, ModelSpec, StreamSpec, TrainSpec
from djepa.recipe.layers import assignment_layer, override_layer, plain
from djepa.recipe.schema import CosineMask, RotaryPosition
from djepa.recipe.yaml_text import inline_yaml, parse_yaml

NUMBERS = st.floats(1e-8, 1e3, allow_nan=False) | st.integers(1, 1000)
RATIOS = st.floats(0, 1)
HEADS = st.one_of(
    st.sampled_from(["gaussian", "flow"]),
    st.fixed_dictionaries({"kind": st.just("gaussian")}, optional={"depth": st.integers(1, 9), "width": st.integers(1, 64)}),
    st.fixed_dictionaries({"kind": st.just("flow")}, optional={"shift": NUMBERS, "time_scale": NUMBERS}))
MASKS = st.sampled_from(["cosine", {"kind": "cosine"}]) | st.fixed_dictionaries(
    {}, optional={"kind": st.just("truncated-normal"), "mean": NUMBERS, "low": st.floats(0, 0.4), "high": st.floats(0.75, 1)})
POSITIONS = st.sampled_from(["learned", "rotary"]) | st.fixed_dictionaries(
    {"kind": st.just("rotary")},
    optional={"scale": st.dictionaries(st.sampled_from("tyx"), NUMBERS), "theta": st.integers(2, 9)})
TEXT = st.text(max_size=20)
DOCUMENTS = st.fixed_dictionaries({
    "data": st.sampled_from(["digits", {"kind": "digits", "split": "all"}, {"kind": "moving-digits", "speed": 2}]),
    "model": st.fixed_dictionaries({
        "streams": st.dictionaries(
            st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,5}", fullmatch=True),
            st.fixed_dictionaries({"modality": st.sampled_from(["image", "video"])}, optional={
                "head": HEADS, "shape": st.lists(st.integers(1, 9), min_size=1, max_size=4), "loss_weight": NUMBERS,
                "meta": st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False), max_size=2)}),
            min_size=1, max_size=2)},
        optional={"width": st.sampled_from([24, 768]), "position": POSITIONS, "dropout": st.floats(0, 0.9),
                  "conditions": st.dictionaries(st.just("label"), st.fixed_dictionaries(
                      {"kind": st.just("class")}, optional={"names": st.lists(TEXT, max_size=3)}))}),
}, optional={
    "description": TEXT, "seed": st.integers(0, 2**63 - 1),
    "train": st.fixed_dictionaries({}, optional={
        "lr": NUMBERS, "steps": st.integers(1, 10**9), "mask": MASKS, "betas": st.lists(RATIOS, min_size=2, max_size=2),
        "ema_decay": RATIOS, "precision": st.sampled_from(["float32", "bfloat16"])}),
    "preview": st.fixed_dictionaries({}, optional={"conditions": st.lists(TEXT | st.integers() | st.none(), max_size=3)}),
})
BASE = {"data": "digits", "model": {"streams": {"image": {"modality": "image"}}}}


def message(make):
    with pytest.raises(RecipeError) as caught:
        make()
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


@settings(max_examples=60)
@given(DOCUMENTS)
def test_yaml_to_recipe_to_yaml_and_back(document):
    read = parse_yaml(inline_yaml(document), "the text")
    recipe = Recipe.from_dict(read)
    for origins in (False, True):
        again = Recipe.from_dict(parse_yaml(recipe.to_yaml(origins=origins), "the text"))
        assert again == recipe and again.digest() == recipe.digest() and again.to_yaml() == recipe.to_yaml()
    assert Recipe(**read) == recipe and Recipe(**read).to_yaml() == recipe.to_yaml()
    assert Recipe.model_validate(recipe.dump()) == recipe


@settings(max_examples=60)
@given(DOCUMENTS, DOCUMENTS)
def test_a_mapping_overrides_as_text_does(document, other):
    flat = {f"{group}.{key}": value for group, values in other.items() if group in ("train", "preview")
            for key, value in values.items()}
    as_text = [f"{key}={inline_yaml(value)}" for key, value in flat.items()]
    recipe = Recipe.from_dict(document)
    assert recipe.override(flat) == recipe.override(as_text) == Recipe.from_dict(document, flat)
    assert recipe.override(flat).origins == recipe.override(as_text).origins


@given(st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3}){0,3}", fullmatch=True), TEXT | st.integers() | st.lists(st.booleans()))
def test_an_assignment_is_an_override(key, value):
    assert plain(assignment_layer(key, value)) == plain(override_layer(f"{key}={inline_yaml(value)}"))


def test_everything_can_be_said_with_objects():
    made = Recipe(
        data=Component(kind="digits", split="all"),
        model=ModelSpec(
            streams={"image": StreamSpec(modality="image", head=Component(kind="flow", depth=2), shape=(1, 8, 8))},
            width=64, num_heads=2, position=RotaryPosition(scale={"y": 2.0}), generate=GenerateSpec(num_steps=4)),
        train=TrainSpec(steps=5, mask=CosineMask()), seed=3)
    read = Recipe.from_dict(parse_yaml("""
        data: {kind: digits, split: all}
        model:
          streams: {image: {modality: image, head: {kind: flow, depth: 2}, shape: [1, 8, 8]}}
          width: 64
          num_heads: 2
          position: {kind: rotary, scale: {y: 2.0}}
          generate: {num_steps: 4}
        train: {steps: 5, mask: cosine}
        seed: 3""", "the text"))
    assert made == read and made.digest() == read.digest() and made.to_yaml() == read.to_yaml()


def test_objects_override_too():
    recipe = Recipe.from_dict(BASE).override({
        "train.mask": CosineMask(), "model.streams.image.head": Component(kind="flow", depth=2),
        "model.position": {"kind": "rotary", "scale": {"y": 2.0}}, "train.betas": (0.5, 0.9), "seed": 3})
    assert recipe == Recipe.from_dict(BASE, ["train.mask=cosine", "model.streams.image.head={kind: flow, depth: 2}", "seed=3",
                                             "model.position={kind: rotary, scale: {y: 2.0}}", "train.betas=[0.5, 0.9]"])


@pytest.mark.parametrize("wrong", [
    {"train": {"stpes": 3}}, {"train": {"steps": "many", "lr": -1}}, {"train": {"micro_batch_size": 3}}, {"trian": {}},
    {"model": {"streams": {"image": {"modality": "imgae", "head": {"kind": "gausian"}}}}},
    {"data": {"kind": "digits", "splt": 1}},
    {"model": {"streams": {}}}, {"model": {**BASE["model"], "position": {"kind": "rotray"}}}, {"train": {"mask": {"low": 2}}},
    {"data": None}, {"model": {**BASE["model"], "width": 65}},
], ids=str)
def test_a_constructor_finds_what_a_file_would(wrong):
    document = {**BASE, **wrong}
    in_a_file = message(lambda: Recipe.from_dict(document))
    in_python = message(lambda: Recipe(**{key: value for key, value in document.items() if value is not None}))
    assert in_python == [line.removesuffix(" (given in the dictionary)") for line in in_a_file]


def test_a_part_says_at_once_what_is_wrong_with_it():
    assert message(lambda: TrainSpec(steps=0, stpes=3)) == [
        "steps : expected a positive number, got 0", "stpes : unknown key - did you mean 'steps'?"]
    assert message(lambda: StreamSpec(modality="image", head=Component(kind="flow", dpeth=1))) == [
        "head.dpeth : unknown key - did you mean 'depth'?"]


def test_an_empty_key_overrides_nothing():
    assert "not a dotted key" in message(lambda: Recipe.from_dict(BASE).override({"train..steps": 3}))[0]
