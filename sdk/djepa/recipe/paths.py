"""Where in a document an error is, and which keys its schema knows there."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from djepa.recipe.component import Component, Registered
from djepa.recipe.docstrings import field_comments


def keys_at(schema: Any, document: Any, path: Sequence[str | int]) -> dict[str, str]:
    """The keys that a schema knows at a path of a document, with their descriptions; none where keys are free.

    Args:
        schema: a pydantic model, or an annotation of one of its fields.
        document: what was given, valid or not: its `kind` keys tell which of several schemas is meant.
        path: from the top of the document.
    """
    for annotation, registered in alternatives(schema, None):
        known = _keys(annotation, registered, document, path)
        if known:
            return known
    return {}


def clean_path(schema: type[BaseModel], document: Any, location: Sequence[str | int]) -> tuple[str, ...]:
    """An error's location as a path in the document, without pydantic's notes on which alternative it tried."""
    path: list[str | int] = []
    node = document
    for key in location:
        node = {"kind": node} if isinstance(node, str) else node
        expected = isinstance(node, list) or (isinstance(node, Mapping) and key in keys_at(schema, document, path))
        if _has(node, key) or expected:
            node = _child(node, key) if _has(node, key) else {}
            path.append(key)
    return tuple(str(key) for key in path)


def _has(node: Any, key: str | int) -> bool:
    if isinstance(node, Mapping):
        return key in node
    return isinstance(node, list) and isinstance(key, int) and key < len(node)


def alternatives(annotation: Any, registered: Registered | None) -> Iterator[tuple[Any, Registered | None]]:
    """The members of a union, each with the registry that its names are of, if they are."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *notes = get_args(annotation)
        found = next((note for note in notes if isinstance(note, Registered)), registered)
        yield from alternatives(inner, found)
    elif origin in (Union, types.UnionType):
        for alternative in get_args(annotation):
            yield from alternatives(alternative, registered)
    else:
        yield annotation, registered


def _keys(annotation: Any, registered: Registered | None, document: Any, path: Sequence[str | int]) -> dict[str, str]:
    if get_origin(annotation) in (dict, Mapping) and path:
        return keys_at(get_args(annotation)[1], _child(document, path[0]), path[1:])
    if annotation is Component and registered:
        if not path:
            return registered.key_descriptions(_kind(document))
        option = registered.option_annotation(_kind(document), str(path[0]))  # which may hold components of its own
        return keys_at(option, _child(document, path[0]), path[1:])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and _is_meant(annotation, document):
        fields = annotation.model_fields
        if not path:
            comments = field_comments(annotation)
            return {name: field.description or comments.get(name, "") for name, field in fields.items()}
        field = fields.get(str(path[0]))
        return keys_at(annotation_of(field), _child(document, path[0]), path[1:]) if field else {}
    return {}


def _is_meant(model: type[BaseModel], document: Any) -> bool:
    kind = model.model_fields.get("kind")
    given = _kind(document)
    return kind is None or not given or kind.default == given


def _kind(document: Any) -> str:
    kind = document.get("kind") if isinstance(document, Mapping) else document
    return kind if isinstance(kind, str) else ""


def _child(document: Any, key: str | int) -> Any:
    return document[key] if _has(document, key) else None


def annotation_of(field: FieldInfo) -> Any:
    """The type of a field, with the notes that pydantic takes off."""
    annotation: Any = field.annotation
    for note in field.metadata:
        annotation = Annotated[annotation, note]
    return annotation
