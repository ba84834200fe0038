"""A corpus check: every example of a dataset is read once, and what cannot be read is listed with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from djepa.dataset import Dataset
from djepa.errors import DjepaError, UsageError
from djepa.loading import Workers

PART = 64  # examples that are given out together
QUANTILES = {"smallest": 0.0, "quarter": 0.25, "median": 0.5, "three_quarters": 0.75, "largest": 1.0}


@dataclass(frozen=True)
class Problem:
    """An example that cannot be read.

    Attributes:
        example: its number.
        name: what the dataset calls it: its file, most often.
        reason: what is wrong.
    """

    example: int
    name: str
    reason: str


@dataclass
class Corpus:
    """What is in a dataset.

    Attributes:
        num_examples: that were looked at.
        problems: the examples that cannot be read.
        shapes: by stream, how many samples have each shape (channels first).
        classes: by condition with a closed list of values, how many examples have each; 0 for those that none has.
    """

    num_examples: int = 0
    problems: list[Problem] = field(default_factory=list)
    shapes: dict[str, Counter[tuple[int, ...]]] = field(default_factory=dict)
    classes: dict[str, Counter[str]] = field(default_factory=dict)

    def sizes(self, stream: str) -> dict[str, int]:
        """How large samples of a stream are, in steps along their axes: the smallest, quartiles, the largest."""
        shapes = self.shapes[stream]
        each = np.repeat([int(np.prod(shape[1:])) for shape in shapes], list(shapes.values()))
        return {name: int(np.quantile(each, share, method="inverted_cdf")) for name, share in QUANTILES.items()}

    def plain(self) -> dict[str, Any]:
        """Everything, as values that JSON can hold."""
        return {
            "examples": self.num_examples,
            "problems": [problem.__dict__ for problem in self.problems],
            "streams": {name: {"shapes": [{"shape": list(shape), "count": count} for shape, count in shapes.most_common()],
                               "sizes": self.sizes(name)} for name, shapes in self.shapes.items()},
            "classes": {name: dict(counts) for name, counts in self.classes.items()},
        }


def check_corpus(
    dataset: Dataset, *, num_workers: int = 1, timeout: float = 0.0, on_progress: Callable[[int], None] | None = None
) -> Corpus:
    """Read every example once, without augmentation.

    Args:
        dataset: of whatever kind.
        num_workers: processes that read. One that hangs or crashes costs its example, and nothing else.
        timeout: seconds that an example may take; 0 for any time.
        on_progress: called with the number of examples that are done.

    Raises:
        UsageError: num_workers is below 1.
    """
    if num_workers < 1:
        raise UsageError(f"num_workers={num_workers}: at least 1 process has to read; this one would not survive a crash.")
    corpus = Corpus(classes={name: Counter(dict.fromkeys(map(str, values), 0)) for name, values in dataset.classes().items()})
    workers = Workers(dataset, _Summary(dict(dataset.classes())), num_workers, timeout=timeout, on_lost=lambda *_: None,
                      survives_kills=True)
    try:
        for summaries in workers.run(_parts(len(dataset))):
            for summary in summaries:
                _count(corpus, dataset, summary)
            if on_progress:
                on_progress(corpus.num_examples)
    finally:
        workers.close()
    return corpus


def _parts(size: int) -> Iterator[range]:
    return (range(start, min(start + PART, size)) for start in range(0, size, PART))


@dataclass(frozen=True)
class _Seen:
    shapes: dict[str, tuple[int, ...]]
    classes: dict[str, str]


class _Summary:
    """Reads an example, and says what it is: shapes and classes, or what is wrong."""

    def __init__(self, classes: dict[str, list[str]]) -> None:
        self._classes = {name: set(map(str, values)) for name, values in classes.items()}

    def __call__(self, dataset: Dataset, index: int) -> _Seen | str:
        try:
            example = dataset.load(index)
        except DjepaError as error:
            return str(error)
        except Exception as error:  # whatever it is, it is what is wrong with this example
            return f"{type(error).__name__}: {error}"
        for name, sample in example.samples.items():
            if not bool(torch.isfinite(sample.data).all()):
                return f"the sample {name!r} holds values that are not numbers (NaN or infinite)"
        labels = {name: str(example.conditions[name]) for name in self._classes if example.conditions.get(name) is not None}
        for name, label in labels.items():
            if label not in self._classes[name]:
                return f"{name} {label!r} is none of its classes"
        return _Seen({name: sample.shape for name, sample in example.samples.items()}, labels)


def _count(corpus: Corpus, dataset: Dataset, summary: _Seen | str) -> None:
    index, corpus.num_examples = corpus.num_examples, corpus.num_examples + 1
    if isinstance(summary, str):
        corpus.problems.append(Problem(index, dataset.described(index), summary))
        return
    for name, shape in summary.shapes.items():
        corpus.shapes.setdefault(name, Counter())[shape] += 1
    for name, label in summary.classes.items():
        corpus.classes[name][label] += 1
