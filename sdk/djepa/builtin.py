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
    register("webdataset", "djepa.shards:WebDataset", summary="tar shards in the layout of WebDataset, of any kind of media")
    register("huggingface", "djepa.huggingface:HuggingFaceDataset",
             summary="tables of the library datasets: saved folders, parquet, json, the Hub")
    register("mixture", "djepa.mixture:Mixture", summary="other datasets, in given proportions")


@hookimpl
def djepa_register_orders(register: Register) -> None:
    register("random", "djepa.order:RandomOrder", summary="a uniformly random permutation per sample")
    register("raster", "djepa.order:RasterOrder", summary="row by row, as the tokens are laid out")
    register("causal", "djepa.order:CausalOrder", summary="along one axis, random among equal coordinates")


@hookimpl
def djepa_register_feature_extractors(register: Register) -> None:
    register("values", "djepa.evaluate.values:Values", summary="the numbers of a small sample themselves")
    register("torchscript", "djepa.evaluate.torchscript:TorchScript",
             summary="a network in a TorchScript file, which is code: it has to be named in DJEPA_TORCHSCRIPT")


@hookimpl
def djepa_register_metrics(register: Register) -> None:
    register("frechet", "djepa.evaluate.frechet:FrechetDistance", summary="distance of Gaussians, as FID; lower is better")
    register("kernel", "djepa.evaluate.kernel:KernelDistance", summary="unbiased discrepancy, as KID; lower is better")
    register("precision", "djepa.evaluate.manifold:Precision", summary="share of generated samples among real ones")
    register("recall", "djepa.evaluate.manifold:Recall", summary="share of real samples among generated ones")
    register("density", "djepa.evaluate.manifold:Density", summary="how densely real samples surround generated ones")
    register("coverage", "djepa.evaluate.manifold:Coverage", summary="share of real samples that have a generated one near")
    register("inception-score", "djepa.evaluate.inception_score:InceptionScore",
             summary="how sure and how varied a classifier's answers are; needs an extractor with logits")


@hookimpl
def djepa_register_attention_backends(register: Register) -> None:
    register("sdpa", "djepa.nn.attention:SdpaBackend", summary="torch's scaled_dot_product_attention, any device")
    register("xformers", "djepa.nn.attention:XformersBackend", summary="xformers memory-efficient attention, CUDA only")
