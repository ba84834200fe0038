"""Compare with recorded numbers of the reference implementations: ``python -m djepa.testing.golden DIR [--json]``.

A directory holds a published checkpoint (`checkpoint-last.pth` with `config.json`, or the autoencoder's `.ckpt`) and
`golden.safetensors`: inputs, the random numbers that were used, and outputs. The checkpoint is converted and loaded as a user
would do it, and every output is compared: equal means max|a - b| <= 1e-4 + 1e-6 max|recorded|, in float32 on the CPU.

Exit codes: 0 all equal and nothing left uncompared, 1 something differs or was not compared, 2 no such directory.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from djepa.convert import convert
from djepa.errors import CheckpointError, DjepaError
from djepa.pipeline import Pipeline
from djepa.storage import read_tensors
from djepa.testing.comparison import Comparison
from djepa.testing.golden_model import ModelComparison

TENSORS, CONFIG = "golden.safetensors", "config.json"
SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")


def compare(directory: str | Path) -> Comparison:
    """Convert the checkpoint of a directory and compare it with the numbers recorded there.

    Raises:
        CheckpointError: the directory is not one of these, or something in it is missing or damaged.
    """
    directory = Path(directory)
    if not (directory / TENSORS).is_file():
        raise CheckpointError(f"{str(directory)!r} is no directory of golden vectors: it has no {TENSORS}.")
    record = Comparison(read_tensors(directory / TENSORS), str(directory / TENSORS))
    with TemporaryDirectory() as folder:
        made = convert(_checkpoint(directory), Path(folder) / "converted", latent_scale=1.0)
        if made.kind == "kl16":
            _compare_autoencoder(made.folder, record)
        else:
            pipe = Pipeline.from_pretrained(made.folder, device="cpu", dtype="float32")
            points = _num_denoising_steps(directory / CONFIG)
            ModelComparison(pipe, record, points - 1 if made.sizes["head"] == "flow" else points).run()
    return record


def _checkpoint(directory: Path) -> Path:
    found = sorted(path for path in directory.iterdir() if path.suffix in SUFFIXES and path.name != TENSORS)
    if len(found) != 1:
        raise CheckpointError(f"{str(directory)!r} must hold one checkpoint ({', '.join(SUFFIXES)}) beside {TENSORS}; found "
                              f"{', '.join(path.name for path in found) or 'none'}.")
    return found[0]


def _num_denoising_steps(config: Path) -> int:
    try:
        steps = int(json.loads(config.read_text(encoding="utf-8"))["num_sampling_steps"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{str(config)!r} must say num_sampling_steps, a whole number ({error!r}).") from error
    if not 2 <= steps <= 1000:
        raise CheckpointError(f"{str(config)!r}: num_sampling_steps={steps} is not between 2 and 1000.")
    return steps


@torch.no_grad()
def _compare_autoencoder(folder: Path, record: Comparison) -> None:
    from diffusers import AutoencoderKL

    network: Any = AutoencoderKL.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
    latent = network.encode(record.given("image")).latent_dist
    record.equal("moments", latent.parameters)
    record.equal("mean", latent.mean)
    record.equal("logvar", latent.logvar)
    record.equal("decoded", network.decode(record.given("latents")).sample)


def as_table(record: Comparison) -> str:
    """The rows, aligned, then what was an input and what was left uncompared."""
    width = max([len("tensor"), *(len(row.name) for row in record.rows)])
    lines = [f"{'tensor':{width}}  difference  bound"]
    lines += [f"{row.name:{width}}  {row.difference:10.2e}  {row.bound:.2e}  {'ok' if row.ok else 'DIFFERS'}"
              for row in record.rows]
    lines.append(f"inputs: {', '.join(record.inputs)}")
    lines += [f"NOT COMPARED: {name}" for name in record.uncompared()]
    equal = sum(row.ok for row in record.rows)
    return "\n".join([*lines, f"{equal} of {len(record.rows)} equal, {len(record.uncompared())} not compared"])


def as_json(record: Comparison) -> str:
    """The same for a script; null stands for what is no finite number."""
    rows = [{"name": row.name, "difference": _finite(row.difference), "bound": _finite(row.bound), "ok": row.ok}
            for row in record.rows]
    return json.dumps({"ok": is_equal(record), "rows": rows, "inputs": list(record.inputs), "uncompared": record.uncompared()})


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def is_equal(record: Comparison) -> bool:
    """Whether everything was compared and nothing differs."""
    return bool(record.rows) and all(row.ok for row in record.rows) and not record.uncompared()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m djepa.testing.golden", description="Compare with the reference's numbers.")
    parser.add_argument("directory", type=Path, help="holds a published checkpoint and golden.safetensors")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args(arguments)
    try:
        record = compare(chosen.directory)
    except DjepaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(as_json(record) if chosen.json else as_table(record))
    return 0 if is_equal(record) else 1


if __name__ == "__main__":
    sys.exit(main())
