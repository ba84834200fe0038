"""A JSON Schema of recipes, for editors: every key with its description, components as the installed plugins have them.

It is of draft 07, which the YAML language server reads. It says what a file may hold, which may extend another and say only
what it changes: nothing is required but `data` and `model` of a file without a parent. Rules across fields are not in it;
`djepa recipes validate` knows all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_jsonable_python

from djepa import __version__
from djepa.errors import PluginError
from djepa.plugins import host
from djepa.recipe.component import Component
from djepa.recipe.docstrings import field_comments, summary
from djepa.recipe.options import Option, options_of
from djepa.recipe.paths import alternatives, annotation_of
from djepa.recipe.schema import RecipeSchema
from djepa.recipe.strict import Strict

Schema = dict[str, Any]

SCHEMA_FILE = "recipe.schema.json"  # what `djepa recipes cp` looks for
_QUALIFIED = r"^[A-Za-z0-9._-]+:[a-z0-9_-]+$"  # distribution:name, whose options are not looked into


def recipe_json_schema() -> Schema:
    """The schema, as plain data."""
    definitions: dict[str, Schema] = {}
    recipe = _object(RecipeSchema, definitions)
    smoke = {**recipe, "description": "What makes a run in miniature of it: djepa train RECIPE --smoke."}
    properties = {
        "extends": {"type": "string", "description": "A recipe's name, or the path of a .yaml file relative to this one."},
        **recipe["properties"],
        "smoke": smoke,
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "djepa recipe",
        "$comment": f"djepa {__version__}",
        **recipe,
        "type": "object",
        "properties": properties,
        "if": {"not": {"required": ["extends"]}}, "then": {"required": ["data", "model"]},
        "definitions": dict(sorted(definitions.items())),
    }


# What is ours ---------------------------------------------------------------------------------------------------------------


def _object(model: type[BaseModel], definitions: dict[str, Schema]) -> Schema:
    comments = field_comments(model)
    properties = {name: _described(_field(field, definitions), field.description or comments.get(name, ""), _default(field))
                  for name, field in model.model_fields.items()}
    return {"type": ["object", "null"], "description": summary(model.__doc__), "properties": properties,
            "additionalProperties": False}


def _field(field: FieldInfo, definitions: dict[str, Schema]) -> Schema:
    return _schema(annotation_of(field), getattr(field.get_default(), "kind", None), definitions)


def _schema(annotation: Any, default_kind: str | None, definitions: dict[str, Schema]) -> Schema:
    """The schema of an annotation: a node, a group of keys, or a value."""
    found = [(kind, registered) for kind, registered in alternatives(annotation, None) if kind is not type(None)]
    kind, registered = found[0]
    if registered is not None:
        return _registered(registered.registry, kind is Component, definitions)
    if get_origin(kind) in (dict, Mapping) and _is_ours(get_args(kind)[1]):
        names, values = get_args(kind)
        return {"type": ["object", "null"], "propertyNames": _value(names),
                "additionalProperties": _schema(values, None, definitions)}
    if get_origin(kind) in (list, tuple, Sequence) and _is_ours(get_args(kind)[0]):
        return {"type": ["array", "null"], "items": _schema(get_args(kind)[0], None, definitions)}
    models = [model for model, _ in found if isinstance(model, type) and issubclass(model, Strict)]
    if not models:
        return _or_null(_value(annotation))
    if "kind" in models[0].model_fields:
        return _defined("Or".join(model.__name__ for model in models), definitions, lambda: _node(
            {model.model_fields["kind"].default: _object(model, definitions) for model in models}, default_kind))
    return _defined(models[0].__name__, definitions, lambda: _object(models[0], definitions))


def _is_ours(annotation: Any) -> bool:
    return any(registered or (isinstance(kind, type) and issubclass(kind, Strict))
               for kind, registered in alternatives(annotation, None))


def _default(field: FieldInfo) -> Any:
    default = field.get_default()
    if isinstance(default, Component):
        return default.kind
    return None if field.is_required() or isinstance(default, BaseModel) else default


# What plugins add -----------------------------------------------------------------------------------------------------------


def _registered(registry: str, is_node: bool, definitions: dict[str, Schema]) -> Schema:
    """A name out of a registry, and for a node the options that go with it."""
    if not is_node:
        return _defined(registry, definitions, lambda: {"anyOf": [
            {"enum": [*host().names(registry), None]}, {"type": "string", "pattern": _QUALIFIED}]})
    return _defined(registry, definitions, lambda: _node(
        {name: _component(registry, name, definitions) for name in host().names(registry)}, None))


def _component(registry: str, name: str, definitions: dict[str, Schema]) -> Schema:
    about = host().find(registry, name).summary
    try:
        options = options_of(registry, name)
    except PluginError as error:  # it may be used in a recipe all the same, to learn what is wrong with it
        return {"type": "object", "description": str(error)}
    properties = {option.name: _described(_schema(option.annotation, None, definitions), option.description,
                                          _plain_default(option)) for option in options}
    return {"type": "object", "description": about, "properties": properties, "additionalProperties": False}


def _plain_default(option: Option) -> Any:
    return option.default if option.is_plain else None


# Pieces of schemas ----------------------------------------------------------------------------------------------------------


def _node(kinds: Mapping[str, Schema], default: str | None) -> Schema:
    """A node that is of one of several kinds, or names one; without a kind it may have the keys of any."""
    kind = {"anyOf": [
        {"enum": list(kinds)}, {"type": "string", "pattern": _QUALIFIED}],
        "description": "; ".join(f"{name}: {one['description']}" if one["description"] else name
                                 for name, one in kinds.items())}
    cases = [{"if": {"type": "object", "required": ["kind"], "properties": {"kind": {"const": name}}},
              "then": {**one, "properties": {"kind": True, **_without_kind(one)}}} for name, one in kinds.items()]
    everything: Schema = {"kind": True}
    for one in kinds.values():
        for key, value in _without_kind(one).items():
            everything[key] = value if everything.get(key, value) == value else {"anyOf": [everything[key], value]}
    is_open = any(one.get("additionalProperties", True) for one in kinds.values())
    return {
        "type": ["object", "string", "null"],
        "properties": {"kind": kind},
        "allOf": [
            {"if": {"type": "string"}, "then": kind},
            *cases,
            {"if": {"type": "object", "not": {"required": ["kind"]}},
             "then": {"properties": everything, "additionalProperties": is_open}},
        ],
        **({"default": default} if default else {}),
    }


def _without_kind(one: Schema) -> Schema:
    return {key: value for key, value in one.get("properties", {}).items() if key != "kind"}


def _defined(name: str, definitions: dict[str, Schema], make: Callable[[], Schema]) -> Schema:
    if name not in definitions:
        definitions[name] = {}  # what is made may refer to itself
        definitions[name] = make()
    return {"$ref": f"#/definitions/{name}"}


def _value(annotation: Any) -> Schema:
    """What pydantic says of a plain type, in draft 07; anything goes where it can say nothing."""
    try:
        schema = TypeAdapter(annotation).json_schema()
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):
        return {}
    return {} if "$defs" in schema else _draft07(schema)


def _draft07(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_draft07(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _draft07(value) for key, value in schema.items() if key != "title"}
    if "prefixItems" in plain:
        plain["items"] = plain.pop("prefixItems")
        plain["additionalItems"] = False
    return plain


def _or_null(schema: Schema) -> Schema:
    """Null brings back the default, whatever the key. Without a choice where none is needed: complaints are clearer."""
    if not schema or {"type": "null"} in schema.get("anyOf", ()):
        return schema
    if isinstance(schema.get("type"), str) and "const" not in schema:
        choices = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
        return {**schema, **choices, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _described(schema: Schema, description: str, default: Any) -> Schema:
    try:
        plain = to_jsonable_python(default)
    except PydanticSerializationError:
        plain = None
    notes = ({"description": description} if description else {}) | ({"default": plain} if plain is not None else {})
    if not notes:
        return schema
    return {**({"allOf": [schema]} if "$ref" in schema else schema), **notes}  # beside a $ref draft 07 reads nothing
