"""The whole of djepa in a few minutes, without a network: generate from shipped models, train a new one, look and listen.

    python examples/demo.py [--out demo] [--steps 600]
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from matplotlib.figure import Figure

import djepa
from djepa_video.moving_digits import DIRECTIONS

MODEL = "image/digits"  # both a model and the recipe it was trained from
STRINGS = "audio/plucked-strings"
GLIDING = "video/moving-digits"
DIGITS = list(range(10))
SHORT = ["train.batch_size=32", "train.warmup_steps=20", "train.log_every=5", "preview.every=0"]  # for a run of a minute


def draw_digits(model: str | Path, path: Path) -> None:
    """One row per digit, eight different ones in each."""
    pipeline = djepa.Pipeline.from_pretrained(str(model))
    pipeline.generate(DIGITS, num_samples=8, seed=0).grid(path, columns=8)


def play_strings(folder: Path) -> None:
    """A plucked string, the same string going on for a second, and the spectrogram of a few more."""
    pipeline = djepa.Pipeline.from_pretrained(STRINGS)
    asked = {"note": "A4", "timbre": "nylon"}
    sound, = pipeline.generate(asked, seed=0)
    sound.save(folder / "string.wav")
    pipeline.extend(sound, seconds=1.0, condition=asked)[0].save(folder / "string-extended.wav")
    notes = [{"note": note, "timbre": timbre} for timbre in ("nylon", "steel") for note in ("C4", "E4", "G4", "B4")]
    pipeline.generate(notes).grid(folder / "strings.png", columns=4)


def film_digits(folder: Path) -> None:
    """All digits in all directions on one sheet, and a clip of a second that goes on for two more."""
    pipeline = djepa.Pipeline.from_pretrained(GLIDING)
    wanted = [{"digit": digit, "direction": direction} for digit in DIGITS for direction in DIRECTIONS]
    pipeline.generate(wanted, seed=0).grid(folder / "gliding.mp4", columns=len(DIRECTIONS))
    asked = {"digit": 3, "direction": "down-right"}
    clip, = pipeline.generate(asked, seed=0)
    pipeline.extend(clip, seconds=2.0, condition=asked).grid(folder / "gliding-extended.mp4")


def draw_loss(log: Path, path: Path) -> None:
    """The loss of every logged step, and its running mean."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    points = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    steps, losses = zip(*points, strict=True)
    window = max(1, len(losses) // 10)
    means = [sum(losses[max(0, end - window):end]) / min(window, end) for end in range(1, len(losses) + 1)]

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color="tab:blue", alpha=0.3, label="logged")
    axes.plot(steps, means, color="tab:blue", label=f"mean of the last {window}")
    axes.set(xlabel="step", ylabel="loss", title=f"Training {MODEL}")
    axes.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Make the files and say where they are."""
    parser = argparse.ArgumentParser(description="Generate from a shipped model, train a new one, look at both.")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=600, help="training steps (default: %(default)s, about a minute)")
    given = parser.parse_args()
    out, run = given.out, given.out / "run"

    print(f"1/5 Generating digits with the shipped model {MODEL}")
    draw_digits(MODEL, out / "shipped.png")

    print(f"2/5 Plucking strings with the shipped model {STRINGS}")
    play_strings(out)

    print(f"3/5 Filming gliding digits with the shipped model {GLIDING}")
    film_digits(out)

    print(f"4/5 Training a new model from the recipe {MODEL}, shortened to {given.steps} steps of 32 digits")
    if (run / "recipe.yaml").exists():
        shutil.rmtree(run)  # an earlier demo's: a run folder holds one run, and a second one is refused
    recipe = djepa.Recipe.load(MODEL, [f"train.steps={given.steps}", *SHORT])
    djepa.Trainer(recipe).fit(run)

    print("5/5 Generating digits with the new model")
    draw_digits(run, out / "trained.png")
    draw_loss(run / "log.jsonl", out / "loss.png")

    made = {"shipped.png": "digits of the shipped model", "string.wav": "a sound of the shipped model of plucked strings",
            "string-extended.wav": "the same sound, going on for a second", "strings.png": "spectrograms of eight more",
            "gliding.mp4": "digits of the shipped model that glide in eight directions",
            "gliding-extended.mp4": "one of them, going on for two seconds",
            "trained.png": "digits of the model you have just trained",
            "loss.png": "its loss", "run": "its run: recipe.yaml, log.jsonl, checkpoints/"}
    print("\n" + "\n".join(f"{out / name!s:<{len(str(out)) + 22}}{what}" for name, what in made.items()))


if __name__ == "__main__":
    try:
        main()
    except djepa.DjepaError as error:
        sys.exit(f"error: {error}")
