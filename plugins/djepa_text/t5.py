"""T5Text: text read by the encoder of a T5, and one condition token for each of its tokens."""

from __future__ import annotations

from typing import Literal

from djepa_text.encoder import FrozenEncoder
from djepa_text.frozen import FrozenText
from djepa_text.source import Source, read_config

KINDS = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}


class T5Text(FrozenText):
    """Features of the last layer of a T5 (also T5 v1.1, ByT5, mT5, UMT5).

    Args:
        width: of the condition tokens.
        source: folder that transformers saved the encoder and its tokenizer to, or Hub repository ("owner/name").
        revision: branch, tag or commit of a Hub repository.
        max_tokens: of a text, its end mark included; longer texts are refused.
        truncate: cut longer texts instead.
        precision: the encoder computes in "float32" or "bfloat16", which halves the memory of a large one.

    Raises:
        UsageError: the source is no T5, or transformers is not installed.
        CheckpointError: there is no such source, or it is damaged.
    """

    def __init__(
        self, width: int, *, source: str, revision: str | None = None, max_tokens: int = 256, truncate: bool = False,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        origin = Source(source, revision)
        config = read_config(origin, KINDS)
        encoder = FrozenEncoder(origin, KINDS[config["model_type"]], max_tokens, truncate, precision)
        super().__init__(width, config.get("d_model", 512), encoder)
