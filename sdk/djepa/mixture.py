"""Several datasets as one, in given proportions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from djepa.dataset import Dataset, Example
from djepa.errors import MediaError, UsageError, suggest
from djepa.interleaving import interleave, occurrences
from djepa.recipe.component import DatasetNode
from djepa.tokenizer import Tokenizer

MAX_LENGTH = 2**28  # examples of an epoch, at 10 bytes each
NUM_TRIED = 8  # examples of a dataset that are looked at until one can be read


class Mixture(Dataset):
    """Examples of several datasets, spread evenly over each other (`djepa.interleaving`).

    An epoch is as long as it takes to go through every dataset `passes` times; those that are short for their weight are
    repeated, some of their examples once more than others. However the data are shuffled, which dataset comes when stays as it
    is: every window of a run has the proportions of the whole, off by one or so.

    All datasets give the same streams. Classes of the same name are one class, unless `classes` is "separate"; an example whose
    dataset knows nothing of a condition has the null condition.

    Args:
        datasets: data nodes by a name of one's choice.
        weights: how often each is shown, by the same names, in any unit; as often as it has examples when not given.
        passes: how often the dataset that takes longest is gone through in an epoch; more spread the repeats of others.
        classes: "merge", or "separate": class "cat" of the dataset "pets" is then "pets/cat".

    Raises:
        UsageError: there are no datasets; weights are not positive, or of others; or datasets do not go together.
        MediaError: of a dataset none of the first examples can be read.
    """

    def __init__(self, *, datasets: Mapping[str, DatasetNode], weights: Mapping[str, float] | None = None, passes: int = 1,
                 classes: Literal["merge", "separate"] = "merge") -> None:
        if not datasets:
            raise UsageError("mixture: there are no datasets to mix.")
        if passes < 1:
            raise UsageError(f"mixture: passes={passes}: every dataset is gone through at least once in an epoch.")
        if classes not in ("merge", "separate"):
            raise UsageError(f"mixture: classes must be 'merge' or 'separate'; got {classes!r}.")
        self.names = list(datasets)
        self.datasets: list[Dataset] = [node.build() for node in datasets.values()]
        self.separate = classes == "separate"
        self.counts = _counts([len(one) for one in self.datasets], _shares(self.names, weights), passes)
        self._part = interleave(self.counts)
        self._turn = occurrences(self._part)
        self._conditions = _common(self.names, self.datasets)
        self._classes = [{condition: {str(name): self._class(part, str(name)) for name in names}
                          for condition, names in dataset.classes().items()} for part, dataset in enumerate(self.datasets)]

    def __len__(self) -> int:
        return len(self._part)

    def place(self, index: int) -> tuple[int, int]:
        """Which dataset example `index` is of, and which example of it."""
        part = int(self._part[index])
        return part, int(self._turn[index]) % len(self.datasets[part])

    def load(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Example `index`; errors are those of its dataset."""
        part, place = self.place(index)
        return self._named(part, self.datasets[part].load(place, rng))

    def described(self, index: int) -> str:
        """As its dataset calls it."""
        part, place = self.place(index)
        return f"{self.datasets[part].described(place)} of {self.names[part]!r}"

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """The places of each dataset stay its own; within them it has its own order, a new one for each time through."""
        found = np.empty(len(self), dtype=np.int64)
        for part, dataset in enumerate(self.datasets):
            places, size = np.flatnonzero(self._part == part), len(dataset)
            starts = range(0, len(places), size)
            turns = np.concatenate([start + dataset.order(rng) for start in starts])
            found[places] = places[turns[turns < len(places)]]
        return found

    def lengths(self) -> np.ndarray | None:
        """Those of the datasets, where all can tell theirs (in one unit: of the same modality)."""
        each = [one.lengths() for one in self.datasets]
        found = np.empty(len(self))
        for part, lengths in enumerate(each):
            if lengths is None:
                return None
            places = self._part == part
            found[places] = lengths[self._turn[places] % len(lengths)]
        return found

    def classes(self) -> Mapping[str, list[str]]:
        """The classes of all datasets, in the order of the datasets and without repeats."""
        found: dict[str, list[str]] = {}
        for classes in self._classes:
            for condition, names in classes.items():
                found.setdefault(condition, []).extend(names.values())
        return {condition: list(dict.fromkeys(names)) for condition, names in found.items()}

    def num_views(self) -> int | None:
        """Those of the datasets, where all have as many."""
        each = {one.num_views() for one in self.datasets}
        return each.pop() if len(each) == 1 else None

    def view(self, index: int, number: int) -> Example:
        """Example `index` in view `number`."""
        part, place = self.place(index)
        return self._named(part, self.datasets[part].view(place, number))

    def fingerprint(self) -> str:
        """Of the fingerprints of the datasets, and of how they are mixed."""
        digest = hashlib.sha256(repr((self.names, self.counts, self.separate)).encode())
        for dataset in self.datasets:
            digest.update(dataset.fingerprint().encode())
        return digest.hexdigest()

    def check(self, tokenizers: Mapping[str, Tokenizer]) -> None:
        """Refuse what a dataset refuses."""
        for dataset in self.datasets:
            dataset.check(tokenizers)

    def _class(self, part: int, name: str) -> str:
        return f"{self.names[part]}/{name}" if self.separate else name

    def _named(self, part: int, example: Example) -> Example:
        """The example with all conditions, classes by their names in the mixture."""
        conditions: dict[str, Any] = {**dict.fromkeys(self._conditions), **example.conditions}
        for condition, names in self._classes[part].items():
            value = conditions[condition]
            if value is not None:  # a number that is no name is an id, and means something else in another list
                conditions[condition] = names[str(value)] if str(value) in names else list(names.values())[value]
        return Example(example.samples, conditions)


def _shares(names: list[str], weights: Mapping[str, float] | None) -> list[float] | None:
    if weights is None:
        return None
    for name in (*weights, *names):
        if name not in names:
            raise UsageError(f"mixture: weights has {name!r}, which is none of the datasets. {suggest(name, names)}")
        if name not in weights:
            raise UsageError(f"mixture: weights has nothing for {name!r}; give all datasets one, or none.")
        if not (math.isfinite(weights[name]) and weights[name] > 0):
            raise UsageError(f"mixture: the weight of {name!r} must be above 0; got {weights[name]!r}. To leave a dataset out, "
                             f"take it out of `datasets`.")
    total = sum(weights.values())
    return [weights[name] / total for name in names]


def _counts(sizes: list[int], shares: list[float] | None, passes: int) -> list[int]:
    """How many places of an epoch each dataset has: enough to be gone through, in the proportion of its share."""
    if shares is None:
        return [passes * size for size in sizes]
    length = max(passes * size / share for size, share in zip(sizes, shares, strict=True))
    if length > MAX_LENGTH:
        raise UsageError(f"mixture: with these weights an epoch has {length:.3g} examples, because the dataset that is shown "
                         f"least has so many; no more than {MAX_LENGTH:,} can be laid out.")
    return [max(passes * size, round(length * share)) for size, share in zip(sizes, shares, strict=True)]


def _common(names: list[str], datasets: list[Dataset]) -> list[str]:
    """The conditions of all datasets, which have to go together."""
    first = [_first_sound(dataset) for dataset in datasets]
    streams = [{name: sample.modality for name, sample in one.samples.items()} for one in first]
    for name, found in zip(names, streams, strict=True):
        if found != streams[0]:
            raise UsageError(f"mixture: the dataset {name!r} gives the streams {found or 'none'}, and {names[0]!r} gives "
                             f"{streams[0]}; all have to give the same.")
    conditions = list(dict.fromkeys(name for one in first for name in one.conditions))
    for condition in conditions:
        closed = {name: condition in dataset.classes() for name, dataset, one in zip(names, datasets, first, strict=True)
                  if condition in one.conditions}
        if len(set(closed.values())) > 1:
            listed, free = ([name for name, is_closed in closed.items() if is_closed is wanted] for wanted in (True, False))
            raise UsageError(f"mixture: the condition {condition!r} is one of a list of classes in {', '.join(listed)}, and "
                             f"anything in {', '.join(free)}. Give it another name in one of them.")
    return conditions


def _first_sound(dataset: Dataset) -> Example:
    """The first example that can be read."""
    problems: list[MediaError] = []
    for index in range(min(NUM_TRIED, len(dataset))):
        try:
            return dataset.load(index)
        except MediaError as error:
            problems.append(error)
    raise MediaError(f"None of the first {len(problems)} examples can be read. The last one: {problems[-1]}") from problems[-1]
