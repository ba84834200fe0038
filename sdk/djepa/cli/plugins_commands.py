"""``djepa plugins``: what is installed, what it adds, what is wrong with it, and whether it keeps its contracts."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from djepa.plugins import PluginHost, Problem, Record
    from djepa.testing import Check, Result

TRACEBACK_LINES = 6

app = typer.Typer(help="What the installed plugins add, and whether they work.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]


@app.command("list")
def list_plugins(as_json: AsJson = False) -> None:
    """List the plugins: where they come from, whether they work, what they add."""
    records = _quiet_host()[1]
    if as_json:
        _print_json([asdict(record) for record in records])
    elif sys.stdout.isatty():
        _print_table(records)
    else:
        for record in records:
            print("\t".join(_row(record)))


@app.command("info")
def show_plugin(
    name: Annotated[str, typer.Argument(help="A plugin, distribution:plugin, or a distribution.")],
    as_json: AsJson = False,
) -> None:
    """Show everything there is to know about a plugin."""
    chosen = _chosen(name, _quiet_host()[1])
    if as_json:
        _print_json([asdict(record) for record in chosen])
    else:
        print("\n\n".join(_description(record) for record in chosen))


@app.command("doctor")
def examine_plugins(as_json: AsJson = False) -> None:
    """Import everything the plugins offer and say what is wrong. Exit code 1 if anything is."""
    from djepa.plugins import diagnose

    host, records = _quiet_host()
    with redirect_stdout(sys.stderr):
        problems = diagnose(host)
    notes = [f"{record.qualified}: {note}" for record in records for note in record.notes]
    if as_json:
        _print_json({"healthy": not problems, "problems": [asdict(problem) for problem in problems], "notes": notes})
    else:
        _print_diagnosis(records, problems, notes)
    if problems:
        raise typer.Exit(1)


@app.command("check")
def check_plugin(
    name: Annotated[str, typer.Argument(help="A plugin, distribution:plugin, a distribution; or one contribution, KIND/NAME.")],
    options: Annotated[list[str] | None, typer.Argument(metavar="[OPTION=VALUE]...", help="Of one contribution.")] = None,
    modality: Annotated[str | None, typer.Option(help="Of a tokenizer: whose examples to check it on.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check that what a plugin adds keeps the contracts of djepa; takes some seconds each. Exit code 1 if anything does not.

    The same checks as tests: djepa.testing.checks.
    """
    from djepa.testing.conformance.selection import results_of

    results: list[Result] = []
    out = sys.stdout
    with redirect_stdout(sys.stderr):  # of plugins that print
        for result in results_of(_planned(name, options or [], modality)):
            results.append(result)
            if not as_json:
                print(_result_line(result), file=out, flush=True)
    count = Counter(result.status for result in results)
    ran, total = len(results) - count["skipped"], len(results)
    sound = ran > 0 and not count["failed"]
    if as_json:
        _print_json({"ok": sound, "ran": ran, "total": total, "results": [asdict(result) for result in results]})
    else:
        print(f"{ran}/{total} checks ran: {count['passed']} passed, {count['failed']} failed, {count['expected-failure']} "
              f"failed as expected; {count['skipped']} skipped.")
    if not sound:
        raise typer.Exit(1)


def _planned(name: str, options: list[str], modality: str | None) -> list[Check | Result]:
    from djepa.plugins import host
    from djepa.recipe.layers import Tree, merge, override_layer, plain
    from djepa.testing.conformance import selection

    tree: Tree = {}
    for text in options:
        tree = merge(tree, override_layer(text))
    if "/" in name:
        return selection.checks_of_name(name, plain(tree), modality)
    selection.refuse_settings(plain(tree), modality)
    return [check for record in _chosen(name, host().records) for check in selection.checks_of_plugin(record)]


def _result_line(result: Result) -> str:
    return f"{result.status:16} {result.subject}:{result.check}" + (f"  {result.reason}" if result.reason else "")


def _chosen(name: str, records: tuple[Record, ...]) -> list[Record]:
    """The plugins that a name means: one, or all of a distribution."""
    from djepa.errors import UnknownNameError, suggest
    from djepa.plugins.contributions import normalized

    chosen = [record for record in records if name in (record.name, record.qualified)
              or normalized(name) == record.distribution]
    if not chosen:
        known = [word for record in records for word in (record.name, record.qualified, record.distribution)]
        raise UnknownNameError(f"No plugin or distribution {name!r}. {suggest(name, known)}")
    return chosen


def _quiet_host() -> tuple[PluginHost, tuple[Record, ...]]:
    """A host that reports through its records alone, whatever the plugins print or the environment makes strict."""
    from dataclasses import replace

    from djepa.plugins import PluginHost, Settings

    host = PluginHost(replace(Settings.from_environment(), strict=False, quiet=True))
    with redirect_stdout(sys.stderr):  # of plugins that print when imported: it would spoil the JSON
        return host, host.records


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _row(record: Record) -> tuple[str, ...]:
    adds = ", ".join(f"{one.kind} {one.name}" for one in record.contributions)
    return (record.name, record.distribution, record.version, record.status, adds or record.error or "nothing",
            f"{record.milliseconds:.1f}")


def _print_table(records: tuple[Record, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("plugin", "distribution", "version", "status", "adds", "ms", box=None)
    for record in records:
        # Text: what a plugin calls itself is not markup.
        table.add_row(*(Text(cell) for cell in _row(record)), style=None if record.status == "ok" else "yellow")
    Console().print(table)


def _description(record: Record) -> str:
    facts = {"distribution": f"{record.distribution} {record.version}".strip(), "module": record.module,
             "status": record.status, "loaded in": f"{record.milliseconds:.1f} ms", "error": record.error}
    lines = [record.name, *(f"  {key}: {value}" for key, value in facts.items() if value)]
    lines += [f"  note: {note}" for note in record.notes]
    for one in record.contributions:
        lines.append(f"  {one.kind} {one.name} = {one.target}" + (f"  ({one.summary})" if one.summary else ""))
    return "\n".join(lines)


def _print_diagnosis(records: tuple[Record, ...], problems: list[Problem], notes: list[str]) -> None:
    for problem in problems:
        print(f"plugin {problem.plugin} of {f'{problem.distribution} {problem.version}'.strip()}: {problem.reason}")
        for line in problem.traceback.rstrip().splitlines()[-TRACEBACK_LINES:]:
            print(f"    {line}")
        print(f"  cure: {problem.cure}\n")
    for note in notes:
        print(f"note: {note}")
    in_use = sum(record.status == "ok" for record in records)
    off = sum(record.status == "disabled" for record in records)
    print(f"{len(records)} plugins: {in_use} in use, {off} switched off; problems: {len(problems)}.")
