"""The reader of digits: a small classifier that ships with the package, whose answers and features figures can be made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from djepa.errors import UsageError
from djepa.evaluate.extractor import FeatureExtractor, Features
from djepa.storage import read_tensors
from djepa.tokens import Sample

FILE = Path(__file__).with_name("data") / "digits_reader.safetensors"  # by benchmarks/train_digits_reader.py
SHAPE = (1, 8, 8)


class DigitsReader(FeatureExtractor):
    """What a classifier of the ten digits makes of pictures of 1x8x8: the 32 features it decides by, and its logits.

    It was trained on the 1,400 training scans alone and reads 95.5% of the others right.
    """

    modalities = ("image",)

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):  # weights are drawn only to be overwritten: leave no trace
            self._network = make_reader()
        self._network.load_state_dict({name: tensor.float() for name, tensor in read_tensors(FILE).items()})
        self._network.eval().requires_grad_(False)

    def extract(self, samples: Sequence[Sample]) -> Features:
        for sample in samples:
            if sample.shape != SHAPE:
                raise UsageError(f"Features 'digits-reader' are of pictures of shape {SHAPE}; got {sample.shape}.")
        pictures = torch.stack([sample.data for sample in samples]).float().cpu()
        with torch.inference_mode():
            vectors = self._network[:-1](pictures)
            return Features(vectors, self._network[-1](vectors))


def make_reader() -> nn.Sequential:
    """The network, with fresh weights."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 32), nn.GELU(), nn.Linear(32, 10))
