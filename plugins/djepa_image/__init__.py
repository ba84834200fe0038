"""Pictures: what this plugin offers, by name; imports none of it."""

from __future__ import annotations

from djepa.hookspecs import Register, hookimpl


@hookimpl
def djepa_register_modalities(register: Register) -> None:
    register("image", "djepa_image.modality:Image", summary="pictures, grey or colour: png, jpg, webp")


@hookimpl
def djepa_register_datasets(register: Register) -> None:
    register("digits", "djepa_image.digits:Digits", summary="1,797 handwritten digits, 8x8; ships with the package")
    register("image-folder", "djepa_image.folder:ImageFolder", summary="a folder of pictures, one sub-folder per class")
    register("imagenet", "djepa_image.imagenet:ImageNet", summary="ImageNet's 1,000 classes by name, from its unpacked folders")


@hookimpl
def djepa_register_feature_extractors(register: Register) -> None:
    register("digits-reader", "djepa_image.reader:DigitsReader",
             summary="pictures of digits, 8x8, through a small classifier that ships with the package")
    register("image-encoder", "djepa_image.encoder:ImageEncoder",
             summary="pictures through a network of transformers (DINOv2, CLIP, ...) from a local folder")
    register("torchvision", "djepa_image.encoder:TorchvisionClassifier",
             summary="pictures through a classifier of torchvision with weights from a local file")
