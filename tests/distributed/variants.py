"""Trains every variant of a recipe, one after the other, in the processes that torchrun started; or alone.

    python variants.py FOLDER '{"name": ["key=value", ...], ...}'
"""

import json
import sys
from pathlib import Path

import torch

from djepa import Recipe, Trainer

if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, overrides in json.loads(sys.argv[2]).items():
        Trainer(Recipe.load("image/digits", overrides), device="cpu").fit(Path(sys.argv[1]) / name)
