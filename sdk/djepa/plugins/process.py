"""The plugin host of this process."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from djepa.plugins.contributions import Record
from djepa.plugins.registry import PluginHost

# By process id: a forked child must not use its parent's host, whose lock another thread may have held.
_hosts: dict[int, PluginHost] = {}


def host() -> PluginHost:
    """The host of this process. Cheap, and safe to call from any thread."""
    pid = os.getpid()
    if pid not in _hosts:
        parents = list(_hosts.values())
        _hosts.setdefault(pid, parents[-1].forked() if parents else PluginHost())
    return _hosts[pid]


def reset() -> None:
    """Forget this process's host: the next look-up discovers everything again. For tests."""
    _hosts.clear()


def register(plugin: object, name: str | None = None) -> Record:
    """Add a plugin to this process's host; see `PluginHost.register`."""
    return host().register(plugin, name)


def temporary(plugin: object, name: str | None = None) -> AbstractContextManager[Record]:
    """Register a plugin with this process's host for as long as a block runs; see `PluginHost.temporary`."""
    return host().temporary(plugin, name)
