"""How good are generated samples? Their features beside those of real samples, by metrics that say how sure they are.

    found = evaluate("image/digits", Recipe.load("image/digits", ["evaluate.num_samples=500"]))
    print(found.table())

What turns samples into features and what compares them are plugins: `FeatureExtractor`, `Metric`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "Evaluation": "djepa.evaluate.result",
    "FeatureExtractor": "djepa.evaluate.extractor",
    "Features": "djepa.evaluate.extractor",
    "Figure": "djepa.evaluate.result",
    "Metric": "djepa.evaluate.metric",
    "Progress": "djepa.evaluate.run",
    "evaluate": "djepa.evaluate.run",
}

__all__ = ["Evaluation", "FeatureExtractor", "Features", "Figure", "Metric", "Progress", "evaluate"]

if TYPE_CHECKING:
    from djepa.evaluate.extractor import FeatureExtractor, Features
    from djepa.evaluate.metric import Metric
    from djepa.evaluate.result import Evaluation, Figure
    from djepa.evaluate.run import Progress, evaluate


def __getattr__(name: str) -> Any:  # a recipe that is read imports the metrics, and not what evaluates models
    if name not in _EXPORTS:
        raise AttributeError(f"module 'djepa.evaluate' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
