"""From the sizes of a published model to the specification of a model folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isqrt
from typing import Any

from djepa.build import tokenizer as build_tokenizer
from djepa.convert.layout import Layout
from djepa.convert.published import (
    AXES,
    CONDITION,
    MAX_HALVINGS,
    MODALITY,
    NUM_COLOURS,
    NUM_LATENT_CHANNELS,
    STREAM,
    generate_settings,
)
from djepa.errors import CheckpointError, LayoutError, UsageError
from djepa.recipe.schema import ModelSpec, StreamSpec
from djepa.recipe.validation import validated
from djepa.tokenizer import Tokenizer


def model_spec(
    layout: Layout, settings: Mapping[str, int | str], labels: Sequence[str] | None, tokenizer: str | None,
    patch_size: int | None, latent_scale: float,
) -> ModelSpec:
    """The specification of a model of these sizes.

    Args:
        settings: of the training script: patch size, noise levels per token.
        labels, tokenizer, patch_size, latent_scale: as in `djepa.convert.convert`.

    Raises:
        UsageError: the labels do not fit.
        CheckpointError: tokens are no patches of that size.
    """
    patch = _patch_size(layout, settings, patch_size)
    encoder, predictor = layout.encoder, layout.predictor
    return validated(ModelSpec, {
        "streams": {STREAM: {"modality": MODALITY, "head": _head(layout, settings),
                             **_tokens(layout, tokenizer, patch, latent_scale)}},
        "conditions": {CONDITION: {"kind": "class", "names": _names(labels, layout.num_classes),
                                   "num_tokens": layout.num_conditions}},
        "width": encoder.width, "predictor_width": predictor.width,
        "encoder_depth": encoder.depth, "predictor_depth": predictor.depth,
        "num_heads": encoder.num_heads,
        "predictor_num_heads": None if predictor.num_heads == encoder.num_heads else predictor.num_heads,
        **_shared_by_trunks(layout),
        "position": {"kind": "learned"}, "predictor_condition_position": layout.mar, "output_position": layout.mar,
        "feature_head": layout.feature_head,
        "generate": generate_settings("mar" if layout.mar else "djepa", layout.head),
    }, "the converted model")


def _head(layout: Layout, settings: Mapping[str, int | str]) -> dict[str, Any]:
    head: dict[str, Any] = {"kind": layout.head, "depth": layout.head_depth, "width": layout.head_width}
    if isinstance(repeats := settings.get("diffusion_batch_mul"), int) and repeats > 0:
        head["num_noise_samples"] = repeats
    if layout.head == "flow":
        head["time_scale"] = 1.0  # published flow models were trained on t itself, not on 1000 t
    return head


def _shared_by_trunks(layout: Layout) -> dict[str, Any]:
    """What encoder and predictor have in common here, and may not have in a file."""
    ratio = layout.encoder.hidden / layout.encoder.width
    for trunk in (layout.encoder, layout.predictor):
        if int(trunk.width * ratio) != trunk.hidden:
            raise CheckpointError(f"The MLPs of encoder and predictor are {layout.encoder.hidden} and "
                                  f"{layout.predictor.hidden} wide; a model here has one ratio of that to its width in both.")
    if layout.encoder.qk_norm != layout.predictor.qk_norm:
        raise CheckpointError("Only one of encoder and predictor normalizes queries and keys; here both do or neither.")
    return {"mlp_ratio": ratio, "qk_norm": layout.encoder.qk_norm}


def _patch_size(layout: Layout, settings: Mapping[str, int | str], given: int | None) -> int:
    """Latent cells along the side of a token: as told, else by the training script, else for latents of 16 channels."""
    told = given if given is not None else settings.get("patch_size")
    if not isinstance(told, int):
        root = isqrt(layout.channels // NUM_LATENT_CHANNELS)
        told = root if root * root * NUM_LATENT_CHANNELS == layout.channels else 1
    if told < 1 or layout.channels % told**2:
        raise CheckpointError(f"Tokens of {layout.channels} channels cannot be patches of {told}x{told} latent cells.")
    return told


def _tokens(layout: Layout, tokenizer: str | None, patch: int, latent_scale: float) -> dict[str, Any]:
    """Tokenizer and shape of the stream. Patches of latents are laid out alike here and there: channel, row, column."""
    options = {"patch": dict.fromkeys(AXES, patch), "mean": 0.0, "std": 1 / latent_scale}
    side = layout.grid * patch
    if tokenizer is None:
        return {"tokenizer": {"kind": "patchify", **options}, "shape": [layout.channels // patch**2, side, side]}
    node = {"kind": "autoencoder", "source": tokenizer, **options}
    return {"tokenizer": node, "shape": _sample_shape(node, layout, side)}


def _sample_shape(node: Mapping[str, Any], layout: Layout, side: int) -> list[int]:
    """The shape of the pictures that become the model's grid of tokens: that for which the autoencoder says so."""
    stream = {"modality": MODALITY, "tokenizer": node, "shape": [NUM_COLOURS, side, side]}
    made = build_tokenizer(validated(StreamSpec, stream, "the tokenizer"))
    for stride in (2**halvings for halvings in range(MAX_HALVINGS + 1)):
        shape = (NUM_COLOURS, side * stride, side * stride)
        with suppress(LayoutError):
            if made.layout(shape) == (layout.grid, layout.grid):
                return list(shape)
    raise CheckpointError(f"There is no picture of which the autoencoder {node['source']!r} makes the model's "
                          f"{layout.grid}x{layout.grid} tokens.")


def _names(labels: Sequence[str] | None, count: int) -> list[str]:
    """Class names in the order of their ids; the ids themselves where there are none."""
    if labels is None:
        return [str(number) for number in range(count)]
    names = [str(label) for label in labels]
    if len(names) != count or len(set(names)) != count:
        twice = next((f", and {name!r} is there twice" for name, times in Counter(names).items() if times > 1), "")
        raise UsageError(f"The model has {count} classes and needs as many different labels; there are {len(names)}{twice}.")
    return names


def check_tokens(layout: Layout, spec: ModelSpec, tokenizers: Mapping[str, Tokenizer]) -> None:
    """Refuse a tokenizer whose tokens are not those of the model.

    Raises:
        CheckpointError: it makes others.
    """
    tokenizer, shape = tokenizers[STREAM], spec.streams[STREAM].shape
    assert shape is not None
    made = (tokenizer.layout(shape), tokenizer.spec.width)
    if made != ((layout.grid, layout.grid), layout.channels):
        raise CheckpointError(f"The tokenizer makes {made[0][0]}x{made[0][1]} tokens of {made[1]} channels of a sample of "
                              f"shape {list(shape)}; the model is for {layout.grid}x{layout.grid} of {layout.channels}.")


def self_contained(spec: ModelSpec, tokenizers: Mapping[str, Tokenizer]) -> ModelSpec:
    """The specification with what each tokenizer has read from elsewhere written out: its network goes into the folder."""
    streams = {}
    for name, stream in spec.streams.items():
        assert stream.tokenizer is not None
        options = {key: value for key, value in tokenizers[name].options().items() if key not in ("source", "revision")}
        streams[name] = {**stream.dump(), "tokenizer": {"kind": stream.tokenizer.kind, **options}}
    return validated(ModelSpec, {**spec.dump(), "streams": streams}, "the converted model")
