"""Real distributions, written to a folder: a dist-info with its metadata, and the modules it installs."""

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Site:
    """A folder like site-packages, in front of the path.

    It always holds a distribution "djepa", which hides the metadata of the real one: a test says itself what djepa
    contributes.
    """

    path: Path

    def add(self, distribution, modules, entries=None, version="1.0"):
        """Install modules {name: source}. Each gets an entry point of its name, unless `entries` {name: value} are given."""
        entries = {name: name for name in modules} if entries is None else entries
        info = self.path / f"{distribution.replace('-', '_').lower()}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("\n".join(["[djepa]", *(f"{n} = {v}" for n, v in entries.items()), ""]))
        for name, source in modules.items():
            (self.path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return info

    def add_targets(self):
        """Install the module `targets`, whose class `Thing` the plugins of these tests offer."""
        (self.path / "targets.py").write_text("class Thing:\n    class Inner:\n        pass\n")
        importlib.invalidate_caches()

    def run(self, *arguments, **environment):
        """Run Python with this folder in front of its path."""
        return subprocess.run([sys.executable, *arguments], env={**os.environ, "PYTHONPATH": str(self.path), **environment},
                              capture_output=True, text=True, timeout=60, cwd=self.path)


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    site = Site(folder)
    site.add("djepa", {}, version="0.1.0")
    site.add_targets()
    monkeypatch.syspath_prepend(str(folder))
    yield site
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def offering():
    """The source of a plugin that registers `names`, by default as tokenizers."""
    def source(*names, hook="djepa_register_tokenizers", target="targets:Thing", before=""):
        calls = "".join(f"    register({name!r}, {target!r}, summary='about {name}')\n" for name in names)
        return f"import djepa.hookspecs as djepa\n{before}\n@djepa.hookimpl\ndef {hook}(register):\n{calls}"
    return source
