"""ByteText: text as UTF-8 bytes, read by a small encoder that is trained with the model.

    bytes -> embedding + sinusoids of the place [1] -> transformer -> one condition token a byte

It needs no vocabulary and reads every language. For captions of a closed world and for text that is spoken letter by letter;
it has never seen another text than those it was trained on.

References:
    [1] A. Vaswani et al. Attention Is All You Need, section 3.5. arXiv 1706.03762.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from djepa.conditioner import ConditionTokens
from djepa.errors import UsageError
from djepa.masking import Subset
from djepa.nn.transformer import Transformer
from djepa_text.text import NULL, PAD, TextConditioner, too_long

NUM_BYTES = 256
MAX_CHARACTER = 4  # bytes of a character in UTF-8


class ByteText(TextConditioner):
    """Text as bytes, each of them a condition token.

    Args:
        width: of the tokens.
        max_bytes: of a text in UTF-8 (a letter of English takes one, of most other languages two or three); longer ones are
            refused.
        depth: blocks of the encoder.
        num_heads: attention heads of the encoder; divides the model's width.
        truncate: cut longer texts, after the last character that fits, instead of refusing them.

    Raises:
        UsageError: a setting is out of range.
    """

    positions: Tensor

    def __init__(self, width: int, *, max_bytes: int = 512, depth: int = 2, num_heads: int = 4, truncate: bool = False) -> None:
        super().__init__()
        if max_bytes < MAX_CHARACTER:
            raise UsageError(f"max_bytes={max_bytes}: expected at least {MAX_CHARACTER}, which is one character.")
        if depth < 1 or num_heads < 1 or width % num_heads:
            raise UsageError(f"depth={depth}, num_heads={num_heads}: expected at least one block, and heads that divide the "
                             f"model's width of {width}.")
        self.max_bytes, self.truncate = max_bytes, truncate
        self.embedding = nn.Parameter(nn.init.normal_(torch.empty(NUM_BYTES, width)))
        self.null_condition = nn.Parameter(nn.init.normal_(torch.empty(1, width)))
        self.register_buffer("positions", sinusoids(max_bytes, width), persistent=False)  # a function of the settings
        self.transformer = Transformer(width, depth, num_heads, mlp_ratio=4.0, qk_norm=True, dropout=0.0, backend=None)

    def numbers(self, text: str) -> list[int]:
        content = text.encode()
        if len(content) > self.max_bytes:
            if not self.truncate:
                raise too_long(text, len(content), self.max_bytes, "bytes")
            content = content[: self.max_bytes].decode(errors="ignore").encode()
        return list(content)

    def forward(self, prepared: Int[Tensor, "b k"]) -> ConditionTokens:
        device, valid = self.embedding.device, prepared != PAD
        rows = prepared.masked_fill(prepared == NULL, NUM_BYTES).clamp(min=0).to(device, non_blocking=True)
        x = torch.cat([self.embedding, self.null_condition])[rows] + self.positions[: rows.shape[1]]
        subset = Subset.of(valid, device)
        read = self.transformer(subset.sequences(x), subset.packing)
        return ConditionTokens(subset.put(torch.zeros_like(x), read.flatten(0, 1)), valid)


def sinusoids(length: int, width: int) -> Float[Tensor, "length width"]:
    """Sines and then cosines of the place, of wavelengths from 2 pi to 10,000 times that."""
    half = (width + 1) // 2
    # Not by torch.linspace: transformers replaces it while it loads a model, and was seen not to put it back.
    frequencies = 10_000.0 ** -(torch.arange(half) / max(half - 1, 1))
    angles = torch.arange(length)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]
