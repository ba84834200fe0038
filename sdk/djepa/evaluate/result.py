"""What an evaluation says: figures, how sure they are, what real samples would get, and what a reader should know."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from djepa.errors import UsageError
from djepa.evaluate.extractor import Features
from djepa.evaluate.metric import Metric, standard_error
from djepa.recipe.component import Component
from djepa.recipe.schema import EvaluateSpec

SURE = 2.0  # standard errors to either side: 95% for a normal distribution


@dataclass(frozen=True)
class Figure:
    """One metric's number.

    Attributes:
        name: of the metric, with its options where it has any.
        value: for the generated samples.
        standard_error: of that, by a delete-a-group jackknife over the generated samples; None where none was asked for.
        training: the number for the training data in the place of the generated samples; None where they are not at hand.
        better: "lower" or "higher".
    """

    name: str
    value: float
    standard_error: float | None
    training: float | None
    better: str

    @property
    def interval(self) -> tuple[float, float] | None:
        """Two standard errors to either side, about 95%."""
        if self.standard_error is None:
            return None
        return self.value - SURE * self.standard_error, self.value + SURE * self.standard_error


@dataclass(frozen=True)
class Evaluation:
    """The outcome.

    Attributes:
        model: as it was named.
        data, features: nodes of the dataset compared with, and of the extractor.
        num_samples, num_real, num_training: in each set; 0 where there is none.
        num_features: width of a feature vector.
        settings: of generation.
        seed: of the first sample.
        figures: one per metric.
        notes: what the numbers do not tell.
    """

    model: str
    data: Mapping[str, Any]
    features: Mapping[str, Any]
    num_samples: int
    num_real: int
    num_training: int
    num_features: int
    settings: Mapping[str, Any]
    seed: int
    figures: Sequence[Figure]
    notes: Sequence[str]

    def value(self, name: str) -> float:
        """The number of a metric."""
        return next(figure.value for figure in self.figures if figure.name == name)

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        figures = [{**asdict(figure), "interval": figure.interval} for figure in self.figures]
        return json.loads(json.dumps({**asdict(self), "figures": figures}))

    def table(self) -> str:
        """A line for every metric, and what a reader should know."""
        head = ["", "generated", "95% interval", *(["training data"] if self.num_training else []), ""]
        rows = [head, *(self._row(figure) for figure in self.figures)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        cells = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]] for row in rows)
        lines = ["  ".join(row).rstrip() for row in cells]
        return "\n".join([self._title(), *lines, *(f"note: {note}" for note in self.notes)])

    def _title(self) -> str:
        return (f"{self.model}: {self.num_samples:,} samples from seed {self.seed} beside {self.num_real:,} examples of "
                f"{_named(self.data)}; {self.num_features:,} features of {_named(self.features)}")

    def _row(self, figure: Figure) -> list[str]:
        interval = figure.interval
        shown = "" if interval is None else f"{_short(interval[0])} .. {_short(interval[1])}"
        training = [] if not self.num_training else ["" if figure.training is None else _short(figure.training)]
        return [figure.name, _short(figure.value), shown, *training, f"{figure.better} is better"]


def figures_of(
    metrics: Mapping[str, Metric], wanted: EvaluateSpec, generated: Features, real: Features, training: Features | None
) -> list[Figure]:
    """The number of every metric.

    Raises:
        UsageError: a set is too small for a metric.
    """
    found = []
    for name, metric in metrics.items():
        error = standard_error(metric, generated, real, wanted.num_groups, wanted.seed) if wanted.num_groups else None
        found.append(Figure(name, metric.figure(generated, real), error,
                            None if training is None else metric.figure(training, real), metric.better))
    return found


def build_metrics(nodes: Sequence[Component]) -> dict[str, Metric]:
    """The metrics of a recipe, by the name their figures have.

    Raises:
        UsageError: one is asked for twice, or cannot be.
    """
    metrics: dict[str, Metric] = {}
    for node in nodes:
        name = _named(node.model_dump(mode="json"))
        if name in metrics:
            raise UsageError(f"evaluate.metrics: {name!r} is there twice.")
        metrics[name] = node.build()
    return metrics


def notes_on(metrics: Mapping[str, Metric], generated: Features, real: Features) -> Iterator[str]:
    """What a reader should know of the numbers."""
    fewest, width = min(len(generated), len(real)), generated.vectors.shape[1]
    if "frechet" in metrics and fewest <= width:
        yield (f"{fewest:,} samples do not show how {width:,} features vary together; the Frechet distance is far too large, "
               f"and compares with none of other numbers of samples.")


def _named(node: Mapping[str, Any]) -> str:
    """``kind``, or ``kind(option=value)``."""
    options = ", ".join(f"{name}={value}" for name, value in node.items() if name != "kind")
    return f"{node['kind']}({options})" if options else str(node["kind"])


def _short(value: float) -> str:
    """Four digits."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}" if 1e-4 <= abs(value) < 1e5 else f"{value:.3e}"
