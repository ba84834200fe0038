"""Autoencoder: tokens are the latents of a frozen network, cut into patches and brought to unit scale.

With strides s1, s2, ... of the network and patch sizes p1, p2, ..., a sample (C, S1, S2, ...) becomes a grid of
S1/(s1*p1) x S2/(s2*p2) x ... tokens, rounded up, each a block of latents as `Patchify` cuts it: channel-major, row-major.
Where whole tokens reach beyond the sample, its edge is repeated, and what is decoded there is cut off again.

Networks for clips are causal: the first latent covers the first frame alone, each further one `stride` frames.

The network is one of diffusers, read from a folder or the Hub at first use. It computes in float32 whatever surrounds it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from djepa.errors import LayoutError, UsageError
from djepa.tokenizer import EncodingNoise, Tokenizer
from djepa.tokens import Encoded, MediaSpec, Sample, TokenBatch, Tokens, TokenSpec
from djepa_tokenizers.cover import Cover
from djepa_tokenizers.latents import Config, LatentSpace, latent_space, plain_config
from djepa_tokenizers.network import Network
from djepa_tokenizers.patchify import Patchify
from djepa_tokenizers.pretrained import CONFIG, Source, read_config
from djepa_tokenizers.tiles import tile_sizes

NUM_AT_A_TIME = 16  # samples that are held in memory while statistics are measured
_log = logging.getLogger(__name__)


class Autoencoder(Tokenizer):
    """Latents of a frozen autoencoder as tokens.

    Args:
        media: channels, axes and bounds of the samples. Pictures may go through a network for clips, as clips of one frame.
        source: folder that diffusers saved the autoencoder to, or Hub repository ("owner/name", "owner/name/vae").
        config: its configuration, so that nothing is read before the weights are needed; without it that of the source.
        patch: latents per token along each axis, or per axis name.
        posterior: "sample" draws latents from the network's distribution where there is noise to draw with (training);
            "mode" never does.
        mean: of the latents, per channel or one number for all; both or neither. Without them what the configuration says;
            if that says nothing, the plain latents until `measured` has found them in the weights or in some data.
        std: of the latents, likewise.
        tile: size in steps of the sample (pixels) above which it is computed in overlapping tiles, so that memory does not
            grow with it: per axis name, or one for all axes but those along which the network is causal: of these, each
            latent depends on all before it.
        revision: branch, tag or commit of a Hub repository.
        latents: what is known of the network's latents from an earlier time: their channels and strides. Found by probing the
            network where the configuration does not tell, and then one of the `options`.

    Raises:
        UsageError: neither source nor config, an autoencoder that is not supported, or a setting that cannot be.
        CheckpointError: the source has no configuration, or a damaged one.
    """

    cacheable = True

    def __init__(self, media: MediaSpec, *, source: str | None = None, config: dict[str, Any] | None = None,
                 patch: dict[str, int] | int = 1, posterior: Literal["sample", "mode"] = "sample",
                 mean: list[float] | float | None = None, std: list[float] | float | None = None,
                 tile: dict[str, int] | int | None = None, revision: str | None = None,
                 latents: dict[str, Any] | None = None) -> None:
        if posterior not in ("sample", "mode"):
            raise UsageError(f"Autoencoder: posterior must be 'sample' or 'mode'; got {posterior!r}.")
        origin = None if source is None else Source(source, revision).absolute()
        plain = _configuration(config, origin)
        space = latent_space(plain, latents)
        self.media, self.posterior, self.tile = media, posterior, tile
        names = [axis.name for axis in media.axes]
        self._found, self.latents = space.found(), space.over(names)
        if mean is None and std is None:
            mean, std = self.latents.mean, self.latents.std
        self._patches = _patches(media, self.latents, patch, mean, std)
        self._cover = Cover(media.axes, self.latents.axes, self._patches.patch)
        self._network = Network(plain, origin, self.latents, tile_sizes(names, self.latents.axes, tile))
        self._reported: set[tuple[int, ...]] = set()
        self._unscaled = False

    @property
    def spec(self) -> TokenSpec:
        """Width and axes of the tokens; latents have no bounds."""
        return self._patches.spec

    def layout(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The token grid of a sample of this shape (channels first), which may reach beyond it.

        Raises:
            LayoutError: other channels or dimensions than the network's, or an axis without anything on it.
        """
        names, channels = [axis.name for axis in self.media.axes], self.latents.media_channels
        if len(shape) != 1 + len(names) or shape[0] != channels:
            cure = f" Have the data made so: channels={channels}." if len(shape) == 1 + len(names) else ""
            raise LayoutError(f"This autoencoder takes samples of shape ({', '.join([str(channels), *names])}), channels "
                              f"first; got {tuple(shape)}.{cure}")
        if min(shape) < 1:
            raise LayoutError(f"A sample of shape {tuple(shape)} has nothing on one of its axes; sizes start at 1.")
        return self._cover.grid(shape[1:])

    def cells(self, shape: tuple[int, ...]) -> dict[str, Int[Tensor, "s"]]:
        """Which row of the token grid each step of a sample of this shape belongs to, by axis."""
        self.layout(shape)
        return self._cover.cells(shape[1:])

    def blank(self, shape: tuple[int, ...], meta: Mapping[str, Any], modality: str = "") -> Tokens:
        """The places of a sample of this shape, without values."""
        grid = self.layout(shape)
        values = torch.zeros(math.prod(grid), self.spec.width)
        return Tokens(values, self._cover.coords(grid, meta), grid, dict(meta), modality, self._recorded(shape))

    def _recorded(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The sizes of a sample, where its grid does not say them."""
        sizes = shape[1:]
        return None if self._cover.sizes(self.layout(shape)) == sizes else sizes

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
        # The patches count latents; what a latent covers of the sample is ours to say.
        coords = self._coords(encoded)
        sizes = tuple(self._recorded(item.shape) for item in encoded)
        return replace(cut, coords=pad_sequence(coords, batch_first=True), sizes=sizes if any(sizes) else ())

    def _coords(self, samples: Sequence[Sample]) -> list[Float[Tensor, "n a"]]:
        """Coordinates of the tokens of each sample; those of one shape and rate are computed once."""
        keys = [(item.shape, *(axis.rate(item.meta) for axis in self.media.axes)) for item in samples]
        different = dict(zip(keys, samples, strict=True))
        found = {key: self._cover.coords(self.layout(item.shape), item.meta) for key, item in different.items()}
        return [found[key] for key in keys]

    def moments(self, samples: Sequence[Sample]) -> list[Encoded]:
        """Means of the latents and then their log variances, where the network gives these; what is `Encoded` stays so."""
        found = {row: self._fitting(sample) for row, sample in enumerate(samples) if isinstance(sample, Encoded)}
        plain = [row for row in range(len(samples)) if row not in found]
        for shape, places in _rows_by([samples[row].shape for row in plain]).items():
            rows = [plain[place] for place in places]
            data = self._padded(torch.stack([samples[row].data for row in rows]))
            for row, item in zip(rows, self._network.encode(data), strict=True):
                # A clone, so that an item that is kept does not drag the whole batch along.
                found[row] = Encoded(item.clone(), samples[row].meta, samples[row].modality, shape)
        return [found[row] for row in range(len(samples))]

    def _padded(self, data: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Samples as large as their tokens together; says so, once for every shape."""
        shape = tuple(data.shape[1:])
        self.layout(shape)
        padded = self._cover.padded(data)
        if padded is not data and shape not in self._reported:
            self._reported.add(shape)
            _log.info("Samples of sizes %s are padded to %s by repeating their edges.", list(shape[1:]), list(padded.shape[2:]))
        return padded

    def _fitting(self, encoded: Encoded) -> Encoded:
        """What was found in a sample, if it is as much as these patches need: it was padded for the patches of its time."""
        wanted, there = self._cover.counts(self.layout(encoded.shape)), tuple(encoded.data.shape[1:])
        if there != wanted:
            raise UsageError(f"A sample of shape {encoded.shape} was encoded as {list(there)} latents, padded for other "
                             f"patches than {list(self._cover.patch)}, which need {list(wanted)}. Make the cache anew, or "
                             f"train without it.")
        return encoded

    def moments_key(self) -> dict[str, Any]:
        """The network and its weights, and how large samples are divided; patches and statistics come after."""
        return {"kind": "autoencoder", "config": dict(self._network.config), "weights": self._network.digest(),
                "tile": self.tile}

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
        """The sample of these tokens; its size is the one they have, or comes from their grid."""
        return self._decoded([self._patches.decode(tokens)], [tokens.size])[0]

    def decode_batch(self, tokens: TokenBatch) -> list[Sample]:
        """Samples of several sets of tokens; those of one size are computed together, a few at a time."""
        return self._decoded(self._patches.decode_batch(tokens), tokens.sizes or [None] * len(tokens))

    def _decoded(self, latents: Sequence[Sample], sizes: Sequence[tuple[int, ...] | None]) -> list[Sample]:
        found: dict[int, Tensor] = {}
        for rows in _rows_by([tuple(item.data.shape) for item in latents]).values():
            data = self._network.decode(torch.stack([latents[row].data for row in rows]))
            if self.media.bounds is not None:
                data = data.clamp(*self.media.bounds)
            # Clones, so that a sample kept or pickled does not drag the whole batch along.
            found |= {row: self._cropped(item, sizes[row]).clone() for row, item in zip(rows, data, strict=True)}
        return [replace(item, data=found[row]) for row, item in enumerate(latents)]

    def _cropped(self, data: Float[Tensor, "..."], size: tuple[int, ...] | None) -> Float[Tensor, "..."]:
        if size is None:
            return data
        if self._cover.sizes(self.layout((len(data), *size))) != tuple(data.shape[1:]):
            raise LayoutError(f"Tokens of a sample of sizes {list(data.shape[1:])} cannot be those of one of {list(size)}.")
        return data[(slice(None), *map(slice, size))]

    def measured(self, samples: Iterable[Sample]) -> Autoencoder:
        """This tokenizer with the mean and standard deviation of each latent channel, where they are not known.

        They are those in the network's weights, where these have such, or else those of the latents of `samples`.

        Raises:
            UsageError: there are no samples, or one gives latents that are not finite.
        """
        if self._patches.mean is not None:
            return self
        known = None if self._unscaled else self._network.statistics()
        mean, std = known or self._measured(samples)
        tokenizer = Autoencoder(self.media, **{**self.options(), "mean": mean, "std": std})
        tokenizer._network = self._network  # the weights are read once
        return tokenizer

    def unscaled(self) -> Autoencoder:
        """This tokenizer without statistics, neither given nor those of its configuration or weights."""
        tokenizer = Autoencoder(self.media, **self.options())
        tokenizer._patches = _patches(self.media, self.latents, self._patches.options()["patch"], None, None)
        tokenizer._network, tokenizer._unscaled = self._network, True
        return tokenizer

    def _measured(self, samples: Iterable[Sample]) -> tuple[list[float], list[float]]:
        fitted = self._patches.measured(self._latent_samples(iter(samples))).options()
        return fitted["mean"], fitted["std"]

    def _latent_samples(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        while some := list(islice(samples, NUM_AT_A_TIME)):
            for found in self.moments(some):
                yield Sample(self._drawn(found.data[None], [0], None)[0], found.meta, found.modality)

    def options(self) -> dict[str, Any]:
        """The keyword arguments that rebuild this tokenizer, the configuration of the network included."""
        cut, source = self._patches.options(), self._network.source
        return {"source": source and source.name, "config": dict(self._network.config), "patch": cut["patch"],
                "posterior": self.posterior, "mean": cut["mean"], "std": cut["std"], "tile": self.tile,
                "revision": source and source.revision, "latents": self._found}

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


def _patches(
    media: MediaSpec, latents: LatentSpace, patch: dict[str, int] | int, mean: list[float] | float | None,
    std: list[float] | float | None,
) -> Patchify:
    """Patches over latents, which are a medium like any other, but without bounds."""
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
