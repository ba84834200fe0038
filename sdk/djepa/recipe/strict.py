"""What all parts of a recipe have in common: frozen, and nothing undeclared gets in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import to_jsonable_python

from djepa.recipe.validation import problems_of, refusal


class Strict(BaseModel):
    """Frozen, and nothing that is not declared gets in."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    if not TYPE_CHECKING:  # type checkers know the fields
        def __init__(self, **values: Any) -> None:
            """Raises RecipeError: the same problems in the same words as a file with these values would give."""
            try:
                super().__init__(**values)
            except ValidationError as error:
                given = to_jsonable_python(values, fallback=repr)
                raise refusal(type(self).__name__, problems_of(error, type(self), given, {})) from None

        __init__.__pydantic_base_init__ = True  # adds nothing to validation, which need not come by when nested

    @model_validator(mode="before")
    @classmethod
    def _nodes_have_kinds(cls, data: Any) -> Any:
        """A bare name is a node's kind, and a node without one is of its default's: `train.mask.low=0.5` will do."""
        if not isinstance(data, Mapping):
            return data
        kinds = {name: getattr(field.get_default(), "kind", None) for name, field in cls.model_fields.items()}
        return {name: _with_kind(value, kinds.get(name)) for name, value in data.items()}

    def dump(self) -> dict[str, Any]:
        """Plain values, every default written out; those of components are left to their classes."""
        return self.model_dump(mode="json")

    def resolved(self) -> dict[str, Any]:
        """Plain values, every default written out, those of components too: what a later release cannot change."""
        return self.model_dump(mode="json", context={"resolved": True})


def _with_kind(node: Any, default: str | None) -> Any:
    if default is None:  # the field is no node with a kind
        return node
    if isinstance(node, str):
        return {"kind": node}
    return {"kind": default, **node} if isinstance(node, Mapping) else node
