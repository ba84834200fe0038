"""How long and how large: shapes of samples other than the trained one, said in seconds and pixels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from djepa.errors import ExtrapolationWarning, LayoutError, UsageError
from djepa.recipe.schema import LearnedPosition, ModelSpec, StreamSpec
from djepa.request import is_whole
from djepa.tokenizer import Tokenizer
from djepa.tokens import MediaSpec, Sample

SECONDS, PIXELS = "s", "px"  # units of axes
SENSIBLE = (0.5, 2.0)        # times the trained extent, along each axis, within which positions are known to mean something
RATE_TOLERANCE = 0.01        # by which the rates of a sample and of a model may differ without a word


def time_axis(media: MediaSpec) -> int | None:
    """Which axis of the media is measured in seconds, if one is."""
    return next((index for index, axis in enumerate(media.axes) if axis.unit == SECONDS), None)


def asked_shapes(
    spec: ModelSpec, tokenizers: Mapping[str, Tokenizer], seconds: float | None, size: int | Sequence[int] | None
) -> dict[str, tuple[int, ...]]:
    """The shape of each stream's sample, channels first: the trained one, but for what is asked.

    Args:
        spec, tokenizers: of the model.
        seconds: length along axes in seconds; None for the trained one.
        size: along axes in pixels, in their order, or one number for all; None for the trained one.

    Raises:
        UsageError: no stream has such an axis, the model can make nothing but its trained shape, or a number is out of range.
    """
    if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
        raise UsageError(f"seconds={seconds!r}: expected a length above 0.")
    shapes = {name: _asked(tokenizers[name].media, stream, seconds, size) for name, stream in spec.streams.items()}
    for given, unit, argument in ((seconds, SECONDS, "seconds"), (size, PIXELS, "size")):
        if given is not None and not any(axis.unit == unit for one in tokenizers.values() for axis in one.media.axes):
            raise UsageError(f"{argument}={given!r}: nothing this model generates is measured in {unit}.")
    for name, stream in spec.streams.items():
        if shapes[name] != stream.shape:
            _check_other(name, shapes[name], stream, spec, tokenizers[name])
    return shapes


def _asked(
    media: MediaSpec, stream: StreamSpec, seconds: float | None, size: int | Sequence[int] | None
) -> tuple[int, ...]:
    assert stream.shape is not None
    sizes = list(stream.shape[1:])
    for index, axis in enumerate(media.axes):
        if axis.unit == SECONDS and seconds is not None:
            sizes[index] = max(1, round(seconds * axis.rate(stream.meta)))
    pixels = [index for index, axis in enumerate(media.axes) if axis.unit == PIXELS]
    if size is not None and pixels:
        asked = list(size) if isinstance(size, Sequence) else [size] * len(pixels)
        if len(asked) != len(pixels) or not all(is_whole(pixel) and pixel >= 1 for pixel in asked):
            names = ", ".join(media.axes[index].name for index in pixels)
            raise UsageError(f"size={size!r}: expected a number of pixels, or one for each of {names}, at least 1.")
        for index, pixel in zip(pixels, asked, strict=True):
            sizes[index] = int(pixel)
    return stream.shape[0], *sizes


def _check_other(
    name: str, shape: tuple[int, ...], stream: StreamSpec, spec: ModelSpec, tokenizer: Tokenizer
) -> None:
    assert stream.shape is not None
    if isinstance(spec.position, LearnedPosition):
        raise UsageError(f"Stream {name!r} has learned positions and can only be {list(stream.shape)} (channels first), not "
                         f"{list(shape)}; other lengths and sizes need a model trained with rotary positions. A longer clip "
                         f"can be made window by window: see Pipeline.extend.")
    tokenizer.layout(shape)
    trained = stream.sizes or [(size, size) for size in stream.shape[1:]]
    for axis, asked, (least, most) in zip(tokenizer.media.axes, shape[1:], trained, strict=True):
        if not SENSIBLE[0] * least <= asked <= SENSIBLE[1] * most:
            rate = axis.rate(stream.meta)
            known = f"{least / rate:g} to {most / rate:g}" if least < most else f"{most / rate:g}"
            warnings.warn(f"Stream {name!r} was trained on {known} {axis.unit} along {axis.name!r}; {asked / rate:g} "
                          f"{axis.unit} is far outside, and quality will suffer.", ExtrapolationWarning, stacklevel=5)


def fitted(name: str, sample: Sample, stream: StreamSpec, media: MediaSpec, learned: bool) -> Sample:
    """A sample that a user gave, with the model's rates where it has none of its own.

    Raises:
        LayoutError: another number of channels, or another size where positions are learned.
    """
    shape = tuple(sample.data.shape)
    assert stream.shape is not None
    if len(shape) != len(stream.shape) or shape[0] != stream.shape[0] or (learned and shape != stream.shape):
        raise LayoutError(f"A sample for stream {name!r} has shape {list(shape)}; this model takes {list(stream.shape)} "
                          f"(channels first)" + (", exactly: its positions are learned." if learned else "."))
    rates: dict[str, Any] = dict(stream.meta)
    meta = rates | sample.meta
    for key, trained in rates.items():
        if abs(float(meta[key]) / trained - 1) > RATE_TOLERANCE:
            warnings.warn(f"The sample for stream {name!r} has {key} {meta[key]:g}; this model was trained at {trained:g}. "
                          f"Resample it for results like those it was trained on.", ExtrapolationWarning, stacklevel=5)
    return Sample(sample.data, meta, sample.modality or stream.modality)
