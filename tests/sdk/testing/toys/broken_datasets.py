"""Datasets that each break one contract. A class says which check is to notice, and what that is to say."""

import itertools
import uuid
from dataclasses import replace

import numpy as np
import torch
from curves import Curve, Curves

from djepa.dataset import Example
from djepa.tokens import Sample

COUNTER = itertools.count(1)


def changed(example, **changes):
    """The example with something of its sample changed."""
    return Example({"curve": replace(example.samples["curve"], **changes)}, example.conditions)


class NoDataset:
    check, says = "loads", "no subclass"


class Empty(Curves):
    check, says = "has-examples", "there are 0"

    def __len__(self):
        return 0


class SometimesUnlabelled(Curves):
    check, says = "has-examples", "differ in their streams or conditions"

    def load(self, index, rng=None):
        example = super().load(index, rng)
        return example if index else Example(example.samples)


class WithoutRate(Curves):
    check, says = "samples-are-of-their-modality", "no meta ['rate']"

    def view(self, index, number):
        return changed(super().view(index, number), meta={})


class UnknownModality(Curves):
    check, says = "samples-are-of-their-modality", "nobody registered"

    def view(self, index, number):
        return changed(super().view(index, number), modality="doodle")


class SharesItsData(Curves):
    check, says = "loading-is-deterministic", "keeps what was done to it"

    def __init__(self, *, length: int = 6) -> None:
        super().__init__(length=length)
        self.kept = [Curve().example(index) for index in range(length)]

    def view(self, index, number):
        return Example({"curve": self.kept[index]}, super().view(index, number).conditions)


class NeverTheSame(Curves):
    check, says = "loading-is-deterministic", "in another instance"

    def view(self, index, number):
        return changed(super().view(index, number), data=torch.full((1, 32), 1 / next(COUNTER)))


class DrawsByItself(Curves):
    check, says = "draws-come-from-the-generator", "with the same generator"

    def load(self, index, rng=None):
        return super().load(index, rng) if rng is None else self.view(index, next(COUNTER) % 2)


class GlobalRandomness(Curves):
    check, says = "draws-come-from-the-generator", "global generator"

    def load(self, index, rng=None):
        torch.rand(1)
        return super().load(index, rng)


class UnlistedClass(Curves):
    check, says = "classes-cover-conditions", "none of its classes"

    def classes(self):
        return {"label": ["a", "c"]}


class UnknownCondition(Curves):
    check, says = "classes-cover-conditions", "has not"

    def classes(self):
        return {"colour": ["red"]}


class OtherViews(Curves):
    check, says = "views-are-those-of-load", "none of its views"

    def load(self, index, rng=None):
        example = super().load(index, rng)
        return example if rng is None else changed(example, data=example.samples["curve"].data / 2)


class FirstViewIsAnother(Curves):
    check, says = "views-are-those-of-load", "is not what load gives"

    def load(self, index, rng=None):
        return self.view(index, 1)


class NewFingerprints(Curves):
    check, says = "fingerprint-is-stable", "and then"

    def fingerprint(self):
        return uuid.uuid4().hex


class ForgetsTheLast(Curves):
    check, says = "order-is-a-permutation", "not every example once"

    def order(self, rng):
        return rng.permutation(len(self) - 1)


class OrdersAtRandom(Curves):
    check, says = "order-is-a-permutation", "another one each time"
    num = 0

    def order(self, rng):
        self.num += 1
        return np.roll(np.arange(len(self)), self.num)


class TooFewLengths(Curves):
    check, says = "order-is-a-permutation", "more or fewer lengths"

    def lengths(self):
        return np.ones(len(self) - 1)


class HoldsALambda(Curves):
    check, says = "spawns", "cannot be pickled"

    def __init__(self, *, length: int = 6) -> None:
        super().__init__(length=length)
        self.scale = lambda value: value


class SeedsByHash(Curves):
    check, says = "spawns", "in another process"

    def view(self, index, number):
        sample = Curve().example(hash(f"curve {index}") % 1000)
        return Example({"curve": Sample(sample.data, sample.meta, "curve")}, {"label": "a"})
