"""The model card of a saved model: what it makes, how to use it, how to train it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from djepa.recipe.schema import ModelSpec

_CARD = """\
---
library_name: djepa
tags: [djepa]
---
# {name}

{description}

| stream | modality | shape of a sample | tokenizer | head |
|---|---|---|---|---|
{streams}

Conditions: {conditions}.

```python
import djepa

pipe = djepa.Pipeline.from_pretrained({source!r})
samples = pipe.generate({example}, num_samples=4, seed=0)
```
{training}"""

_TRAINING = """
## Training

{examples} examples, {step} steps, djepa {djepa}, torch {torch}. To train it again, save this as `recipe.yaml` and run
`djepa train recipe.yaml`:

```yaml
{recipe}```
"""


def model_card(name: str, spec: ModelSpec, about: Mapping[str, Any]) -> str:
    """A model card in Markdown.

    Args:
        name: what the model is called.
        spec: complete.
        about: what the trainer wrote down; a card of a model that was not trained here says nothing of training.
    """
    streams = "\n".join(
        f"| {key} | {stream.modality} | {list(stream.shape or ())} | {stream.tokenizer.kind if stream.tokenizer else ''} "
        f"| {stream.head.kind} |" for key, stream in spec.streams.items())
    facts = {"examples", "step", "djepa", "torch", "recipe"}
    recipe = yaml.safe_dump(about.get("recipe", {}), sort_keys=False, width=110)
    training = _TRAINING.format(**{**about, "recipe": recipe}) if facts <= set(about) else ""
    return _CARD.format(
        name=name or "A djepa model", description=about.get("description", ""), streams=streams,
        conditions=", ".join(f"`{key}` ({node.kind})" for key, node in spec.conditions.items()) or "none",
        source=name or "path/to/this/folder", example=_example(spec), training=training,
    )


def _example(spec: ModelSpec) -> str:
    """A condition to ask for, as Python source."""
    values = {key: names[0] for key, node in spec.conditions.items() if (names := node.options.get("names"))}
    return repr(next(iter(values.values())) if len(values) == 1 == len(spec.conditions) else values or None)
