"""Which checks a name on the command line means, and what to do where it takes more than a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from djepa.errors import DjepaError, UsageError
from djepa.plugins import Contribution, Record, host, lookup
from djepa.recipe.options import option_parameters
from djepa.testing.conformance import checks
from djepa.testing.conformance.check import Check, Result

COMMAND = "djepa plugins check"


def results_of(planned: Sequence[Check | Result]) -> Iterator[Result]:
    """What becomes of each check, one after the other."""
    return (one.result() if isinstance(one, Check) else one for one in planned)


def checks_of_name(name: str, options: Mapping[str, Any], modality: str | None) -> list[Check | Result]:
    """The checks of one contribution, written KIND/NAME.

    Raises:
        UsageError: there is no such kind or contribution, or `modality` is not what this kind needs.
    """
    kind, _, bare = name.partition("/")
    planned = checks(kind, bare, options=options, modality=modality)
    host().find(kind, bare)
    return list(planned)


def checks_of_plugin(record: Record) -> list[Check | Result]:
    """The checks of everything that a plugin adds, as far as they need nothing but its name."""
    if record.status != "ok":
        status = "skipped" if record.status == "disabled" else "failed"
        return [Result(f"plugin/{record.qualified}", "loads", status, record.error or record.status)]
    return [check for one in record.contributions for check in _of_contribution(one)]


def _of_contribution(one: Contribution) -> list[Check | Result]:
    name = lookup.shortest_name(one, host().contributions(one.kind))
    if one.kind == "tokenizer":
        return _of_tokenizer(one, name)
    if one.kind == "dataset" and (needed := _needed(one)):
        settings = " ".join(f"{option}=..." for option in needed)
        return [Result(f"dataset/{name}", "all", "skipped", f"it needs settings: {COMMAND} dataset/{name} {settings}")]
    return list(checks(one.kind, name))


def _needed(one: Contribution) -> list[str]:
    """Options without a default; none that can be told where the class cannot be imported."""
    try:
        parameters = option_parameters(lookup.resolve(one))
    except DjepaError:
        return []
    return [name for name, parameter in parameters.items() if parameter.default is parameter.empty]


def _of_tokenizer(one: Contribution, name: str) -> list[Check | Result]:
    """A tokenizer is checked on the modalities whose recipes get it when they name none, with the options they get."""
    found: list[Check | Result] = []
    for modality in host().names("modality"):
        try:
            node = dict(host().get("modality", modality)().default_tokenizer())
            if host().find("tokenizer", node.pop("kind")) == one:
                found += checks("tokenizer", name, options=node, modality=modality)
        except Exception:  # a modality that does not work is not this tokenizer's fault
            continue
    if not found:
        reason = (f"no modality has it as its default; say on which to check it: {COMMAND} tokenizer/{name} --modality "
                  f"MODALITY [OPTION=VALUE]...")
        found.append(Result(f"tokenizer/{name}", "all", "skipped", reason))
    return found


def refuse_settings(options: Mapping[str, Any], modality: str | None) -> None:
    """Refuse settings where a whole plugin is checked.

    Raises:
        UsageError: there are some.
    """
    if options or modality:
        raise UsageError(f"Settings belong to one contribution: {COMMAND} KIND/NAME, for example tokenizer/patchify or "
                         f"dataset/digits.")
