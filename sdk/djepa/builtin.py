"""What the core itself contributes, registered like any plugin's."""

from __future__ import annotations

from djepa.hookspecs import Register, hookimpl


@hookimpl
def djepa_register_heads(register: Register) -> None:
    register("gaussian", "djepa.heads.gaussian:GaussianHead", summary="diffusion with learned variance (MAR, D-JEPA)")
    register("flow", "djepa.heads.flow:FlowHead", summary="flow matching on straight paths")


@hookimpl
def djepa_register_conditioners(register: Register) -> None:
    register("class", "djepa.conditioner:ClassConditioner", summary="one of a closed list of names")


@hookimpl
def djepa_register_datasets(register: Register) -> None:
    register("cached", "djepa.cache:Cached", summary="what djepa cache wrote: another dataset, already encoded")


@hookimpl
def djepa_register_orders(register: Register) -> None:
    register("random", "djepa.order:RandomOrder", summary="a uniformly random permutation per sample")
    register("raster", "djepa.order:RasterOrder", summary="row by row, as the tokens are laid out")
    register("causal", "djepa.order:CausalOrder", summary="along one axis, random among equal coordinates")


@hookimpl
def djepa_register_attention_backends(register: Register) -> None:
    register("sdpa", "djepa.nn.attention:SdpaBackend", summary="torch's scaled_dot_product_attention, any device")
    register("xformers", "djepa.nn.attention:XformersBackend", summary="xformers memory-efficient attention, CUDA only")
