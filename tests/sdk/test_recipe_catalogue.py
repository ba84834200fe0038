"""Recipes and models of installed packages."""

import logging
import shutil
import sys
from types import SimpleNamespace

import pytest

import djepa
from djepa.errors import UnknownNameError
from djepa.plugins import temporary
from djepa.recipe import Recipe, find_model, find_recipe, model_names, recipe_names


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Makes a package of files and registers it; returns the context to use it in."""
    monkeypatch.syspath_prepend(tmp_path)

    def offered(package, files, name="mine"):
        for file, text in files.items():
            path = tmp_path / package / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

        @djepa.hookimpl
        def djepa_register_recipes(register):
            register(name, package)

        return temporary(SimpleNamespace(djepa_register_recipes=djepa_register_recipes), f"plugin-{package}".replace("_", "-"))

    yield offered
    for module in [module for module in sys.modules if module.startswith("pack_")]:
        del sys.modules[module]


def test_every_file_and_every_model_folder_of_a_package_has_a_name(offer):
    files = {"__init__.py": "", "shapes/squares.yaml": "extends: image/digits", "shapes/squares/config.json": "{}",
             "shapes/empty/README": "", "top.yaml": "", "a/b/too-deep.yaml": ""}
    before = set(recipe_names()), set(model_names())
    with offer("pack_one", files):
        assert set(recipe_names()) - before[0] == {"shapes/squares"}
        assert set(model_names()) - before[1] == {"shapes/squares"}
        assert find_recipe("shapes/squares").read_text() == "extends: image/digits"
        assert find_model("shapes/squares") == find_recipe("shapes/squares").with_suffix("")
        assert find_model("shapes/circles") is None
        assert Recipe.load("shapes/squares", ["seed=1"]).origins["seed"] == "override"
    assert (set(recipe_names()), set(model_names())) == before


@pytest.mark.parametrize("name", ["shapes/circles", "shapes", "../pack_one/shapes/squares", "shapes/squares.yaml/", ""])
def test_only_listed_names_are_found(offer, name):
    with offer("pack_one", {"__init__.py": "", "shapes/squares.yaml": ""}), pytest.raises(UnknownNameError):
        find_recipe(name)


def test_ours_wins_over_others_who_stay_reachable(offer):
    with offer("pack_one", {"__init__.py": "", "image/digits.yaml": "theirs"}):
        assert {"image/digits", "local:image/digits"} <= set(recipe_names())
        assert find_recipe("image/digits") == find_recipe("djepa:image/digits")
        assert find_recipe("local:image/digits").read_text() == "theirs"


def test_a_name_that_two_others_offer_is_ambiguous(offer):
    files = {"__init__.py": "", "shapes/squares.yaml": ""}
    with offer("pack_one", files, "one"), offer("pack_two", files, "two"), pytest.raises(UnknownNameError, match="ambiguous"):
        find_recipe("shapes/squares")


def test_a_package_that_cannot_be_used_is_reported_and_keeps_nobody_from_theirs(offer, tmp_path, caplog):
    (tmp_path / "pack_module.py").write_text("")
    with offer("pack_namespace", {"shapes/squares.yaml": ""}, "one"), offer("pack_missing", {}, "two"), \
            offer("pack_module", {}, "three"), caplog.at_level(logging.WARNING):
        assert "image/digits" in recipe_names() and "shapes/squares" not in recipe_names()
    for words in ["pack_namespace", "__init__.py", "pack_missing", "'pack_module', which is not a package"]:
        assert words in caplog.text


def test_a_zipped_package_asks_to_be_unpacked(offer, tmp_path, monkeypatch, caplog):
    context = offer("pack_zipped", {"__init__.py": "", "shapes/squares.yaml": ""})
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path, "pack_zipped")
    shutil.rmtree(tmp_path / "pack_zipped")
    monkeypatch.syspath_prepend(archive)
    with context, caplog.at_level(logging.WARNING):
        assert "shapes/squares" not in recipe_names()
    assert "unpacked" in caplog.text
