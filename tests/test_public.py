"""What importing costs, and what the package calls public."""

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import djepa

ROOT = Path(__file__).resolve().parents[1]
ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]["djepa"]
HEAVY = {"torch", "torchvision", "torchaudio", "diffusers", "transformers", "av", "decord", "scipy", "sklearn", "matplotlib"}

HELP = "import sys; sys.argv = ['djepa', '--help']; from djepa.cli import main; main()"


def heavy_modules_after(code: str) -> set[str]:
    report = "import atexit, sys; atexit.register(lambda: print('\\n' + ' '.join(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"{report}\n{code}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return HEAVY & set(done.stdout.splitlines()[-1].split())


def test_the_measurement_sees_a_heavy_import():
    assert "torch" in heavy_modules_after("import djepa; djepa.Sample")


@pytest.mark.parametrize("code", [pytest.param("import djepa", id="import djepa"),
                                  pytest.param("import djepa.cli", id="import djepa.cli"),
                                  pytest.param(HELP, id="djepa --help")])
def test_starting_loads_nothing_heavy(code):
    assert not heavy_modules_after(code)


@pytest.mark.parametrize("module", sorted(ENTRY_POINTS.values()))
def test_a_plugin_module_is_light(module):
    assert not heavy_modules_after(f"import {module}")


def test_the_installed_entry_points_are_those_of_pyproject():
    installed = {entry.name: entry.value for entry in importlib.metadata.entry_points(group="djepa")
                 if entry.dist is not None and entry.dist.name == "djepa"}
    assert installed == ENTRY_POINTS, "entry points changed: install again (pip install -e .)"


def test_all_is_sorted_and_complete():
    assert djepa.__all__ == sorted(set(djepa.__all__))
    assert set(djepa.__all__) == set(djepa._EXPORTS)
    assert set(djepa.__all__) <= set(dir(djepa))


@pytest.mark.parametrize("name", djepa.__all__)
def test_a_public_name_resolves(name):
    assert getattr(djepa, name) is not None


def test_type_checkers_see_the_same_names_from_the_same_places():
    tree = ast.parse(Path(djepa.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.name: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == djepa._EXPORTS


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Pipelin'"):
        _ = djepa.Pipelin
