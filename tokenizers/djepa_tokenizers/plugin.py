"""What this package offers, by name; imports none of it."""

from __future__ import annotations

from djepa.hookspecs import Register, hookimpl


@hookimpl
def djepa_register_tokenizers(register: Register) -> None:
    register("patchify", "djepa_tokenizers.patchify:Patchify",
             summary="blocks of the sample itself, along any axes, normalized; lossless")
    register("autoencoder", "djepa_tokenizers.autoencoder:Autoencoder",
             summary="latents of a frozen autoencoder of diffusers, brought to unit scale")
    register("log-mel", "djepa_tokenizers.log_mel:LogMel",
             summary="patches of a logarithmic mel spectrogram of a sound; phases by Griffin-Lim or a vocoder")
