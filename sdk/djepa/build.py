"""From a specification to modules: the one place that knows both.

A recipe may leave open what the data decides (the shape of a sample, the names of the classes, the statistics that make
tokens unit scale). `complete` fills that in once, and the completed specification is what a model folder stores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from math import prod

import torch

from djepa.conditioner import Conditioner
from djepa.dataset import Dataset, Example
from djepa.errors import RecipeError, suggest
from djepa.heads.head import DenoisingHead
from djepa.modality import Modality
from djepa.model import Encoder, FeatureHead, MaskedModel, Predictor, Stream
from djepa.nn.positions import RotaryPosition
from djepa.nn.transformer import Transformer
from djepa.plugins import host
from djepa.recipe.component import Component
from djepa.recipe.schema import ModelSpec, StreamSpec
from djepa.recipe.schema import RotaryPosition as RotarySpec
from djepa.tokenizer import Tokenizer
from djepa.tokens import MediaSpec, Sample

NUM_MEASURED = 2048  # examples at most that statistics are measured on


def modality(spec: StreamSpec) -> Modality:
    """The modality of a stream."""
    return host().get("modality", spec.modality)()


def tokenizer(spec: StreamSpec) -> Tokenizer:
    """The tokenizer of a stream whose shape is known."""
    assert spec.shape is not None, "complete() comes first"
    medium = modality(spec)
    media = MediaSpec(channels=spec.shape[0], axes=medium.axes, bounds=medium.bounds)
    node = spec.tokenizer or StreamSpec(modality=spec.modality, tokenizer=medium.default_tokenizer()).tokenizer  # pyright: ignore[reportArgumentType]
    assert node is not None
    return node.build(media)


def build_tokenizers(spec: ModelSpec) -> dict[str, Tokenizer]:
    """The tokenizer of every stream."""
    return {name: tokenizer(stream) for name, stream in spec.streams.items()}


def build_model(spec: ModelSpec, tokenizers: Mapping[str, Tokenizer]) -> MaskedModel:
    """A model with fresh weights, drawn from torch's current generator.

    Raises:
        LayoutError: a stream's samples cannot be divided into tokens.
    """
    axes = tuple(dict.fromkeys(axis.name for tokenizer in tokenizers.values() for axis in tokenizer.spec.axes))
    width, predictor_width = spec.width, spec.predictor_width or spec.width
    num_heads, predictor_num_heads = spec.num_heads, spec.predictor_num_heads or spec.num_heads
    conditioners = {name: _conditioner(node, width) for name, node in spec.conditions.items()}
    positioned = conditioners.values() if spec.predictor_condition_position else ()
    return MaskedModel(
        streams={name: _stream(spec, name, tokenizers[name], axes) for name in spec.streams},
        conditioners=conditioners,
        encoder=Encoder(width, _transformer(spec, width, spec.encoder_depth, num_heads)),
        predictor=Predictor(width, predictor_width,
                            _transformer(spec, predictor_width, spec.predictor_depth, predictor_num_heads),
                            sum(_num_tokens(conditioner) for conditioner in positioned)),
        rotary=_rotary(spec, axes, width, num_heads),
        feature_head=FeatureHead(predictor_width, width) if spec.feature_head else None,
        predictor_rotary=_rotary(spec, axes, predictor_width, predictor_num_heads),
        causal_axis=None if spec.causal_axis is None else _axis("causal_axis", spec.causal_axis, axes),
    )


def _conditioner(node: Component, width: int) -> Conditioner:
    return node.build(width)


def _num_tokens(conditioner: Conditioner) -> int:
    return conditioner(conditioner.prepare([None])).values.shape[1]


def _transformer(spec: ModelSpec, width: int, depth: int, num_heads: int) -> Transformer:
    return Transformer(width, depth, num_heads, mlp_ratio=spec.mlp_ratio, qk_norm=spec.qk_norm, dropout=spec.dropout,
                       backend=spec.attention.kind if spec.attention else None)


def _rotary(spec: ModelSpec, axes: tuple[str, ...], width: int, num_heads: int) -> RotaryPosition | None:
    position, head_width = spec.position, width // num_heads
    if not isinstance(position, RotarySpec):
        return None
    for axis in position.scale:
        _axis("position.scale", axis, axes)
    if head_width // 2 < len(axes):
        raise RecipeError(f"model.num_heads: heads of {head_width} channels are too narrow for rotary positions over "
                          f"{len(axes)} axes; each axis needs a pair of channels.")
    return RotaryPosition(axes, head_width, position.scale, position.theta)


def _axis(key: str, axis: str, axes: tuple[str, ...]) -> int:
    """Index of the axis that an entry of the model names."""
    if axis not in axes:
        raise RecipeError(f"model.{key}: {axis!r} is not an axis of this model. {suggest(axis, axes)}")
    return axes.index(axis)


def _stream(spec: ModelSpec, name: str, tokenizer: Tokenizer, axes: tuple[str, ...]) -> Stream:
    stream, tokens = spec.streams[name], tokenizer.spec
    assert stream.shape is not None
    width, predictor_width = spec.width, spec.predictor_width or spec.width
    head: DenoisingHead = stream.head.build(tokens.width, predictor_width)
    places = prod(tokenizer.layout(stream.shape))
    return Stream(
        tokens.width, width, predictor_width, tuple(axes.index(axis.name) for axis in tokens.axes), head,
        num_tokens=None if isinstance(spec.position, RotarySpec) else places, output_position=spec.output_position,
    )


def complete(spec: ModelSpec, dataset: Dataset, device: torch.device | None = None) -> ModelSpec:
    """`spec` with everything the data decides filled in: shapes, rates, class names, statistics.

    Args:
        spec: of the model.
        dataset: it is to be trained on.
        device: where tokenizers with a network measure their statistics; the CPU when not given.

    Raises:
        RecipeError: the dataset has no such stream or condition.
        LayoutError: its samples cannot be divided into tokens.
    """
    first = dataset.load(0)
    check_offered(spec, first)
    classes = dataset.classes()
    raw = spec.model_dump(mode="json")
    for name, node in spec.conditions.items():
        conditioner: type[Conditioner] = host().get("conditioner", node.kind)
        raw["conditions"][name] = {"kind": node.kind, **conditioner.fitted(node.options, classes.get(name))}
    for name, stream in spec.streams.items():
        raw["streams"][name] = _complete_stream(name, stream, first, dataset, device).model_dump(mode="json")
    return ModelSpec.model_validate(raw)


def check_offered(spec: ModelSpec, first: Example) -> None:
    """Refuse a model with a stream or condition that the examples do not have.

    Raises:
        RecipeError: it has one.
    """
    for kind, wanted, there in (("streams", spec.streams, first.samples), ("conditions", spec.conditions, first.conditions)):
        for name in wanted:
            if name not in there:
                cure = " Without conditions: model.conditions=null" if kind == "conditions" and not there else ""
                raise RecipeError(f"model.{kind}.{name}: the dataset gives no {name!r}. {suggest(name, there)}{cure}")


def _complete_stream(
    name: str, stream: StreamSpec, first: Example, dataset: Dataset, device: torch.device | None
) -> StreamSpec:
    shaped = shaped_stream(name, stream, first)
    rough = tokenizer(shaped).to(device or torch.device("cpu"))
    assert shaped.shape is not None
    rough.layout(shaped.shape)
    dataset.check({name: rough})
    shapes: set[tuple[int, ...]] = set()
    fitted = rough.measured(_noting(spread_samples(name, dataset), shapes))
    return shaped.model_copy(update={"tokenizer": Component(kind=tokenizer_kind(stream), **fitted.options()),
                                     "sizes": stream.sizes or _sizes(shapes - {shaped.shape} and shapes)})


def _noting(samples: Iterable[Sample], shapes: set[tuple[int, ...]]) -> Iterator[Sample]:
    """The samples, while their shapes are added to `shapes`."""
    for sample in samples:
        shapes.add(sample.shape)
        yield sample


def _sizes(shapes: Collection[tuple[int, ...]]) -> tuple[tuple[int, int], ...] | None:
    """The least and the most along each axis; None where there is nothing to tell."""
    return tuple((min(sizes), max(sizes)) for sizes in list(zip(*shapes, strict=True))[1:]) or None


def tokenizer_kind(stream: StreamSpec) -> str:
    """Registered name of a stream's tokenizer."""
    return stream.tokenizer.kind if stream.tokenizer else modality(stream).default_tokenizer()["kind"]


def shaped_stream(name: str, stream: StreamSpec, first: Example) -> StreamSpec:
    """A stream with the shape and the rates of a dataset's first example, where it has none.

    Raises:
        RecipeError: the example is of another modality.
    """
    sample = first.samples[name]
    if sample.modality and sample.modality != stream.modality:
        raise RecipeError(f"model.streams.{name}.modality: the dataset's {name!r} is of modality {sample.modality!r}, not "
                          f"{stream.modality!r}.")
    rates = {axis.rate_key: float(sample.meta[axis.rate_key]) for axis in modality(stream).axes
             if axis.rate_key and axis.rate_key in sample.meta}
    return stream.model_copy(update={"shape": stream.shape or sample.shape, "meta": {**rates, **stream.meta}})


def spread_samples(name: str, dataset: Dataset, most: int = NUM_MEASURED) -> Iterator[Sample]:
    """Samples of a stream spread evenly over the dataset, `most` of them at most."""
    stride = max(1, len(dataset) // most)
    return islice((dataset.load(index).samples[name] for index in range(0, len(dataset), stride)), most)
