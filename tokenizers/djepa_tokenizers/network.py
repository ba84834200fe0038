"""The network of an autoencoder at work: frozen, in float32, on batches of any size and samples of any size."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from djepa.errors import CheckpointError, UsageError
from djepa_tokenizers.latents import Config, latent_space
from djepa_tokenizers.pretrained import CONFIG, WEIGHTS, Source, load_network, read_config, save_network
from djepa_tokenizers.tiles import tiled

PLACES_AT_A_TIME = 2**20  # pixels computed together: that many take a network of full size about 3 GB


class Network:
    """Encoder and decoder of an autoencoder; its weights are read when they are first needed.

    Results come back on the device of what was given, wherever the network is.

    Args:
        config: of the autoencoder.
        source: where its weights are; None while that is not known.
        tile: size in pixels above which samples are computed in overlapping tiles.
    """

    def __init__(self, config: Config, source: Source | None, tile: int | None) -> None:
        self.config, self.source, self.tile = config, source, tile
        self.strides = latent_space(config).strides
        self._module: Any = None
        self._device = torch.device("cpu")

    def encode(self, data: Float[Tensor, "b ..."]) -> Float[Tensor, "b moments ..."]:
        """What the encoder makes of samples of one shape: latents, or their means and then their log variances."""
        module = self._loaded()
        return self._computed(lambda part: _moments(module.encode(part)), data, self.strides, (1,) * len(self.strides))

    def decode(self, latents: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """The samples of latents of one shape."""
        module = self._loaded()
        return self._computed(lambda part: module.decode(part).sample, latents, (1,) * len(self.strides), self.strides)

    def _computed(
        self, function: Callable[[Tensor], Tensor], data: Float[Tensor, "b ..."], taken: Sequence[int], given: Sequence[int]
    ) -> Float[Tensor, "b ..."]:
        """`function` of a batch, a few samples at a time, each in tiles if it is large.

        Args:
            function: the encoder or the decoder.
            data: samples or latents.
            taken, given: steps per latent of what goes in and of what comes out, along each axis.
        """
        grid = [size // step for size, step in zip(data.shape[2:], taken, strict=True)]
        cells = [count if self.tile is None else min(count, self.tile // stride)
                 for count, stride in zip(grid, self.strides, strict=True)]
        places = math.prod(count * stride for count, stride in zip(cells, self.strides, strict=True))
        parts = data.to(torch.float32).split(max(1, PLACES_AT_A_TIME // places))
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            done = [tiled(function, part.to(self._device), cells, taken, given).to(data.device) for part in parts]
        assert done[0].shape[2:] == tuple(count * step for count, step in zip(grid, given, strict=True)), done[0].shape
        return torch.cat(done)

    def _loaded(self) -> Any:
        if self._module is None:
            if self.source is None:
                raise UsageError("This autoencoder has a configuration but no weights yet: they come from a source, or out of "
                                 "the model folder it was saved with.")
            self._module = load_network(self.config, self.source.file(WEIGHTS)).to(self._device)
        return self._module

    def to(self, device: torch.device) -> None:
        """Compute on this device from now on."""
        self._device = torch.device(device)
        if self._module is not None:
            self._module.to(self._device)

    def digest(self) -> str:
        """SHA-256 of the weights, in hexadecimal."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._loaded().state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the folder that `load`, a `Source` and diffusers read.

        Raises:
            OSError: the disk refused.
        """
        save_network(self._loaded(), folder)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; the source is not needed any more.

        Raises:
            CheckpointError: a file is missing or damaged, or belongs to another autoencoder.
        """
        stored = read_config(folder / CONFIG)
        for key in sorted(stored.keys() & self.config.keys()):
            if stored[key] != self.config[key]:
                raise CheckpointError(f"{str(folder / CONFIG)!r} describes another autoencoder than the model's: {key} is "
                                      f"{json.dumps(stored[key])}, not {json.dumps(self.config[key])}.")
        self._module = load_network(self.config, folder / WEIGHTS).to(self._device)


def _moments(output: Any) -> Tensor:
    """Latents, or means and log variances one after the other; diffusers' classes say it in three ways."""
    if hasattr(output, "latent_dist"):
        return torch.cat([output.latent_dist.mean, output.latent_dist.logvar], dim=1)
    return output.latent if hasattr(output, "latent") else output.latents
