"""The KL autoencoder of latent diffusion (and MAR's KL-16), from its original naming to a folder of diffusers' AutoencoderKL.

Written without diffusers: its own converter ignores the attention inside levels, which KL-16 has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from djepa.convert.published import LATENT_SCALE
from djepa.convert.shapes import Shapes, Tensors, convolution, count, norm, size
from djepa.errors import CheckpointError, UsageError
from djepa.files import atomic_folder
from djepa.storage import write_tensors

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
NUM_GROUPS = 32  # of every group norm
DROPPED = "loss."  # the discriminator and perceptual loss of its training


@dataclass(frozen=True)
class Layout:
    """The sizes of an autoencoder.

    Attributes:
        channels: of each level, the finest first.
        num_blocks: residual blocks per level of the encoder; the decoder has one more.
        pixels, outputs, latents: channels of what it reads, what it writes, and of its latents.
        encoder_attention, decoder_attention: whether a level attends after every block.
        middle_attention: whether the blocks between encoder and latents do.
    """

    channels: tuple[int, ...]
    num_blocks: int
    pixels: int
    outputs: int
    latents: int
    encoder_attention: tuple[bool, ...]
    decoder_attention: tuple[bool, ...]
    middle_attention: bool


def is_autoencoder(tensors: Tensors) -> bool:
    """Whether this is a state dict of such an autoencoder."""
    return {"encoder.conv_in.weight", "decoder.conv_in.weight", "post_quant_conv.weight"} <= set(tensors)


def infer(tensors: Tensors) -> Layout:
    """The sizes of an autoencoder.

    Raises:
        CheckpointError: a tensor that tells a size is missing, or diffusers has no autoencoder of these sizes.
    """
    levels = range(count(tensors, "encoder.down"))
    channels = tuple(size(tensors, f"encoder.down.{level}.block.0.conv1.weight", 0, 4) for level in levels)
    uneven = [width for width in channels if width % NUM_GROUPS]
    if uneven:
        raise CheckpointError(f"A level has {uneven[0]} channels; its group norms need a multiple of {NUM_GROUPS}.")
    return Layout(
        channels=channels, num_blocks=count(tensors, "encoder.down.0.block"),
        pixels=size(tensors, "encoder.conv_in.weight", 1, 4), outputs=size(tensors, "decoder.conv_out.weight", 0, 4),
        latents=size(tensors, "post_quant_conv.weight", 1, 4),
        encoder_attention=tuple(f"encoder.down.{level}.attn.0.q.weight" in tensors for level in levels),
        decoder_attention=tuple(f"decoder.up.{level}.attn.0.q.weight" in tensors for level in levels),
        middle_attention="encoder.mid.attn_1.q.weight" in tensors,
    )


def expected_shapes(layout: Layout) -> Shapes:
    """The shape of every tensor of an autoencoder of these sizes."""
    first, last, latents = layout.channels[0], layout.channels[-1], layout.latents
    shapes = {
        **convolution("encoder.conv_in", first, layout.pixels, 3), **convolution("encoder.conv_out", 2 * latents, last, 3),
        **convolution("quant_conv", 2 * latents, 2 * latents, 1), **convolution("post_quant_conv", latents, latents, 1),
        **convolution("decoder.conv_in", last, latents, 3), **convolution("decoder.conv_out", layout.outputs, first, 3),
        **norm("encoder.norm_out", last), **norm("decoder.norm_out", first),
        **_middle("encoder.mid", layout), **_middle("decoder.mid", layout),
    }
    top = len(layout.channels) - 1
    for level, width in enumerate(layout.channels):
        down, up = f"encoder.down.{level}", f"decoder.up.{level}"
        below, above = layout.channels[max(level - 1, 0)], layout.channels[min(level + 1, top)]
        shapes |= _level(down, below, width, layout.num_blocks, layout.encoder_attention[level])
        shapes |= _level(up, above, width, layout.num_blocks + 1, layout.decoder_attention[level])
        if level < top:
            shapes |= convolution(f"{down}.downsample.conv", width, width, 3)
        if level > 0:
            shapes |= convolution(f"{up}.upsample.conv", width, width, 3)
    return shapes


def _level(name: str, inputs: int, width: int, num_blocks: int, attends: bool) -> Shapes:
    shapes: Shapes = {}
    for number in range(num_blocks):
        shapes |= _block(f"{name}.block.{number}", width if number else inputs, width)
        if attends:
            shapes |= _attention(f"{name}.attn.{number}", width)
    return shapes


def _middle(name: str, layout: Layout) -> Shapes:
    width = layout.channels[-1]
    return {**_block(f"{name}.block_1", width, width), **_block(f"{name}.block_2", width, width),
            **(_attention(f"{name}.attn_1", width) if layout.middle_attention else {})}


def _block(name: str, inputs: int, width: int) -> Shapes:
    return {**norm(f"{name}.norm1", inputs), **convolution(f"{name}.conv1", width, inputs, 3),
            **norm(f"{name}.norm2", width), **convolution(f"{name}.conv2", width, width, 3),
            **(convolution(f"{name}.nin_shortcut", width, inputs, 1) if inputs != width else {})}


def _attention(name: str, width: int) -> Shapes:
    shapes = norm(f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= convolution(f"{name}.{part}", width, width, 1)
    return shapes


_LEVEL = re.compile(r"(?:(encoder\.down)|(decoder\.up))\.(\d+)\.(block|attn|downsample|upsample)")
_BELOW = {"block": "resnets", "attn": "attentions", "downsample": "downsamplers.0", "upsample": "upsamplers.0"}
_ELSEWHERE = {"mid.block_1": "mid_block.resnets.0", "mid.block_2": "mid_block.resnets.1",
              "mid.attn_1": "mid_block.attentions.0", "norm_out": "conv_norm_out"}
_IN_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def converted(name: str, tensor: Tensor, layout: Layout) -> tuple[str, Tensor]:
    """What diffusers calls a tensor, and the tensor as it wants it: float32, the projections of attention as matrices."""
    renamed = _LEVEL.sub(lambda found: _level_name(found, len(layout.channels)), name)
    for old, new in _ELSEWHERE.items():
        renamed = renamed.replace(f".{old}.", f".{new}.")
    if ".attentions." not in renamed:
        return renamed.replace(".nin_shortcut.", ".conv_shortcut."), tensor.float()
    place, part, end = renamed.rsplit(".", 2)
    return f"{place}.{_IN_ATTENTION[part]}.{end}", tensor.flatten(1).float() if tensor.dim() == 4 else tensor.float()


def _level_name(found: re.Match[str], num_levels: int) -> str:
    encoder, level, below = found[1], int(found[3]), _BELOW[found[4]]
    if encoder:
        return f"encoder.down_blocks.{level}.{below}"
    return f"decoder.up_blocks.{num_levels - 1 - level}.{below}"  # diffusers counts from the coarsest


def diffusers_config(layout: Layout) -> dict[str, Any]:
    """The `config.json` of a diffusers AutoencoderKL of these sizes."""
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": list(layout.channels),
        "down_block_types": ["AttnDownEncoderBlock2D" if attends else "DownEncoderBlock2D"
                             for attends in layout.encoder_attention],
        "in_channels": layout.pixels,
        "latent_channels": layout.latents,
        "layers_per_block": layout.num_blocks,
        "mid_block_add_attention": layout.middle_attention,
        "norm_num_groups": NUM_GROUPS,
        "out_channels": layout.outputs,
        "sample_size": 16 * 2 ** (len(layout.channels) - 1),
        "scaling_factor": LATENT_SCALE,
        "up_block_types": ["AttnUpDecoderBlock2D" if attends else "UpDecoderBlock2D"
                           for attends in reversed(layout.decoder_attention)],
        "use_post_quant_conv": True,
        "use_quant_conv": True,
    }


def save(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a diffusers folder, all of it or nothing.

    Raises:
        UsageError: the folder holds other things, which would be lost.
        StorageError: the disk refused.
    """
    others = sorted({path.name for path in folder.iterdir()} - {CONFIG, WEIGHTS}) if folder.is_dir() else []
    if others:
        raise UsageError(f"{str(folder)!r} holds more than an autoencoder ({', '.join(others[:5])}), and writing one there "
                         f"would delete that; choose a folder of its own.")
    with atomic_folder(folder) as temporary:
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        write_tensors(temporary / WEIGHTS, tensors)
