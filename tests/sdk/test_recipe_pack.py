"""Recipes in somebody else's package: built as a wheel, installed, listed, shown, checked and trained."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="building a wheel needs hatchling")

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "{name}"
version = "1.0"
dependencies = ["djepa"]
[project.entry-points.djepa]
recipes = "{package}"
[tool.hatch.build.targets.wheel]
packages = ["{package}"]
"""
PLUGIN = """\
import djepa

@djepa.hookimpl
def djepa_register_recipes(register):
    register("recipes", __name__)
"""
ACME = {
    "shapes/base.yaml": "extends: image/digits\ndescription: The base of shapes.\ntrain: {lr: 2e-3}",
    "shapes/squares.yaml": "extends: base.yaml\ndescription: Squares.\nsmoke: {train: {batch_size: 2}}",
    "image/digits.yaml": "extends: image/digits\ndescription: Digits of Acme.\ntrain: {lr: 3e-3}",
    "zoo/cats.yaml": "extends: acme-pack:shapes/squares\ndescription: Cats of Acme.",
}
OTHER = {"zoo/cats.yaml": "extends: image/digits\ndescription: Cats of the other."}


def built(folder: Path, name: str, files: dict[str, str]) -> Path:
    package = f"{name.replace('-', '_')}_recipes"
    for path, text in {"pyproject.toml": PYPROJECT.format(name=name, package=package), f"{package}/__init__.py": PLUGIN,
                       **{f"{package}/{path}": text for path, text in files.items()}}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    done = subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"], cwd=folder,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which both packs are installed."""
    folder = tmp_path_factory.mktemp("packs")
    wheels = [built(folder / name, name, files) for name, files in (("acme-pack", ACME), ("other-pack", OTHER))]
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target",
                           folder / "site", *wheels], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def djepa(process, site):
    """The command, where the packs are installed."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])

    def call(*arguments):
        outcome = process(*arguments, PYTHONPATH=path)
        assert outcome.code == 0, outcome.err
        return outcome.out

    call.failing = lambda *arguments: process(*arguments, PYTHONPATH=path).error()
    return call


def test_recipes_of_packs_are_listed_by_the_shortest_clear_name(djepa):
    rows = {row["name"]: row for row in json.loads(djepa("recipes", "ls", "--json"))}
    assert {"shapes/base", "shapes/squares", "acme-pack:image/digits", "acme-pack:zoo/cats", "other-pack:zoo/cats"} <= set(rows)
    assert rows["shapes/squares"] == {"name": "shapes/squares", "modalities": ["image"], "description": "Squares.",
                                      "model": False}
    assert rows["image/digits"]["model"] and "zoo/cats" not in rows
    plugins = {row["distribution"]: row for row in json.loads(djepa("plugins", "list", "--json"))}
    assert plugins["acme-pack"]["status"] == "ok"


def test_a_recipe_of_a_pack_is_shown_compared_and_checked(djepa):
    assert djepa("recipes", "show", "shapes/squares").startswith("extends: base.yaml")
    assert "lr: 0.002 " in djepa("recipes", "show", "shapes/squares", "--resolved")
    assert "train.lr\n  - 0.001  # image/digits\n  + 0.003  # acme-pack:image/digits\n" in djepa(
        "recipes", "diff", "image/digits", "acme-pack:image/digits")
    names = ["shapes/squares", "acme-pack:image/digits", "acme-pack:zoo/cats", "other-pack:zoo/cats", "image/digits"]
    assert djepa("recipes", "validate", *names).splitlines() == [f"ok {name}" for name in names]


def test_a_name_of_two_packs_asks_which(djepa):
    told = djepa.failing("recipes", "show", "zoo/cats")
    assert "'zoo/cats' is ambiguous" in told and "'acme-pack:zoo/cats' or 'other-pack:zoo/cats'" in told


def test_a_recipe_of_a_pack_trains(djepa, tmp_path):
    assert "step_00000002" in djepa("train", "acme-pack:zoo/cats", "--smoke", "--out", "run", "--device", "cpu")
    written = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "description: Cats of Acme.\n" in written and "batch_size: 2\n" in written and "lr: 0.002\n" in written
