"""What a recipe would build, without its weights: sizes and counts, on torch's meta device; and what its data decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch

from djepa.build import build_model, build_tokenizers, check_offered, complete, shaped_stream
from djepa.dataset import Dataset
from djepa.errors import RecipeError, UsageError
from djepa.plugins import host
from djepa.recipe import Recipe
from djepa.recipe.layers import Tree, layer, leaves, values
from djepa.recipe.schema import ModelSpec

DATA = "data"  # the origin of a value that the data decide


@dataclass(frozen=True)
class Outline:
    """A model that has not been built.

    Attributes:
        num_parameters: of the model in training: the feature head included, the target encoder not.
        grids: of the tokens of a sample, by stream.
    """

    num_parameters: int
    grids: Mapping[str, tuple[int, ...]]

    def __str__(self) -> str:
        tokens = ", ".join(f"{name}: {prod(grid):,} tokens ({' x '.join(map(str, grid))})" for name, grid in self.grids.items())
        return f"{self.num_parameters:,} parameters; {tokens}"


def outline(recipe: Recipe) -> Outline:
    """The model of a recipe, built where it takes no memory.

    Of the data only the first example is read, for the shape of the samples and the names of the classes; nothing at all
    where the recipe says both.

    Raises:
        UsageError: the data are missing and the recipe leaves open what they decide, or parts do not fit together.
    """
    spec = _shaped(recipe)
    tokenizers = build_tokenizers(spec)
    grids = {name: tuple(tokenizers[name].layout(stream.shape)) for name, stream in spec.streams.items() if stream.shape}
    with torch.device("meta"):
        model = build_model(spec, tokenizers)
    return Outline(sum(parameter.numel() for parameter in model.parameters()), grids)


def values_with_data(recipe: Recipe) -> Tree:
    """The resolved recipe with what its data decide filled in; the origin of that is "data".

    Raises:
        UsageError: the data cannot be read, or do not fit.
    """
    completed = recipe.model_copy(update={"model": complete(recipe.model, recipe.data.build())}).resolved()
    before = values(layer(recipe.resolved(), lambda _: ""))
    after = values(layer(completed, lambda _: ""))
    origins = leaves(recipe.layer_of(completed))
    same = {path for path, leaf in after.items() if path in before and before[path].value == leaf.value}
    return layer(completed, lambda path: origins[path] if path in same else DATA)


def _shaped(recipe: Recipe) -> ModelSpec:
    """The model's specification with shapes and names of classes, but without statistics, which change no size."""
    try:
        dataset: Dataset = recipe.data.build()
    except UsageError as error:
        _check_all_is_said(recipe.model, error)
        return recipe.model
    first, classes = dataset.load(0), dataset.classes()
    check_offered(recipe.model, first)
    raw = recipe.model.model_dump(mode="json")
    for name, node in recipe.model.conditions.items():
        fitted = host().get("conditioner", node.kind).fitted(node.options, classes.get(name))
        raw["conditions"][name] = {"kind": node.kind, **fitted}
    for name, stream in recipe.model.streams.items():
        raw["streams"][name] = shaped_stream(name, stream, first).model_dump(mode="json")
    return ModelSpec.model_validate(raw)


def _check_all_is_said(spec: ModelSpec, error: UsageError) -> None:
    shapeless = [name for name, stream in spec.streams.items() if stream.shape is None]
    if shapeless:
        raise RecipeError(f"The data cannot be read ({error}), and they decide the shape of the samples; to do without them "
                          f"say model.streams.{shapeless[0]}.shape=[...].") from error
