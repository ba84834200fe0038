"""What is wrong with the installed plugins, and what to do about it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from djepa.errors import PluginError
from djepa.plugins.contributions import LOCAL, OURS, Contribution, Record
from djepa.plugins.loading import one_line
from djepa.plugins.lookup import resolve
from djepa.plugins.registry import PluginHost


@dataclass(frozen=True)
class Problem:
    """Something a plugin promises and does not keep.

    Attributes:
        plugin, distribution, version: whose fault it is.
        reason: in one line.
        traceback: in full, as Python prints it.
        cure: what the user can do.
    """

    plugin: str
    distribution: str
    version: str
    reason: str
    traceback: str
    cure: str


def diagnose(host: PluginHost) -> list[Problem]:
    """Every plugin that does not load, and every contribution that cannot be imported.

    Imports all that the plugins point at, so it takes as long as that takes.
    """
    problems = []
    for record in host.records:
        if record.status in ("failed", "incompatible"):
            problems.append(_problem(record, record.error or "", record.traceback or ""))
        problems += [_problem(record, *broken) for one in record.contributions if (broken := _import(one))]
    return problems


def _import(contribution: Contribution) -> tuple[str, str] | None:
    """The reason and the traceback, if the contribution cannot be imported."""
    try:
        resolve(contribution)
    except PluginError as error:
        cause = error.__cause__ or error
        reason = (f"{contribution.kind} {contribution.name!r} is {contribution.target!r}, which cannot be imported: "
                  f"{one_line(cause)}")
        return reason, "".join(traceback.format_exception(cause))
    return None


def _problem(record: Record, reason: str, trace: str) -> Problem:
    return Problem(record.name, record.distribution, record.version, reason, trace, _cure(record))


def _cure(record: Record) -> str:
    off = f"to do without it, set DJEPA_PLUGINS_OFF={record.qualified}"
    if record.distribution == LOCAL:
        return f"mend {record.module}, or take it out of DJEPA_PLUGIN_PATH; {off}"
    if record.distribution == OURS:
        return f"pip install --force-reinstall {OURS}; {off}"
    if record.status == "incompatible":  # whichever of the two is too old
        return f"pip install -U {OURS} {record.distribution}, or pip uninstall {record.distribution}; {off}"
    return f"pip install -U {record.distribution}, or pip uninstall {record.distribution}; {off}"
