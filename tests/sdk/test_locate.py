"""From what a user calls a model to its folder."""

import importlib
import shutil
import sys

import pytest

from djepa import Pipeline
from djepa.errors import CheckpointError
from djepa.hookspecs import hookimpl
from djepa.locate import locate_model
from djepa.plugins import temporary


class Shelf:
    @hookimpl
    def djepa_register_recipes(self, register):
        register("shelf", "shelf_of_models")


@pytest.fixture
def shelf(tmp_path, monkeypatch, trained):
    """An installed package that ships the model `toys/digits`."""
    package = tmp_path / "site" / "shelf_of_models"
    shutil.copytree(trained / "checkpoints" / "step_00000006", package / "toys" / "digits")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    importlib.invalidate_caches()
    with temporary(Shelf()):
        yield package
    del sys.modules["shelf_of_models"]


def refusal(name):
    with pytest.raises(CheckpointError) as caught:
        Pipeline.from_pretrained(name, device="cpu")
    return str(caught.value)


def test_a_shipped_model_has_a_name(shelf):
    assert locate_model("toys/digits") == shelf / "toys" / "digits"
    assert Pipeline.from_pretrained("toys/digits", device="cpu").name == "toys/digits"


def test_a_shipped_model_comes_before_a_folder_of_that_name(shelf, tmp_path, monkeypatch):
    (tmp_path / "toys" / "digits").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate_model("toys/digits") == shelf / "toys" / "digits"


@pytest.mark.parametrize("name", ["toys/digit", "toys/dgits", "toy/digits"])
def test_a_misspelt_name_is_suggested(shelf, name):
    assert "Did you mean 'toys/digits'" in refusal(name)


def test_what_begins_like_a_shipped_name_is_not_looked_up_on_the_network(shelf, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # to import it is an error now
    assert "no folder of that name, and not shipped" in refusal("toys/nothing")


def test_a_model_folder_is_taken_as_it_is(trained):
    checkpoint = trained / "checkpoints" / "step_00000004"
    assert locate_model(checkpoint) == locate_model(str(checkpoint)) == checkpoint


def test_a_run_means_its_newest_checkpoint(trained):
    assert locate_model(trained) == trained / "checkpoints" / "step_00000006"


def test_of_a_run_only_complete_checkpoints_count(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "checkpoints" / "step_00000006" / "progress.json").unlink()
    shutil.copytree(trained / "checkpoints" / "step_00000006", run / "checkpoints" / ".step_00000008.0a1b2c3d.tmp")
    assert locate_model(run) == run / "checkpoints" / "step_00000004"
    shutil.rmtree(run / "checkpoints")
    assert "neither a model folder (no config.json) nor a run with a complete checkpoint" in refusal(run)


def test_steps_are_compared_as_numbers(trained, tmp_path):
    run = tmp_path / "run"
    for step in (99_999_999, 100_000_000):
        shutil.copytree(trained / "checkpoints" / "step_00000006", run / "checkpoints" / f"step_{step:08d}")
    assert locate_model(run).name == "step_100000000"


@pytest.mark.parametrize("name", ["nobody/nothing", "no such model", "nothing", "a/b/c", "/no/such/folder", "../no", "", "~"])
def test_a_model_that_is_nowhere_is_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert repr(name or ".") in refusal(name)


def test_a_repository_that_the_hub_does_not_give_says_why():
    message = refusal("nobody/nothing")
    assert "Hugging Face Hub" in message and "\n" not in message
