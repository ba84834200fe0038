"""What a plugin adds, and what became of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from djepa.errors import PluginError

Status = Literal["ok", "disabled", "failed", "incompatible"]

OURS = "djepa"    # names this distribution contributes cannot be taken over
LOCAL = "local"   # stands for the distribution of what is not installed: loose files, notebooks, tests

KINDS = {
    "djepa_register_modalities": "modality",
    "djepa_register_tokenizers": "tokenizer",
    "djepa_register_conditioners": "conditioner",
    "djepa_register_heads": "head",
    "djepa_register_orders": "order",
    "djepa_register_attention_backends": "attention",
    "djepa_register_datasets": "dataset",
    "djepa_register_feature_extractors": "extractor",
    "djepa_register_metrics": "metric",
    "djepa_register_recipes": "recipes",
}

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Contribution:
    """One thing that a plugin adds.

    Attributes:
        kind: one of the values of `KINDS`.
        name: as registered.
        target: "package.module:Class", or the name of a package for "recipes".
        summary: one line for people; may be empty.
        plugin: name of the plugin's entry point.
        distribution: what to `pip install` to have it; "local" if it is not installed.
    """

    kind: str
    name: str
    target: str
    summary: str
    plugin: str
    distribution: str

    @property
    def qualified(self) -> str:
        """The name that nobody else can have: ``distribution:name``."""
        return f"{self.distribution}:{self.name}"


@dataclass(frozen=True)
class Record:
    """One plugin, and what became of it.

    Attributes:
        name: of its entry point, of its file, or as registered by hand.
        distribution: normalized name of the distribution it came with; "local" if none.
        version: of that distribution; empty if unknown.
        module: value of the entry point, or the path of the file.
        status: "ok", "disabled" by the environment, "failed", or "incompatible" with our contract version.
        error: why it is not ok, in one line.
        traceback: of the failure.
        milliseconds: that loading it took, imports included.
        contributions: what it adds; empty unless it is ok.
        notes: what is worth knowing though nothing failed, such as a name that somebody else uses too.
    """

    name: str
    distribution: str
    version: str
    module: str
    status: Status
    error: str | None = None
    traceback: str | None = None
    milliseconds: float = 0.0
    contributions: tuple[Contribution, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def qualified(self) -> str:
        """``distribution:name``, which tells two plugins of one name apart."""
        return f"{self.distribution}:{self.name}"


def normalized(distribution: str) -> str:
    """The spelling of a distribution's name that packaging tools agree on: ``My_Pack`` is ``my-pack``."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def check_name(name: object, of: str) -> None:
    """Insist on lower case letters, digits, ``-`` and ``_``.

    Raises:
        PluginError: `name` is something else; `of` says in the message what it should have been the name of.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(f"{name!r} cannot be the name of a {of}: names are made of lower case letters, digits, "
                          f"'-' and '_', and begin with a letter or a digit.")
