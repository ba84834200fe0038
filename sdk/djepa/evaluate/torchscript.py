"""Features of a network in a TorchScript file, such as the Inception of FID or the I3D of FVD as their authors publish them."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from djepa.errors import CheckpointError, UsageError
from djepa.evaluate.extractor import FeatureExtractor, Features, stacked
from djepa.tokens import Sample

TRUSTED = "DJEPA_TORCHSCRIPT"  # environment variable: the files that may be executed, separated as in PATH


class TorchScript(FeatureExtractor):
    """What the network of a TorchScript file makes of samples.

    A TorchScript file is code, and loading it runs that code. A recipe may come from a stranger, and so may a file beside it;
    hence a file is loaded only if it is named in the environment variable DJEPA_TORCHSCRIPT, which nothing but the person who
    runs the program sets (`djepa evaluate --torchscript FILE` does it for its own run). Everything else that djepa loads is
    data.

    The network is handed a batch of samples of one shape (b, channels, ...) and returns features (b, f), or a pair of features
    and logits. Trailing sizes of 1 are dropped.

    Args:
        path: of the file.
        channels: that the network wants; samples of one channel are repeated.
        size: (height, width) that the last two axes are resized to, bilinearly and with antialiasing; None leaves them.
        levels: "unit" for values as they are, in [-1, 1] for most media; "bytes" for uint8 of 0 to 255.
        arguments: handed to the network by name, such as {"return_features": true}.

    Raises:
        UsageError: the file is not named in DJEPA_TORCHSCRIPT.
        CheckpointError: there is no such file.
    """

    def __init__(
        self, *, path: str, channels: int | None = None, size: tuple[int, int] | None = None,
        levels: Literal["unit", "bytes"] = "unit", arguments: dict[str, bool] | None = None,
    ) -> None:
        self.path = Path(path).expanduser().resolve()
        self.channels, self.size, self.levels, self.arguments = channels, size, levels, dict(arguments or {})
        if not self.path.is_file():
            raise CheckpointError(f"There is no TorchScript file {path!r}.")
        trusted = [Path(one).expanduser().resolve() for one in os.environ.get(TRUSTED, "").split(os.pathsep) if one]
        if self.path not in trusted:
            raise UsageError(f"The TorchScript file {str(self.path)!r} is code, which would be executed. If you trust it, say "
                             f"so: djepa evaluate ... --torchscript {self.path}, or {TRUSTED}={self.path} in the environment.")
        self._device = torch.device("cpu")
        self._network: Any = None

    def extract(self, samples: Sequence[Sample]) -> Features:
        batch = self._prepared(stacked(samples, "torchscript")).to(self._device)
        try:
            with torch.inference_mode():
                found = self._loaded()(batch, **self.arguments)
        except RuntimeError as error:
            raise UsageError(f"The network in {str(self.path)!r} does not take samples of shape {tuple(batch.shape[1:])}: "
                             f"{_last_line(error)}") from error
        vectors, logits = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
        if not isinstance(vectors, Tensor):
            raise UsageError(f"The network in {str(self.path)!r} returns {type(vectors).__name__}; expected a tensor of "
                             f"features, or one of features and one of logits.")
        return Features(_rows(vectors), None if logits is None else _rows(logits))

    def to(self, device: torch.device) -> Self:
        self._device = device
        if self._network is not None:
            self._network.to(device)
        return self

    def fingerprint(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _prepared(self, batch: Tensor) -> Tensor:
        if self.channels is not None and batch.shape[1] == 1:
            batch = batch.expand(-1, self.channels, *batch.shape[2:])
        if self.size is not None:
            if batch.ndim < 4:
                raise UsageError(f"size={list(self.size)}: samples of shape {tuple(batch.shape[1:])} have no height and width.")
            planes = batch.flatten(0, -4) if batch.ndim > 4 else batch
            resized = functional.interpolate(planes, self.size, mode="bilinear", align_corners=False, antialias=True)
            batch = resized.unflatten(0, batch.shape[:-3]) if batch.ndim > 4 else resized
        return batch if self.levels == "unit" else ((batch + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def _loaded(self) -> Any:
        if self._network is None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as a whole
                    self._network = torch.jit.load(self.path, map_location=self._device).eval()
            except (RuntimeError, ValueError) as error:
                raise CheckpointError(f"{str(self.path)!r} is damaged or no TorchScript file ({_last_line(error)}).") from error
        return self._network


def _rows(found: Tensor) -> Tensor:
    return found.float().cpu().flatten(1) if found.shape[2:].numel() == 1 else found.float().cpu()


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
