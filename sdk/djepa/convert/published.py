"""What is known of the published models beyond their tensors: where they fit, and how they were meant to generate."""

from __future__ import annotations

from typing import Any, Literal

Kind = Literal["mar", "djepa", "kl16"]
HeadKind = Literal["gaussian", "flow"]

MODALITY = STREAM = "image"  # all of them generate pictures
CONDITION = "label"
AXES = ("y", "x")
PAPERS = {
    "mar": "Autoregressive Image Generation without Vector Quantization, arXiv 2406.11838",
    "djepa": "Denoising with a Joint-Embedding Predictive Architecture, arXiv 2410.03755",
}

LATENT_SCALE = 0.2325                         # tokens = latents * this: one over the standard deviation of KL-16 latents
NUM_LATENT_CHANNELS = 16                      # of KL-16
NUM_COLOURS = 3
MAX_HALVINGS = 7                              # of a picture's sides by an autoencoder, at most
NUM_HEADS = {768: 12, 1024: 16, 1280: 16}     # attention heads by width (B, L, H): no tensor tells
NUM_TIME_FREQUENCIES = 256                    # rows of the sinusoid that the head's time MLP reads


def generate_settings(kind: Kind, head: HeadKind) -> dict[str, Any]:
    """The settings of the papers, guidance off; the schedule is what they use when it is switched on.

    The published flow models integrate over 100 points in time, which is 99 evaluations, and ignore the temperature.
    Estimates of clean tokens are left free: latents have no range.
    """
    flow = head == "flow"
    return {
        "num_steps": 64,
        "num_denoising_steps": 99 if flow else 100,
        "temperature": 1.0 if flow or kind == "mar" else 0.94,
        "guidance_scale": 1.0,
        "guidance_schedule": "linear",
        "clamp": False,
    }
