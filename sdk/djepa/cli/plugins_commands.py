"""``djepa plugins``: what is installed, what it adds, and what is wrong with it."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from djepa.plugins import PluginHost, Problem, Record

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
    from djepa.errors import UnknownNameError, suggest
    from djepa.plugins.contributions import normalized

    records = _quiet_host()[1]
    chosen = [record for record in records if name in (record.name, record.qualified)
              or normalized(name) == record.distribution]
    if not chosen:
        known = [word for record in records for word in (record.name, record.qualified, record.distribution)]
        raise UnknownNameError(f"No plugin or distribution {name!r}. {suggest(name, known)}")
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
