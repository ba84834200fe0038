"""From what a user calls a model to the folder it lies in: a shipped name, a folder, a run, a Hub repository."""

from __future__ import annotations

import re
from pathlib import Path

from djepa.errors import CheckpointError, suggest
from djepa.recipe.catalogue import find_model, model_names
from djepa.storage import ASSETS, CONFIG, WEIGHTS, newest_checkpoint

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def locate_model(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a model.

    Args:
        name: a shipped name ("image/digits"), a model folder, a run folder (its newest checkpoint), or a repository on the
            Hugging Face Hub ("owner/name").
        revision: branch, tag or commit of a Hub repository.

    Raises:
        CheckpointError: it is none of these.
    """
    shipped = find_model(str(name)) if isinstance(name, str) else None
    if shipped is not None:
        return shipped
    folder = Path(name)
    if folder.is_dir():
        return _in_folder(folder)
    if isinstance(name, str) and _REPOSITORY.fullmatch(name) and not _looks_shipped(name):
        return _from_hub(name, revision)
    raise CheckpointError(f"There is no model {str(name)!r}: no folder of that name, and not shipped. "
                          f"{suggest(name, model_names())} A Hub repository is written owner/name.")


def _in_folder(folder: Path) -> Path:
    if (folder / CONFIG).is_file():
        return folder
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        raise CheckpointError(f"{str(folder)!r} is neither a model folder (no {CONFIG}) nor a run with a complete checkpoint.")
    return checkpoint


def _looks_shipped(name: str) -> bool:
    """Whether a name begins like a shipped one, so that a misspelling is not looked up on the network."""
    return name.split("/")[0] in {known.split("/")[0] for known in model_names()}


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS, f"{ASSETS}/**"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        told = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(told[:2]) or type(error).__name__
        raise CheckpointError(f"There is no model {name!r}: no folder of that name, not shipped, and the Hugging Face Hub did "
                              f"not give it ({reason}). {suggest(name, model_names())}") from error
