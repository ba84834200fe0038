"""Checks of datasets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from pydantic import TypeAdapter

from djepa.dataset import Dataset, Example
from djepa.plugins import host
from djepa.recipe.component import Component, DatasetNode
from djepa.testing.conformance.check import Function, NotApplicable, require
from djepa.testing.conformance.elsewhere import elsewhere
from djepa.testing.conformance.samples import check_sample
from djepa.testing.conformance.subject import Subject
from djepa.tokens import Encoded

NUM_LOADED = 5       # examples, spread over the dataset
NUM_GENERATORS = 5


class DatasetSubject(Subject):
    """A dataset with some options."""

    _built: Dataset | None = None

    def build(self) -> Dataset:
        """The dataset, made as from a recipe."""
        if self._built is None:
            self._built = self.made()
        return self._built

    def made(self) -> Dataset:
        """Another one, made alike."""
        node: Component = TypeAdapter(DatasetNode).validate_python({"kind": self.name, **self.options})
        return node.build()

    def places(self) -> list[int]:
        """Some examples, the first and the last among them."""
        last = len(self.build()) - 1
        return sorted({round(last * part / (NUM_LOADED - 1)) for part in range(NUM_LOADED)})


def same(one: Example, other: Example) -> bool:
    """Whether two examples are equal."""
    return (dict(one.conditions) == dict(other.conditions) and one.samples.keys() == other.samples.keys()
            and all(torch.equal(sample.data, other.samples[name].data) and sample.meta == other.samples[name].meta
                    for name, sample in one.samples.items()))


def has_examples(subject: DatasetSubject) -> None:
    """There is at least one example; all have the same streams and conditions."""
    dataset = subject.build()
    require(isinstance(len(dataset), int) and len(dataset) >= 1, f"there should be examples; there are {len(dataset)}.")
    kinds = {(tuple(sorted(one.samples)), tuple(sorted(one.conditions))) for one in map(dataset.load, subject.places())}
    require(len(kinds) == 1, f"examples differ in their streams or conditions: {sorted(kinds)}.")


def samples_are_of_their_modality(subject: DatasetSubject) -> None:
    """Samples are what their modality says: shape, type, bounds, required metadata."""
    for index in subject.places():
        for name, sample in subject.build().load(index).samples.items():
            require(sample.modality in host().names("modality"), f"sample {name!r} of example {index} has the modality "
                                                                 f"{sample.modality!r}, which nobody registered.")
            if not isinstance(sample, Encoded):
                check_sample(sample, host().get("modality", sample.modality)(), f"sample {name!r} of example {index}")


def loading_is_deterministic(subject: DatasetSubject) -> None:
    """Without a generator an example is the same each time, in another instance too, and nobody's changes to it remain."""
    for index in subject.places():
        first, other = subject.build().load(index), subject.made().load(index)
        require(same(first, other), f"example {index} is another one in another instance of the dataset.")
        for sample in first.samples.values():
            sample.data.zero_()
            sample.meta["note"] = "mine"
        require(same(subject.build().load(index), other), f"example {index} keeps what was done to it after it was loaded.")


def draws_come_from_the_generator(subject: DatasetSubject) -> None:
    """With a generator an example depends on nothing but its state; no global random state is touched."""
    state = torch.get_rng_state()
    for index in subject.places():
        for seed in range(NUM_GENERATORS):
            first, again = (subject.build().load(index, np.random.default_rng(seed)) for _ in range(2))
            require(same(first, again), f"example {index} with the same generator is another one each time.")
    require(torch.equal(state, torch.get_rng_state()), "loading draws from torch's global generator.")


def classes_cover_conditions(subject: DatasetSubject) -> None:
    """Where `classes` lists the values of a condition, every example has one of them, and none is listed twice."""
    dataset = subject.build()
    for name, values in dataset.classes().items():
        require(len(set(map(str, values))) == len(values) > 0, f"classes of {name!r} should be different names: {values[:20]}")
    for index in subject.places():
        conditions = dataset.load(index).conditions
        for name, values in dataset.classes().items():
            require(name in conditions, f"classes lists {name!r}, which example {index} has not.")
            require(conditions[name] in values, f"{name} {conditions[name]!r} of example {index} is none of its classes.")


def views_are_those_of_load(subject: DatasetSubject) -> None:
    """Where `num_views` says in how many ways an example is shown, `load` shows no other, and the first without a generator."""
    dataset = subject.build()
    if (count := dataset.num_views()) is None:
        raise NotApplicable("it does not say in how many ways it shows an example, so that it cannot be cached")
    for index in subject.places():
        views = [dataset.view(index, number) for number in range(count)]
        require(same(views[0], dataset.load(index)), f"view 0 of example {index} is not what load gives without a generator.")
        for seed in range(NUM_GENERATORS):
            shown = dataset.load(index, np.random.default_rng(seed))
            require(any(same(shown, view) for view in views), f"load shows example {index} in a way that is none of its views.")


def fingerprint_is_stable(subject: DatasetSubject) -> None:
    """The fingerprint, by which a cache knows its data, is the same for every instance."""
    first, again = subject.build().fingerprint(), subject.made().fingerprint()
    require(isinstance(first, str) and first == again, f"the fingerprint is {first!r}, and then {again!r}.")


def order_is_a_permutation(subject: DatasetSubject) -> None:
    """The order of an epoch has every example once, and comes from the generator alone; lengths are one for each."""
    dataset = subject.build()
    first, again = (dataset.order(np.random.default_rng(7)) for _ in range(2))
    require(np.array_equal(first, again), "the order of an epoch with the same generator is another one each time.")
    require(np.array_equal(np.sort(first), np.arange(len(dataset))), "the order of an epoch has not every example once.")
    lengths = dataset.lengths()
    require(lengths is None or len(lengths) == len(dataset), "there are more or fewer lengths than examples.")


def spawns(subject: DatasetSubject) -> None:
    """It can be sent to a process that is started anew, and gives the same examples there."""
    theirs, = elsewhere(_loaded, subject.build(), 0)
    ours = [sample.data.flatten().tolist() for _, sample in sorted(subject.build().load(0).samples.items())]
    require(theirs == ours, "example 0 is another one in another process.")


def _loaded(dataset: Dataset, index: int) -> Iterator[list[list[float]]]:
    yield [sample.data.flatten().tolist() for _, sample in sorted(dataset.load(index).samples.items())]


FUNCTIONS: tuple[Function, ...] = (
    has_examples, samples_are_of_their_modality, loading_is_deterministic, draws_come_from_the_generator,
    classes_cover_conditions, views_are_those_of_load, fingerprint_is_stable, order_is_a_permutation,
    spawns,
)
