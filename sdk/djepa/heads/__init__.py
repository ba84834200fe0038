"""Denoising heads: from a context vector to a sample of the token it stands for."""

from djepa.heads.head import DenoisingHead, Guidance, Noise

__all__ = ["DenoisingHead", "Guidance", "Noise"]
