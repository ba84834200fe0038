"""Loading one plugin: all of what it adds, or a record of why not.

Each plugin is tried out in a hook manager of its own. A plugin that fails half-way has then touched nothing that the
others share, and there is nothing to roll back.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
import traceback
from collections.abc import Sequence

import pluggy

from djepa.errors import DjepaError, PluginError, suggest
from djepa.hookspecs import CONTRACT, PROJECT, HookSpecs
from djepa.plugins.contributions import KINDS, Contribution, Record, Status, check_name
from djepa.plugins.settings import Settings
from djepa.plugins.sources import Source
from djepa.plugins.staging import Staging

logger = logging.getLogger("djepa.plugins")


class _IncompatibleError(PluginError):
    """The plugin speaks another version of the contract."""


def load(source: Source, earlier: Sequence[Record], settings: Settings) -> Record:
    """Load a plugin, after those whose records are `earlier`.

    Raises:
        PluginError: it does not load, and `settings` are strict. Otherwise the record says so.
    """
    started = time.perf_counter()
    try:
        contributions = _try_out(source, earlier, settings.trace)
    # A module that calls sys.exit() is a broken plugin; Ctrl-C is not.
    except (Exception, SystemExit) as error:
        return _failed(source, error, _milliseconds_since(started), settings)
    return Record(source.name, source.distribution, source.version, source.module, "ok",
                  milliseconds=_milliseconds_since(started), contributions=contributions)


def one_line(error: BaseException) -> str:
    """The error's type and message without a full stop; of our own errors, which speak for themselves, no type."""
    message = " ".join(str(error).split()).removesuffix(".")
    return message if isinstance(error, DjepaError) else f"{type(error).__name__}: {message}".removesuffix(": ")


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1e3, 3)


def _failed(source: Source, error: BaseException, milliseconds: float, settings: Settings) -> Record:
    status: Status = "incompatible" if isinstance(error, _IncompatibleError) else "failed"
    origin = f"{source.distribution} {source.version}".strip()
    message = (f"Plugin {source.name!r} of {origin} did not load and is left out: {one_line(error)}. "
               f"For details: djepa plugins doctor")
    if settings.strict:
        raise PluginError(message) from error
    if not settings.quiet:
        logger.warning(message, exc_info=error if settings.trace else None)
    return Record(source.name, source.distribution, source.version, source.module, status, error=one_line(error),
                  traceback="".join(traceback.format_exception(error)), milliseconds=milliseconds)


def _try_out(source: Source, earlier: Sequence[Record], trace: bool) -> tuple[Contribution, ...]:
    check_name(source.name, "plugin")
    _refuse_second_time(source, earlier)
    plugin = source.load()
    _check_contract(plugin)
    manager = _manager(source, plugin, trace)
    contributions = _staged(source, plugin, manager)
    _refuse_clash_at_home(contributions, earlier)
    return contributions


def _refuse_second_time(source: Source, earlier: Sequence[Record]) -> None:
    for record in earlier:
        if record.status == "ok" and record.module == source.module:
            raise PluginError(f"{source.module!r} has been loaded already, as plugin {record.qualified!r}; one of the "
                              f"two is too many.")


def _check_contract(plugin: object) -> None:
    home = sys.modules.get(getattr(plugin, "__module__", ""))
    wanted = getattr(plugin, "DJEPA_CONTRACT", getattr(home, "DJEPA_CONTRACT", CONTRACT))
    if not (isinstance(wanted, tuple) and len(wanted) == 2 and all(type(number) is int for number in wanted)):
        raise PluginError(f"DJEPA_CONTRACT should be two whole numbers like {CONTRACT}; it is {wanted!r}.")
    if wanted[0] != CONTRACT[0] or wanted[1] > CONTRACT[1]:
        older = "djepa" if wanted > CONTRACT else "the plugin"
        raise _IncompatibleError(f"It is written for plugin contract {wanted[0]}.{wanted[1]} and this djepa speaks "
                                 f"{CONTRACT[0]}.{CONTRACT[1]}; a newer version of {older} is needed.")


def _manager(source: Source, plugin: object, trace: bool) -> pluggy.PluginManager:
    """A manager that knows the hooks and this plugin alone."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    manager.register(plugin, source.qualified)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        hooks = sorted(caller.name for caller in manager.get_hookcallers(plugin) or [] if not caller.has_spec())
        raise PluginError(f"There is no hook {hooks[0]!r}. {suggest(hooks[0], KINDS)}") from error
    if trace:
        _print_calls(manager)
    return manager


def _staged(source: Source, plugin: object, manager: pluggy.PluginManager) -> tuple[Contribution, ...]:
    staging = Staging(source.name, source.distribution)
    for caller in manager.get_hookcallers(plugin) or []:
        if caller.name not in KINDS:  # declared optional, for another version of djepa
            continue
        returned = caller(register=functools.partial(staging.register, KINDS[caller.name]))
        if returned:
            raise PluginError(f"{caller.name} returned {returned[0]!r}; it should call register(...) instead.")
    staging.closed = True
    return tuple(staging.contributions)


def _refuse_clash_at_home(contributions: Sequence[Contribution], earlier: Sequence[Record]) -> None:
    """Within one distribution ``distribution:name`` has to be enough to tell contributions apart."""
    taken = {(other.kind, other.qualified): other for record in earlier for other in record.contributions}
    for contribution in contributions:
        other = taken.get((contribution.kind, contribution.qualified))
        if other is not None:
            raise PluginError(f"{contribution.kind} {contribution.name!r} is registered already by plugin "
                              f"{other.plugin!r} of the same distribution, {other.distribution}.")


def _print_calls(manager: pluggy.PluginManager) -> None:
    def before(hook: str, implementations: Sequence[pluggy.HookImpl], arguments: object) -> None:
        for implementation in implementations:
            print(f"djepa.plugins: {implementation.plugin_name} {hook}", file=sys.stderr)

    def after(outcome: pluggy.Result[object], hook: str, implementations: object, arguments: object) -> None:
        print(f"djepa.plugins: {hook} -> {outcome.exception!r}", file=sys.stderr)

    manager.add_hookcall_monitoring(before, after)
