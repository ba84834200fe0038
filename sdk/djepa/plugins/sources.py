"""Where plugins come from: entry points of installed distributions, loose files, and objects at hand."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from djepa.errors import PluginError
from djepa.hookspecs import PROJECT
from djepa.plugins.contributions import LOCAL, OURS, normalized


@dataclass(frozen=True)
class Source:
    """A plugin that has not been loaded yet.

    Attributes:
        name, distribution, version, module: as in `Record`.
        load: imports it; raises whatever importing it raises.
    """

    name: str
    distribution: str
    version: str
    module: str
    load: Callable[[], object]

    @property
    def qualified(self) -> str:
        """``distribution:name``."""
        return f"{self.distribution}:{self.name}"


def installed() -> list[Source]:
    """The plugins of the installed distributions: ours first, then by distribution and name."""
    try:
        entries = list(importlib.metadata.entry_points(group=PROJECT))
    except Exception:  # one unreadable entry_points.txt, of whatever distribution, spoils the whole listing
        return _sorted(_one_by_one(importlib.metadata.distributions()))
    return _sorted(_of_entry(entry, entry.dist) for entry in entries if entry.dist is not None)


def loose(files: Iterable[Path]) -> list[Source]:
    """The plugins of files that are not installed, in the order given."""
    return [Source(path.stem, LOCAL, "", str(path), lambda path=path: _load_file(path)) for path in files]


def at_hand(plugin: object, name: str) -> Source:
    """A plugin that has been imported already."""
    kind = plugin if isinstance(plugin, type) else type(plugin)
    here = f"{kind.__module__}:{kind.__qualname__} at {id(plugin):#x}"
    return Source(name, LOCAL, "", plugin.__name__ if isinstance(plugin, ModuleType) else here, lambda: plugin)


def _sorted(sources: Iterable[Source]) -> list[Source]:
    # Ours first: somebody else's entry point that names one of our modules must not be the one that counts.
    return sorted(sources, key=lambda source: (source.distribution != OURS, source.qualified, source.module))


def _of_entry(entry: importlib.metadata.EntryPoint, distribution: importlib.metadata.Distribution) -> Source:
    return Source(entry.name, *_identity(distribution), entry.value, entry.load)


def _identity(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    """Name and version, as far as they can be told: a half-removed distribution may have lost its METADATA."""
    try:
        return normalized(distribution.name), distribution.version or ""
    except Exception:
        return "unknown", ""


def _one_by_one(distributions: Iterable[importlib.metadata.Distribution]) -> Iterator[Source]:
    seen: set[str] = set()
    for distribution in distributions:
        name, version = _identity(distribution)
        if name in seen:  # an earlier folder of sys.path hides it
            continue
        seen.add(name)
        try:
            entries = list(distribution.entry_points)
        except Exception as error:
            if _may_have_plugins(distribution):
                yield Source("unreadable", name, version, "entry_points.txt", _raising(error))
        else:
            yield from (_of_entry(entry, distribution) for entry in entries if entry.group == PROJECT)


def _may_have_plugins(distribution: importlib.metadata.Distribution) -> bool:
    try:
        return f"[{PROJECT}]" in (distribution.read_text("entry_points.txt") or "")
    except Exception:  # not even text
        return True


def _raising(cause: Exception) -> Callable[[], object]:
    def load() -> object:
        raise PluginError("The entry_points.txt of the distribution cannot be read; reinstall it.") from cause
    return load


def _load_file(path: Path) -> ModuleType:
    """Import a file as a module of the file's name, where the targets that it registers will look for it."""
    if path.suffix != ".py" or not path.is_file():
        raise PluginError(f"DJEPA_PLUGIN_PATH names {str(path)!r}, which is not a Python file.")
    if not path.stem.isidentifier():
        raise PluginError(f"{path.name!r} cannot be imported: call it {path.stem.replace('-', '_') + '.py'!r}, say.")
    loaded = sys.modules.get(path.stem)
    if loaded is not None and _is_file(loaded.__spec__, path):
        return loaded
    _refuse_if_taken(path)
    return _execute(path)


def _refuse_if_taken(path: Path) -> None:
    spec = importlib.util.find_spec(path.stem)
    if spec is not None and spec.origin is not None and not _is_file(spec, path):
        raise PluginError(f"{path.name!r} would hide the module {path.stem!r} of {spec.origin!r}; rename the file.")


def _is_file(spec: object, path: Path) -> bool:
    origin = getattr(spec, "origin", None)
    return bool(origin) and Path(origin).resolve() == path.resolve()


def _execute(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module
