"""The check of everything together: a small core trained on a modality's examples, through what users hold."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from djepa.dataset import Dataset, Example
from djepa.hookspecs import Register, hookimpl
from djepa.pipeline import Pipeline
from djepa.plugins import host
from djepa.recipe import Recipe
from djepa.testing.conformance.check import Function, require
from djepa.testing.conformance.samples import check_sample
from djepa.testing.conformance.tokenizer_subject import TokenizerSubject
from djepa.tokens import Sample
from djepa.train import Trainer

EXAMPLES, STREAM = "conformance-examples", "sample"
STEPS, NUM_EXAMPLES = 60, 16
NUM_COMPARED = 10  # steps at the beginning and at the end whose losses are compared
LEARNED = 0.95     # of the first losses: what the last ones have to be below


class Examples(Dataset):
    """The examples of a modality, `example(0)` and so on; stream "sample", no conditions.

    Args:
        modality: registered name.
    """

    def __init__(self, *, modality: str) -> None:
        self.modality = host().get("modality", modality)()

    def __len__(self) -> int:
        return NUM_EXAMPLES

    def load(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """Example `index`; nothing is drawn."""
        return Example({STREAM: self.modality.example(index)})


class _Plugin:
    @hookimpl
    def djepa_register_datasets(self, register: Register) -> None:
        register(EXAMPLES, f"{Examples.__module__}:{Examples.__qualname__}", summary="the examples of a modality")


def a_small_core_learns(subject: TokenizerSubject) -> None:
    """A model of two blocks, trained for a few steps on the examples, lowers its loss and makes a sample that can be saved."""
    with TemporaryDirectory() as folder, host().temporary(_Plugin(), EXAMPLES):
        with redirect_stderr(io.StringIO()):  # progress that nobody asked for
            checkpoint = Trainer(Recipe.from_dict(_recipe(subject)), device="cpu").fit(Path(folder) / "run")
        lines = map(json.loads, (Path(folder) / "run" / "log.jsonl").read_text(encoding="ascii").splitlines())
        losses = torch.tensor([line["loss"] if line["loss"] is not None else torch.nan for line in lines if "loss" in line])
        first, last = float(losses[:NUM_COMPARED].mean()), float(losses[-NUM_COMPARED:].mean())
        require(last < LEARNED * first, f"in {STEPS} steps the loss went from {first:.4g} to {last:.4g}; it should fall.")
        made, = Pipeline.from_pretrained(checkpoint, device="cpu").generate(seed=0)
        _check_made(subject, made, Path(folder))


def _recipe(subject: TokenizerSubject) -> Mapping[str, Any]:
    stream = {"modality": subject.modality_name, "tokenizer": {"kind": subject.name, **subject.options},
              "head": {"kind": "flow", "depth": 1, "width": 32}}
    return {
        "data": {"kind": EXAMPLES, "modality": subject.modality_name},
        "model": {"streams": {STREAM: stream}, "width": 32, "num_heads": 2, "encoder_depth": 1, "predictor_depth": 1,
                  "position": {"kind": "rotary"}, "feature_head": False,
                  "generate": {"num_steps": 3, "num_denoising_steps": 4}},
        "train": {"steps": STEPS, "batch_size": 4, "lr": 3e-3, "warmup_steps": 5, "log_every": 1, "mask": {"kind": "cosine"}},
        "checkpoint": {"every": STEPS},
        "preview": {"every": 0},
    }


def _check_made(subject: TokenizerSubject, made: Sample, folder: Path) -> None:
    wanted = subject.samples[0]
    require(made.shape == wanted.shape, f"examples have shape {wanted.shape}, and the sample that was generated {made.shape}.")
    bounds = subject.modality.bounds
    check_sample(made if bounds is None else Sample(made.data.clamp(*bounds), made.meta, made.modality), subject.modality,
                 "the generated sample")
    path = made.save(folder / f"made.{subject.modality.extensions[0]}")
    back = subject.modality.load(path)
    require(back.shape == made.shape, f"a generated sample of shape {made.shape} was loaded again as {back.shape}.")
    lost = [key for key in (*subject.modality.required_meta, "seed") if back.meta.get(key) != made.meta[key]]
    require(not lost, f"saved and loaded, a generated sample lost its metadata {lost}.")


FUNCTIONS: tuple[Function, ...] = (a_small_core_learns,)
