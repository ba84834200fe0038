"""The options of a registered class: the keyword-only parameters of its constructor.

They are read from the class's source where that will do (`source.py`), because importing a head or a tokenizer means
importing torch, which takes longer than everything else a recipe is asked. Where it will not do the class is imported.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic_core import PydanticSerializationError, to_jsonable_python

from djepa.errors import PluginError
from djepa.plugins import host
from djepa.recipe.docstrings import described_arguments

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Option:
    """One setting of a registered class.

    Attributes:
        name: of the keyword-only parameter.
        annotation: its type.
        default: `REQUIRED` where there is none.
        description: what the docstring of the class says of it; may be empty.
    """

    name: str
    annotation: Any
    default: Any = REQUIRED
    description: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether there is a default that can be written into a recipe."""
        if self.default is REQUIRED:
            return False
        try:
            to_jsonable_python(self.default)
        except PydanticSerializationError:
            return False
        return True


def options_of(registry: str, name: str) -> tuple[Option, ...]:
    """The options of what a name of a registry means, in the order of the constructor.

    Raises:
        UnknownNameError: nobody offers it, or several do.
        PluginError: it cannot be imported, or its annotations cannot be resolved.
    """
    from djepa.recipe.source import read_options

    target = host().find(registry, name).target
    found = None if target.partition(":")[0] in sys.modules else read_options(target)
    return inspected(host().get(registry, name)) if found is None else found


def inspected(implementation: type) -> tuple[Option, ...]:
    """The options of a class that has been imported.

    Raises:
        PluginError: its annotations cannot be resolved.
    """
    parameters = option_parameters(implementation)
    descriptions = described_arguments(inspect.getdoc(implementation) or "")
    try:
        hints = get_type_hints(implementation.__init__, include_extras=True) if parameters else {}
    except (NameError, TypeError) as error:
        raise PluginError(unresolved(implementation, error)) from error
    return tuple(Option(name, hints.get(name, Any), parameter.default, descriptions.get(name, ""))
                 for name, parameter in parameters.items())


def option_parameters(implementation: type) -> Mapping[str, inspect.Parameter]:
    """The keyword-only parameters of a class's constructor: its settings."""
    try:
        parameters = inspect.signature(implementation).parameters
    except (TypeError, ValueError):  # classes written in C may not tell
        return {}
    return {name: item for name, item in parameters.items() if item.kind is inspect.Parameter.KEYWORD_ONLY}


def unresolved(implementation: object, error: Exception) -> str:
    """What to say of a constructor whose annotations lead nowhere."""
    place = (f"{implementation.__module__}:{implementation.__qualname__}" if isinstance(implementation, type)
             else str(implementation))
    return (f"the options of {place} cannot be checked, because the annotations of its constructor cannot be resolved "
            f"({error}); what they name has to be imported outside of TYPE_CHECKING")
