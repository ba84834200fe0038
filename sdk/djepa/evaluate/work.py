"""Making the features of an evaluation, block by block: in this process, or by one of several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import torch

from djepa.dataset import Dataset
from djepa.device import resolve_device
from djepa.errors import UsageError
from djepa.evaluate.blocks import SIZE, Blocks
from djepa.evaluate.extractor import FeatureExtractor, Features, checked
from djepa.evaluate.task import SetName, Task, conditions_of, spread
from djepa.pipeline import Pipeline
from djepa.tokens import Sample

ON_GPU = 256  # samples generated at a time where nothing is said


class Workshop:
    """Model, data and extractor of a task, each loaded when it is first needed.

    Args:
        task: what to do.
        device: where the networks compute.
    """

    def __init__(self, task: Task, device: str | torch.device = "auto") -> None:
        self.task, self.device = task, resolve_device(device)
        self._datasets: dict[str, Dataset] = {}

    @cached_property
    def pipeline(self) -> Pipeline:
        """The model."""
        return Pipeline.from_pretrained(Path(self.task.model), device=self.device, dtype=self.task.dtype)

    @cached_property
    def extractor(self) -> FeatureExtractor:
        """What turns samples into features."""
        return self.task.features.build().to(self.device)

    def dataset(self, name: SetName) -> Dataset:
        """The examples of a set; of generated samples, those whose conditions they have."""
        key = "training" if name == "training" else "real"
        if key not in self._datasets:
            self._datasets[key] = self.task.dataset(key)
        return self._datasets[key]

    @property
    def at_a_time(self) -> int:
        """How many blocks to make in one go: a GPU is not busy with the samples of one."""
        size = self.task.batch_size or (ON_GPU if self.device.type == "cuda" else SIZE)
        return max(1, size // SIZE)

    def features(self, name: SetName, numbers: Sequence[int], total: int) -> Features:
        """The features of some samples of a set of `total`."""
        samples = self._generated(numbers) if name == "generated" else self._real(name, numbers, total)
        return self.extracted(samples)

    def extracted(self, samples: Sequence[Sample]) -> Features:
        """The features of samples.

        Raises:
            UsageError: the extractor is not for their modality.
            PluginError: it does not keep its contract.
        """
        kind, fit = self.task.features.kind, self.extractor.modalities
        for sample in samples:
            if fit and sample.modality and sample.modality not in fit:
                raise UsageError(f"Features {kind!r} are of the modality {' or '.join(map(repr, fit))}; the samples are of "
                                 f"{sample.modality!r}.")
        return checked(self.extractor.extract(samples), len(samples), kind)

    def _real(self, name: SetName, numbers: Sequence[int], total: int) -> list[Sample]:
        dataset = self.dataset(name)
        chosen = spread(len(dataset), total)
        return [dataset.load(chosen[number]).samples[self.task.stream] for number in numbers]

    def _generated(self, numbers: Sequence[int]) -> list[Sample]:
        task, pipeline = self.task, self.pipeline
        conditions = list(conditions_of(self.dataset("generated"), pipeline.spec.conditions, numbers))
        settings: dict[str, Any] = task.generate.model_dump(mode="json")
        return pipeline.generate(conditions, seed=[task.seed + number for number in numbers], stream=task.stream,
                                 batch_size=task.batch_size, **settings)


def make_blocks(shop: Workshop, sets: Mapping[SetName, Blocks], share: slice = slice(None)) -> Iterator[None]:
    """Make a share of the blocks that are missing, yielding whenever some are written.

    Args:
        shop: who makes them.
        sets: by name.
        share: of the blocks of each set; those of it that are missing are made.

    Raises:
        StorageError: the disk refused.
    """
    for name, blocks in sets.items():
        missing = blocks.missing(share)
        for start in range(0, len(missing), shop.at_a_time):
            some = missing[start : start + shop.at_a_time]
            found = shop.features(name, list(chain.from_iterable(some)), blocks.total)
            ends = list(accumulate(map(len, some)))
            for numbers, end in zip(some, ends, strict=True):
                blocks.write(numbers, found.chosen(torch.arange(end - len(numbers), end)))
            yield


def features_at_once(shop: Workshop, name: SetName, total: int) -> Features:
    """The features of a whole set, kept in memory alone."""
    parts = (range(start, min(start + shop.at_a_time * SIZE, total)) for start in range(0, total, shop.at_a_time * SIZE))
    return Features.joined([shop.features(name, numbers, total) for numbers in parts])
