"""Autoencoder: tokens are the latents of a frozen network, cut into patches and brought to unit scale.

With strides s1, s2, ... of the network and patch sizes p1, p2, ..., a sample (C, S1, S2, ...) becomes a grid of
S1/(s1*p1) x S2/(s2*p2) x ... tokens, each a block of latents as `Patchify` cuts it: channel-major, row-major.

The network is one of diffusers, read from a folder or the Hub at first use. It computes in float32 whatever surrounds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from djepa.errors import LayoutError, UsageError
from djepa.tokenizer import EncodingNoise, Tokenizer
from djepa.tokens import Encoded, MediaSpec, Sample, TokenBatch, Tokens, TokenSpec
from djepa_tokenizers.latents import Config, LatentSpace, latent_space, plain_config
from djepa_tokenizers.network import Network
from djepa_tokenizers.patchify import Patchify
from djepa_tokenizers.pretrained import CONFIG, Source, read_config


class Autoencoder(Tokenizer):
    """Latents of a frozen autoencoder as tokens.

    Args:
        media: channels, axes and bounds of the samples.
        source: folder that diffusers saved the autoencoder to, or Hub repository ("owner/name", "owner/name/vae").
        config: its configuration, so that nothing is read before the weights are needed; without it that of the source.
        patch: latents per token along each axis, or per axis name.
        posterior: "sample" draws latents from the network's distribution where there is noise to draw with (training);
            "mode" never does.
        mean: of the latents, per channel or one number for all; both or neither. Without them what the configuration says;
            if that says nothing, the plain latents until `measured` has seen some data.
        std: of the latents, likewise.
        tile: size in pixels above which samples are computed in overlapping tiles, so that memory does not grow with them.
        revision: branch, tag or commit of a Hub repository.

    Raises:
        UsageError: neither source nor config, an autoencoder that is not supported, or a setting that cannot be.
        CheckpointError: the source has no configuration, or a damaged one.
    """

    cacheable = True

    def __init__(self, media: MediaSpec, *, source: str | None = None, config: dict[str, Any] | None = None,
                 patch: dict[str, int] | int = 1, posterior: Literal["sample", "mode"] = "sample",
                 mean: list[float] | float | None = None, std: list[float] | float | None = None, tile: int | None = None,
                 revision: str | None = None) -> None:
        if posterior not in ("sample", "mode"):
            raise UsageError(f"Autoencoder: posterior must be 'sample' or 'mode'; got {posterior!r}.")
        origin = None if source is None else Source(source, revision).absolute()
        plain = _configuration(config, origin)
        self.media, self.posterior = media, posterior
        self.latents = latent_space(plain)
        _check_axes(media, self.latents, tile)
        self._patches = _patches(media, self.latents, patch, mean, std)
        self._network = Network(plain, origin, tile)

    @property
    def spec(self) -> TokenSpec:
        """Width and axes of the tokens; latents have no bounds."""
        return self._patches.spec

    def layout(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The token grid of a sample of this shape (channels first).

        Raises:
            LayoutError: other channels or dimensions than the network's, or an axis its strides and patches do not divide.
        """
        names, channels = [axis.name for axis in self.media.axes], self.latents.media_channels
        if len(shape) != 1 + len(names) or shape[0] != channels:
            raise LayoutError(f"This autoencoder takes samples of shape ({', '.join([str(channels), *names])}), channels "
                              f"first; got {tuple(shape)}.")
        cells = [stride * patch for stride, patch in zip(self.latents.strides, self._patches.patch, strict=True)]
        for name, size, cell, stride in zip(names, shape[1:], cells, self.latents.strides, strict=True):
            if size % cell or size < 1:
                below = max(size // cell, 1) * cell
                raise LayoutError(f"Axis {name!r} has size {size}, which tokens of {cell} (stride {stride} times patch "
                                  f"{cell // stride}) do not divide; the nearest sizes that work are {below} and "
                                  f"{below + cell}.")
        return tuple(size // cell for size, cell in zip(shape[1:], cells, strict=True))

    def encode(self, sample: Sample) -> Tokens:
        """Tokens of one sample: the mode of the network's distribution."""
        return self.encode_batch([sample])[0]

    def encode_batch(self, samples: Sequence[Sample], noise: EncodingNoise | None = None) -> TokenBatch:
        """Tokens of several samples; those of one shape are computed together, a few at a time."""
        encoded = self.moments(samples)
        found: dict[int, Tensor] = {}
        for rows in _rows_by([item.shape for item in encoded]).values():
            moments = torch.stack([encoded[row].data for row in rows])
            found |= zip(rows, self._drawn(moments, rows, noise), strict=True)
        cut = self._patches.encode_batch([Sample(found[row], item.meta, item.modality) for row, item in enumerate(encoded)])
        # The patches count latents; a latent is `stride` steps of the sample.
        return replace(cut, coords=cut.coords * torch.tensor(self.latents.strides, dtype=cut.coords.dtype))

    def moments(self, samples: Sequence[Sample]) -> list[Encoded]:
        """Means of the latents and then their log variances, where the network gives these; what is `Encoded` stays so."""
        found = {row: sample for row, sample in enumerate(samples) if isinstance(sample, Encoded)}
        plain = [row for row in range(len(samples)) if row not in found]
        for shape, places in _rows_by([samples[row].shape for row in plain]).items():
            self.layout(shape)
            rows = [plain[place] for place in places]
            for row, item in zip(rows, self._network.encode(torch.stack([samples[row].data for row in rows])), strict=True):
                # A clone, so that an item that is kept does not drag the whole batch along.
                found[row] = Encoded(item.clone(), samples[row].meta, samples[row].modality, shape)
        return [found[row] for row in range(len(samples))]

    def moments_key(self) -> dict[str, Any]:
        """The network and its weights, and how large samples are divided; patches and statistics come after."""
        return {"kind": "autoencoder", "config": dict(self._network.config), "weights": self._network.digest(),
                "tile": self._network.tile}

    def _drawn(
        self, moments: Float[Tensor, "b ..."], rows: Sequence[int], noise: EncodingNoise | None
    ) -> Float[Tensor, "b ..."]:
        """Latents of samples of one shape.

        Args:
            moments: of these samples.
            rows: which of the whole batch they are; `noise` has one row for each of those.
            noise: None for the mode.
        """
        mean, spread = moments.split([self.latents.channels, moments.shape[1] - self.latents.channels], dim=1)
        if noise is None or self.posterior == "mode" or not spread.numel():
            return mean
        drawn = noise(mean[0].numel())[list(rows)].to(mean.device).view(mean.shape)
        return mean + (0.5 * spread).exp() * drawn

    def decode(self, tokens: Tokens) -> Sample:
        """The sample of these tokens; its size comes from their grid."""
        return self._decoded([self._patches.decode(tokens)])[0]

    def decode_batch(self, tokens: TokenBatch) -> list[Sample]:
        """Samples of several sets of tokens; those of one size are computed together, a few at a time."""
        return self._decoded(self._patches.decode_batch(tokens))

    def _decoded(self, latents: Sequence[Sample]) -> list[Sample]:
        found: dict[int, Tensor] = {}
        for rows in _rows_by([tuple(item.data.shape) for item in latents]).values():
            data = self._network.decode(torch.stack([latents[row].data for row in rows]))
            if self.media.bounds is not None:
                data = data.clamp(*self.media.bounds)
            # Clones, so that a sample kept or pickled does not drag the whole batch along.
            found |= {row: item.clone() for row, item in zip(rows, data, strict=True)}
        return [replace(item, data=found[row]) for row, item in enumerate(latents)]

    def measured(self, samples: Iterable[Sample]) -> Autoencoder:
        """This tokenizer with the mean and standard deviation of each latent channel, where they are not known.

        Raises:
            UsageError: there are no samples, or one gives latents that are not finite.
        """
        if self._patches.mean is not None:
            return self
        fitted = self._patches.measured(self._latent_samples(samples)).options()
        tokenizer = Autoencoder(self.media, **{**self.options(), "mean": fitted["mean"], "std": fitted["std"]})
        tokenizer._network = self._network  # the weights are read once
        return tokenizer

    def _latent_samples(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        for sample in samples:
            encoded = self.moments([sample])[0]
            yield Sample(self._drawn(encoded.data[None], [0], None)[0], encoded.meta, encoded.modality)

    def options(self) -> dict[str, Any]:
        """The keyword arguments that rebuild this tokenizer, the configuration of the network included."""
        cut, source = self._patches.options(), self._network.source
        return {"source": source and source.name, "config": dict(self._network.config), "patch": cut["patch"],
                "posterior": self.posterior, "mean": cut["mean"], "std": cut["std"], "tile": self._network.tile,
                "revision": source and source.revision}

    def to(self, device: torch.device) -> Autoencoder:
        """Compute on this device from now on; tokens and samples still come back on the device of what was given."""
        self._network.to(device)
        return self

    def save_assets(self, folder: Path) -> None:
        """Write the network as diffusers does: a folder that is a source as well."""
        self._network.save(folder)

    def load_assets(self, folder: Path) -> None:
        """Read the network that `save_assets` wrote; the source is not needed any more.

        Raises:
            CheckpointError: a file is missing or damaged, or belongs to another autoencoder.
        """
        self._network.load(folder)


def _configuration(config: dict[str, Any] | None, origin: Source | None) -> Config:
    if config is not None:
        return plain_config(config)
    if origin is None:
        raise UsageError("Autoencoder needs a source (a folder or a Hub repository), a config, or both.")
    return read_config(origin.file(CONFIG))


def _check_axes(media: MediaSpec, latents: LatentSpace, tile: int | None) -> None:
    names = [axis.name for axis in media.axes]
    if len(latents.strides) != len(names):
        raise UsageError(f"Autoencoder: {latents.kind} works on {len(latents.strides)} axes; these samples have {len(names)} "
                         f"({', '.join(names)}).")
    if tile is not None and any(tile % stride or tile < 2 * stride for stride in latents.strides):
        raise UsageError(f"Autoencoder: tile must be a multiple of the strides {list(latents.strides)}, at least twice as "
                         f"large; got {tile}.")


def _patches(
    media: MediaSpec, latents: LatentSpace, patch: dict[str, int] | int, mean: list[float] | float | None,
    std: list[float] | float | None,
) -> Patchify:
    """Patches over latents, which are a medium like any other, but without bounds."""
    if mean is None and std is None:
        mean, std = latents.mean, latents.std
    try:
        return Patchify(MediaSpec(latents.channels, media.axes, bounds=None), patch=patch, mean=mean, std=std)
    except UsageError as error:
        raise UsageError(f"Autoencoder, on latents of {latents.channels} channels: {error}") from error


def _rows_by(keys: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], list[int]]:
    """Which rows have the same key."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return rows
