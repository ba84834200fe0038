"""A vocoder: the network of transformers' `SpeechT5HifiGan`, which makes a waveform of a logarithmic mel spectrogram.

A folder holds `config.json` and `model.safetensors`, as `save_pretrained` writes them; nothing in it is ever executed.
transformers is imported where the network is read and not before: that takes seconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from djepa.errors import CheckpointError, UsageError

CONFIG = "config.json"
KINDS = ("speecht5_hifigan", "hifigan")  # values of `model_type`: one network under two names
FILES = [CONFIG, "model.safetensors"]  # all that is fetched of a repository: no weights that have to be unpickled
SCALES = {"ln": 1.0, "log10": 1.0 / math.log(10.0)}  # from the natural logarithm to that of the name


class Vocoder:
    """A network that makes waveforms, read at its first use.

    Args:
        source: a folder, or a Hub repository ("owner/name").
        log: of the spectrograms it was trained on.
        num_mels, sample_rate, hop: of the spectrograms it will be given.

    Raises:
        UsageError: an unknown logarithm, or a folder with a vocoder for other spectrograms.
        CheckpointError: a folder without a configuration, or with a damaged one.
    """

    def __init__(self, source: str, log: Literal["log10", "ln"], num_mels: int, sample_rate: int, hop: int) -> None:
        if log not in SCALES:
            raise UsageError(f"LogMel: vocoder_log must be 'log10' or 'ln'; got {log!r}.")
        path = Path(source).expanduser()
        self.source = str(path.resolve()) if path.is_dir() else source
        self._scale, self._expected = SCALES[log], {"model_in_dim": num_mels, "sampling_rate": sample_rate, "hop": hop}
        self._network: nn.Module | None = None
        self._device = torch.device("cpu")
        if path.is_dir():
            self._check(_read_config(path))

    def waveform(self, logarithms: Float[Tensor, "b f mel"]) -> Float[Tensor, "b s"]:
        """Waveforms of spectrograms in natural logarithms, a hop for every frame.

        Raises:
            UsageError: the vocoder is for other spectrograms, or transformers is not installed.
            CheckpointError: there is no such vocoder, or it is damaged.
        """
        network = self._loaded()
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            return network((logarithms * self._scale).to(self._device)).to(logarithms.device)

    def to(self, device: torch.device) -> None:
        """Compute on this device from now on."""
        self._device = device
        if self._network:
            self._network.to(device)

    def save(self, folder: Path) -> None:
        """Write the network into an existing folder, which is a source as well."""
        self._loaded().save_pretrained(folder)  # pyright: ignore[reportCallIssue]

    def load(self, folder: Path) -> None:
        """Read the network that `save` wrote; the source is not needed any more.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        self._network = self._read(str(folder))

    def _loaded(self) -> nn.Module:
        if self._network is None:
            self._network = self._read(self.source)
        return self._network

    def _read(self, source: str) -> nn.Module:
        folder = _folder(source)
        self._check(_read_config(folder))
        return _load(folder).to(self._device)

    def _check(self, config: dict[str, Any]) -> None:
        """Refuse a vocoder for other spectrograms."""
        if config.get("model_type") not in KINDS:
            raise UsageError(f"LogMel: {self.source!r} is of the kind {config.get('model_type')!r}; expected "
                             f"{' or '.join(map(repr, KINDS))}.")
        there = {**config, "hop": math.prod(config.get("upsample_rates", []))}
        for name, key, wanted in zip(("num_mels", "sample_rate", "hop"), self._expected, self._expected.values(), strict=True):
            if there.get(key) != wanted:
                raise UsageError(f"LogMel: the vocoder {self.source!r} is for {name}={there.get(key)}; this tokenizer has "
                                 f"{name}={wanted}.")


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"LogMel: {str(folder)!r} has no readable {CONFIG} of a vocoder ({error}).") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"LogMel: {str(folder / CONFIG)!r} is not the configuration of a vocoder.")
    return config


def _folder(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"LogMel: there is no vocoder {source!r}: no folder of that name, and the Hugging Face Hub "
                              f"gave no repository ({first_line(error)}).") from error


def _load(folder: Path) -> nn.Module:
    """The network in a folder: float32, on the CPU, frozen."""
    try:
        from transformers import SpeechT5HifiGan
    except ImportError as error:
        raise UsageError("LogMel: vocoders need transformers, which is not installed: pip install 'djepa[text]'") from error
    try:
        # Weights it does not find would be drawn; no generator of ours shall notice. The first use may be a preview, and the
        # network outlives it.
        with quietly(), torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            network, found = cast(Any, SpeechT5HifiGan).from_pretrained(folder, use_safetensors=True, local_files_only=True,
                                                                        output_loading_info=True)
    except Exception as error:  # whatever transformers makes of files it does not expect
        raise CheckpointError(f"LogMel: the vocoder in {str(folder)!r} cannot be loaded ({first_line(error)}). Only "
                              f"safetensors are read, because that runs no code: save_pretrained(...) of transformers writes "
                              f"them.") from error
    if found["missing_keys"]:
        raise CheckpointError(f"LogMel: the weights of the vocoder in {str(folder)!r} are not complete: there is no "
                              f"{', '.join(sorted(found['missing_keys'])[:5])}.")
    return network.float().eval().requires_grad_(False)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip()


@contextmanager
def quietly() -> Iterator[None]:
    """Without the bars and reports of transformers; what is wrong with the weights is said by us."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
