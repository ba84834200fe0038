"""One of several processes of an evaluation: python -m djepa.evaluate.worker FOLDER RANK NPROC DEVICE."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from djepa.errors import DjepaError
from djepa.evaluate.blocks import Blocks
from djepa.evaluate.run import TASK
from djepa.evaluate.task import Task
from djepa.evaluate.work import Workshop, make_blocks
from djepa.recipe.validation import validated


def main(arguments: Sequence[str]) -> int:
    """Make this process's share of the blocks; returns the exit code."""
    folder, rank, nproc, device = Path(arguments[0]), int(arguments[1]), int(arguments[2]), arguments[3]
    parent = os.getppid()
    document = json.loads((folder / TASK).read_text(encoding="utf-8"))
    sets = {name: Blocks(folder / place, total) for name, (place, total) in document["sets"].items()}
    try:
        task = validated(Task, document["task"], str(folder / TASK))
        for _ in make_blocks(Workshop(task, device), sets, slice(rank, None, nproc)):
            if os.getppid() != parent:  # killed: nobody waits for the rest
                return 0
    except DjepaError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
