"""Which contribution a name means.

A bare name means what it says when one contribution has it. When several have it, ours wins if there is one: an
unrelated plugin must not change what a recipe means. Otherwise nobody wins, and the name asks for its distribution.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

from djepa.errors import PluginError, UnknownNameError, suggest
from djepa.plugins.contributions import OURS, Contribution, Record, normalized
from djepa.plugins.loading import one_line


def find(kind: str, name: str, offered: Sequence[Contribution], records: Iterable[Record]) -> Contribution:
    """The contribution of this kind that `name` (``name`` or ``distribution:name``) means.

    Args:
        kind: of all `offered`.
        name: as a user wrote it.
        offered: to choose from.
        records: of all plugins; those that did not load are named when nothing is found.

    Raises:
        UnknownNameError: nobody, or more than one, offers it.
    """
    matches = _matches(name, offered)
    if not matches:
        raise UnknownNameError(f"No {kind} {name!r}. {suggest(name, names(offered))}{_missing(records)}")
    if len(matches) == 1:
        return matches[0]
    ours = [match for match in matches if match.distribution == OURS]
    if ours:
        return ours[0]
    choices = " or ".join(repr(match.qualified) for match in matches)
    raise UnknownNameError(f"{kind} {name!r} is ambiguous, because more than one plugin offers it: say {choices}.")


def names(offered: Sequence[Contribution]) -> list[str]:
    """The shortest unambiguous name of each contribution, sorted."""
    return sorted(shortest_name(contribution, offered) for contribution in offered)


def shortest_name(contribution: Contribution, offered: Sequence[Contribution]) -> str:
    """The bare name, if it means this contribution and no other; else ``distribution:name``."""
    alone = len(_matches(contribution.name, offered)) == 1
    return contribution.name if alone or contribution.distribution == OURS else contribution.qualified


def note_on_clash(contribution: Contribution, offered: Sequence[Contribution]) -> str | None:
    """What the author of a contribution whose name others use too should know."""
    if shortest_name(contribution, offered) == contribution.name:
        return None
    others = [match for match in _matches(contribution.name, offered) if match != contribution]
    if any(other.distribution == OURS for other in others):
        return (f"{contribution.kind} {contribution.name!r} is reserved: it means djepa's own; this one is "
                f"{contribution.qualified!r}")
    rivals = " and ".join(other.distribution for other in others)
    return (f"{contribution.kind} {contribution.name!r} is ambiguous, for {rivals} offers it too; this one is "
            f"{contribution.qualified!r}")


def resolve(contribution: Contribution) -> Any:
    """Import what the contribution points at.

    Raises:
        PluginError: that failed; the cause is attached.
    """
    module, _, attribute = contribution.target.partition(":")
    try:
        return reduce(getattr, attribute.split(".") if attribute else [], importlib.import_module(module))
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{contribution.kind} {contribution.name!r} cannot be imported: plugin {contribution.plugin!r} of "
            f"{contribution.distribution} says it is {contribution.target!r}, and that gives {one_line(error)}. "
            f"For details: djepa plugins doctor") from error


def _matches(name: str, offered: Iterable[Contribution]) -> list[Contribution]:
    home, _, bare = name.rpartition(":")
    return [contribution for contribution in offered
            if contribution.name == bare and (not home or contribution.distribution == normalized(home))]


def _missing(records: Iterable[Record]) -> str:
    missing = [f"{record.qualified} ({record.status})" for record in records if record.status != "ok"]
    return f" These plugins did not load: {', '.join(missing)} (djepa plugins doctor)." if missing else ""
