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
from djepa_tokenizers.kinds import SCALE_IN_WEIGHTS, decoded, encoded, own_statistics
from djepa_tokenizers.latents import Config, LatentSpace
from djepa_tokenizers.pretrained import CONFIG, WEIGHTS, Source, load_network, read_config, save_network
from djepa_tokenizers.tiles import tiled

PLACES_AT_A_TIME = 2**20  # steps of samples computed together: that many pixels take a network of full size about 3 GB


class Network:
    """Encoder and decoder of an autoencoder; its weights are read when they are first needed.

    Results come back on the device of what was given, wherever the network is.

    Args:
        config: of the autoencoder.
        source: where its weights are; None while that is not known.
        space: of its latents.
        tile: along each axis, the size in steps of the sample above which it is computed in overlapping tiles, or None.
    """

    def __init__(self, config: Config, source: Source | None, space: LatentSpace, tile: Sequence[int | None]) -> None:
        self.config, self.source, self.space, self.tile = config, source, space, tuple(tile)
        self._module: Any = None
        self._device = torch.device("cpu")

    def encode(self, data: Float[Tensor, "b ..."]) -> Float[Tensor, "b moments ..."]:
        """What the encoder makes of samples of one shape: latents, or their means and then their log variances.

        Args:
            data: of sizes that latents cover to the end.
        """
        module, sizes = self._loaded(), data.shape[2:]
        counts = [axis.count(size) for axis, size in zip(self.space.axes, sizes, strict=True)]
        return self._computed(lambda part: self._encoded(module, part), data, counts, sizes, counts)

    def decode(self, latents: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """The samples of latents of one shape."""
        module, counts = self._loaded(), latents.shape[2:]
        sizes = [axis.size(count) for axis, count in zip(self.space.axes, counts, strict=True)]
        return self._computed(lambda part: self._decoded(module, part), latents, counts, counts, sizes)

    def _encoded(self, module: Any, data: Tensor) -> Tensor:
        found = torch.cat(encoded(module, data[:, :, None] if self.space.still else data), dim=1)
        return found[:, :, 0] if self.space.still else found

    def _decoded(self, module: Any, latents: Tensor) -> Tensor:
        if self.space.still:
            return decoded(module, latents[:, :, None])[:, :, -1]
        made = decoded(module, latents)
        # Some causal decoders make as much of the first latent as of all others; the steps before its last stand for nothing.
        surplus = [size - axis.size(count) if axis.causal else 0
                   for axis, size, count in zip(self.space.axes, made.shape[2:], latents.shape[2:], strict=True)]
        return made[(..., *(slice(start, None) for start in surplus))]

    def _computed(
        self, function: Callable[[Tensor], Tensor], data: Float[Tensor, "b ..."], counts: Sequence[int], given: Sequence[int],
        made: Sequence[int],
    ) -> Float[Tensor, "b ..."]:
        """`function` of a batch, a few samples at a time, each in tiles if it is large.

        Args:
            function: the encoder or the decoder.
            data: samples or latents.
            counts: of the latents along each axis.
            given, made: sizes of what goes in and of what comes out.
        """
        # An axis that is not cut counts as a single cell, so that it need not be a multiple of anything.
        grid = [1 if tile is None else count for tile, count in zip(self.tile, counts, strict=True)]
        cells = [count if tile is None else min(count, tile // stride)
                 for count, tile, stride in zip(grid, self.tile, self.space.strides, strict=True)]
        taken, put = ([size // count for size, count in zip(sizes, grid, strict=True)] for sizes in (given, made))
        places = math.prod(count * max(steps) for count, *steps in zip(cells, taken, put, strict=True))
        parts = data.to(torch.float32).split(max(1, PLACES_AT_A_TIME // places))
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            done = [tiled(function, part.to(self._device), cells, taken, put).to(data.device) for part in parts]
        assert done[0].shape[2:] == tuple(made), (done[0].shape, made)
        return torch.cat(done)

    def statistics(self) -> tuple[list[float], list[float]] | None:
        """Mean and standard deviation of each latent channel, where the weights hold them."""
        return own_statistics(self._loaded()) if self.space.kind in SCALE_IN_WEIGHTS else None

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
