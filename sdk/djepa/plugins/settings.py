"""What the environment says about plugins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from djepa.plugins.contributions import LOCAL, OURS, Record, normalized

_OFF = {"", "0", "false", "no", "off"}


@dataclass(frozen=True)
class Settings:
    """Which plugins to load, and how to treat those that do not.

    Attributes:
        allow: load only these, besides our own and what the user points at by hand; None for all.
        deny: never load these. Both hold plugin names, or ``distribution:name``.
        files: plugin files that are not installed.
        strict: raise at the first plugin that does not load.
        trace: log tracebacks and print hook calls to stderr.
        quiet: do not log what fails, because the caller shows the records.
    """

    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    files: tuple[Path, ...] = ()
    strict: bool = False
    trace: bool = False
    quiet: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """The settings of the variables that `djepa.plugins` lists."""
        files = environment.get("DJEPA_PLUGIN_PATH", "").split(os.pathsep)
        return cls(
            allow=_names(environment["DJEPA_PLUGINS"]) if "DJEPA_PLUGINS" in environment else None,
            deny=_names(environment.get("DJEPA_PLUGINS_OFF", "")),
            files=tuple(Path(file.strip()).expanduser().absolute() for file in files if file.strip()),
            strict=_is_on(environment.get("DJEPA_PLUGINS_STRICT", "")),
            trace=_is_on(environment.get("DJEPA_PLUGINS_TRACE", "")),
        )

    def why_off(self, name: str, distribution: str) -> str | None:
        """Why a plugin must not be loaded, or None when it may."""
        spellings = {name, f"{distribution}:{name}"}
        if self.deny & spellings:
            return "switched off by DJEPA_PLUGINS_OFF"
        if self.allow is None or distribution in (OURS, LOCAL) or self.allow & spellings:
            return None
        return "not among those that DJEPA_PLUGINS allows"

    def unmatched(self, records: Iterable[Record]) -> list[str]:
        """Names on either list that belong to no plugin: most likely misspelt."""
        known = {spelling for record in records for spelling in (record.name, record.qualified)}
        return sorted(((self.allow or frozenset()) | self.deny) - known)


def _names(text: str) -> frozenset[str]:
    return frozenset(_spelling(name.strip()) for name in text.split(",") if name.strip())


def _spelling(name: str) -> str:
    distribution, colon, bare = name.rpartition(":")
    return f"{normalized(distribution)}{colon}{bare}"


def _is_on(text: str) -> bool:
    return text.strip().lower() not in _OFF
