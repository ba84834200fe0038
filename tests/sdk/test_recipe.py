"""The recipe a user holds."""

import pickle

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from djepa import Recipe
from djepa.errors import RecipeError, UnknownNameError
from djepa.recipe import Component, ModelSpec, StreamSpec, TrainSpec

BASE = {
    "data": "digits",
    "model": {"streams": {"picture": {"modality": "image", "head": {"kind": "gaussian", "depth": 3}}},
              "width": 64, "num_heads": 2},
    "train": {"steps": 30, "lr": 1e-3},
}
OVERRIDES = st.lists(st.sampled_from([
    "train.steps=500", "train.steps=null", "train.lr=1e-4", "seed=3", "train.mask.kind=cosine", "train.mask=cosine",
    "train.mask.kind=truncated-normal", "train.mask=null", "model.streams.picture.head.kind=flow",
    "model.streams.picture.head=flow", "model.streams.picture.head=gaussian", "model.streams.picture.head.depth=2",
    "model.streams.picture.head={kind: flow, shift: 2.0}", "model.position={kind: rotary, scale: {y: 2.0}}",
    "model.position=rotary", "model.position.kind=learned", "data.split=all", "train.betas=[0.9, 0.99]", "description=a b",
    "train={}", "checkpoint=null", "model.conditions.label={kind: class, num_tokens: 4}", "model.conditions=null",
]), max_size=5)


def made(**replaced):
    return Recipe.from_dict({**BASE, **replaced})


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def failure(*arguments, of=Recipe.load):
    with pytest.raises(RecipeError) as caught:
        of(*arguments)
    return str(caught.value)


@pytest.fixture
def base(tmp_path):
    return write(tmp_path / "base.yaml", yaml.safe_dump(BASE))


# --- names, paths, parents ---


def test_a_recipe_is_loaded_by_name():
    recipe = Recipe.load("image/digits", ["train.steps=500"])
    assert recipe.data.kind == "digits" and recipe.train.steps == 500


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["text", "path"])
def test_a_recipe_is_loaded_by_path(tmp_path, suffix, kind):
    assert Recipe.load(kind(write(tmp_path / f"mine{suffix}", yaml.safe_dump(BASE)))) == made()


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'image/digits'"):
        Recipe.load("image/digts")


def test_a_missing_file_suggests_its_neighbours(base):
    assert "base.yaml" in failure(base.with_name("bas.yaml"))


def test_a_file_that_is_not_named_like_one_is_pointed_out(base):
    assert "ends in .yaml" in failure(str(base.rename(base.with_suffix(".txt"))))


@pytest.mark.parametrize(("content", "words"), [(b"\xff\xfe\x00", "UTF-8"), (b"", "empty"), (b"- a\n- b", "a map"),
                                                (b"text", "a map"), (b"a: [", "line 1")])
def test_a_file_that_is_no_recipe_says_why(tmp_path, content, words):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    assert words in (message := failure(path)) and "mine.yaml" in message


def test_a_folder_is_no_recipe(tmp_path):
    (tmp_path / "mine.yaml").mkdir()
    assert "mine.yaml" in failure(tmp_path / "mine.yaml")


def test_a_child_says_what_it_changes(base, tmp_path):
    (tmp_path / "deep").mkdir()
    child = write(tmp_path / "deep" / "child.yaml",
                  "extends: ../base.yaml\ntrain: {steps: 5, lr: null}\nmodel: {streams: {picture: {head: flow}}}")
    recipe = Recipe.load(child)
    assert (recipe.train.steps, recipe.train.lr) == (5, TrainSpec().lr)
    assert recipe.model.streams["picture"].head == Component(kind="flow")
    assert recipe.model.width == 64


def test_chains_and_names_can_be_extended(tmp_path):
    write(tmp_path / "one.yaml", "extends: image/digits\ntrain: {steps: 7}")
    two = write(tmp_path / "two.yaml", "extends: one.yaml\ntrain: {batch_size: 8}")
    assert Recipe.load(two) == Recipe.load("image/digits", ["train.steps=7", "train.batch_size=8"])


def test_a_circle_names_its_members(tmp_path):
    for name, parent in (("a", "b"), ("b", "c"), ("c", "b")):
        write(tmp_path / f"{name}.yaml", f"extends: {parent}.yaml")
    message = failure(tmp_path / "a.yaml")
    assert message.index("a.yaml") < message.index("b.yaml -> ") < message.index("c.yaml -> ") < message.rindex("b.yaml")


@pytest.mark.parametrize("parent", ["[a, b]", "3", "image/digts", "missing.yaml"])
def test_a_parent_that_there_is_not_is_an_error(tmp_path, parent):
    failure(write(tmp_path / "mine.yaml", f"extends: {parent}"))


# --- overrides ---


@settings(max_examples=30)
@given(OVERRIDES)
def test_overriding_at_once_or_later_is_the_same(overrides):
    try:
        expected = Recipe.from_dict(BASE, overrides)
    except RecipeError:
        failure(overrides, of=made().override)
    else:
        assert made().override(overrides) == expected
        assert made().override(overrides).digest() == expected.digest()


@settings(max_examples=30)
@given(OVERRIDES)
def test_what_is_dumped_loads_as_the_same_recipe(overrides):
    try:
        recipe = Recipe.from_dict(BASE, overrides)
    except RecipeError:
        return
    assert Recipe.from_dict(recipe.dump()) == recipe
    assert Recipe.from_dict(recipe.resolved()).digest() == recipe.digest()


def test_overriding_leaves_the_recipe_alone():
    recipe = made()
    before = recipe.dump()
    assert recipe.override(["train.steps=5"]).train.steps == 5
    assert recipe.dump() == before


def test_another_kind_by_override_drops_the_options_of_the_old():
    recipe = made().override(["model.streams.picture.head.kind=flow", "train.mask.low=0.5", "train.mask.kind=cosine"])
    assert recipe.model.streams["picture"].head == Component(kind="flow")
    assert recipe.train.mask.kind == "cosine"


def test_a_node_without_a_kind_is_of_the_kind_of_its_default():
    assert made().override(["train.mask.low=0.5"]).train.mask.low == 0.5
    assert Recipe.from_dict({**BASE, "train": {"mask": {"low": 0.5}}}).train.mask.kind == "truncated-normal"


@pytest.mark.parametrize("node", ["{low: 0.5}", "{kind: truncated-normal, low: 0.5}"])
def test_another_kind_drops_the_options_of_one_that_was_left_to_the_default(tmp_path, node):
    head = "model: {streams: {image: {head: "
    write(tmp_path / "base.yaml", f"extends: image/digits\ntrain: {{mask: null}}\n{head}null}}}}}}")
    write(tmp_path / "parent.yaml", f"extends: base.yaml\ntrain: {{mask: {node}}}\n{head}{{depth: 2}}}}}}}}")
    child = write(tmp_path / "child.yaml", f"extends: parent.yaml\ntrain: {{mask: cosine}}\n{head}flow}}}}}}")
    recipe = Recipe.load(child)
    assert recipe.train.mask.kind == "cosine" and recipe.model.streams["image"].head == Component(kind="flow")
    assert Recipe.load(tmp_path / "parent.yaml", ["train.mask.high=0.9"]).train.mask.low == 0.5


def test_a_text_is_not_a_list_of_overrides():
    assert "list" in failure("train.steps=5", of=made().override)


# --- problems ---


def test_all_problems_come_at_once_sorted_and_with_their_origin(base):
    base.write_text(base.read_text() + "trian: {steps: 3}\n")
    message = failure(base, ["train.stpes=5", "train.steps=-3", "model.streams.picture.head.dpeth=3", "nonsense",
                             "model.streams.pictur.head=flow", "train.lr_schedule=cosin", "data.splt=all"])
    lines = [line.strip() for line in message.splitlines()[1:]]
    file = str(base)
    for expected in [
        "train.stpes : unknown key - did you mean 'steps'? (given in override)",
        "train.steps : expected a positive number, got -3 (given in override)",
        "model.streams.picture.head.dpeth : unknown key - did you mean 'depth'? (given in override)",
        "train.lr_schedule.kind : expected one of 'constant', 'cosine', 'linear', 'inverse-square-root', "
        "'warmup-stable-decay', got 'cosin' - did you mean 'cosine'? (given in override)",
        "data.splt : unknown key - did you mean 'split'? (given in override)",
        f"trian : unknown key - did you mean 'train'? (given in {file})",
    ]:
        assert expected in lines, message
    assert "model.streams.pictur.modality : required - did you mean 'model.streams.picture'?" in lines
    assert any(line.startswith("the override 'nonsense' is not of the form") for line in lines)
    assert lines == sorted(lines) and len(lines) == 8


@pytest.mark.parametrize(("override", "words"), [
    ("model.width=65", "model : width=65 must be a multiple of num_heads = 2"),
    ("model.predictor_num_heads=3", "model : predictor_width=64 must be a multiple of predictor_num_heads = 3"),
    ("train.micro_batch_size=3", "train : micro_batch_size=3 must divide batch_size=256"),
    ("train.mask.low=1.0", "train.mask : low=1.0 must be below high=1.0"),
    ("train.steps=many", "train.steps : expected a whole number, got 'many'"),
    ("train.steps=1.5", "train.steps : expected a whole number, got 1.5"),
    ("train.lr=.inf", "train.lr : expected a finite number, got Infinity"),
    ("train.ema_decay=1.5", "train.ema_decay : expected a number of at most 1.0, got 1.5"),
    ("train.betas=[0.9]", "train.betas.1 : required"),
    ("train.betas=0.9", "train.betas : expected a list, got 0.9"),
    ("train=3", "train : expected a group of keys, got 3"),
    ("model.qk_norm=maybe", "model.qk_norm : expected true or false, got 'maybe'"),
    ("model.streams=null", "model.streams : required"),
    ("model.streams={a.b: {modality: image}}", "model.streams.a.b : expected a name of letters"),
    ("model.position.scale=2", "model.position.scale : unknown key"),
    ("model.position=rotray", "model.position.kind : expected one of 'learned', 'rotary', got 'rotray' - did you mean 'ro"),
    ("model.streams.picture.modality=imgae", "streams.picture.modality : No modality 'imgae'. Did you mean 'image'?"),
    ("model.streams.picture.head.kind=gausian", "picture.head.kind : No head 'gausian'. Did you mean 'gaussian'?"),
    ("model.generate.order.kind=rnadom", "model.generate.order.kind : No order 'rnadom'. Did you mean 'random'?"),
    ("data=null", "data : required"),
    ("extends=image/digits", "extends : unknown key"),
    ("description=3", "description : expected text, got 3"),
    ("schema_version=0", "schema_version : expected 1, got 0"),
])
def test_a_problem_is_said_in_plain_words(override, words):
    message = failure([override], of=made().override)
    assert words in message and "pydantic" not in message and "Input should" not in message


def test_a_model_without_streams_is_none():
    assert "model.streams : expected at least 1" in failure({**BASE, "model": {"streams": {}}}, of=Recipe.from_dict)


def test_a_newer_schema_asks_for_a_newer_djepa():
    message = failure({**BASE, "schema_version": 2, "newfangled": True}, of=Recipe.from_dict)
    assert "schema_version 2" in message and "upgrade" in message and "newfangled" not in message


# --- what a recipe says of itself ---


def test_origins_tell_who_gave_each_value(base, tmp_path):
    child = write(tmp_path / "child.yaml", "extends: base.yaml\ntrain: {steps: 5}")
    origins = Recipe.load(child, ["seed=3", "model.streams.picture.head.width=8"]).origins
    assert origins["train.steps"] == str(child) and origins["train.lr"] == str(base)
    assert origins["data.kind"] == str(base) and origins["data.split"] == "default"
    assert origins["seed"] == "override" and origins["train.batch_size"] == "default"
    assert origins["model.streams.picture.head.width"] == "override"
    assert origins["model.streams.picture.head.depth"] == str(base)
    assert origins["model.streams.picture.head.num_noise_samples"] == "default"


def test_origins_survive_a_later_override(base):
    origins = Recipe.load(base).override(["seed=3"]).origins
    assert (origins["seed"], origins["train.steps"], origins["train.warmup_steps"]) == ("override", str(base), "default")


def test_a_recipe_made_in_python_is_the_same_data():
    head = Component(kind="gaussian", depth=3)
    model = ModelSpec(streams={"picture": StreamSpec(modality="image", head=head)}, width=64, num_heads=2)
    recipe = Recipe(data=Component(kind="digits"), model=model, train=TrainSpec(steps=30, lr=1e-3))
    assert recipe == made() and hash(recipe) == hash(made()) and recipe.digest() == made().digest()
    assert recipe.origins["train.steps"] == "Python" and recipe.origins["train.batch_size"] == "default"


def test_the_resolved_yaml_is_the_same_run(tmp_path):
    for origins in (False, True):
        again = Recipe.load(write(tmp_path / "recipe.yaml", made().to_yaml(origins=origins)))
        assert again.digest() == made().digest() and again.to_yaml() == made().to_yaml()


def test_the_digest_is_of_what_is_said_and_not_of_how():
    digest = made().digest()
    assert len(digest) == 64
    assert made(train={"lr": 1e-3, "steps": 30}).digest() == digest
    assert made(data={"kind": "digits", "split": "train"}).digest() == digest
    assert made(train={"lr": 1e-3, "steps": 31}).digest() != digest
    assert made(data={"kind": "digits", "split": "all"}).digest() != digest


def test_a_recipe_survives_the_way_to_another_process():
    recipe = pickle.loads(pickle.dumps(made()))
    assert recipe == made() and recipe.origins == made().origins
    assert len(recipe.data.build()) > 0
