"""How good are generated plucked strings? One command, no network, two minutes a model on two cores.

    python benchmarks/plucked_strings_quality.py MODEL [MODEL ...] [--num-samples 3] [--seed 0] [--json FILE]

MODEL is a shipped name or a model folder. Each generates every note in every timbre (72 combinations) `--num-samples` times,
with its own shipped settings unless an option says otherwise, and lets a real sound of each go on from its first quarter of a
second. They are judged as `plucked_strings_metrics.py` explains. Two rows above the models say what the judges make of real
sounds that no model has seen, as they are and passed through the first model's tokenizer: the most to be expected. Several
models give a mean and standard deviation.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Float

import djepa
from djepa.random import numpy_generator
from djepa.tokenizer import Tokenizer
from djepa_audio.plucked_strings import NOTES, SAMPLE_RATE, TIMBRES, PluckedStrings
from plucked_strings_metrics import TimbreReader, cents, is_octave_error, is_right, pitch, seam

CONDITIONS = [{"note": note, "timbre": timbre} for note in NOTES for timbre in TIMBRES]
PER_CLASS = {"training": 4, "held-out": 2}  # real sounds of each that the judge of timbres is fitted on, and tried on
GIVEN = SAMPLE_RATE // 4  # samples that a continuation starts from
ADDED = 0.75  # seconds that it goes on


class Settings(TypedDict):
    """Settings of generation; None for the model's own."""

    num_steps: int | None
    num_denoising_steps: int | None
    guidance_scale: float | None
    temperature: float | None


@dataclass(frozen=True)
class Quality:
    """What the judges say of some sounds, as shares from 0 to 1.

    Attributes:
        right_note: within 50 cents of the note asked for.
        wrong_octave: the note asked for, but in another octave.
        cents: median distance from the note asked for, of those that are right.
        right_timbre: read as the timbre asked for.
        right_both: the note and the timbre asked for.
    """

    right_note: float
    wrong_octave: float
    cents: float
    right_timbre: float
    right_both: float


@dataclass(frozen=True)
class Continued:
    """What the judges say of continuations.

    Attributes:
        goes_on: share whose new part, by itself, is within 50 cents of the note it goes on from.
        no_step: share without a step at the seam: `Seam.step` is at most 1.
        no_flux: share of which the spectrum does not change more at the seam than around: `Seam.flux` is at most 1.
        median_flux: of `Seam.flux`.
    """

    goes_on: float
    no_step: float
    no_flux: float
    median_flux: float


@dataclass(frozen=True)
class Result:
    """What some sounds scored; for a model, the settings it generated with and the seconds that generating took."""

    model: str
    quality: Quality
    continued: Continued
    settings: dict[str, Any]
    seconds: float


FIGURES = {  # a figure of `Quality` or `Continued`, its column and how it is printed
    "right_note": ("note", "{:.3f}"),
    "wrong_octave": ("octave off", "{:.3f}"),
    "cents": ("cents off", "{:.1f}"),
    "right_timbre": ("timbre", "{:.3f}"),
    "right_both": ("both", "{:.3f}"),
    "goes_on": ("goes on", "{:.3f}"),
    "no_step": ("no step", "{:.3f}"),
    "no_flux": ("no flux", "{:.3f}"),
    "median_flux": ("flux", "{:.2f}"),
}


def figures(result: Result) -> dict[str, float]:
    """All figures by name."""
    return {**asdict(result.quality), **asdict(result.continued)}


def real(split: str) -> list[djepa.Sample]:
    """Real sounds of every combination, with what they are in their metadata; the two splits share no draw."""
    strings = PluckedStrings(per_class=PER_CLASS[split])
    samples = []
    for index in range(len(strings)):
        example = strings.load(index, numpy_generator(0, "plucked-strings quality", split, index))
        sample = example.samples["audio"]
        samples.append(replace(sample, meta={**sample.meta, "condition": dict(example.conditions)}))
    return samples


def sound(sample: djepa.Sample) -> Float[np.ndarray, "s"]:
    """The samples of a mono sound."""
    return sample.data[0].numpy()


def fitted_reader() -> TimbreReader:
    """The judge of timbres, fitted on real sounds."""
    samples = real("training")
    return TimbreReader([sound(sample) for sample in samples], [sample.meta["condition"]["timbre"] for sample in samples])


def cents_off(samples: Sequence[djepa.Sample], start: int = 0) -> Float[np.ndarray, "n"]:
    """How far each sound, from `start` on, is from the note that its metadata ask for."""
    return np.array([cents(pitch(sound(sample)[start:], SAMPLE_RATE), NOTES[sample.meta["condition"]["note"]])
                     for sample in samples])


def judge(samples: Sequence[djepa.Sample], reader: TimbreReader) -> Quality:
    """The figures of sounds whose metadata say what was asked for."""
    off = cents_off(samples)
    right = is_right(off)
    asked = np.array([sample.meta["condition"]["timbre"] for sample in samples])
    timbre = reader.read([sound(sample) for sample in samples]) == asked
    return Quality(float(right.mean()), float(is_octave_error(off).mean()),
                   float(np.median(np.abs(off[right]))) if right.any() else float("nan"),
                   float(timbre.mean()), float((right & timbre).mean()))


def judge_continued(samples: Sequence[djepa.Sample]) -> Continued:
    """The figures of sounds that go on from their first `GIVEN` samples."""
    seams = [seam(sound(sample), GIVEN) for sample in samples]
    steps, fluxes = np.array([one.step for one in seams]), np.array([one.flux for one in seams])
    return Continued(float(is_right(cents_off(samples, GIVEN)).mean()), float((steps <= 1).mean()), float((fluxes <= 1).mean()),
                     float(np.median(fluxes)))


def references(tokenizer: Tokenizer, reader: TimbreReader) -> list[Result]:
    """The figures of real sounds, as they are and through a tokenizer: whole, and restored around their beginnings."""
    samples = real("held-out")
    back = tokenizer.decode_batch(tokenizer.encode_batch(samples))
    restored = [tokenizer.restore(tokenizer.encode(sample), sample, torch.arange(sample.shape[-1]) < GIVEN)
                for sample in samples[: len(CONDITIONS)]]
    return [Result("real sounds", judge(samples, reader), judge_continued(samples[: len(CONDITIONS)]), {}, 0.0),
            Result("through tokens", judge(back, reader), judge_continued(restored), {}, 0.0)]


def evaluate(pipeline: djepa.Pipeline, reader: TimbreReader, num_samples: int, seed: int, settings: Settings) -> Result:
    """Generate every combination `num_samples` times, continue a real sound of each, and judge both."""
    start = time.perf_counter()
    samples = djepa.Samples()
    for number, condition in enumerate(CONDITIONS):  # each with seeds of its own
        samples += pipeline.generate(condition, num_samples=num_samples, seed=seed + number * num_samples, **settings)
    continued = djepa.Samples()
    for number, sample in enumerate(real("held-out")[: len(CONDITIONS)]):
        beginning = djepa.Sample(sample.data[:, :GIVEN], {"sample_rate": SAMPLE_RATE}, "audio")
        continued += pipeline.extend(beginning, ADDED, sample.meta["condition"], seed=seed + number, **settings)
    seconds = time.perf_counter() - start
    return Result(pipeline.name, judge(samples, reader), judge_continued(continued), samples[0].meta["settings"], seconds)


def summary(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (of a sample) of every figure over the models."""
    columns = {name: np.array([figures(result)[name] for result in results]) for name in FIGURES}
    return {name: {"mean": float(column.mean()), "std": float(column.std(ddof=1))} for name, column in columns.items()}


def table(references: Sequence[Result], results: Sequence[Result]) -> str:
    """One row per model, above them the references, below them the mean over models."""
    rows = [["", *(title for title, _ in FIGURES.values()), "seconds"]]
    for result in [*references, *results]:
        cells = [form.format(figures(result)[name]) for name, (_, form) in FIGURES.items()]
        rows.append([result.model, *cells, f"{result.seconds:.0f}" if result.settings else ""])
    if len(results) > 1:
        over = summary(results)
        rows.append([f"mean +- std of {len(results)}",
                     *(f"{form} +- {form}".format(*over[name].values()) for name, (_, form) in FIGURES.items()), ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows)


def report(references: Sequence[Result], results: Sequence[Result], num_samples: int, seed: int) -> dict[str, Any]:
    """Everything, as plain values for JSON."""
    return {"protocol": {**PER_CLASS, "num_samples": num_samples, "seed": seed},
            "references": {result.model: figures(result) for result in references},
            "models": [{"model": result.model, **figures(result), "settings": result.settings, "seconds": result.seconds}
                       for result in results],
            "summary": summary(results) if len(results) > 1 else None}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Judge generated plucked strings by their pitch, timbre and continuations.")
    parser.add_argument("models", nargs="+", metavar="MODEL",
                        help="a shipped name such as audio/plucked-strings, or a model folder")
    parser.add_argument("--num-samples", type=int, default=3, help="of each note and timbre (default: %(default)s)")
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
        pipelines = [djepa.Pipeline.from_pretrained(model, device=given.device) for model in given.models]
        reader = fitted_reader()
        above = references(pipelines[0].tokenizers["audio"], reader)
        results = [evaluate(pipeline, reader, given.num_samples, given.seed, settings) for pipeline in pipelines]
    except djepa.DjepaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(table(above, results))
    if given.json:
        values = report(above, results, given.num_samples, given.seed)
        given.json.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
