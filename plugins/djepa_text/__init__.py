"""Text as a condition: what this plugin offers, by name; imports none of it."""

from __future__ import annotations

from djepa.hookspecs import Register, hookimpl


@hookimpl
def djepa_register_conditioners(register: Register) -> None:
    register("bytes", "djepa_text.byte_text:ByteText", summary="text as UTF-8 bytes, read by a small encoder that is trained")
    register("t5", "djepa_text.t5:T5Text", summary="text read by a frozen T5 encoder of transformers")
    register("clip", "djepa_text.clip:ClipText", summary="text read by a frozen CLIP text encoder of transformers")
