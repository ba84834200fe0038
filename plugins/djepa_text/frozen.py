"""FrozenText: text read by a pretrained encoder that stays as it is, and a projection that is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from djepa.conditioner import ConditionTokens
from djepa.errors import UsageError
from djepa.masking import Subset
from djepa.nn.transformer import layer_norm
from djepa_text.encoder import FrozenEncoder
from djepa_text.source import Source
from djepa_text.text import NULL, PAD, TextConditioner


class FrozenText(TextConditioner):
    """One condition token for each token of an encoder of transformers: its features, normalized and projected.

    A model folder holds the projection and the name of the encoder, not the encoder.

    Args:
        width: of the condition tokens.
        channels: of the encoder's features.
        encoder: which reads the texts.

    Raises:
        UsageError: there is no room for a token.
    """

    def __init__(self, width: int, channels: int, encoder: FrozenEncoder) -> None:
        super().__init__()
        if encoder.max_tokens < 1:
            raise UsageError(f"max_tokens={encoder.max_tokens}: expected at least 1.")
        self.encoder = encoder
        self.norm = layer_norm(channels)
        self.proj = nn.Linear(channels, width)
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)
        self.null_condition = nn.Parameter(nn.init.normal_(torch.empty(width)))

    def numbers(self, text: str) -> list[int]:
        return self.encoder.ids(text)

    def forward(self, prepared: Int[Tensor, "b k"]) -> ConditionTokens:
        device = self.proj.weight.device
        texts = [tuple(row[row >= 0].tolist()) for row in prepared]
        features = self.encoder.features([text for text in texts if text], device) if any(texts) else []
        read = torch.cat([self.norm.weight.new_zeros(0, self.norm.normalized_shape[0]), *features])
        nulls = (prepared == NULL).to(device)[..., None] * self.null_condition
        values = Subset.of(prepared >= 0, device).put(nulls, self.proj(self.norm(read)))
        return ConditionTokens(values, prepared != PAD)

    @classmethod
    def fitted(cls, options: Mapping[str, Any], classes: Sequence[str] | None) -> dict[str, Any]:
        """`options` with a source that can be found from anywhere."""
        return {**options, "source": Source(options["source"]).absolute()}
