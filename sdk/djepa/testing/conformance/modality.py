"""Checks of modalities: the class, its examples, how it shows them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from djepa import build
from djepa.errors import UsageError
from djepa.modality import Modality
from djepa.recipe.schema import StreamSpec
from djepa.testing.conformance.check import CheckFailed, Function, require
from djepa.testing.conformance.elsewhere import elsewhere
from djepa.testing.conformance.samples import check_sample, cut
from djepa.testing.conformance.subject import Subject
from djepa.tokens import Axis

MIME_TYPE = re.compile(r"[a-z]+/[a-z0-9.+-]+")
EXTENSION = re.compile(r"[a-z0-9]+")


class ModalitySubject(Subject):
    """A modality."""

    def build(self) -> Modality:
        """The modality: constructed without arguments."""
        return self.implementation()


def is_well_formed(subject: ModalitySubject) -> None:
    """Name, axes, bounds, extensions and metadata are what the contract says, and agree with each other."""
    one = subject.build()
    require(one.name == subject.contribution.name, f"its name is {one.name!r}, and it is registered as "
                                                   f"{subject.contribution.name!r}: samples would not find it.")
    require(isinstance(one.axes, tuple) and bool(one.axes) and all(isinstance(axis, Axis) for axis in one.axes),
            f"axes should be a tuple of Axis; they are {one.axes!r}.")
    names = [axis.name for axis in one.axes]
    require(len(set(names)) == len(names) and all(name.isidentifier() for name in names),
            f"axes need different names that a recipe can use; they are {names}.")
    rates = [axis.rate_key for axis in one.axes if axis.rate_key]
    require(set(rates) <= set(one.required_meta), f"required_meta={one.required_meta} lacks rates of the axes: {rates}.")
    require(one.bounds is None or one.bounds[0] < one.bounds[1], f"bounds={one.bounds} are no interval.")
    extensions = [*one.extensions, one.sheet_extension]
    require(bool(one.extensions) and all(map(EXTENSION.fullmatch, extensions)),
            f"extensions are lower case and without a dot; they are {extensions}.")
    require(len(set(one.extensions)) == len(one.extensions), f"an extension is there twice: {one.extensions}.")


def examples_are_sound(subject: ModalitySubject) -> None:
    """`example(seed)` gives float32 numbers, finite and in bounds, on the axes, with the metadata the modality requires."""
    for seed in range(3):
        check_sample(subject.build().example(seed), subject.build(), f"example({seed})")


def examples_depend_on_the_seed_alone(subject: ModalitySubject) -> None:
    """The same seed gives the same example, another one another; no global random state is touched."""
    state = torch.get_rng_state()
    first, again, other = (subject.build().example(seed) for seed in (1, 1, 2))
    require(torch.equal(first.data, again.data) and first.meta == again.meta, "example(1) is another one each time.")
    require(not torch.equal(first.data, other.data) if first.shape == other.shape else True,
            "example(1) and example(2) are the same.")
    require(torch.equal(state, torch.get_rng_state()), "example(seed) draws from torch's global generator.")


def spawns(subject: ModalitySubject) -> None:
    """It works in a process that is started anew, and gives the same example there."""
    theirs, = elsewhere(_example, subject.build(), 1)
    ours = subject.build().example(1)
    require(torch.equal(torch.tensor(theirs), ours.data.flatten()), "example(1) is another one in another process.")


def _example(modality: Modality, seed: int) -> Iterator[list[float]]:
    yield modality.example(seed).data.flatten().tolist()


def default_tokenizer_tokenizes(subject: ModalitySubject) -> None:
    """The tokenizer that a recipe gets when it names none can be built, and takes the examples."""
    sample = subject.build().example(0)
    tokenizer = build.tokenizer(StreamSpec(modality=subject.name, shape=sample.shape))
    tokens = tokenizer.encode(sample)
    require(tokens.grid is None or tokens.grid == tokenizer.layout(sample.shape), "its layout is not that of its tokens.")
    back = tokenizer.decode(tokens)
    require(back.shape == sample.shape, f"an example of shape {sample.shape} came back as {back.shape}.")


def previews_are_mime_bundles(subject: ModalitySubject) -> None:
    """Previews are text by MIME type that JSON can hold; binary types are base64. Showing nothing is allowed."""
    one = subject.build()
    samples = [one.example(seed) for seed in range(2)]
    for bundle in (one.preview(samples[0]), one.preview_sheet(samples)):
        _check_bundle(bundle)


def _check_bundle(bundle: Mapping[str, Any]) -> None:
    json.dumps(bundle)
    for mime, content in bundle.items():
        require(bool(MIME_TYPE.fullmatch(mime)), f"{mime!r} is no MIME type.")
        if not mime.startswith(("text/", "application/")):
            require(isinstance(content, str), f"{mime} should be base64 text; it is {type(content).__name__}.")
            base64.b64decode(content, validate=True)


def sheets_are_written(subject: ModalitySubject) -> None:
    """One file shows one sample or several, of different sizes too; unknown extensions are refused."""
    one = subject.build()
    samples = [one.example(0), cut(one.example(1), 0, max(1, one.example(1).shape[1] // 2)), one.example(2)]
    with TemporaryDirectory() as folder:
        for chosen, columns in ((samples[:1], None), (samples, None), (samples, 2)):
            path = Path(folder) / f"{len(chosen)}-{columns}.{one.sheet_extension}"
            written = one.sheet(chosen, path, columns)
            require(Path(written) == path and path.is_file() and path.stat().st_size > 0,
                    f"a sheet of {len(chosen)} samples should be in {path.name}.")
        try:
            one.sheet(samples, Path(folder) / "sheet.nosuchextension")
        except UsageError:
            return
        raise CheckFailed("a sheet called sheet.nosuchextension should be a UsageError.")


FUNCTIONS: tuple[Function, ...] = (
    is_well_formed, examples_are_sound, examples_depend_on_the_seed_alone, previews_are_mime_bundles, sheets_are_written,
    default_tokenizer_tokenizes, spawns,
)
