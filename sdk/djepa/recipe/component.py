"""Nodes of a recipe that name something registered: `{kind: gaussian, depth: 3}`.

The options of a component are the keyword-only parameters of the class its kind names, so a plugin's class is all the
schema its node needs. Importing this module loads no plugin; validating a node reads the class's source, and imports it
only where that does not tell.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PrivateAttr,
    SerializationInfo,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic.errors import PydanticUserError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema, to_jsonable_python

from djepa.errors import PluginError, UnknownNameError, UsageError
from djepa.plugins import host
from djepa.recipe.options import REQUIRED, Option, options_of, unresolved


class Component(BaseModel):
    """A registered name and the options that go with it; in YAML a bare name will do where there are none.

    >>> Component(kind="gaussian", depth=3).options
    {'depth': 3}
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    _registry: str | None = PrivateAttr(default=None)  # set where a schema's field has checked the component

    if TYPE_CHECKING:
        def __init__(self, *, kind: str, **options: Any) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, data: Any) -> Any:
        return {"kind": data} if isinstance(data, str) else data

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments that were given; defaults are left to the class."""
        return dict(self.model_extra or {})

    def resolved_options(self, *, draft: bool = False) -> dict[str, Any]:
        """The options in the order of the class's parameters, its own defaults included where they are plain values.

        Args:
            draft: include options that are required and were not given, as None.

        Raises:
            UsageError: the component has not been checked as part of a recipe.
        """
        options = self.options
        known = options_of(self._known_registry(), self.kind)
        missing = {one.name: None for one in known if draft and one.default is REQUIRED}
        return {one.name: options.get(one.name, missing.get(one.name, one.default)) for one in known
                if one.name in {*options, *missing} or one.is_plain}

    @model_serializer
    def _flat(self, info: SerializationInfo) -> dict[str, Any]:
        context = info.context if isinstance(info.context, dict) else {}
        if not context.get("resolved"):
            return {"kind": self.kind, **self.options}
        return {"kind": self.kind, **self.resolved_options(draft=bool(context.get("draft")))}

    def build(self, *provided: Any) -> Any:
        """An instance of the registered class: `provided` comes from the core, by position, and the options by name.

        Raises:
            UsageError: the component has not been checked as part of a recipe.
        """
        return host().get(self._known_registry(), self.kind)(*provided, **copy.deepcopy(self.options))

    def _known_registry(self) -> str:
        if self._registry is None:
            raise UsageError(f"{self!r} does not know yet in which registry to look its kind up. Put it into a Recipe "
                             f"(or a StreamSpec, ModelSpec, ...), which checks it, and take it from there.")
        return self._registry

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Component) and (self.kind, self.options) == (other.kind, other.options)

    def __hash__(self) -> int:
        return hash((self.kind, json.dumps(to_jsonable_python(self.options, fallback=repr), sort_keys=True)))


@dataclass(frozen=True)
class Registered:
    """Marks a field of a schema as a name out of a registry of the plugin host.

    On a `Component` the options are checked as well, each problem with its own path; on a `str` only the name is.
    """

    registry: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if source is Component:
            return core_schema.with_info_after_validator_function(self._checked, handler(source))
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def key_descriptions(self, kind: str) -> dict[str, str]:
        """The keys of a node of this kind, each with what the docstring of the class says of it."""
        kinds = {"kind": f"one of: {', '.join(host().names(self.registry))}"}
        try:
            return kinds | {option.name: option.description for option in self._options(kind)}
        except PydanticCustomError:
            return kinds

    def option_annotation(self, kind: str, option: str) -> Any:
        """What the class of a kind says that one of its options is; None if it says nothing."""
        try:
            return next((one.annotation for one in self._options(kind) if one.name == option), None)
        except PydanticCustomError:
            return None

    def _known(self, name: str) -> str:
        try:
            host().find(self.registry, name)
        except UnknownNameError as error:
            raise _problem(error) from None
        return name

    def _checked(self, component: Component, info: core_schema.ValidationInfo) -> Component:
        try:
            known = self._options(component.kind)
            if isinstance(info.context, dict) and info.context.get("draft"):
                known = tuple(replace(option, default=None) if option.default is REQUIRED else option for option in known)
            options = _coerced(component.kind, known, component.options, info.context)
        except PydanticCustomError as error:
            raise ValidationError.from_exception_data(
                self.registry, [{"type": error, "loc": ("kind",), "input": component.kind}]) from None
        checked = Component.model_construct(kind=component.kind, **options)
        checked._registry = self.registry
        return checked

    def _options(self, kind: str) -> tuple[Option, ...]:
        try:
            return options_of(self.registry, kind)
        except (UnknownNameError, PluginError) as error:
            raise _problem(error) from None


def options_model(kind: str, options: tuple[Option, ...]) -> type[BaseModel]:
    """What checks the options of one kind. Its fields are numbered and have the options' names as aliases: an option may
    then be called `copy` or `model_x` without meeting pydantic's own names.

    Raises:
        PydanticCustomError: an annotation means nothing to pydantic.
    """
    fields: dict[str, Any] = {
        f"option_{number}": (option.annotation, Field(default=... if option.default is REQUIRED else None, alias=option.name))
        for number, option in enumerate(options)}
    try:
        config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False, protected_namespaces=())
        return create_model("Options", __config__=config, **fields)
    except (NameError, TypeError, PydanticUserError) as error:
        raise _problem(unresolved(repr(kind), error)) from error


def _coerced(kind: str, known: tuple[Option, ...], options: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """The options as the constructor's annotations want them. A null option is one that was not given."""
    given = {name: value for name, value in options.items() if value is not None}
    checked = options_model(kind, known).model_validate(given, context=context)
    fields = {f"option_{number}": option.name for number, option in enumerate(known)}
    return {name: getattr(checked, field) for field, name in fields.items() if field in checked.model_fields_set}


def _problem(text: object) -> PydanticCustomError:
    return PydanticCustomError("component", "{problem}", {"problem": str(text)})


HeadNode = Annotated[Component, Registered("head")]
OrderNode = Annotated[Component, Registered("order")]
DatasetNode = Annotated[Component, Registered("dataset")]
TokenizerNode = Annotated[Component, Registered("tokenizer")]
ConditionerNode = Annotated[Component, Registered("conditioner")]
AttentionNode = Annotated[Component, Registered("attention")]
ExtractorNode = Annotated[Component, Registered("extractor")]
MetricNode = Annotated[Component, Registered("metric")]
ModalityName = Annotated[str, Registered("modality")]
