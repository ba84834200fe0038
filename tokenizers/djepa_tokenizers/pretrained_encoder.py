"""Networks of transformers that understand media, from a local folder as `save_pretrained` writes it, as feature extractors.

A folder holds `config.json`, weights in safetensors and `preprocessor_config.json`; nothing in it is ever executed.
transformers is imported where a network is read and not before: that takes seconds.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from djepa.errors import CheckpointError, UsageError
from djepa_tokenizers.vocoder import first_line, quietly

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
CLASSIFIERS = {  # by what follows "For" in the name of a network's class
    "ImageClassification": "AutoModelForImageClassification",
    "VideoClassification": "AutoModelForVideoClassification",
    "AudioClassification": "AutoModelForAudioClassification",
    "SequenceClassification": "AutoModelForAudioClassification",
}
FILES = (CONFIG, PREPROCESSOR, "model.safetensors", "model-*-of-*.safetensors")


class PretrainedEncoder:
    """A network and what prepares its inputs, each read at its first use; frozen, in float32.

    Args:
        source: the folder.
        kind: of the preparation: "AutoImageProcessor" or "AutoFeatureExtractor".
        tower: of a network that reads texts as well: its `get_<tower>_features` is used.

    Raises:
        CheckpointError: there is no such folder, or its configuration is damaged.
        UsageError: transformers is not installed.
    """

    def __init__(
        self, source: str, kind: Literal["AutoImageProcessor", "AutoFeatureExtractor"], tower: Literal["image", "audio"]
    ) -> None:
        self.folder, self.kind, self.tower = Path(source).expanduser().resolve(), kind, tower
        if importlib.util.find_spec("transformers") is None:
            raise UsageError("Pretrained encoders need transformers, which is not installed: pip install 'djepa[text]'")
        for name in (CONFIG, PREPROCESSOR):
            if not (self.folder / name).is_file():
                raise CheckpointError(f"There is no {name} in {source!r}; expected a folder that transformers saved a network "
                                      f"and its preprocessor to.")
        self.device = torch.device("cpu")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The network's configuration.

        Raises:
            CheckpointError: it is damaged.
        """
        try:
            return dict(json.loads((self.folder / CONFIG).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{str(self.folder / CONFIG)!r} is damaged ({first_line(error)}).") from error

    @cached_property
    def prepare(self) -> Any:
        """What makes inputs of media."""
        import transformers

        return self._read(getattr(transformers, self.kind))

    @cached_property
    def network(self) -> Any:
        """The network: the body alone, or with the head of a classifier where it has one."""
        import transformers

        loader = getattr(transformers, self._classifier() or "AutoModel")
        # Weights it does not find would be drawn; no generator of ours shall notice. The network outlives its first use.
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            network, found = self._read(loader, use_safetensors=True, output_loading_info=True, dtype=torch.float32)
        missing = sorted(key for key in found["missing_keys"] if "pooler" not in key)
        if missing:
            raise CheckpointError(f"The weights in {str(self.folder)!r} are not complete: there is no "
                                  f"{', '.join(missing[:5])}.")
        self._has_pooler = not found["missing_keys"]
        return network.eval().requires_grad_(False).to(self.device)

    def to(self, device: torch.device) -> None:
        """Compute on this device from now on."""
        self.device = device
        if "network" in self.__dict__:
            self.network.to(device)

    def fingerprint(self) -> str:
        """SHA-256 of the files."""
        digest = hashlib.sha256()
        for path in sorted({path for pattern in FILES for path in self.folder.glob(pattern)}):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    @torch.inference_mode()
    def features(self, inputs: Mapping[str, Any]) -> tuple[Float[Tensor, "b f"], Float[Tensor, "b classes"] | None]:
        """What the network makes of prepared inputs: its own summary where it makes one, else the mean over all places.

        Returns:
            Feature vectors, and the logits of a classifier; on the CPU.
        """
        network = self.network
        given = {name: torch.as_tensor(value).to(self.device) for name, value in inputs.items()}
        logits = network(**given).logits.float().cpu() if self._classifier() else None
        body = cast(Any, network.base_model if self._classifier() else network)
        tower = getattr(body, f"get_{self.tower}_features", None)
        found = tower(**given) if tower else body(**given)
        return self._vector(found).float().cpu(), logits

    def _vector(self, found: Any) -> Tensor:
        if isinstance(found, Tensor):
            return found
        if self._has_pooler and getattr(found, "pooler_output", None) is not None:
            return found.pooler_output.flatten(1)
        hidden = found.last_hidden_state
        return hidden.mean(1) if hidden.ndim == 3 else hidden.flatten(2).mean(2)

    def _classifier(self) -> str:
        """The class of transformers that loads a classifier; empty where the network is none."""
        heads = [str(name).partition("For")[2] for name in self.config.get("architectures") or []]
        return next((CLASSIFIERS[head] for head in heads if head in CLASSIFIERS), "")

    def _read(self, loader: Any, **arguments: Any) -> Any:
        try:
            with quietly():
                return loader.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False, **arguments)
        except Exception as error:  # whatever transformers makes of files it does not expect
            raise CheckpointError(f"The network in {str(self.folder)!r} cannot be loaded ({first_line(error)}). Only "
                                  f"safetensors are read, because that runs no code: save_pretrained(...) of transformers "
                                  f"writes them.") from error
