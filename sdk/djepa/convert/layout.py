"""What a state dict of MAR or D-JEPA is: its sizes, read off the tensors, and the shape that every tensor must have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from djepa.convert.published import NUM_HEADS, NUM_TIME_FREQUENCIES, HeadKind
from djepa.convert.shapes import Shapes, Tensors, count, linear, norm, size
from djepa.errors import CheckpointError


@dataclass(frozen=True)
class Trunk:
    """One of the two transformers.

    Attributes:
        prefix: of its tensors: "encoder" or "decoder".
        hidden: width inside the MLPs.
        num_heads: of attention.
    """

    prefix: str
    width: int
    depth: int
    hidden: int
    num_heads: int
    qk_norm: bool


@dataclass(frozen=True)
class Layout:
    """The sizes of a model; `Stream` and `ModelSpec` say what they mean."""

    mar: bool
    head: HeadKind
    encoder: Trunk
    predictor: Trunk
    channels: int
    num_tokens: int
    num_conditions: int
    num_classes: int
    head_depth: int
    head_width: int
    feature_head: bool

    @property
    def grid(self) -> int:
        """Tokens along each side of the square they form."""
        return math.isqrt(self.num_tokens)


def is_model(tensors: Tensors) -> bool:
    """Whether this is a state dict of MAR or D-JEPA."""
    return "z_proj.weight" in tensors and "diffloss.net.input_proj.weight" in tensors


def is_mar(tensors: Tensors) -> bool:
    """Whether it is MAR's rather than D-JEPA's."""
    return "diffusion_pos_embed_learned" in tensors


def infer(tensors: Tensors, settings: Mapping[str, int | str], num_heads: int | None) -> Layout:
    """The sizes of a model.

    Args:
        tensors: for which `is_model` holds.
        settings: of the training script, for the number of attention heads, which tensors do not tell.
        num_heads: what the caller says it is.

    Raises:
        CheckpointError: a tensor that tells a size is missing or contradicts another, or the number of heads is unknown.
    """
    mar = is_mar(tensors)
    channels = size(tensors, "z_proj.weight", 1, 2)
    encoder, predictor = (_trunk(tensors, prefix, settings, num_heads) for prefix in ("encoder", "decoder"))
    rows = size(tensors, "encoder_pos_embed_learned", 1, 3)
    num_tokens = size(tensors, "diffusion_pos_embed_learned", 1, 3) if mar else rows
    if math.isqrt(num_tokens) ** 2 != num_tokens:
        raise CheckpointError(f"The model has positions for {num_tokens} tokens, which do not form a square grid.")
    return Layout(
        mar=mar, head=_head(tensors, channels), encoder=encoder, predictor=predictor, channels=channels,
        num_tokens=num_tokens, num_conditions=rows - num_tokens if mar else size(tensors, "buffer", 1, 3),
        num_classes=size(tensors, "class_emb.weight", 0, 2),
        head_depth=count(tensors, "diffloss.net.res_blocks"), head_width=size(tensors, "diffloss.net.input_proj.weight", 0, 2),
        feature_head="jepaloss.net.fc1.weight" in tensors,
    )


def _head(tensors: Tensors, channels: int) -> HeadKind:
    outputs = size(tensors, "diffloss.net.final_layer.linear.weight", 0, 2)
    if outputs not in (channels, 2 * channels):
        raise CheckpointError(f"The denoising head has {outputs} outputs for tokens of {channels} channels; expected "
                              f"{channels} (flow) or {2 * channels} (gaussian).")
    return "flow" if outputs == channels else "gaussian"


def _trunk(tensors: Tensors, prefix: str, settings: Mapping[str, int | str], num_heads: int | None) -> Trunk:
    width = size(tensors, "z_proj.weight" if prefix == "encoder" else "decoder_embed.weight", 0, 2)
    qk_norm = f"{prefix}_blocks.0.attn.q_norm.weight" in tensors
    return Trunk(prefix, width, count(tensors, f"{prefix}_blocks"), size(tensors, f"{prefix}_blocks.0.mlp.fc1.weight", 0, 2),
                 _num_heads(tensors, prefix, width, settings, num_heads), qk_norm)


def _num_heads(tensors: Tensors, prefix: str, width: int, settings: Mapping[str, int | str], num_heads: int | None) -> int:
    """Attention heads: normalized ones tell their width; otherwise the caller, the training script, the published sizes do."""
    width_of_head, setting = f"{prefix}_blocks.0.attn.q_norm.weight", settings.get(f"{prefix}_num_heads")
    told = width // size(tensors, width_of_head, 0, 1) if width_of_head in tensors else None
    known = [number for number in (num_heads, told, setting, NUM_HEADS.get(width)) if isinstance(number, int)]
    if not known:
        raise CheckpointError(f"How many attention heads the {prefix} of width {width} has cannot be read off its tensors, the "
                              f"file does not say, and no published model has that width; give it: --num-heads")
    if known[0] < 1 or width % known[0] or (told is not None and known[0] != told):
        raise CheckpointError(f"The {prefix} cannot have {known[0]} attention heads: "
                              + (f"the tensors are for {told}." if told else f"they do not divide its width of {width}."))
    return known[0]


def expected_shapes(layout: Layout) -> Shapes:
    """The shape of every tensor of a model of these sizes."""
    encoder, predictor = layout.encoder, layout.predictor
    before = layout.num_conditions if layout.mar else 0
    shapes: Shapes = {
        "class_emb.weight": (layout.num_classes, encoder.width), "fake_latent": (1, encoder.width),
        "encoder_pos_embed_learned": (1, before + layout.num_tokens, encoder.width), "mask_token": (1, 1, predictor.width),
        "decoder_pos_embed_learned": (1, before + layout.num_tokens, predictor.width),
        **linear("z_proj", encoder.width, layout.channels), **norm("z_proj_ln", encoder.width), **_blocks(encoder),
        **linear("decoder_embed", predictor.width, encoder.width), **_blocks(predictor),
        **_head_shapes(layout),
    }
    if layout.mar:
        shapes["diffusion_pos_embed_learned"] = (1, layout.num_tokens, predictor.width)
    else:
        shapes["buffer"] = (1, layout.num_conditions, encoder.width)
    if layout.feature_head:
        hidden = 4 * predictor.width
        shapes |= {**linear("jepaloss.net.fc1", hidden, predictor.width), **norm("jepaloss.net.norm", hidden),
                   **linear("jepaloss.net.fc2", encoder.width, hidden)}
    return shapes


def _blocks(trunk: Trunk) -> Shapes:
    shapes, width = norm(f"{trunk.prefix}_norm", trunk.width), trunk.width
    for number in range(trunk.depth):
        block = f"{trunk.prefix}_blocks.{number}"
        shapes |= {**norm(f"{block}.norm1", width), **linear(f"{block}.attn.qkv", 3 * width, width),
                   **linear(f"{block}.attn.proj", width, width), **norm(f"{block}.norm2", width),
                   **linear(f"{block}.mlp.fc1", trunk.hidden, width), **linear(f"{block}.mlp.fc2", width, trunk.hidden)}
        if trunk.qk_norm:
            shapes |= {f"{block}.attn.{name}.weight": (width // trunk.num_heads,) for name in ("q_norm", "k_norm")}
    return shapes


def _head_shapes(layout: Layout) -> Shapes:
    net, width = "diffloss.net", layout.head_width
    outputs = layout.channels if layout.head == "flow" else 2 * layout.channels
    shapes = {**linear(f"{net}.time_embed.mlp.0", width, NUM_TIME_FREQUENCIES),
              **linear(f"{net}.time_embed.mlp.2", width, width),
              **linear(f"{net}.cond_embed", width, layout.predictor.width),
              **linear(f"{net}.input_proj", width, layout.channels),
              **linear(f"{net}.final_layer.linear", outputs, width),
              **linear(f"{net}.final_layer.adaLN_modulation.1", 2 * width, width)}
    for number in range(layout.head_depth):
        block = f"{net}.res_blocks.{number}"
        shapes |= {**norm(f"{block}.in_ln", width), **linear(f"{block}.mlp.0", width, width),
                   **linear(f"{block}.mlp.2", width, width), **linear(f"{block}.adaLN_modulation.1", 3 * width, width)}
    return shapes
