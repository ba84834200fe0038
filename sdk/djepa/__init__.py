"""djepa: multimodal generation with masked autoregressive models over continuous tokens.

Importing this package loads neither torch nor a plugin; the names below arrive when they are first touched.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "Axis": "djepa.tokens",
    "Conditioner": "djepa.conditioner",
    "Dataset": "djepa.dataset",
    "DenoisingHead": "djepa.heads",
    "DjepaError": "djepa.errors",
    "Example": "djepa.dataset",
    "FeatureExtractor": "djepa.evaluate.extractor",
    "Features": "djepa.evaluate.extractor",
    "MediaSpec": "djepa.tokens",
    "Metric": "djepa.evaluate.metric",
    "Modality": "djepa.modality",
    "Pipeline": "djepa.pipeline",
    "Recipe": "djepa.recipe",
    "Sample": "djepa.tokens",
    "Samples": "djepa.tokens",
    "TokenBatch": "djepa.tokens",
    "TokenSpec": "djepa.tokens",
    "Tokenizer": "djepa.tokenizer",
    "Tokens": "djepa.tokens",
    "Trainer": "djepa.train",
    "hookimpl": "djepa.hookspecs",
}

__all__ = [
    "Axis",
    "Conditioner",
    "Dataset",
    "DenoisingHead",
    "DjepaError",
    "Example",
    "FeatureExtractor",
    "Features",
    "MediaSpec",
    "Metric",
    "Modality",
    "Pipeline",
    "Recipe",
    "Sample",
    "Samples",
    "TokenBatch",
    "TokenSpec",
    "Tokenizer",
    "Tokens",
    "Trainer",
    "hookimpl",
]

if TYPE_CHECKING:
    from djepa.conditioner import Conditioner
    from djepa.dataset import Dataset, Example
    from djepa.errors import DjepaError
    from djepa.evaluate.extractor import FeatureExtractor, Features
    from djepa.evaluate.metric import Metric
    from djepa.heads import DenoisingHead
    from djepa.hookspecs import hookimpl
    from djepa.modality import Modality
    from djepa.pipeline import Pipeline
    from djepa.recipe import Recipe
    from djepa.tokenizer import Tokenizer
    from djepa.tokens import Axis, MediaSpec, Sample, Samples, TokenBatch, Tokens, TokenSpec
    from djepa.train import Trainer


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'djepa' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
