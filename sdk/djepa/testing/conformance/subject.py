"""What is checked: a contribution of a plugin, and what every kind of them has to keep."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from djepa.plugins import Contribution, Record, host
from djepa.testing.conformance.check import Function, NotApplicable, require

HEAVY = ("torch", "numpy", "scipy", "pandas", "PIL", "cv2", "torchvision", "torchaudio", "soundfile", "librosa", "av", "decord",
         "diffusers", "transformers", "tensorflow", "jax", "sklearn", "matplotlib")
IMPORT = ("import importlib, json, runpy, sys\n"
          "name = sys.argv[1]\n"
          "runpy.run_path(name) if name.endswith('.py') else importlib.import_module(name.partition(':')[0])\n"
          "print(json.dumps([one for one in sys.argv[2:] if one in sys.modules]))")
CONTRACTS = {
    "modality": "djepa.modality:Modality",
    "tokenizer": "djepa.tokenizer:Tokenizer",
    "conditioner": "djepa.conditioner:Conditioner",
    "head": "djepa.heads.head:DenoisingHead",
    "order": "djepa.order:GenerationOrder",
    "attention": "djepa.nn.attention:AttentionBackend",
    "dataset": "djepa.dataset:Dataset",
    "extractor": "djepa.evaluate.extractor:FeatureExtractor",
    "metric": "djepa.evaluate.metric:Metric",
}


class Subject:
    """A contribution, of any kind.

    Args:
        kind: of contribution, as in `djepa.plugins.KINDS`.
        name: as registered.
        options: what a recipe would give beside `kind`.
        expected_failures: why a check is known to fail, by its id, beside those that the class itself declares.

    Attributes:
        check_ids: of all checks of this kind.
    """

    def __init__(self, kind: str, name: str, options: Mapping[str, Any], expected_failures: Mapping[str, str]) -> None:
        self.kind, self.name, self.options = kind, name, dict(options)
        self._expected = dict(expected_failures)
        self.check_ids: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def contribution(self) -> Contribution:
        """What was registered."""
        return host().find(self.kind, self.name)

    @cached_property
    def implementation(self) -> Any:
        """The class (of "recipes" the package)."""
        return host().get(self.kind, self.name)

    def build(self) -> Any:
        """What all checks but `loads` are about; by default the class itself."""
        return self.implementation

    def need(self) -> None:
        """Raise NotApplicable unless there is something to check."""
        try:
            self.build()
        except Exception as error:
            raise NotApplicable("not run, for it does not load: see the check of that name") from error

    def expected_failures(self) -> Mapping[str, str]:
        """Why a check is known to fail, by its id: those given, and those the class declares."""
        try:
            return {**getattr(self.implementation, "expected_failures", {}), **self._expected}
        except Exception:  # it does not even import, which is what `loads` will say
            return self._expected

    def record(self) -> Record:
        """The plugin it belongs to."""
        mine = self.contribution
        return next(record for record in host().records if mine in record.contributions)


def loads(subject: Subject) -> None:
    """It is registered, can be imported, is of the class its kind asks for, and can be made."""
    implementation = subject.implementation
    if subject.kind in CONTRACTS:
        module, _, name = CONTRACTS[subject.kind].partition(":")
        contract = getattr(importlib.import_module(module), name)
        require(isinstance(implementation, type) and issubclass(implementation, contract),
                f"{subject.contribution.target!r} is no subclass of {module}.{name}.")
    unknown = sorted(set(subject.expected_failures()) - subject.check_ids)
    require(not unknown, f"expected_failures names checks that there are not: {', '.join(unknown)}.")
    subject.build()


def light_import(subject: Subject) -> None:
    """The plugin's module imports nothing heavy: it is imported whenever anything looks up a name."""
    record = subject.record()
    if " at 0x" in record.module:
        raise NotApplicable("the plugin is an object that was registered by hand, and no module")
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", IMPORT, record.module, *HEAVY], capture_output=True, text=True,
                          env={**os.environ, **paths}, timeout=300, check=False)
    require(done.returncode == 0, f"{record.module!r} cannot be imported by itself: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    require(not found, f"importing {record.module!r} imports {', '.join(found)}; register strings, and leave the rest to the "
                       f"modules they name.")


GENERAL: tuple[Function, ...] = (loads, light_import)
