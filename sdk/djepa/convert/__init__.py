"""Published models become model folders: MAR, D-JEPA, and the KL-16 autoencoder under them.

    report = convert("checkpoint-last.pth", "mar-base")
    djepa.Pipeline.from_pretrained("mar-base").generate([207, 360])

A file is read without running anything in it, its sizes come from its tensors, and every tensor is either used or named in
the report. Nothing is written unless everything fits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from djepa.build import build_tokenizers
from djepa.card import model_card
from djepa.convert import autoencoder
from djepa.convert.layout import Layout, expected_shapes, infer, is_mar, is_model
from djepa.convert.names import converted
from djepa.convert.published import LATENT_SCALE, PAPERS, HeadKind, Kind
from djepa.convert.shapes import check
from djepa.convert.source import Source, Weights, read_source
from djepa.convert.specification import check_tokens, model_spec, self_contained
from djepa.errors import CheckpointError, UsageError
from djepa.storage import save_model

__all__ = ["Conversion", "convert"]


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        folder: what was written.
        kind: "mar", "djepa" or "kl16".
        used: for each tensor of the source, what became of it: names in the folder.
        dropped: what else the source holds, with the reason why it was left out.
        sizes: the sizes that were found.
    """

    folder: Path
    kind: Kind
    used: Mapping[str, tuple[str, ...]]
    dropped: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, Any] = field(default_factory=dict)


def convert(
    src: str | Path,
    out: str | Path,
    *,
    kind: Kind | None = None,
    weights: Weights = "ema",
    tokenizer: str | Path | None = None,
    labels: Sequence[str] | None = None,
    head: HeadKind | None = None,
    num_heads: int | None = None,
    patch_size: int | None = None,
    latent_scale: float = LATENT_SCALE,
) -> Conversion:
    """Turn a published checkpoint into a model folder, or KL-16 into a folder of diffusers.

    Args:
        src: the file: .pth or .ckpt as the training scripts write them, or a bare state dict, also as .safetensors.
        out: the folder to write; a model that is there is replaced.
        kind: what the file holds; by default read off its tensors.
        weights: "ema", which generates, or "raw", where the file has both.
        tokenizer: a folder or Hub repository of the diffusers autoencoder between pictures and latents. Without one the
            model makes latents: tensors of 16 channels, not yet multiplied by `latent_scale`, that no picture file takes.
        labels: class names in the order of their ids; by default "0", "1", ...; ids work as conditions in any case.
        head: the denoising head; by default read off its tensors.
        num_heads: attention heads, where neither the file nor the published sizes tell.
        patch_size: latent cells along the side of a token, where the file does not tell; published models have 1.
        latent_scale: tokens = latents * this; another number only for another autoencoder than KL-16.

    Raises:
        CheckpointError: the file is damaged, holds code, or is no such model; a tensor is missing, left over or of another
            shape; `kind`, `head` or `weights` contradict it.
        UsageError: the labels do not fit, or the folder holds other things.
        StorageError: the disk refused; nothing half-written is left.
    """
    if not math.isfinite(latent_scale) or latent_scale <= 0:
        raise UsageError(f"latent_scale={latent_scale!r}: expected a number above 0, such as {LATENT_SCALE}.")
    source, out = read_source(Path(src)), Path(out)
    found = _kind(source, kind)
    if found == "kl16":
        return _convert_autoencoder(source, out)
    entry = source.choose(weights)
    tensors = source.entries[entry]
    layout = infer(tensors, source.settings, num_heads)
    check(tensors, expected_shapes(layout), source.path)
    if head not in (None, layout.head):
        raise CheckpointError(f"{str(source.path)!r} has a {layout.head} head, not {head}.")
    spec = model_spec(layout, source.settings, labels, tokenizer and str(tokenizer), patch_size, latent_scale)
    tokenizers = build_tokenizers(spec)
    check_tokens(layout, spec, tokenizers)
    spec = self_contained(spec, tokenizers)
    parts = converted(tensors, layout)
    about = _about(source, found, entry)
    merged = {name: tensor for made in parts.values() for name, tensor in made.items()}
    save_model(out, spec, merged, tokenizers, about=about, card=model_card(out.name, spec, about))
    return Conversion(out, found, {name: tuple(made) for name, made in parts.items()}, _left_out(source, entry), _sizes(layout))


def _kind(source: Source, wanted: Kind | None) -> Kind:
    """What a file holds.

    Raises:
        CheckpointError: none of what is known, or not what was wanted.
    """
    tensors = next(iter(source.entries.values()))
    found: Kind | None = None
    if is_model(tensors):
        found = "mar" if is_mar(tensors) else "djepa"
    elif autoencoder.is_autoencoder(tensors):
        found = "kl16"
    if found is None:
        raise CheckpointError(f"{str(source.path)!r} is neither MAR nor D-JEPA nor their autoencoder; its tensors are called "
                              f"{', '.join(list(tensors)[:4]) or 'nothing'}, ...")
    if wanted not in (None, found):
        raise CheckpointError(f"{str(source.path)!r} holds {found}, not {wanted}, going by the names of its tensors.")
    return found


def _convert_autoencoder(source: Source, out: Path) -> Conversion:
    entry = source.choose("raw")
    tensors = {name: tensor for name, tensor in source.entries[entry].items() if not name.startswith(autoencoder.DROPPED)}
    layout = autoencoder.infer(tensors)
    check(tensors, autoencoder.expected_shapes(layout), source.path)
    made = {name: autoencoder.converted(name, tensor, layout) for name, tensor in tensors.items()}
    autoencoder.save(out, autoencoder.diffusers_config(layout), dict(made.values()))
    dropped = {name: "a loss of its training" for name in source.entries[entry] if name not in tensors}
    return Conversion(out, "kl16", {name: (target,) for name, (target, _) in made.items()},
                      {**_left_out(source, entry), **dropped}, vars(layout))


def _left_out(source: Source, entry: str) -> dict[str, str]:
    reasons = {"model": "raw weights; --weights raw takes them", "model_ema": "averaged weights; --weights ema takes them",
               "args": "settings of the training script", "epoch": "noted in config.json"}
    others = [name for name in source.entries if name != entry]
    return {name: reasons.get(name, "state of the training") for name in (*others, *source.others)}


def _about(source: Source, kind: Kind, entry: str) -> dict[str, Any]:
    about = {"description": f"Converted from a published checkpoint. {PAPERS[kind]}.", "converted_from": source.path.name,
             "weights": entry or "as they were"}
    return about | ({"epoch": source.settings["epoch"]} if "epoch" in source.settings else {})


def _sizes(layout: Layout) -> dict[str, Any]:
    encoder, predictor = layout.encoder, layout.predictor
    return {"width": encoder.width, "predictor_width": predictor.width, "encoder_depth": encoder.depth,
            "predictor_depth": predictor.depth, "num_heads": encoder.num_heads, "head": layout.head,
            "head_depth": layout.head_depth, "head_width": layout.head_width, "num_tokens": layout.num_tokens,
            "channels": layout.channels, "num_conditions": layout.num_conditions, "num_classes": layout.num_classes}
