"""Where a text encoder comes from: folders and Hub repositories as transformers writes them.

A folder holds `config.json`, weights in safetensors and the files of a tokenizer; nothing in it is ever executed. transformers
is imported where something is loaded and not before: that takes seconds.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from djepa.errors import CheckpointError, UsageError

CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
# All that is fetched of a repository: no weights that have to be unpickled, and none twice in another format.
FILES = ["*.json", "*.txt", "*.model", "model.safetensors", "model-*-of-*.safetensors"]


@dataclass(frozen=True)
class Source:
    """A local folder, or a repository on the Hugging Face Hub ("owner/name").

    Attributes:
        name: of either; a folder comes first.
        revision: branch, tag or commit of a repository.
    """

    name: str
    revision: str | None = None

    def absolute(self) -> str:
        """A name that means the same source from anywhere."""
        path = Path(self.name).expanduser()
        return str(path.resolve()) if path.is_dir() else self.name

    def folder(self, files: list[str]) -> Path:
        """The folder, with these files fetched if it is a repository.

        Raises:
            CheckpointError: there is no such source.
        """
        path = Path(self.name).expanduser()
        if path.is_dir():
            return path
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(self.name, revision=self.revision, allow_patterns=files))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise CheckpointError(f"There is no text encoder {self.name!r}: no folder of that name, and the Hugging Face Hub "
                                  f"gave no repository ({first_line(error)}). A model folder names its text encoder and does "
                                  f"not hold it.") from error


def read_config(source: Source, kinds: Mapping[str, str]) -> dict[str, Any]:
    """The configuration of an encoder, which is small: the weights stay where they are.

    Args:
        source: the encoder's.
        kinds: the values of `model_type` that will do.

    Raises:
        CheckpointError: there is no such source, or its configuration is missing or damaged.
        UsageError: it is an encoder of another kind, or transformers is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UsageError("Text encoders need transformers, which is not installed: pip install 'djepa[text]'")
    path = source.folder([CONFIG]) / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{source.name!r} is no text encoder: it has no {CONFIG}; what transformers saved one to has.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged ({error}).") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in kinds:
        raise UsageError(f"{source.name!r} is of the kind {kind!r}; expected {' or '.join(map(repr, kinds))}.")
    return config


def load_tokenizer(source: Source) -> Any:
    """The tokenizer of an encoder.

    Raises:
        CheckpointError: it is missing, damaged, or of a kind that would run code of its own.
    """
    from transformers import AutoTokenizer

    folder = source.folder(FILES)
    if not (folder / TOKENIZER).is_file():  # transformers would make up one that knows no words
        raise CheckpointError(f"{source.name!r} has no tokenizer: there is no {TOKENIZER}; save it to the same folder.")
    try:
        with _quietly():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            words = [tokenizer(word)["input_ids"] for word in ("a", "b")]
    except Exception as error:  # whatever its classes make of files they do not expect
        raise CheckpointError(f"The tokenizer of {source.name!r} cannot be loaded ({first_line(error)}).") from error
    if words[0] == words[1]:
        raise CheckpointError(f"The tokenizer of {source.name!r} cannot tell texts apart: its vocabulary is missing.")
    return tokenizer


def load_network(source: Source, kind: str, dtype: torch.dtype) -> Any:
    """The network of an encoder: on the CPU, frozen, for evaluation.

    Args:
        source: the encoder's.
        kind: name of its class in transformers.
        dtype: to compute in.

    Raises:
        CheckpointError: the weights are missing, damaged, no safetensors, or of another network.
    """
    import transformers

    try:
        # Weights it does not find would be drawn; no generator of ours shall notice.
        with _quietly(), torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            network, found = getattr(transformers, kind).from_pretrained(
                source.folder(FILES), use_safetensors=True, local_files_only=True, dtype=dtype, output_loading_info=True)
    except CheckpointError:
        raise
    except Exception as error:  # whatever its classes make of files they do not expect
        raise CheckpointError(f"The text encoder {source.name!r} cannot be loaded ({first_line(error)}). Only safetensors are "
                              f"read, because that runs no code: save_pretrained(...) of transformers writes them.") from error
    if found["missing_keys"]:
        raise CheckpointError(f"The weights of {source.name!r} are not complete: there is no "
                              f"{', '.join(sorted(found['missing_keys'])[:5])}.")
    return network.eval().requires_grad_(False)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the bars and reports of transformers: parts that are not needed (a decoder, a tower for pictures) are no news."""
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
