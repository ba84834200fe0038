"""`djepa recipes`."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from djepa import Recipe
from djepa.cli.recipes_commands import app
from djepa.errors import DjepaError
from djepa.recipe import find_recipe


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, DjepaError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_ls_lists_what_there_is_without_loading_it():
    rows = {row["name"]: row for row in json.loads(run("ls", "--json"))}
    assert rows["image/digits"]["modalities"] == ["image"]
    assert "image/digits-flow" in rows and rows["image/digits-flow"]["modalities"] == ["image"]
    assert all(row["description"] and isinstance(row["model"], bool) for row in rows.values())


def test_ls_in_a_pipe_is_one_line_of_columns_each():
    rows = json.loads(run("ls", "--json"))
    lines = run("ls").splitlines()
    assert [line.split("\t")[0] for line in lines] == [row["name"] for row in rows]


def test_ls_filters_by_modality():
    rows = json.loads(run("ls", "--modality", "image", "--json"))
    assert rows == [row for row in json.loads(run("ls", "--json")) if "image" in row["modalities"]] != []
    with pytest.raises(DjepaError, match="'image'"):
        run("ls", "--modality", "imgae")


def test_show_prints_the_file():
    assert run("show", "image/digits") == find_recipe("image/digits").read_text()


def test_show_resolved_prints_every_value_and_who_gave_it(tmp_path):
    text = run("show", "image/digits", "train.steps=5", "--resolved")
    path = tmp_path / "again.yaml"
    path.write_text(text)
    assert Recipe.load(path).digest() == Recipe.load("image/digits", ["train.steps=5"]).digest()
    lines = {line.split(":")[0].strip(): line for line in text.splitlines()}
    assert lines["steps"].endswith("# override") and lines["batch_size"].endswith("# image/digits")
    assert lines["max_grad_norm"].endswith("# default")


def test_show_resolved_says_what_only_the_user_can_know():
    lines = {line.split(":")[0].strip(): line for line in run("show", "image/folder", "--resolved").splitlines()}
    assert lines["root"].split() == ["root:", "null", "#", "required"] and lines["size"].endswith("# image/folder")


def test_show_data_says_what_the_data_decide():
    text = run("show", "image/digits", "--data")
    lines = {line.split(":")[0].strip(): line for line in text.splitlines()}
    assert lines["shape"].split("#") == ["      shape: [1, 8, 8]".ljust(62), " data"]
    assert "'9'" in lines["names"] and lines["names"].endswith("# data")
    assert lines["num_tokens"].endswith("# image/digits") and lines["dropout"].endswith("# default")
    assert Recipe.from_dict(yaml.safe_load(text)).model.streams["image"].shape == (1, 8, 8)


def test_show_smoke_says_what_makes_it_small():
    assert "steps: 2 " in run("show", "image/digits", "--smoke") and "# smoke" in run("show", "image/digits", "--smoke")


def test_diff_tells_what_differs_and_who_said_it():
    rows = {row["path"]: row for row in json.loads(run("diff", "image/digits", "image/digits-flow", "train.lr=2e-3", "--json"))}
    assert set(rows) == {"description", "model.streams.image.head.kind", "model.streams.image.head.time_scale",
                         "model.streams.image.head.shift", "train.lr"}
    assert rows["train.lr"] == {"path": "train.lr", "a": {"value": 1e-3, "origin": "image/digits"},
                                "b": {"value": 2e-3, "origin": "override"}}
    assert rows["model.streams.image.head.shift"]["a"] is None
    assert rows["model.streams.image.head.shift"]["b"] == {"value": 1.0, "origin": "default"}


def test_diff_for_people_is_two_lines_a_value():
    assert run("diff", "image/digits", "image/digits", "seed=3") == "seed\n  - 0  # default\n  + 3  # override\n"
    assert run("diff", "image/digits", "image/digits") == ""


def test_diff_takes_paths_and_recipes_that_lack_what_only_the_user_knows(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: image/folder\ndata: {root: pictures}")
    assert run("diff", "image/folder", tmp_path / "mine.yaml") == (
        f"data.root\n  - null  # required\n  + pictures  # {tmp_path / 'mine.yaml'}\n")


@pytest.mark.parametrize("names", [("image/digits", "image/digts"), ("image/digts", "image/digits")])
def test_diff_of_a_recipe_that_there_is_not(names):
    with pytest.raises(DjepaError, match="Did you mean 'image/digits'"):
        run("diff", *names)


def test_show_with_overrides_prints_what_comes_of_them():
    assert "steps: 5 " in run("show", "image/digits", "train.steps=5")


@pytest.mark.parametrize("folder", [True, False])
def test_cp_makes_a_recipe_of_ones_own(tmp_path, folder):
    target = tmp_path / "digits.yaml"
    assert run("cp", "image/digits", tmp_path if folder else target).replace("\n", "") == str(target)
    assert target.read_text().startswith("# A copy of the recipe image/digits")
    assert target.read_text().endswith(find_recipe("image/digits").read_text())
    assert Recipe.load(target) == Recipe.load("image/digits")


def test_cp_replaces_only_when_told(tmp_path):
    target = tmp_path / "mine.yaml"
    target.write_text("precious")
    with pytest.raises(DjepaError, match="--force"):
        run("cp", "image/digits", target)
    assert target.read_text() == "precious"
    run("cp", "image/digits", target, "--force")
    assert yaml.safe_load(target.read_text())["data"]["kind"] == "digits"


@pytest.mark.parametrize("destination", ["mine.txt", "no/folder", "mine"])
def test_cp_writes_only_where_it_could_be_loaded_from(tmp_path, destination):
    with pytest.raises(DjepaError, match=r"\.yaml"):
        run("cp", "image/digits", tmp_path / destination)


def test_cp_keeps_a_recipe_and_the_file_it_extends_together(tmp_path):
    (tmp_path / "child.yaml").write_text("extends: base.yaml")
    with pytest.raises(DjepaError, match=r"base\.yaml"):
        run("cp", tmp_path / "child.yaml", tmp_path / "other.yaml")


def test_validate_says_ok_to_each():
    assert run("validate", "image/digits", "image/digits-flow", "train.steps=5").splitlines() == [
        "ok image/digits", "ok image/digits-flow"]


def test_validate_lists_the_problems_of_all(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: image/digits\ntrain: {stpes: 3}")
    with pytest.raises(DjepaError) as caught:
        run("validate", "image/digits", tmp_path / "mine.yaml", "image/digts", "train.lr=x")
    assert caught.value.exit_code == 2
    for words in ["train.stpes", "did you mean 'steps'", "train.lr", "'image/digts'"]:
        assert words in str(caught.value)


def test_validate_needs_a_recipe():
    with pytest.raises(DjepaError, match="no recipe"):
        run("validate", "train.steps=5")


def test_validate_checks_the_miniature_as_well(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: image/digits\nsmoke: {train: {stpes: 3}}")
    with pytest.raises(DjepaError, match=r"train\.stpes : unknown key .*smoke of .*mine\.yaml"):
        run("validate", tmp_path / "mine.yaml")


def test_validate_build_counts():
    assert run("validate", "--build", "image/digits", "video/moving-digits").splitlines() == [
        "ok image/digits 1,695,880 parameters; image: 16 tokens (4 x 4)",
        "ok video/moving-digits 3,713,792 parameters; video: 8 tokens (2 x 2 x 2)"]


@pytest.mark.parametrize(("override", "words"), [
    ("model.streams.image.tokenizer.patch=3", "image/digits cannot be built"),
    ("model.conditions.lable=class", "the dataset gives no 'lable'"),
    ("model={streams: {image: null, picture: {modality: image}}}", "the dataset gives no 'picture'"),
])
def test_validate_build_says_what_does_not_fit_together(override, words):
    with pytest.raises(DjepaError, match=words):
        run("validate", "--build", "image/digits", override)


def test_validate_build_without_the_data_asks_for_what_they_decide(tmp_path):
    with pytest.raises(DjepaError, match=r"nowhere.*to do without them say model\.streams\.image\.shape"):
        run("validate", "--build", "image/folder", f"data.root={tmp_path / 'nowhere'}")
    said = ["model.streams.image.shape=[3, 64, 64]", "model.conditions.label.names=[cats, dogs]"]
    assert "256 tokens" in run("validate", "--build", "image/folder", f"data.root={tmp_path / 'nowhere'}", *said)
