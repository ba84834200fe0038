"""Features of pictures by pretrained networks: any of transformers, and the classifiers of torchvision."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from djepa.errors import CheckpointError, UsageError, suggest
from djepa.evaluate.extractor import FeatureExtractor, Features
from djepa.storage import read_tensors
from djepa.tokens import Sample
from djepa_tokenizers.pretrained_encoder import PretrainedEncoder

RGB = 3


class ImageEncoder(FeatureExtractor):
    """What a network of transformers makes of pictures: DINOv2, CLIP, SigLIP, ViT, ..., prepared as it was trained.

    The vector is the network's own summary (of a CLIP its embedding, else `pooler_output`), or the mean over all places where
    it makes none. Networks saved as classifiers of pictures give logits too.

    Args:
        source: folder that transformers saved the network and its preprocessor to, with weights in safetensors.

    Raises:
        CheckpointError: there is no such folder, or it is damaged.
        UsageError: transformers is not installed.
    """

    modalities = ("image",)

    def __init__(self, *, source: str) -> None:
        self._encoder = PretrainedEncoder(source, "AutoImageProcessor", "image")

    def extract(self, samples: Sequence[Sample]) -> Features:
        # One by one, for pictures may differ in size; what is prepared does not.
        pictures = [in_bytes(in_colour(sample.data)) for sample in samples]
        inputs = [self._encoder.prepare(picture, return_tensors="pt")["pixel_values"] for picture in pictures]
        return Features(*self._encoder.features({"pixel_values": torch.cat(inputs)}))

    def to(self, device: torch.device) -> Self:
        self._encoder.to(device)
        return self

    def fingerprint(self) -> str:
        return self._encoder.fingerprint()


class TorchvisionClassifier(FeatureExtractor):
    """What a classifier of torchvision sees in pictures: what its last layer is given, and what that answers.

    Pictures are resized, cropped and normalized by the transforms that come with torchvision's own weights of the model.

    Args:
        model: name of the model in torchvision, such as "resnet50" or "inception_v3".
        weights: file with its parameters: safetensors, or a state dict that torch saved (read without unpickling code).
        num_classes: that it tells apart.

    Raises:
        UsageError: torchvision has no such classifier.
        CheckpointError: there is no such file, or it is damaged or of another model.
    """

    modalities = ("image",)

    def __init__(self, *, model: str, weights: str, num_classes: int = 1000) -> None:
        from torchvision import models

        known = models.list_models(module=models)
        if model not in known:
            raise UsageError(f"torchvision has no classifier {model!r}. {suggest(model, known)}")
        self.path = Path(weights).expanduser().resolve()
        if not self.path.is_file():
            raise CheckpointError(f"There is no file {weights!r} with the weights of {model!r}.")
        self._prepare = next(iter(models.get_model_weights(model))).transforms()
        self._network, self._last = _classifier(model, _read(self.path), num_classes, str(self.path))
        self._device = torch.device("cpu")

    def extract(self, samples: Sequence[Sample]) -> Features:
        batch = torch.cat([self._prepare((in_colour(sample.data)[None] + 1.0).clamp(0.0, 2.0) / 2) for sample in samples])
        given: list[Tensor] = []
        hook = self._last.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
        try:
            with torch.inference_mode():
                logits = self._network(batch.to(self._device))
        finally:
            hook.remove()
        return Features(given[0].flatten(1).float().cpu(), logits.float().cpu())

    def to(self, device: torch.device) -> Self:
        self._device = device
        self._network.to(device)
        return self

    def fingerprint(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def in_colour(data: Float[Tensor, "c y x"]) -> Float[Tensor, "3 y x"]:
    """A picture of three channels."""
    return data.float().cpu().expand(RGB, *data.shape[1:])


def in_bytes(data: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """Levels of 0 to 255, as files hold them."""
    return ((data.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


def _classifier(name: str, tensors: dict[str, Tensor], num_classes: int, source: str) -> tuple[nn.Module, nn.Linear]:
    """The network with these weights, and its last layer."""
    from torchvision import models

    builder = models.get_model_builder(name)
    quick = {"init_weights": False} if "init_weights" in inspect.signature(builder).parameters else {}
    with torch.device("meta"):  # weights are not drawn only to be replaced
        network: Any = builder(weights=None, num_classes=num_classes, **quick)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear or linear[-1].out_features != num_classes:
        raise UsageError(f"{name!r} of torchvision does not end in a linear layer, whose inputs would be features.")
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{source!r} does not hold the weights of {name!r} with {num_classes} classes: "
                              f"{str(error).splitlines()[-1].strip()}") from error
    return network.float().eval().requires_grad_(False), linear[-1]


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch makes of a file it does not expect
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{str(path)!r} is damaged, or no state dict of tensors alone ({reason}).") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError(f"{str(path)!r} holds something else than a state dict of tensors.")
    return dict(tensors)
