"""A document against its schema: an instance, or one error that lists every problem in plain words."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from djepa.errors import RecipeError
from djepa.recipe.layers import OVERRIDE, LeafPath, Tree, layer, leaves, plain
from djepa.recipe.paths import clean_path, keys_at
from djepa.recipe.wording import in_words, joined

Schema = TypeVar("Schema", bound=BaseModel)


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong with a document.

    Attributes:
        path: dotted; empty for the document as a whole.
        text: what is wrong, and what would be right.
        origin: the file that says so, or "override"; None where that is not one place.
    """

    path: str
    text: str
    origin: str | None = None

    def __str__(self) -> str:
        start = f"{self.path} : " if self.path else ""
        return f"{start}{self.text}" + (f" (given in {self.origin})" if self.origin else "")


def validated(schema: type[Schema], document: Mapping[str, Any], origin: str) -> Schema:
    """An instance of a schema from plain values, such as the `ModelSpec` of a model folder's `config.json`.

    Args:
        schema: what it should be.
        document: what there is; null stands for the default.
        origin: what to call the document in an error.

    Raises:
        RecipeError: it does not fit; the message lists every problem.
    """
    return validated_tree(schema, layer(document, lambda _: origin), origin)


def validated_tree(
    schema: type[Schema], tree: Tree, name: str, earlier: Iterable[Problem] = (), *, draft: bool = False
) -> Schema:
    """An instance of a schema from a document whose leaves know their origin.

    Args:
        schema: what it should be.
        tree: what there is.
        name: what to call the whole in an error.
        earlier: problems found before; they are listed with the others.
        draft: let pass that a component lacks options which it requires, such as the folder of somebody's data.

    Raises:
        RecipeError: it does not fit, or there are problems already.
    """
    found = list(earlier)
    document = plain(tree)
    try:
        instance = schema.model_validate(document, context={"draft": draft})
    except ValidationError as error:
        raise refusal(name, [*found, *problems_of(error, schema, document, leaves(tree))]) from None
    if found:
        raise refusal(name, found)
    return instance


def refusal(name: str, problems: Iterable[Problem]) -> RecipeError:
    """The error that lists problems, sorted and each once."""
    listed = sorted({str(problem) for problem in problems})
    count = f"{len(listed)} problems" if len(listed) > 1 else "a problem"
    return RecipeError("\n".join([f"{name} has {count}:", *(f"  {problem}" for problem in listed)]))


def problems_of(
    error: ValidationError, schema: type[BaseModel], document: Mapping[str, Any], origins: Mapping[LeafPath, str]
) -> list[Problem]:
    """What pydantic found, in our words.

    Args:
        error: what it raised.
        schema: what the document should have been.
        document: plain values, as they were given.
        origins: of the document's leaves; empty where they have none to speak of.
    """
    texts: dict[LeafPath, list[str]] = {}
    for details in error.errors(include_url=False):
        tag = ("kind",) if details["type"] == "union_tag_invalid" else ()
        path = clean_path(schema, document, (*details["loc"], *tag))
        texts.setdefault(path, []).append(_text(details, path, schema, document, origins))
    return [Problem(".".join(path), joined(found), _origin(path, origins)) for path, found in texts.items()]


def _text(details: ErrorDetails, path: LeafPath, schema: type[BaseModel], document: Mapping[str, Any],
          origins: Mapping[LeafPath, str]) -> str:
    siblings = keys_at(schema, document, path[:-1])
    if details["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], siblings, n=1)
        known = f"; known: {', '.join(siblings)}" if siblings else "; none is known here"
        return f"unknown key - did you mean {near[0]!r}?" if near else f"unknown key{known}"
    if details["type"] == "missing":
        meaning = siblings.get(path[-1]) or ""
        hint = _misspelt(path[:-1], document, origins) or f"give it, for example as {'.'.join(path)}=..."
        return f"required{f' ({meaning})' if meaning else ''} - {hint}"
    return in_words(details)


def _misspelt(path: LeafPath, document: Mapping[str, Any], origins: Mapping[LeafPath, str]) -> str:
    """A hint for a node that only overrides speak of, when one of nearly that name exists: `streams.imge`."""
    if not path or _origin(path, origins) != OVERRIDE:
        return ""
    parent: Any = functools.reduce(lambda node, key: node[key], path[:-1], document)
    others = [key for key in parent if key != path[-1]]
    near = difflib.get_close_matches(path[-1], others, n=1)
    return f"did you mean {'.'.join((*path[:-1], near[0]))!r}?" if near else ""


def _origin(path: LeafPath, origins: Mapping[LeafPath, str]) -> str | None:
    """Who gave what lies at, above or below a path, if that is one."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    below = {origin for leaf, origin in origins.items() if leaf[:len(path)] == path}
    return below.pop() if len(below) == 1 else None
