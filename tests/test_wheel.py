"""The wheel holds what it should, and works where the repository is not."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
ROOTS = ("sdk", "plugins", "tokenizers", "recipes")

missing = [name for name in ("build", "hatchling") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"building a wheel needs {' and '.join(missing)}")


def run(*command: str | Path, cwd: Path) -> str:
    """What the command prints; it must succeed, and must not find the repository through the environment."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=240)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel):
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """An environment that holds the wheel and, behind it, this one's dependencies; returns its folder of programs.

    The dependencies come by a plain path, whose own .pth files, and so the editable installation, are not read.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    paths = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (site / "dependencies.pth").write_text("\n".join(paths))
    return python.parent


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(contents):
    tree = {path.relative_to(ROOT / root).as_posix() for root in ROOTS for path in (ROOT / root).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}
    assert {name for name in contents if ".dist-info/" not in name} == tree


@pytest.mark.parametrize("ending", [".dist-info/licenses/LICENSE", "djepa/py.typed", "djepa_image/py.typed",
                                    "djepa_tokenizers/py.typed", "djepa_recipes/py.typed", "djepa_recipes/image/digits.yaml",
                                    "djepa_recipes/image/digits/model.safetensors", "djepa_recipes/image/digits/config.json"])
def test_the_wheel_holds(contents, ending):
    assert [name for name in contents if name.endswith(ending)]


def test_the_wheel_holds_the_scanned_digits(contents):
    assert [name for name in contents if name.startswith("djepa_image/data/") and "digits" in name]


def test_what_runs_elsewhere_is_the_wheel(elsewhere, tmp_path):
    found = run(elsewhere / "python", "-c", "import djepa, djepa_image, djepa_tokenizers, djepa_recipes as r;"
                "print(djepa.__file__, djepa_image.__file__, djepa_tokenizers.__file__, r.__file__)", cwd=tmp_path)
    assert all(path.startswith(str(elsewhere.parent)) for path in found.split())


@pytest.mark.parametrize(("command", "expected"), [
    (["--help"], "generate"),
    (["recipes", "ls"], "image/digits"),
    (["plugins", "list"], "image"),
])
def test_a_command_runs_elsewhere(elsewhere, tmp_path, command, expected):
    assert expected in run(elsewhere / "djepa", *command, cwd=tmp_path)


def test_the_shipped_model_generates_elsewhere(elsewhere, tmp_path):
    run(elsewhere / "djepa", "generate", "image/digits", "--condition", "7", "--num-samples", "2", "--num-steps", "2",
        "--num-denoising-steps", "2", "--seed", "0", "--out", "out.png", cwd=tmp_path)
    with Image.open(tmp_path / "out.png") as picture:
        picture.load()
        assert min(picture.size) >= 8
