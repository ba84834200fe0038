"""How good are generated digits? One command, no network, a minute or two a model on two cores.

    python benchmarks/digits_quality.py MODEL [MODEL ...] [--num-samples 100] [--seed 0] [--json FILE]

MODEL is a shipped name or a model folder. Each generates as many of every digit, with its own shipped settings unless an
option says otherwise. They are judged against real scans: training, the first 1,400, and held-out, the last 397, which no
model has seen (`djepa_image.digits`). The figures are explained in `digits_metrics.py`. Generated values are continuous
and stay so: nothing is rounded to the whole numbers of the scans. Figures of one model vary from one training seed to the
next; give several models to get their mean and standard deviation.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

import djepa
from digits_metrics import Protocol, Quality
from djepa_image.digits import Digits, levels

FIGURES = {  # a figure of `Quality`, its column and how it is printed
    "right_class": ("read as asked", "{:.3f}"),
    "frechet": ("Frechet", "{:.1f}"),
    "frechet_ratio": ("/ reference", "{:.2f}"),
    "nearest_ratio": ("nearest ratio", "{:.3f}"),
}


class Settings(TypedDict):
    """Settings of generation; None for the model's own."""

    num_steps: int | None
    num_denoising_steps: int | None
    guidance_scale: float | None
    temperature: float | None


@dataclass(frozen=True)
class Result:
    """What one model scored, the settings it generated with, and the seconds that took."""

    model: str
    quality: Quality
    settings: dict[str, Any]
    seconds: float


def load_protocol() -> Protocol:
    """The protocol over the scans that ship with the package."""
    arrays = []
    for split in ("train", "heldout"):
        digits = Digits(split=split)
        examples = [digits.load(index) for index in range(len(digits))]
        arrays += [levels([example.samples["image"] for example in examples]).astype(np.float64),
                   np.array([int(example.conditions["label"]) for example in examples])]
    return Protocol(*arrays)


def evaluate(model: str, protocol: Protocol, num_samples: int, seed: int, settings: Settings, device: str) -> Result:
    """Generate `num_samples` of every digit and judge them."""
    pipeline = djepa.Pipeline.from_pretrained(model, device=device)
    samples, start = djepa.Samples(), time.perf_counter()
    for digit in range(10):  # each with seeds of its own: the distances of sets assume independent samples
        samples += pipeline.generate(str(digit), num_samples=num_samples, seed=seed + digit * num_samples, **settings)
    seconds = time.perf_counter() - start
    asked = np.repeat(np.arange(10), num_samples)
    quality = protocol.judge(levels(samples).astype(np.float64), asked)
    return Result(model, quality, samples[0].meta["settings"], seconds)


def summary(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (of a sample) of every figure over the models."""
    table = {name: np.array([getattr(result.quality, name) for result in results]) for name in FIGURES}
    return {name: {"mean": float(column.mean()), "std": float(column.std(ddof=1))} for name, column in table.items()}


def table(protocol: Protocol, results: Sequence[Result]) -> str:
    """One row per model, above them the figures of the scans themselves, below them the mean over models."""
    scans = {"right_class": protocol.reader_accuracy, "frechet": protocol.reference_frechet,
             "frechet_ratio": 1.0, "nearest_ratio": 1.0}
    rows = [["", *(title for title, _ in FIGURES.values()), "seconds"],
            ["scans", *(form.format(scans[name]) for name, (_, form) in FIGURES.items()), ""]]
    for result in results:
        cells = [form.format(getattr(result.quality, name)) for name, (_, form) in FIGURES.items()]
        rows.append([result.model, *cells, f"{result.seconds:.0f}"])
    if len(results) > 1:
        over = summary(results)
        cells = [f"{form} +- {form}".format(over[name]["mean"], over[name]["std"]) for name, (_, form) in FIGURES.items()]
        rows.append([f"mean +- std of {len(results)}", *cells, ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows)


def report(protocol: Protocol, results: Sequence[Result], num_samples: int, seed: int) -> dict[str, Any]:
    """Everything, as plain values for JSON."""
    return {
        "protocol": {"training": len(protocol.training), "heldout": len(protocol.heldout),
                     "reader_accuracy": protocol.reader_accuracy, "reference_frechet": protocol.reference_frechet,
                     "reference_nearest": protocol.reference_nearest, "num_samples": num_samples, "seed": seed},
        "models": [{"model": result.model, **asdict(result.quality), "settings": result.settings, "seconds": result.seconds}
                   for result in results],
        "summary": summary(results) if len(results) > 1 else None,
    }


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Judge generated digits against scans that no model has seen.")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a shipped name such as image/digits, or a model folder")
    parser.add_argument("--num-samples", type=int, default=100, help="of each digit (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to FILE")
    settings = parser.add_argument_group("settings of generation (default: those the model ships with)")
    settings.add_argument("--num-steps", type=int)
    settings.add_argument("--num-denoising-steps", type=int)
    settings.add_argument("--guidance-scale", type=float)
    settings.add_argument("--temperature", type=float)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the protocol; returns the exit code."""
    given = arguments(argv)
    settings = Settings(num_steps=given.num_steps, num_denoising_steps=given.num_denoising_steps,
                        guidance_scale=given.guidance_scale, temperature=given.temperature)
    try:
        protocol = load_protocol()
        results = [evaluate(model, protocol, given.num_samples, given.seed, settings, given.device) for model in given.models]
    except djepa.DjepaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(table(protocol, results))
    if given.json:
        values = report(protocol, results, given.num_samples, given.seed)
        given.json.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
