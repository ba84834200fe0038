"""Finding plugins, keeping them apart, and looking up what they add.

    host().get("tokenizer", "patchify")     the class registered under that name, imported now
    host().names("head")                    what there is to choose from
    host().records                          every plugin: where it comes from, whether it works, what it adds
    register(module), temporary(module)     plugins of a notebook or a test

Nothing is discovered before the first look-up. A plugin that cannot be used is reported in one line and left out; it
never keeps the others, or the program, from working. Environment variables:

    DJEPA_PLUGINS         comma list: of other people's plugins, load only these (empty: none of them)
    DJEPA_PLUGINS_OFF     comma list: do not load these; both lists take ``name`` or ``distribution:name``
    DJEPA_PLUGIN_PATH     plugin files that are not installed, separated as in PATH
    DJEPA_PLUGINS_STRICT  1: the first plugin that does not load raises PluginError (for continuous integration)
    DJEPA_PLUGINS_TRACE   1: log tracebacks, and print every hook call to stderr
"""

from __future__ import annotations

from djepa.plugins.contributions import KINDS, Contribution, Record
from djepa.plugins.diagnosis import Problem, diagnose
from djepa.plugins.process import host, register, reset, temporary
from djepa.plugins.registry import PluginHost
from djepa.plugins.settings import Settings

__all__ = [
    "KINDS",
    "Contribution",
    "PluginHost",
    "Problem",
    "Record",
    "Settings",
    "diagnose",
    "host",
    "register",
    "reset",
    "temporary",
]
