"""Modalities that each break one contract. A class says which check is to notice, and what that is to say."""

import json
import os
import time
from dataclasses import replace
from typing import ClassVar

import torch
from curves import Curve

from djepa.errors import MediaError
from djepa.tokens import Axis, Sample


class NoModality:
    check, says = "loads", "no subclass"


class NeedsArguments(Curve):
    check, says = "loads", "missing 1 required"

    def __init__(self, size):
        self.size = size


class ExpectsNonsense(Curve):
    check, says = "loads", "checks that there are not: flies"
    expected_failures: ClassVar = {"flies": "it is a curve"}


class OtherName(Curve):
    check, says = "is-well-formed", "registered as"
    name = "kurve"


class RateNotRequired(Curve):
    check, says = "is-well-formed", "lacks rates"
    required_meta = ()


class SameAxes(Curve):
    check, says = "is-well-formed", "different names"
    axes = (Axis("t", "s", "rate"), Axis("t", "px"))


class DottedExtension(Curve):
    check, says = "is-well-formed", "without a dot"
    extensions = (".curve",)


class NotFinite(Curve):
    check, says = "examples-are-sound", "not finite"

    def example(self, seed):
        sample = super().example(seed)
        return replace(sample, data=sample.data / 0)


class OutOfBounds(Curve):
    check, says = "examples-are-sound", "outside of"

    def example(self, seed):
        sample = super().example(seed)
        return replace(sample, data=sample.data * 3)


class DoublePrecision(Curve):
    check, says = "examples-are-sound", "float32"

    def example(self, seed):
        sample = super().example(seed)
        return replace(sample, data=sample.data.double())


class WithoutRate(Curve):
    check, says = "examples-are-sound", "no meta ['rate']"

    def example(self, seed):
        return replace(super().example(seed), meta={})


class ManyAxes(Curve):
    check, says = "examples-are-sound", "has shape"

    def example(self, seed):
        sample = super().example(seed)
        return replace(sample, data=sample.data[None])


class AlwaysTheSame(Curve):
    check, says = "examples-depend-on-the-seed-alone", "are the same"

    def example(self, seed):
        return super().example(0)


class NeverTheSame(Curve):
    check, says = "examples-depend-on-the-seed-alone", "each time"

    def example(self, seed):
        return super().example(time.time_ns())


class GlobalRandomness(Curve):
    check, says = "examples-depend-on-the-seed-alone", "global generator"

    def example(self, seed):
        torch.manual_seed(seed)
        return Sample(torch.rand(1, 32), {"rate": 8.0}, self.name)


class BytesInPreview(Curve):
    check, says = "previews-are-mime-bundles", "not JSON serializable"

    def preview(self, sample):
        return {"image/png": b"no picture"}


class NoBase64(Curve):
    check, says = "previews-are-mime-bundles", "Error"

    def preview(self, sample):
        return {"image/png": "no picture!"}


class NoMimeType(Curve):
    check, says = "previews-are-mime-bundles", "no MIME type"

    def preview_sheet(self, samples):
        return {"html": "<p>"}


class EqualSizesOnly(Curve):
    check, says = "sheets-are-written", "stack"

    def sheet(self, samples, path, columns=None):
        return super().sheet([replace(samples[0], data=torch.stack([sample.data for sample in samples]))], path)


class NoSheet(Curve):
    check, says = "sheets-are-written", "should be in"

    def sheet(self, samples, path, columns=None):
        return path


class AnySheet(Curve):
    check, says = "sheets-are-written", "should be a UsageError"

    def sheet(self, samples, path, columns=None):
        super().sheet(samples, path.with_suffix(".txt"))
        return path.with_suffix(".txt").rename(path)


class UnknownTokenizer(Curve):
    check, says = "default-tokenizer-tokenizes", "nosuchthing"

    def default_tokenizer(self):
        return {"kind": "nosuchthing"}


class UnfitTokenizer(Curve):
    check, says = "default-tokenizer-tokenizes", "do not divide"

    def default_tokenizer(self):
        return {"kind": "patchify", "patch": {"t": 5}}


class HoldsALambda(Curve):
    check, says = "spawns", "cannot be pickled"

    def __init__(self):
        self.scale = lambda value: value


class SeedsByHash(Curve):
    check, says = "spawns", "in another process"

    def example(self, seed):
        return super().example(hash(f"curve {seed}") % 1000)


class ForgetsMetadata(Curve):
    check, says = "files-come-back", "metadata did not come back: ['seed'"

    def load(self, path):
        return replace(super().load(path), meta={"rate": 8.0})


class UpsideDown(Curve):
    check, says = "files-come-back", "times their spread"

    def load(self, path):
        sample = super().load(path)
        return replace(sample, data=-sample.data if path.suffix == ".rough" else sample.data)


class LosesTheEnd(Curve):
    check, says = "files-come-back", "saved (1, 32), loaded (1, 31)"

    def load(self, path):
        sample = super().load(path)
        return replace(sample, data=sample.data[:, :-1])


class ChangesWhatItSaves(Curve):
    check, says = "files-come-back", "save changed the sample"

    def save(self, sample, path):
        sample.meta["path"] = str(path)
        return super().save(sample, path)


class WritesInPlace(Curve):
    check, says = "saving-is-all-or-nothing", "full disk should give StorageError"

    def save(self, sample, path):
        self.check_extension(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"length": 32, "meta": sample.meta, "data": sample.data.flatten().tolist()}, default=repr)
        path.write_text(text) if "object" not in text else super().save(sample, path)
        return path


class OpensFirst(Curve):
    check, says = "saving-is-all-or-nothing", "changed the file"

    def save(self, sample, path):
        self.check_extension(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        return super().save(sample, path)


class LeavesLitter(Curve):
    check, says = "saving-is-all-or-nothing", "left ["

    def save(self, sample, path):
        try:
            return super().save(sample, path)
        except Exception:
            path.with_suffix(".tmp").touch()
            raise


class AnyExtension(Curve):
    check, says = "unknown-extensions-are-refused", "should be a UsageError"

    def check_extension(self, path):
        return path.suffix


class TakesAnything(Curve):
    check, says = "what-is-no-file-is-refused", "was read as a sample"

    def load(self, path):
        try:
            return super().load(path)
        except MediaError:
            return self.example(0)


class NamesNoPath(Curve):
    check, says = "what-is-no-file-is-refused", "does not name the path"

    def load(self, path):
        try:
            return super().load(path)
        except MediaError as error:
            raise MediaError("It is damaged.") from error


class OtherErrors(Curve):
    check, says = "what-is-no-file-is-refused", "it gave JSONDecodeError"

    def load(self, path):
        json.loads(path.read_text()) if path.is_file() else None
        return super().load(path)


class ReadsHalf(Curve):
    check, says = "damaged-files-are-refused", "was read as a sample of (1, 3)"

    def load(self, path):
        try:
            return super().load(path)
        except MediaError:
            return Sample(torch.zeros(1, 3), {"rate": 8.0}, self.name)


class Hangs(Curve):
    check, says = "damaged-files-are-refused", "did not come back"

    def load(self, path):
        try:
            return super().load(path)
        except MediaError:
            time.sleep(600)
            raise


class Crashes(Curve):
    check, says = "damaged-files-are-refused", "exit code 7"

    def load(self, path):
        try:
            return super().load(path)
        except MediaError:
            os._exit(7)
