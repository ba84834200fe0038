"""How good are generated clips of moving digits? One command, no network, a few minutes a model on two cores.

    python benchmarks/moving_digits_quality.py MODEL [MODEL ...] [--seeds 0 1 2] [--num-samples 2] [--extend 8] [--json FILE]

MODEL is a shipped name or a model folder. Each generates `num-samples` clips of every digit in every direction, for each seed,
with its own shipped settings unless an option says otherwise; nothing is rounded. The figures are explained in
`moving_digits_metrics.py`, and the first row of the table is what they say of real clips of scans that no model has seen.
With `--extend`, clips of such scans are also continued: so many in each direction, by as much as they are long.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

import djepa
from digits_quality import load_protocol
from djepa_video.moving_digits import DIRECTIONS, MovingDigits
from moving_digits_metrics import ClipFigures, Continuation, Judge, continuation

FIGURES = {  # a figure, its column and how it is printed
    "digit": ("digit", "{:.3f}"),
    "direction": ("direction", "{:.3f}"),
    "both": ("both", "{:.3f}"),
    "fit_ratio": ("fit ratio", "{:.2f}"),
    "change": ("change", "{:.1f}"),
    "goes_on": ("goes on", "{:.3f}"),
    "smooth": ("smooth", "{:.3f}"),
}


class Settings(TypedDict):
    """Settings of generation; None for the model's own."""

    num_steps: int | None
    num_denoising_steps: int | None
    guidance_scale: float | None
    temperature: float | None


@dataclass(frozen=True)
class Options:
    """What to generate."""

    num_samples: int
    num_extended: int
    settings: Settings
    device: str


@dataclass(frozen=True)
class Result:
    """What one model scored with one seed.

    Attributes:
        figures: shares of clips with the right digit, the right direction, both; `fit_ratio` and `change` (medians over
            clips, the first over that of real clips); shares of continued clips that go on in their direction and smoothly.
        seconds: that generating took.
    """

    model: str
    seed: int
    figures: dict[str, float]
    settings: dict[str, Any]
    seconds: float


def levels(sample: djepa.Sample) -> np.ndarray:
    """A clip of one channel as (t, y, x) on the scans' scale of 0..16, neither rounded nor clipped."""
    return (sample.data[0].double().numpy() + 1.0) * 8.0


def summed_up(clips: Iterable[ClipFigures], reference_fit: float = 1.0) -> dict[str, float]:
    """Figures over clips."""
    clips = list(clips)
    return {
        "digit": float(np.mean([clip.right_digit for clip in clips])),
        "direction": float(np.mean([clip.right_direction for clip in clips])),
        "both": float(np.mean([clip.right_digit and clip.right_direction for clip in clips])),
        "fit_ratio": float(np.median([clip.fit for clip in clips])) / reference_fit,
        "change": float(np.median([clip.change for clip in clips])),
    }


def continued(clips: Iterable[Continuation]) -> dict[str, float]:
    """Figures over continued clips."""
    clips = list(clips)
    return {"goes_on": float(np.mean([clip.right_direction for clip in clips])),
            "smooth": float(np.mean([clip.smooth for clip in clips]))}


def real_figures(judge: Judge, real: MovingDigits) -> dict[str, float]:
    """What the judge says of real clips: each held-out scan in one of the directions."""
    examples = [real.load(len(DIRECTIONS) * scan + scan % len(DIRECTIONS)) for scan in range(len(real) // len(DIRECTIONS))]
    return summed_up(judge.figures(levels(example.samples["video"]), int(example.conditions["digit"]),
                                   example.conditions["direction"]) for example in examples)


def unseen(pipeline: djepa.Pipeline) -> MovingDigits:
    """Clips like those that a model was trained on, of scans that no model has seen."""
    data = pipeline.about["recipe"]["data"]
    return MovingDigits(**{**{key: value for key, value in data.items() if key != "kind"}, "split": "heldout"})


def evaluate(pipeline: djepa.Pipeline, judge: Judge, reference_fit: float, seed: int, options: Options) -> Result:
    """Generate every digit in every direction and judge the clips."""
    samples, start = djepa.Samples(), time.perf_counter()
    for digit in range(10):  # each with seeds of its own; the directions of one digit share them
        wanted = [{"digit": str(digit), "direction": direction} for direction in DIRECTIONS]
        samples += pipeline.generate(wanted, num_samples=options.num_samples, seed=1000 * seed + digit * options.num_samples,
                                     **options.settings)
    seconds = time.perf_counter() - start
    figures = summed_up((judge.figures(levels(sample), int(sample.meta["condition"]["digit"]),
                                       sample.meta["condition"]["direction"]) for sample in samples), reference_fit)
    if options.num_extended:
        figures |= continued(extensions(pipeline, seed, options))
    return Result(pipeline.name, seed, figures, samples[0].meta["settings"], seconds)


def extensions(pipeline: djepa.Pipeline, seed: int, options: Options) -> Iterable[Continuation]:
    """Real clips of unseen scans, continued by as much as they are long: other scans for another seed."""
    real = unseen(pipeline)
    num_frames = real.load(0).samples["video"].shape[1]
    for number in range(options.num_extended * len(DIRECTIONS)):
        example = real.load((seed * options.num_extended * len(DIRECTIONS) * 9 + number * 9) % len(real))
        clip = example.samples["video"]
        longer = pipeline.extend(clip, num_frames / clip.meta["fps"], dict(example.conditions), seed=1000 * seed + number,
                                 **options.settings)[0]
        yield continuation(levels(longer), num_frames, example.conditions["direction"])


def table(real: dict[str, float], results: Sequence[Result]) -> str:
    """One row per model and seed, above them the figures of real clips, below them mean and standard deviation."""
    shown = [name for name in FIGURES if name in results[0].figures]
    rows = [["", "seed", *(FIGURES[name][0] for name in shown), "seconds"],
            ["real clips", "", *(FIGURES[name][1].format(real[name]) if name in real else "" for name in shown), ""]]
    rows += [[result.model, str(result.seed), *(FIGURES[name][1].format(result.figures[name]) for name in shown),
              f"{result.seconds:.0f}"] for result in results]
    if len(results) > 1:
        cells = ["{0} +- {0}".format(FIGURES[name][1]).format(over["mean"], over["std"])
                 for name, over in summary(results).items()]
        rows.append([f"mean +- std of {len(results)}", "", *cells, ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows)


def summary(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (of a sample) of every figure over models and seeds."""
    columns = {name: np.array([result.figures[name] for result in results]) for name in results[0].figures}
    return {name: {"mean": float(column.mean()), "std": float(column.std(ddof=1))} for name, column in columns.items()}


def report(real: dict[str, float], results: Sequence[Result], options: Options) -> dict[str, Any]:
    """Everything, as plain values for JSON."""
    return {
        "real": real,
        "protocol": {"num_samples": options.num_samples, "num_extended": options.num_extended},
        "models": [{"model": result.model, "seed": result.seed, **result.figures, "settings": result.settings,
                    "seconds": result.seconds} for result in results],
        "summary": summary(results) if len(results) > 1 else None,
    }


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Judge generated clips of moving digits by what they show and where it moves.")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a shipped name or a model folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of generation (default: 0)")
    parser.add_argument("--num-samples", type=int, default=2, help="of each digit and direction (default: %(default)s)")
    parser.add_argument("--extend", type=int, default=0, metavar="N", help="also continue N real clips in each direction")
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
    options = Options(given.num_samples, given.extend, Settings(
        num_steps=given.num_steps, num_denoising_steps=given.num_denoising_steps, guidance_scale=given.guidance_scale,
        temperature=given.temperature), given.device)
    try:
        judge = Judge(load_protocol())
        pipelines = [djepa.Pipeline.from_pretrained(model, device=given.device) for model in given.models]
        real = real_figures(judge, unseen(pipelines[0]))
        results = [evaluate(pipeline, judge, real["fit_ratio"], seed, options)
                   for pipeline in pipelines for seed in given.seeds]
    except djepa.DjepaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    real["fit_ratio"] = 1.0
    print(table(real, results))
    if given.json:
        given.json.write_text(json.dumps(report(real, results, options), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
