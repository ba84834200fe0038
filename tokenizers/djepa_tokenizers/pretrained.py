"""Where the network of an autoencoder comes from and goes to: folders and Hub repositories as diffusers writes them.

A folder holds `config.json` and `diffusion_pytorch_model.safetensors`; nothing in it is ever executed. diffusers is imported
where a network is built and not before: that takes seconds.
"""

from __future__ import annotations

import inspect
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from djepa.errors import CheckpointError, UsageError
from djepa_tokenizers.kinds import STATISTICS
from djepa_tokenizers.latents import DEFAULT_KIND, KIND, Config, plain_config

CONFIG, WEIGHTS, PIPELINE = "config.json", "diffusion_pytorch_model.safetensors", "model_index.json"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(/[\w.-]+)*")
# Files from before diffusers renamed its attention.
_RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


@dataclass(frozen=True)
class Source:
    """A local folder, or a Hub repository ("owner/name", or "owner/name/vae" for a folder in it).

    Attributes:
        name: of either; a folder comes first.
        revision: branch, tag or commit of a repository.
    """

    name: str
    revision: str | None = None

    def absolute(self) -> Source:
        """The same source under a name that means it from anywhere; a Hub repository is that already."""
        path = Path(self.name).expanduser()
        return Source(str(path.resolve()), self.revision) if path.is_dir() else self

    def file(self, name: str) -> Path:
        """The path of one of its files, fetched if need be.

        Raises:
            UsageError: the source is a file.
            CheckpointError: there is no such source, or no such file in it.
        """
        path = Path(self.name).expanduser()
        if path.is_dir():
            return path / name
        if path.exists():
            raise UsageError(f"Autoencoder: {self.name!r} is a file; a source is a folder with {CONFIG} and {WEIGHTS}, or a "
                             f"repository on the Hugging Face Hub.")
        if not _REPOSITORY.fullmatch(self.name):
            raise CheckpointError(f"Autoencoder: there is no folder {self.name!r}. A Hub repository is written owner/name.")
        return self._fetched(name)

    def _fetched(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        owner, repository, *inside = self.name.split("/")
        try:
            return Path(hf_hub_download(f"{owner}/{repository}", "/".join([*inside, name]), revision=self.revision))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(f"Autoencoder: there is no folder {self.name!r}, and the Hugging Face Hub did not give "
                                  f"{name} of a repository of that name ({reason}).") from error


def read_config(path: Path) -> Config:
    """The configuration in a `config.json` of diffusers.

    Raises:
        CheckpointError: it is missing or damaged.
        UsageError: it belongs to something else than one network.
    """
    if not path.is_file():
        if (path.parent / PIPELINE).is_file():
            raise UsageError(f"Autoencoder: {str(path.parent)!r} is a whole pipeline of diffusers; its autoencoder is most "
                             f"often in {str(path.parent / 'vae')!r}.")
        raise CheckpointError(f"Autoencoder: {str(path.parent)!r} has no {path.name}; a folder that diffusers saved an "
                              f"autoencoder to does.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"Autoencoder: {str(path)!r} is damaged ({error}).") from error
    if not isinstance(config, dict) or not isinstance(config.get(KIND), str):
        raise UsageError(f"Autoencoder: {str(path)!r} is not the configuration of a network of diffusers: it names no {KIND}.")
    return plain_config(config)


def load_network(config: Config, path: Path) -> nn.Module:
    """The network of a configuration with the weights of a safetensors file: float32, on the CPU, frozen.

    Raises:
        CheckpointError: the file is missing, damaged or of another network.
    """
    tensors = _read(path)
    network = empty_network(config)
    _check_fit(network, tensors, path)
    with torch.inference_mode(False):  # the first use may be a preview, and the network outlives it
        if _is_all_stored(network):
            network = network.float().to_empty(device="cpu")
        else:
            with torch.random.fork_rng(devices=[]):  # weights are drawn only to be overwritten: leave no trace
                network = _built(config, "cpu").float()
        network.load_state_dict(tensors)
        return network.eval().requires_grad_(False)


def _is_all_stored(network: nn.Module) -> bool:
    """Whether a file of weights has everything, and nothing is computed when a network is built (tables of angles, filters)."""
    return {name for name, _ in network.named_buffers()} <= network.state_dict().keys()


def save_network(network: Any, folder: Path) -> None:
    """Write the folder that `load_network` and diffusers itself read.

    Raises:
        OSError: the disk refused.
    """
    from safetensors import SafetensorError

    try:
        network.save_pretrained(folder, safe_serialization=True)
    except SafetensorError as error:  # how it reports a full disk
        raise OSError(f"{WEIGHTS}: {error}") from error


def empty_network(config: Config) -> nn.Module:
    """The network of a configuration without memory for its weights: on the meta device, for shapes.

    Raises:
        CheckpointError: diffusers cannot build it.
    """
    # Moved as well: a class may copy a table that was made when it was imported.
    return _built(config, "meta").to("meta").eval().requires_grad_(False)


def _built(config: Config, device: str) -> nn.Module:
    import diffusers

    # Imported before the device is set: some of its modules hold tensors, which would be of that device for ever.
    made: Any = getattr(diffusers, config.get(KIND, DEFAULT_KIND))
    # What nobody measured shall not become diffusers' default when it is saved.
    unsaid = {name: None for name in STATISTICS if name in inspect.signature(made.__init__).parameters and name not in config}
    try:
        with torch.device(device), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # diffusers' use of torch's old weight norm
            return made.from_config(unsaid | config)
    except Exception as error:  # whatever a class makes of values it does not expect
        raise CheckpointError(f"Autoencoder: diffusers cannot build {made.__name__} from its configuration ({error!r}): "
                              f"{json.dumps(config)}") from error


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"Autoencoder: there are no weights {str(path)!r}; only this format is read, because loading it "
                              f"runs no code. diffusers writes it with save_pretrained(..., safe_serialization=True).")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"Autoencoder: {str(path)!r} is damaged or no safetensors file ({error}); fetch or save it "
                              f"again.") from error
    return {_todays_name(name): tensor for name, tensor in tensors.items()}


def _todays_name(name: str) -> str:
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name


def _check_fit(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    wanted = network.state_dict()
    problems = [f"missing {name!r}" for name in wanted if name not in tensors]
    problems += [f"unexpected {name!r}" for name in tensors if name not in wanted]
    problems += [f"{name!r} has shape {list(tensors[name].shape)} instead of {list(wanted[name].shape)}"
                 for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"Autoencoder: the weights in {str(path)!r} do not fit its configuration: {shown}.")
