"""Checks of what a tokenizer is made of: options, statistics, assets, and what a cache keeps of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from djepa.errors import CheckpointError
from djepa.testing.conformance.check import CheckFailed, Function, NotApplicable, require
from djepa.testing.conformance.elsewhere import elsewhere
from djepa.testing.conformance.tokenizer_subject import CLOSE, NUM_MEASURED, TokenizerSubject, same_tokens
from djepa.tokenizer import Tokenizer
from djepa.tokens import Encoded, Sample


def measuring_gives_unit_scale(subject: TokenizerSubject) -> None:
    """`measured` brings tokens to mean 0 and deviation 1, nearly; the tokenizer itself stays as it was."""
    fresh, one = subject.made(subject.options), subject.tokenizer
    before = json.dumps(fresh.options())
    fresh.measured(iter(subject.samples))
    require(json.dumps(fresh.options()) == before, "measured changes the tokenizer that it is called on.")
    require(one.measured(iter(subject.samples)).options() == one.options(), "a tokenizer with statistics measures again.")
    if one is subject.plain:
        raise NotApplicable("its statistics were given, or it needs none")
    values = torch.cat([one.encode(subject.modality.example(seed)).values for seed in range(NUM_MEASURED)])
    mean, std = float(values.mean()), float(values.std())
    require(abs(mean) < 0.3 and 0.5 < std < 2.0, f"on the examples it was measured on, tokens have mean {mean:.3g} and "
                                                 f"deviation {std:.3g}; heads expect 0 and 1.")


def options_rebuild(subject: TokenizerSubject) -> None:
    """Options survive JSON and make the same tokenizer, with what `save_assets` wrote, wherever that has been moved to."""
    options = json.loads(json.dumps(subject.tokenizer.options()))
    again = subject.made(options)
    with TemporaryDirectory() as folder:
        saved = Path(folder) / "saved"
        saved.mkdir()
        subject.tokenizer.save_assets(saved)
        again.load_assets(saved.rename(Path(folder) / "elsewhere"))
        require(json.loads(json.dumps(again.options())) == options, f"rebuilt, it has other options: {again.options()}")
        for sample in subject.samples:
            tokens = subject.tokenizer.encode(sample)
            require(same_tokens(again.encode(sample), tokens), "rebuilt from its options, it makes other tokens.")
            require(torch.equal(again.decode(tokens).data, subject.tokenizer.decode(tokens).data),
                    "rebuilt from its options, it decodes to another sample.")


def missing_assets_are_refused(subject: TokenizerSubject) -> None:
    """A folder without the assets that `save_assets` writes is a CheckpointError."""
    again = subject.made(subject.tokenizer.options())
    with TemporaryDirectory() as folder:
        saved, empty = Path(folder) / "saved", Path(folder) / "empty"
        saved.mkdir()
        empty.mkdir()
        subject.tokenizer.save_assets(saved)
        if not any(saved.iterdir()):
            raise NotApplicable("it has no assets")
        try:
            again.load_assets(empty)
            again.encode(subject.samples[0])
        except CheckpointError:
            return
    raise CheckFailed("load_assets took a folder in which there is nothing.")


def moments_stand_for_samples(subject: TokenizerSubject) -> None:
    """What a cache keeps in the place of samples gives the same tokens; the key that decides it survives JSON."""
    one = subject.tokenizer
    if not one.cacheable:
        raise NotApplicable("encoding takes no network, so that a cache keeps the samples themselves")
    json.dumps(one.moments_key())
    found = one.moments(subject.samples)
    require([item.shape for item in found] == [sample.shape for sample in subject.samples], "moments forget sizes of samples.")
    alike = [isinstance(item, Encoded) and item.meta == sample.meta and item.modality == sample.modality
             for item, sample in zip(found, subject.samples, strict=True)]
    require(all(alike), "moments should be Encoded with the samples' metadata.")
    for row, (tokens, sample) in enumerate(zip(one.encode_batch(found), subject.samples, strict=True)):
        require(same_tokens(tokens, one.encode(sample), CLOSE), f"the moments of sample {row} give other tokens than itself.")


def spawns(subject: TokenizerSubject) -> None:
    """It works in a process that is started anew, and makes the same tokens there."""
    sample = subject.samples[0]
    theirs, = elsewhere(_values, subject.tokenizer, sample)
    ours = subject.tokenizer.encode(sample).values
    require(torch.allclose(torch.tensor(theirs), ours, atol=CLOSE), "it makes other tokens in another process.")


def _values(tokenizer: Tokenizer, sample: Sample) -> Iterator[list[list[float]]]:
    yield tokenizer.encode(sample).values.tolist()


FUNCTIONS: tuple[Function, ...] = (
    measuring_gives_unit_scale, options_rebuild, missing_assets_are_refused, moments_stand_for_samples, spawns,
)
