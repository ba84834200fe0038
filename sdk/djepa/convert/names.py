"""From the names of the published models to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from djepa.convert.layout import Layout
from djepa.convert.published import CONDITION, STREAM

_STREAM, _CONDITIONER = f"streams.{STREAM}", f"conditioners.{CONDITION}"
_HEAD = f"{_STREAM}.head.network"

_PREFIXES = {
    "z_proj": f"{_STREAM}.input_proj",
    "z_proj_ln": "encoder.norm_in",
    "encoder_blocks": "encoder.transformer.blocks",
    "encoder_norm": "encoder.transformer.norm",
    "decoder_embed": "predictor.input_proj",
    "decoder_blocks": "predictor.transformer.blocks",
    "decoder_norm": "predictor.transformer.norm",
    "jepaloss.net": "feature_head",
    "diffloss.net.time_embed.mlp": f"{_HEAD}.time_mlp",
    "diffloss.net.cond_embed": f"{_HEAD}.context_proj",
    "diffloss.net.input_proj": f"{_HEAD}.input_proj",
    "diffloss.net.res_blocks": f"{_HEAD}.blocks",
    "diffloss.net.final_layer.linear": f"{_HEAD}.output",
    "diffloss.net.final_layer.adaLN_modulation.1": f"{_HEAD}.output_modulation",
}
_INSIDE_BLOCKS = {"attn": "attention", "in_ln": "norm", "adaLN_modulation.1": "modulation"}
_PREFIX = re.compile(rf"\A({'|'.join(map(re.escape, sorted(_PREFIXES, key=len, reverse=True)))})\.")
_INSIDE = re.compile(rf"(?<=\.)({'|'.join(map(re.escape, _INSIDE_BLOCKS))})(?=\.)")

Parts = dict[str, Tensor]  # by our name: what one source tensor becomes


def converted(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Parts]:
    """What every tensor of a model becomes, by its name in the source."""
    return {name: _parts(name, tensor, layout) for name, tensor in tensors.items()}


def _parts(name: str, tensor: Tensor, layout: Layout) -> Parts:
    table = tensor[0] if tensor.dim() == 3 else tensor  # position tables and the like have a batch axis of one
    first, rest = table[: layout.num_conditions], table[layout.num_conditions :]
    match name:
        case "class_emb.weight":
            return {f"{_CONDITIONER}.embedding": table}
        case "fake_latent":
            return {f"{_CONDITIONER}.null_condition": table}
        case "buffer":
            return {f"{_CONDITIONER}.tokens": table}
        case "mask_token":
            return {f"{_STREAM}.mask_token": table}
        case "diffusion_pos_embed_learned":
            return {f"{_STREAM}.output_position": table}
        case "encoder_pos_embed_learned" if layout.mar:
            # MAR's condition tokens are the class embedding plus the first rows: our learned condition tokens.
            return {f"{_CONDITIONER}.tokens": first.clone(), f"{_STREAM}.encoder_position": rest.clone()}
        case "decoder_pos_embed_learned" if layout.mar:
            return {"predictor.condition_position": first.clone(), f"{_STREAM}.predictor_position": rest.clone()}
        case "encoder_pos_embed_learned":
            return {f"{_STREAM}.encoder_position": table}
        case "decoder_pos_embed_learned":
            return {f"{_STREAM}.predictor_position": table}
    renamed = _PREFIX.sub(lambda found: f"{_PREFIXES[found[1]]}.", name)
    return {_INSIDE.sub(lambda found: _INSIDE_BLOCKS[found[1]], renamed): tensor}
