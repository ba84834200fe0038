"""What an evaluation consists of, as plain data that any process can be handed.

Three sets of features are made: of the real examples compared with ("real"), of as many of the training data where they are
other data ("training"), and of generated samples ("generated").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from djepa.build import modality
from djepa.dataset import Dataset
from djepa.errors import RecipeError, UsageError, suggest
from djepa.random import numpy_generator
from djepa.recipe import Recipe
from djepa.recipe.component import Component, DatasetNode, ExtractorNode
from djepa.recipe.schema import GenerateSpec, ModelSpec, Strict
from djepa.recipe.validation import validated
from djepa.skipping import Skipping
from djepa.storage import ASSETS, CONFIG, WEIGHTS
from djepa.tokens import Encoded

SetName = Literal["real", "training", "generated"]


class Task(Strict):
    """All that decides the features of an evaluation but the weights, and the files of the data and of the extractor.

    Attributes:
        model: a model folder; empty where the model is at hand.
        stream: whose samples are compared.
        data, training: compared with, and trained on; None where they are the same or nobody knows.
        skip_unreadable: others take the place of examples whose files are damaged.
        features: which extractor.
        generate: settings of generation.
        dtype: that the model computes in.
        seed: of the first sample.
        batch_size: samples generated at a time; None: what fits memory.
    """

    model: str = ""
    stream: str
    data: DatasetNode
    training: DatasetNode | None = None
    skip_unreadable: bool = False
    features: ExtractorNode
    generate: GenerateSpec
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    batch_size: PositiveInt | None = None

    @classmethod
    def of(
        cls, spec: ModelSpec, recipe: Recipe, *, model: str = "", training: Component | None = None,
        generate: GenerateSpec | None = None, dtype: str = "auto", batch_size: int | None = None,
    ) -> Task:
        """The task of evaluating a model by the `evaluate` block of a recipe.

        Args:
            spec: of the model.
            recipe: whose `evaluate.data`, or else `data`, is compared with.
            model: its folder, where it has one.
            training: the data that the model was trained on, if other than the recipe's.
            generate: settings other than the model's own.
            dtype, batch_size: see `Task`.

        Raises:
            UsageError: the model has no such stream.
        """
        wanted = recipe.evaluate
        data = wanted.data or recipe.data
        trained_on = training or recipe.data
        stream = chosen_stream(spec, wanted.stream)
        return validated(cls, {
            "model": model, "stream": stream, "data": data.model_dump(mode="json"),
            "training": None if trained_on == data else trained_on.model_dump(mode="json"),
            "skip_unreadable": recipe.train.on_error == "skip", "features": features_node(spec, stream, wanted.features),
            "generate": (generate or spec.generate).model_dump(mode="json"), "dtype": dtype, "seed": wanted.seed,
            "batch_size": batch_size,
        }, "the evaluation")

    def dataset(self, name: Literal["real", "training"]) -> Dataset:
        """The examples of a set."""
        node = self.data if name == "real" else self.training
        assert node is not None
        dataset: Dataset = node.build()
        return Skipping(dataset) if self.skip_unreadable else dataset


def chosen_stream(spec: ModelSpec, stream: str | None) -> str:
    """The stream to compare.

    Raises:
        UsageError: the model has none of that name.
    """
    if stream is not None and stream not in spec.streams:
        raise UsageError(f"evaluate.stream: this model has no stream {stream!r}. {suggest(stream, spec.streams)}")
    return stream or next(iter(spec.streams))


def features_node(spec: ModelSpec, stream: str, given: Component | None) -> dict[str, Any]:
    """The extractor asked for, or the modality's own."""
    return given.model_dump(mode="json") if given else modality(spec.streams[stream]).default_features()


def check_examples(dataset: Dataset, spec: ModelSpec, stream: str) -> None:
    """Refuse data that do not have what the model makes.

    Raises:
        RecipeError: the examples lack the stream or a condition, are of another modality, or are no media any more.
    """
    first, wanted = dataset.load(0), spec.streams[stream]
    if stream not in first.samples:
        raise RecipeError(f"data: the dataset gives no {stream!r}. {suggest(stream, first.samples)}")
    if isinstance(first.samples[stream], Encoded):
        raise RecipeError("data: this dataset is a cache of what a tokenizer found, and features are made of media; compare "
                          "with the dataset that it was made from: evaluate.data.kind=...")
    found = first.samples[stream].modality
    if found and found != wanted.modality:
        raise RecipeError(f"data: the dataset's {stream!r} is of modality {found!r}; the model makes {wanted.modality!r}.")
    for name in spec.conditions:
        if name not in first.conditions:
            raise RecipeError(f"data: the dataset gives no condition {name!r}, which the model was trained with. "
                              f"{suggest(name, first.conditions)}")


def spread(size: int, most: int | None) -> list[int]:
    """Numbers of examples spread evenly over `size`, `most` of them at most."""
    count = size if most is None else min(most, size)
    return [number * size // count for number in range(count)]


def conditions_of(dataset: Dataset, names: Mapping[str, Any], numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    """The conditions of generated samples: those of the data, in an order drawn anew for every pass over them.

    So their distribution is that of the data, as exactly as their number allows, and does not depend on how many are asked for.
    """
    size, orders = len(dataset), {}
    for number in numbers:
        turn = number // size
        if turn not in orders:
            orders[turn] = numpy_generator(0, "evaluated conditions", turn).permutation(size)
        conditions = dataset.load(int(orders[turn][number % size])).conditions
        yield {name: conditions.get(name) for name in names}


def model_digest(folder: Path) -> str:
    """SHA-256 of all that makes a model: specification, weights, networks of tokenizers."""
    digest = hashlib.sha256()
    for path in [folder / CONFIG, folder / WEIGHTS, *sorted(path for path in (folder / ASSETS).rglob("*") if path.is_file())]:
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
