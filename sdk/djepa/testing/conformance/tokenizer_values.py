"""Checks of the tokens themselves: what they hold, what becomes of them, and that a batch changes nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from djepa.testing.conformance.check import Function, NotApplicable, require
from djepa.testing.conformance.samples import copied
from djepa.testing.conformance.tokenizer_subject import CLOSE, NUM_SAMPLES, TokenizerSubject, close, same_tokens
from djepa.tokenizer import Tokenizer
from djepa.tokens import Sample

LOSSLESS = 1e-5  # of the largest value: a few roundings of float32
ALIKE = 0.05     # of the spread of tokens, of those of two samples decoded from the same: log-mel 0.005, other sounds 1


def spec_is_well_formed(subject: TokenizerSubject) -> None:
    """Width, axes and bounds are what the contract says."""
    spec = subject.tokenizer.spec
    require(isinstance(spec.width, int) and spec.width >= 1, f"width={spec.width!r} should be a whole number, at least 1.")
    names = [axis.name for axis in spec.axes]
    require(bool(names) and len(set(names)) == len(names), f"axes need different names; they are {names}.")
    require(isinstance(subject.tokenizer.media.channels, int), "media should be what the tokenizer was constructed with.")
    if spec.bounds is not None:
        low, high = spec.bounds
        require(low.shape == high.shape == (spec.width,), f"bounds should be two tensors of {spec.width} numbers.")
        require(bool((low <= high).all()), "a lower bound is above its upper bound.")


def tokens_are_sound(subject: TokenizerSubject) -> None:
    """Values are finite float32 (n, width) within the bounds that the spec promises; metadata and modality come along."""
    spec = subject.tokenizer.spec
    for sample in [*subject.samples, *subject.shorter()]:
        tokens = subject.tokenizer.encode(sample)
        require(tokens.values.ndim == 2 and tokens.values.shape[1] == spec.width,
                f"values have shape {tuple(tokens.values.shape)}; expected (n, {spec.width}).")
        require(tokens.values.dtype == torch.float32, f"values should be float32; they are {tokens.values.dtype}.")
        require(bool(tokens.values.isfinite().all()), "values are not finite.")
        require(dict(tokens.meta) == sample.meta, f"the sample's metadata {sample.meta} came as {dict(tokens.meta)}.")
        require(tokens.modality == sample.modality, f"the sample's modality came as {tokens.modality!r}.")
        if spec.bounds is not None:
            slack = 1e-4 * (spec.bounds[1] - spec.bounds[0])
            within = (tokens.values >= spec.bounds[0] - slack) & (tokens.values <= spec.bounds[1] + slack)
            require(bool(within.all()), "values lie outside of the bounds, which heads clamp to.")


def encoding_is_pure(subject: TokenizerSubject) -> None:
    """The same sample gives the same tokens; the sample stays as it was, and what is made of it does not share its metadata."""
    for sample in subject.samples:
        before = copied(sample)
        first, again = subject.tokenizer.encode(sample), subject.tokenizer.encode(sample)
        require(same_tokens(first, again), "the same sample gave other tokens the second time.")
        back, once_more = subject.tokenizer.decode(first), subject.tokenizer.decode(first)
        require(torch.equal(back.data, once_more.data), "the same tokens gave another sample the second time.")
        back.meta["note"] = "a pipeline writes model and seed here"
        back.data.zero_()
        unchanged = torch.equal(sample.data, before.data) and sample.meta == before.meta and same_tokens(first, again)
        require(unchanged and "note" not in first.meta, "what is made of a sample shares its memory or its metadata.")


def decoding_restores_shape_and_meta(subject: TokenizerSubject) -> None:
    """`decode(encode(sample))` has the sample's shape, metadata and modality, and finite values."""
    for sample in [*subject.samples, *subject.shorter()]:
        back = subject.tokenizer.decode(subject.tokenizer.encode(sample))
        require(back.shape == sample.shape, f"a sample of shape {sample.shape} came back as {back.shape}.")
        require(back.meta == sample.meta, f"the sample's metadata {sample.meta} came back as {back.meta}.")
        require(back.modality == sample.modality, f"the sample's modality came back as {back.modality!r}.")
        require(back.data.dtype == torch.float32 and bool(back.data.isfinite().all()), "values came back as no finite float32.")


def lossless_claim_holds(subject: TokenizerSubject) -> None:
    """A tokenizer that says it is lossless gives the sample back, up to the rounding of float32."""
    if not subject.tokenizer.lossless:
        raise NotApplicable("it does not say that it is lossless")
    for sample in [*subject.samples, *subject.shorter()]:
        back = subject.tokenizer.decode(subject.tokenizer.encode(sample))
        require(close(back.data, sample.data, LOSSLESS), f"it says it is lossless, and values came back with an error of "
                                                         f"{float((back.data - sample.data).abs().max()):.3g}.")


def batches_change_nothing(subject: TokenizerSubject) -> None:
    """Samples of one size or of several give the same tokens in a batch as alone, and tokens the same samples."""
    one = subject.tokenizer
    for samples in (subject.samples, [subject.samples[0], *subject.shorter(), subject.samples[2]]):
        batch, alone = one.encode_batch(samples), [one.encode(sample) for sample in samples]
        require(len(batch) == len(samples) and batch.valid.shape == batch.values.shape[:2] == batch.coords.shape[:2],
                "a batch should have a row per sample, and one length for all.")
        for row, tokens in enumerate(alone):
            require(same_tokens(batch[row], tokens, CLOSE), f"sample {row} of a batch has other tokens than alone "
                                                            f"(shapes: {[sample.shape for sample in samples]}).")
        for sample, tokens in zip(one.decode_batch(batch), alone, strict=True):
            single = one.decode(tokens)
            require(sample.meta == single.meta and sample.modality == single.modality, "decode_batch loses metadata.")
            require(close(sample.data, single.data, 10 * CLOSE) or _alike(one, sample, single),
                    "a sample decoded in a batch is another one than alone.")


def _alike(one: Tokenizer, sample: Sample, other: Sample) -> bool:
    """Whether samples say the same in what tokens hold: of all else a tokenizer is free to decode what it likes.

    An iterative search for the phases of a sound, for one, may end elsewhere for a difference in the last bit.
    """
    if one.lossless:
        return False
    values = [one.encode(item).values for item in (sample, other)]
    return bool((values[0] - values[1]).square().mean() <= (ALIKE * values[1].std()).square())


def noise_belongs_to_its_sample(subject: TokenizerSubject) -> None:
    """Where encoding draws, what it draws for a sample does not depend on the others of its batch."""
    def noise(width: int) -> Tensor:
        return torch.randn(NUM_SAMPLES, width, generator=torch.Generator().manual_seed(0))

    together = subject.tokenizer.encode_batch(subject.samples, noise)
    for row, sample in enumerate(subject.samples):
        alone = subject.tokenizer.encode_batch([sample], lambda width, row=row: noise(width)[row : row + 1])
        require(same_tokens(together[row], alone[0], CLOSE), f"with the same noise, sample {row} has other tokens in a batch.")


def restoring_keeps_exactly(subject: TokenizerSubject) -> None:
    """`restore` gives exactly the original where it is to be kept, and a sample of its shape."""
    one, sample, other = subject.tokenizer, subject.samples[0], subject.samples[1]
    tokens = one.encode(Sample(other.data, sample.meta, sample.modality) if other.shape == sample.shape else sample)
    keep = torch.zeros(sample.shape[1:], dtype=torch.bool)
    keep[: max(1, len(keep) // 2)] = True
    for mask in (keep, torch.ones_like(keep), torch.zeros_like(keep)):
        restored = one.restore(tokens, copied(sample), mask)
        require(restored.shape == sample.shape, f"a sample of shape {sample.shape} was restored as {restored.shape}.")
        kept = torch.where(mask, restored.data == sample.data, True)
        require(bool(kept.all()), f"{int((~kept).sum())} values that were to be kept are others.")
        require(bool(restored.data.isfinite().all()), "restored values are not finite.")


FUNCTIONS: tuple[Function, ...] = (
    spec_is_well_formed, tokens_are_sound, encoding_is_pure, decoding_restores_shape_and_meta, lossless_claim_holds,
    batches_change_nothing, noise_belongs_to_its_sample, restoring_keeps_exactly,
)
