"""Where the contributions of one plugin wait until all of its hooks have run without an error."""

from __future__ import annotations

from dataclasses import dataclass, field

from djepa.errors import PluginError
from djepa.plugins.contributions import Contribution, check_name


@dataclass
class Staging:
    """Collects and checks what one plugin registers.

    Attributes:
        plugin, distribution: whose contributions these are.
        contributions: so far.
        closed: the plugin has been loaded; later registrations would be lost, so they are refused.
    """

    plugin: str
    distribution: str
    contributions: list[Contribution] = field(default_factory=list)
    closed: bool = False

    def register(self, kind: str, name: str, target: str, *, summary: str = "") -> None:
        """Take one contribution.

        Raises:
            PluginError: the name, the target or the summary is not what it should be, or the name came before.
        """
        if self.closed:
            raise PluginError(f"{kind} {name!r} was registered after the hook had returned; register inside the hook.")
        check_name(name, kind)
        check_target(kind, name, target)
        if not isinstance(summary, str):
            raise PluginError(f"The summary of {kind} {name!r} should be a string; it is {summary!r}.")
        if any((kind, name) == (earlier.kind, earlier.name) for earlier in self.contributions):
            raise PluginError(f"{kind} {name!r} is registered twice by the same plugin.")
        self.contributions.append(Contribution(kind, name, target, summary, self.plugin, self.distribution))


def check_target(kind: str, name: str, target: object) -> None:
    """Insist on a string that says where to import from, so that nothing is imported before it is used.

    Raises:
        PluginError: `target` is not "module:attribute" (for recipes: not the name of a package).
    """
    if isinstance(target, type):
        raise PluginError(f"The target of {kind} {name!r} should be a string, not the class itself: write "
                          f"'{target.__module__}:{target.__qualname__}', and import nothing heavy in the plugin.")
    wanted = "'package'" if kind == "recipes" else "'package.module:Class'"
    parts = target.split(":") if isinstance(target, str) else []
    if len(parts) != (1 if kind == "recipes" else 2) or not all(_dotted(part) for part in parts):
        raise PluginError(f"The target of {kind} {name!r} should be a string like {wanted}; it is {target!r}.")


def _dotted(path: str) -> bool:
    return all(part.isidentifier() for part in path.split("."))
