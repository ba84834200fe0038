"""The plugin host: it discovers plugins when it is first asked something, and answers what they add."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from types import ModuleType
from typing import Any

from djepa.errors import PluginError, UnknownNameError, suggest
from djepa.plugins import lookup
from djepa.plugins.contributions import KINDS, Contribution, Record
from djepa.plugins.loading import load, logger
from djepa.plugins.settings import Settings
from djepa.plugins.sources import Source, at_hand, installed, loose


class PluginHost:
    """Discovers plugins when first asked, and answers what they add.

    Args:
        settings: which plugins to load; those of the environment if None.
        registered: objects to register by hand, by plugin name.
    """

    def __init__(self, settings: Settings | None = None, registered: Mapping[str, object] | None = None) -> None:
        self._settings = settings or Settings.from_environment()
        self._registered = dict(registered or {})
        self._by_hand: dict[str, Record] = {}
        self._discovered: tuple[Record, ...] | None = None
        self._discovering = False
        self._lock = threading.RLock()

    @property
    def records(self) -> tuple[Record, ...]:
        """Every plugin: ours, others by distribution and name, loose files, and last those registered by hand."""
        records = self._records()
        return tuple(replace(record, notes=_notes(record, records)) for record in records)

    def contributions(self, kind: str) -> list[Contribution]:
        """What the plugins add of one kind.

        Raises:
            UnknownNameError: there is no such kind.
        """
        if kind not in KINDS.values():
            raise UnknownNameError(f"Plugins add nothing of the kind {kind!r}. {suggest(kind, KINDS.values())}")
        return [one for record in self._records() for one in record.contributions if one.kind == kind]

    def names(self, kind: str) -> list[str]:
        """The names of one kind, sorted; ``distribution:name`` where a bare name would not mean the contribution."""
        return lookup.names(self.contributions(kind))

    def find(self, kind: str, name: str) -> Contribution:
        """What `name` means, without importing it.

        Raises:
            UnknownNameError: nobody offers it, or several do and none of them is ours.
        """
        return lookup.find(kind, name, self.contributions(kind), self._records())

    def get(self, kind: str, name: str) -> Any:
        """The class that `name` means (for "recipes" the package), imported now if it has not been.

        Args:
            kind: one of the values of `KINDS`.
            name: ``name`` or ``distribution:name``.

        Raises:
            UnknownNameError: nobody offers it, or several do and none of them is ours.
            PluginError: it cannot be imported.
        """
        return lookup.resolve(self.find(kind, name))

    def register(self, plugin: object, name: str | None = None) -> Record:
        """Add a plugin that is at hand: a module, or an object with hooks as methods.

        It takes the place of one registered by hand under the same name, so that a notebook's cell can be run again.
        Processes that are forked from this one have it too; those that are spawned have not.

        Args:
            plugin: whose ``@djepa.hookimpl`` functions to use.
            name: lower case; made from the name of the module or class if None.

        Raises:
            PluginError: it does not load, or adds nothing.
        """
        name = name or _default_name(plugin)
        with self._lock:
            earlier = [record for record in self._records() if record is not self._by_hand.get(name)]
            record = self._load_by_hand(at_hand(plugin, name), earlier)
            self._registered[name] = plugin
            self._by_hand[name] = record
        return record

    def unregister(self, name: str) -> None:
        """Forget a plugin that was registered by hand; nothing happens if there is none of that name."""
        with self._lock:
            self._registered.pop(name, None)
            self._by_hand.pop(name, None)

    @contextmanager
    def temporary(self, plugin: object, name: str | None = None) -> Iterator[Record]:
        """Register a plugin for as long as the block runs, beside whatever else is registered.

        Raises:
            PluginError: it does not load, or adds nothing.
        """
        record = self.register(plugin, self._free_name(name or _default_name(plugin)))
        try:
            yield record
        finally:
            self.unregister(record.name)

    def forked(self) -> PluginHost:
        """A host for a process that was forked from this one's: what was registered by hand is in its memory."""
        return PluginHost(registered=self._registered)

    def _records(self) -> tuple[Record, ...]:
        with self._lock:
            if self._discovered is None:
                self._discover()
            return (*(self._discovered or ()), *self._by_hand.values())

    def _discover(self) -> None:
        if self._discovering:
            raise PluginError("The plugins are still being loaded, so none can be looked up: a plugin asks for another "
                              "one's contribution at import or in a hook; let it ask when the thing is used.")
        self._discovering = True
        try:
            records: list[Record] = []
            for source in (*installed(), *loose(self._settings.files)):
                records.append(self._load_or_skip(source, records))
            by_hand: dict[str, Record] = {}
            for name, plugin in self._registered.items():
                by_hand[name] = self._load_by_hand(at_hand(plugin, name), [*records, *by_hand.values()])
            self._warn_of_unmatched(records)
            # Kept only when complete: after an interruption, or a strict failure, the next look-up begins anew.
            self._by_hand, self._discovered = by_hand, tuple(records)
        finally:
            self._discovering = False

    def _load_or_skip(self, source: Source, earlier: list[Record]) -> Record:
        reason = self._settings.why_off(source.name, source.distribution)
        if reason is None:
            return load(source, earlier, self._settings)
        return Record(source.name, source.distribution, source.version, source.module, "disabled", error=reason)

    def _load_by_hand(self, source: Source, earlier: list[Record]) -> Record:
        record = load(source, earlier, replace(self._settings, strict=True))
        if not record.contributions:
            raise PluginError(f"Plugin {source.name!r} adds nothing: is @djepa.hookimpl missing on its hooks?")
        return record

    def _warn_of_unmatched(self, records: list[Record]) -> None:
        for name in self._settings.unmatched(records):
            logger.warning("DJEPA_PLUGINS or DJEPA_PLUGINS_OFF names plugin %r, which is not installed. %s", name,
                           suggest(name, [record.name for record in records]))

    def _free_name(self, name: str) -> str:
        candidates = (name if number == 1 else f"{name}-{number}" for number in count(1))
        return next(candidate for candidate in candidates if candidate not in self._registered)


def _default_name(plugin: object) -> str:
    if isinstance(plugin, ModuleType):
        return plugin.__name__.rpartition(".")[2].lower()
    return (plugin if isinstance(plugin, type) else type(plugin)).__name__.lower()


def _notes(record: Record, records: tuple[Record, ...]) -> tuple[str, ...]:
    if record.status == "ok" and not record.contributions:
        return ("adds nothing: is @djepa.hookimpl missing on its hooks?",)
    everything = [one for other in records for one in other.contributions]
    notes = (lookup.note_on_clash(mine, [one for one in everything if one.kind == mine.kind])
             for mine in record.contributions)
    return tuple(note for note in notes if note is not None)
