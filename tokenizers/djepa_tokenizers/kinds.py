"""The autoencoders of diffusers that tokens can be made of, and what each class has of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

Sizes = tuple[tuple[int, int], ...]

# Two sizes along each axis of the media, both of whole latents, from which probing tells what a latent covers. They have as
# many divisors as strides may be: powers of two; of frames, after a first one, numbers up to 24; of sound whatever there is.
_PICTURE: Sizes = ((128, 256), (128, 256))
_VIDEO: Sizes = ((1, 25), (64, 128), (64, 128))
_SOUND: Sizes = ((2**13 * 3 * 5 * 7, 2**14 * 3 * 5 * 7),)

KINDS: Mapping[str, Sizes] = {
    "AutoencoderKL": _PICTURE,
    "AutoencoderTiny": _PICTURE,
    "AutoencoderDC": _PICTURE,
    "AutoencoderKLFlux2": _PICTURE,
    "AutoencoderKLWan": _VIDEO,
    "AutoencoderKLLTXVideo": _VIDEO,
    "AutoencoderKLCogVideoX": _VIDEO,
    "AutoencoderKLHunyuanVideo": _VIDEO,
    "AutoencoderKLMochi": _VIDEO,
    "AutoencoderKLCosmos": _VIDEO,
    "AutoencoderKLQwenImage": _VIDEO,
    "AutoencoderOobleck": _SOUND,
    "AutoencoderSAME": _SOUND,
}

STATISTICS = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")  # what configurations say of the scale
_FLUX, _LTX = "AutoencoderKLFlux2", "AutoencoderKLLTXVideo"
SCALE_IN_WEIGHTS = frozenset({_FLUX, _LTX})  # not in the configuration, or there without meaning


def refusal(kind: str, config: Mapping[str, Any]) -> str:
    """Why no tokens can be made with a configuration of a class that is supported otherwise; "" if they can."""
    if kind == _LTX and any(config.get("decoder_inject_noise", ())):
        return "its decoder draws noise of its own (decoder_inject_noise): the same tokens would not give the same sample"
    if kind == _FLUX and len(set(config.get("patch_size", ()))) > 1:
        return f"its patch_size {config['patch_size']} is not as high as it is wide"
    return ""


def encoded(module: Any, data: Tensor) -> list[Tensor]:
    """What the encoder of a network makes of samples: latents, or their means and their log variances."""
    output = module.encode(data)
    if hasattr(output, "latent_dist"):
        drawn = output.latent_dist
        parts = [drawn.mean, drawn.logvar] if hasattr(drawn, "logvar") else [drawn.mode()]
    else:
        parts = [output.latent if hasattr(output, "latent") else output.latents]
    block = _block(module)
    return [functional.pixel_unshuffle(part, block) for part in parts] if block > 1 else parts


def decoded(module: Any, latents: Tensor) -> Tensor:
    """The samples that the decoder of a network makes of latents."""
    if _block(module) > 1:
        latents = functional.pixel_shuffle(latents, _block(module))
    if getattr(module.config, "timestep_conditioning", False):  # LTX: how much noise is left in the latents, which is none
        return module.decode(latents, latents.new_zeros(len(latents))).sample
    return module.decode(latents).sample


def own_statistics(module: Any) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation per channel out of the weights, as the pipelines of diffusers apply them.

    None where there are none, or nobody has filled them in.
    """
    kind = type(module).__name__
    if kind == _FLUX:
        mean, std = module.bn.running_mean, (module.bn.running_var + module.bn.eps).sqrt()
        trivial = bool((mean == 0).all() and (module.bn.running_var == 1).all())
    elif kind == _LTX:
        mean, std = module.latents_mean, module.latents_std
        trivial = bool((mean == 0).all() and (std == 1).all())
    else:
        return None
    return None if trivial else (mean.double().tolist(), std.double().tolist())


def _block(module: Any) -> int:
    """Side of the blocks of latents that count as one. Flux.2 has statistics for each place in them, so they stay together."""
    return module.config.patch_size[0] if type(module).__name__ == _FLUX else 1
