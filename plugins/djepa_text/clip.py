"""ClipText: text read by the text encoder of a CLIP, and one condition token for each of its tokens."""

from __future__ import annotations

from typing import Literal

from djepa.errors import UsageError
from djepa_text.encoder import FrozenEncoder
from djepa_text.frozen import FrozenText
from djepa_text.source import Source, read_config

KINDS = {"clip": "CLIPTextModel", "clip_text_model": "CLIPTextModel"}


class ClipText(FrozenText):
    """Features of the last layer of a CLIP's text encoder, after its final norm.

    Args:
        width: of the condition tokens.
        source: folder that transformers saved the whole CLIP or its text encoder to, with the tokenizer, or Hub repository
            ("owner/name").
        revision: branch, tag or commit of a Hub repository.
        max_tokens: of a text, the marks of its start and end included; longer texts are refused. At most the encoder's
            places, of which there are 77 in nearly all.
        truncate: cut longer texts instead.
        precision: the encoder computes in "float32" or "bfloat16".

    Raises:
        UsageError: the source is no CLIP or has fewer places than `max_tokens`, or transformers is not installed.
        CheckpointError: there is no such source, or it is damaged.
    """

    def __init__(
        self, width: int, *, source: str, revision: str | None = None, max_tokens: int = 77, truncate: bool = False,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        origin = Source(source, revision)
        config = read_config(origin, KINDS)
        text = config.get("text_config") or config
        places = text.get("max_position_embeddings", 77)
        if max_tokens > places:
            raise UsageError(f"max_tokens={max_tokens}: {source!r} has places for {places} tokens.")
        encoder = FrozenEncoder(origin, KINDS[config["model_type"]], max_tokens, truncate, precision)
        super().__init__(width, text.get("hidden_size", 512), encoder)
