"""Every way a plugin can add to djepa, on one page.

A plugin is a light module (no torch import) named by an entry point of the group ``djepa``:

    # pyproject.toml                         # my_plugin.py
    [project.entry-points.djepa]             import djepa
    mocap = "my_plugin"
                                             @djepa.hookimpl
                                             def djepa_register_modalities(register):
                                                 register("mocap", "my_plugin_impl:Mocap", summary="Motion capture")

Names are lower case; targets are ``"package.module:Class"`` strings, imported when they are first used. What a class
takes as *keyword-only* arguments are its settings, which a recipe may give beside ``kind:``; what it takes by position
the core provides.
"""

from __future__ import annotations

from typing import Protocol

import pluggy

PROJECT = "djepa"
CONTRACT = (1, 0)  # a plugin may set DJEPA_CONTRACT; another major or a newer minor is refused before anything runs

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """What a registration hook is handed: call it once per contribution."""

    def __call__(self, name: str, target: str, *, summary: str = "") -> None:
        """Offer `target` ("package.module:Class") under `name`."""
        ...


class HookSpecs:
    """The hooks, each called once with a `register` callback."""

    @hookspec
    def djepa_register_modalities(self, register: Register) -> None:
        """Kinds of media: subclasses of `djepa.Modality`."""

    @hookspec
    def djepa_register_tokenizers(self, register: Register) -> None:
        """Samples to tokens and back: subclasses of `djepa.Tokenizer`, built as `Class(media, **options)`."""

    @hookspec
    def djepa_register_conditioners(self, register: Register) -> None:
        """Raw conditions to condition tokens: subclasses of `djepa.Conditioner`, built as `Class(width, **options)`."""

    @hookspec
    def djepa_register_heads(self, register: Register) -> None:
        """Denoising heads: subclasses of `djepa.DenoisingHead`, built as `Class(channels, context_width, **options)`."""

    @hookspec
    def djepa_register_orders(self, register: Register) -> None:
        """Generation orders: subclasses of `djepa.order.GenerationOrder`, built as `Class(**options)`."""

    @hookspec
    def djepa_register_attention_backends(self, register: Register) -> None:
        """Attention kernels: subclasses of `djepa.nn.attention.AttentionBackend`, built as `Class()`."""

    @hookspec
    def djepa_register_datasets(self, register: Register) -> None:
        """Sources of examples: subclasses of `djepa.Dataset`, built as `Class(**options)`."""

    @hookspec
    def djepa_register_feature_extractors(self, register: Register) -> None:
        """Samples to the vectors that metrics compare: subclasses of `djepa.FeatureExtractor`, built as `Class(**options)`."""

    @hookspec
    def djepa_register_metrics(self, register: Register) -> None:
        """Figures of generated samples beside real ones: subclasses of `djepa.Metric`, built as `Class(**options)`."""

    @hookspec
    def djepa_register_recipes(self, register: Register) -> None:
        """Packages of recipes and models: `register("my_pack", "my_package")`.

        Every ``a/b.yaml`` in the package's folder becomes the recipe ``a/b``; every folder ``a/b/`` with a
        ``config.json`` in it becomes the shipped model ``a/b``.
        """
