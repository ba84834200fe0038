"""The command line: parses, calls, prints. What it does can be said in Python with the same words."""

from __future__ import annotations

import os
import sys

import typer

from djepa.cli import (
    bench_commands,
    cache_command,
    convert_command,
    data_commands,
    evaluate_command,
    export_command,
    extend_command,
    generate_command,
    measure_command,
    plugins_commands,
    recipes_commands,
    train_commands,
)

INTERRUPTED = 130  # 128 + SIGINT, as shells have it

app = typer.Typer(
    help="Generate and train with masked autoregressive models over continuous tokens.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
)
app.command("generate")(generate_command.generate)
app.command("extend")(extend_command.extend)
app.command("evaluate")(evaluate_command.evaluate)
app.command("train")(train_commands.train)
app.command("resume")(train_commands.resume)
app.command("cache")(cache_command.cache)
app.command("measure")(measure_command.measure)
app.command("export")(export_command.export)
app.command("convert")(convert_command.convert)
app.add_typer(bench_commands.app, name="bench")
app.add_typer(recipes_commands.app, name="recipes")
app.add_typer(data_commands.app, name="data")
app.add_typer(plugins_commands.app, name="plugins")


@app.callback(invoke_without_command=True)
def _global(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from djepa import __version__

        print(f"djepa {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the `djepa` command.

    Exit codes: 0 fine, 1 something failed, 2 the request cannot be carried out as it stands, 75 a run was asked to stop and
    can be resumed, 130 interrupted.
    """
    import warnings

    from djepa.errors import DjepaError, PeerError, RunStopped
    from djepa.launch import begin_work, end_work, is_worker

    begin_work()
    # Torch's threads spin while they wait for each other, which stalls small models on a machine that has other work to do.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
            app()
    except DjepaError as error:
        code, tells = end_work(error.exit_code, silent=isinstance(error, PeerError))
        if tells:
            print(error if isinstance(error, RunStopped) else f"error: {error}", file=sys.stderr)
        sys.stderr.flush()
        if isinstance(error, PeerError):
            os._exit(code)  # what is left of the connections would be waited for
        sys.exit(code)
    except (KeyboardInterrupt, SystemExit) as stop:
        code = stop.code if isinstance(stop, SystemExit) else INTERRUPTED  # typer makes an interrupted command exit so
        if code == INTERRUPTED and not is_worker():
            print("interrupted; a run that was being trained goes on with: djepa resume RUN", file=sys.stderr)
        sys.exit(code)
