"""Tokenizers that each break one contract. A class says which check is to notice, and what that is to say."""

import itertools
import math
from dataclasses import replace

import torch

from djepa.errors import LayoutError
from djepa.tokens import Encoded
from djepa_tokenizers.patchify import Patchify

COUNTER = itertools.count(1)


class Chunks(Patchify):
    """What all of them would be if they were not broken."""

    def measured(self, samples):
        one = Patchify.measured(self, samples)
        return self if one is self else type(self)(self.media, **Patchify.options(one))


class NoTokenizer:
    check, says = "loads", "no subclass"


class NoWidth(Chunks):
    check, says = "spec-is-well-formed", "width=0"

    @property
    def spec(self):
        return replace(super().spec, width=0)


class NarrowBounds(Chunks):
    check, says = "spec-is-well-formed", "two tensors of 4"

    @property
    def spec(self):
        return replace(super().spec, bounds=(torch.tensor(-1.0), torch.tensor(1.0)))


class BeyondBounds(Chunks):
    check, says = "tokens-are-sound", "outside of the bounds"

    @property
    def spec(self):
        low, high = super().spec.bounds
        return replace(super().spec, bounds=(low / 9, high / 9))


class DoubleValues(Chunks):
    check, says = "tokens-are-sound", "float32"

    def encode(self, sample):
        tokens = super().encode(sample)
        return replace(tokens, values=tokens.values.double())


class DropsRates(Chunks):
    check, says = "tokens-are-sound", "metadata"

    def encode(self, sample):
        return replace(super().encode(sample), meta={})


class ChangesItsSample(Chunks):
    check, says = "encoding-is-pure", "other tokens the second time"

    def encode(self, sample):
        tokens = super().encode(sample)
        sample.data.mul_(0.5)
        return tokens


class SharesMetadata(Chunks):
    check, says = "encoding-is-pure", "shares its memory or its metadata"

    def encode(self, sample):
        return replace(super().encode(sample), meta=sample.meta)

    def decode(self, tokens):
        return replace(super().decode(tokens), meta=tokens.meta)


class DecodesAtRandom(Chunks):
    check, says = "encoding-is-pure", "another sample the second time"

    def decode(self, tokens):
        sample = super().decode(tokens)
        return replace(sample, data=sample.data + 1e-3 * next(COUNTER))


class ForgetsRates(Chunks):
    check, says = "decoding-restores-shape-and-meta", "metadata"

    def decode(self, tokens):
        return replace(super().decode(tokens), meta={})


class LosesTheEnd(Chunks):
    check, says = "decoding-restores-shape-and-meta", "came back as (1, 31)"

    def decode(self, tokens):
        sample = super().decode(tokens)
        return replace(sample, data=sample.data[:, :31])


class Rounds(Chunks):
    check, says = "lossless-claim-holds", "with an error of"

    def decode(self, tokens):
        sample = super().decode(tokens)
        return replace(sample, data=(sample.data * 100).round() / 100)


class CentresBatches(Chunks):
    check, says = "batches-change-nothing", "other tokens than alone"

    def encode_batch(self, samples, noise=None):
        batch = super().encode_batch(samples)
        return batch.with_values(batch.values - batch.values.mean(dim=0))


class EqualSizesOnly(Chunks):
    check, says = "batches-change-nothing", "stack"

    def encode_batch(self, samples, noise=None):
        torch.stack([sample.data for sample in samples])
        return super().encode_batch(samples)


class BatchesLoseMetadata(Chunks):
    check, says = "batches-change-nothing", "decode_batch loses"

    def decode_batch(self, tokens):
        return [replace(sample, meta={}) for sample in super().decode_batch(tokens)]


class SharesNoise(Chunks):
    check, says = "noise-belongs-to-its-sample", "in a batch"

    def encode_batch(self, samples, noise=None):
        batch = super().encode_batch(samples)
        return batch if noise is None else batch.with_values(batch.values + noise(batch.values.shape[-1]).mean())


class RestoresNearly(Chunks):
    check, says = "restoring-keeps-exactly", "are others"

    def restore(self, tokens, original, keep):
        return self.decode(tokens)


class PlansTooMuch(Chunks):
    check, says = "layout-is-that-of-encode", "encode makes 8"

    def layout(self, shape):
        return tuple(size + 1 for size in super().layout(shape))

    def encode(self, sample):
        tokens = Chunks(self.media, **self.options()).encode(sample)
        return replace(tokens, grid=None)


class LeaksValues(Chunks):
    check, says = "coordinates-do-not-depend-on-values", "coordinates must come from the grid alone"

    def encode(self, sample):
        tokens = super().encode(sample)
        return replace(tokens, coords=tokens.coords + tokens.values[:, :1])


class CountsSteps(Chunks):
    check, says = "coordinates-are-physical", "goes from 0 to 4 s"

    def encode(self, sample):
        return super().encode(replace(sample, meta={"rate": 1.0}))


class KnowsOneRate(Chunks):
    check, says = "coordinates-are-physical", "half as far"

    def encode(self, sample):
        return super().encode(replace(sample, meta={"rate": 8.0}))


class OnePlace(Chunks):
    check, says = "coordinates-are-physical", "in the same place"

    def encode(self, sample):
        tokens = super().encode(sample)
        return replace(tokens, coords=torch.zeros_like(tokens.coords))


class BlankElsewhere(Chunks):
    check, says = "blanks-have-the-places-of-encode", "elsewhere"

    def blank(self, shape, meta, modality=""):
        blank = super().blank(shape, meta, modality)
        return replace(blank, coords=blank.coords + 0.5)


class BlankIsOne(Chunks):
    check, says = "blanks-have-the-places-of-encode", "should be 0"

    def blank(self, shape, meta, modality=""):
        blank = super().blank(shape, meta, modality)
        return replace(blank, values=blank.values + 1)


class CellsBackwards(Chunks):
    check, says = "cells-divide-the-axes", "in order"

    def cells(self, shape):
        return {name: rows.flip(0) for name, rows in super().cells(shape).items()}


class CropsSilently(Chunks):
    check, says = "other-sizes-work-or-are-refused", "came back as"

    def layout(self, shape):
        if len(shape) != 2 or shape[0] != 1 or shape[1] < 4:
            raise LayoutError(f"{shape} is none; 32 would be one.")
        return (shape[1] // 4,)

    def encode(self, sample):
        whole = 4 * self.layout(tuple(sample.data.shape))[0]
        return super().encode(replace(sample, data=sample.data[:, :whole]))


class GivesNoAdvice(Chunks):
    check, says = "other-sizes-work-or-are-refused", "names none that works"

    def layout(self, shape):
        try:
            return super().layout(shape)
        except LayoutError as error:
            raise LayoutError("This size does not work; try 17 or 33.") from error


class TakesWhatLayoutRefuses(Chunks):
    check, says = "other-sizes-work-or-are-refused", "encode takes it"

    def encode(self, sample):
        short = sample.data[:, : max(4, sample.data.shape[1] // 4 * 4)]
        return super().encode(replace(sample, data=short if short.shape[1] % 4 == 0 else sample.data.repeat(1, 4)))


class OtherErrors(Chunks):
    check, says = "other-sizes-work-or-are-refused", "RuntimeError"

    def layout(self, shape):
        return (math.ceil(shape[1] / 4),)


class ScalesWrongly(Chunks):
    check, says = "measuring-gives-unit-scale", "deviation"

    def measured(self, samples):
        one = super().measured(samples)
        return self if one is self else type(self)(self.media, patch=one.options()["patch"], mean=one.mean,
                                                   std=[9 * std for std in one.std])


class MeasuresItself(Chunks):
    check, says = "measuring-gives-unit-scale", "changes the tokenizer"

    def measured(self, samples):
        self.__dict__.update(super().measured(samples).__dict__)
        return self


class ForgetsStatistics(Chunks):
    check, says = "options-rebuild", "other tokens"

    def options(self):
        return {"patch": Patchify.options(self)["patch"]}


class OptionsAreTensors(Chunks):
    check, says = "options-rebuild", "not JSON serializable"

    def options(self):
        return {**super().options(), "mean": torch.zeros(1)}

    def measured(self, samples):
        return self


class NeedsNoAssets(Chunks):
    check, says = "missing-assets-are-refused", "in which there is nothing"

    def save_assets(self, folder):
        (folder / "weights").write_bytes(b"1234")


class OtherMoments(Chunks):
    check, says = "moments-stand-for-samples", "other tokens than itself"
    cacheable = True

    def moments(self, samples):
        return [Encoded(sample.data / 2, dict(sample.meta), sample.modality, sample.shape) for sample in samples]

    def moments_key(self):
        return {"kind": "other moments"}


class HoldsALambda(Chunks):
    check, says = "spawns", "cannot be pickled"

    def __init__(self, media, *, patch: dict[str, int] | int = 1, mean: list[float] | float | None = None,
                 std: list[float] | float | None = None):
        super().__init__(media, patch=patch, mean=mean, std=std)
        self.scale = lambda value: value

    def measured(self, samples):
        return self


class Loud(Chunks):
    check, says = "a-small-core-learns", "it should fall"

    @property
    def spec(self):
        return replace(super().spec, bounds=None)

    def encode_batch(self, samples, noise=None):
        batch = super().encode_batch(samples)
        return batch.with_values(batch.values * 1e4)
