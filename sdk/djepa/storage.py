"""Model folders: `config.json` says what to build, `model.safetensors` holds the weights; nothing in them is ever executed.

`config.json` carries a format version. An older one is brought up to date by `MIGRATIONS`, a newer one is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from djepa import __version__
from djepa.build import build_model, build_tokenizers
from djepa.errors import CheckpointError, UsageError
from djepa.files import atomic_folder
from djepa.model import MaskedModel
from djepa.plugins import host
from djepa.recipe.schema import ModelSpec
from djepa.recipe.validation import validated
from djepa.tokenizer import Tokenizer

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
ASSETS = "tokenizers"       # a folder per stream whose tokenizer has a network
PROGRESS = "progress.json"  # makes a model folder a checkpoint
_CHECKPOINT = re.compile(r"step_(\d{8,})")
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}  # from format n to n + 1


def save_model(
    folder: Path, spec: ModelSpec, tensors: Mapping[str, Tensor], tokenizers: Mapping[str, Tokenizer], *,
    about: Mapping[str, Any], card: str = "",
) -> Path:
    """Write a model folder, all of it or nothing.

    Args:
        spec: complete, so that the model can be rebuilt without its dataset.
        tensors: the weights, in whatever precision they shall be stored; they are read back as float32.
        tokenizers: by stream; their networks go along, so that the folder needs nothing outside of it.
        about: how the model came to be: free facts for the reader.
        card: text of the model card.

    Raises:
        UsageError: the folder holds other things than a model, which would be lost.
        StorageError: the disk refused; a model that was there is untouched.
    """
    others = sorted({path.name for path in folder.iterdir()} - {CONFIG, WEIGHTS, ASSETS, CARD}) if folder.is_dir() else []
    if others:
        raise UsageError(f"{str(folder)!r} holds more than a model ({', '.join(others[:5])}), and saving one there would "
                         f"delete that; choose a folder of its own.")
    with atomic_folder(folder) as temporary:
        fill_model_folder(temporary, spec, tensors, about=about)
        for name, tokenizer in tokenizers.items():
            _save_assets(temporary / ASSETS / name, tokenizer)
        if card:
            (temporary / CARD).write_text(card, encoding="utf-8")
    return folder


def _save_assets(folder: Path, tokenizer: Tokenizer) -> None:
    folder.mkdir(parents=True)
    tokenizer.save_assets(folder)
    if not any(folder.iterdir()):
        folder.rmdir()
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def fill_model_folder(
    folder: Path, spec: ModelSpec, tensors: Mapping[str, Tensor], *, about: Mapping[str, Any]
) -> None:
    """Write `config.json` and the weights into an existing folder."""
    config = {"format": FORMAT, "djepa": __version__, "requires": required_plugins(spec), "about": dict(about),
              "model": spec.resolved()}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    write_tensors(folder / WEIGHTS, tensors)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, inside of `atomic_folder`, which says what could not be written.

    Args:
        header: texts that are stored beside the tensors.

    Raises:
        OSError: the disk refused.
    """
    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path,
                  dict(header) if header else None)
        path.chmod(0o644)  # it is written for its owner alone, unlike everything else
    except SafetensorError as error:  # how it reports a full disk
        raise OSError(f"{path.name}: {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: it is missing, truncated or something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{str(path.parent)!r} has no {path.name}; the folder is not complete.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged or no safetensors file ({error}); fetch or save it again.") from error


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fill a module with exactly these tensors.

    Raises:
        CheckpointError: some are missing, left over or of another shape; the message names them.
    """
    wanted = module.state_dict()
    problems = [f"missing {name!r}" for name in wanted if name not in tensors]
    problems += [f"unexpected {name!r}" for name in tensors if name not in wanted]
    problems += [f"{name!r} has shape {list(tensors[name].shape)} instead of {list(wanted[name].shape)}"
                 for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"The weights in {source!r} do not fit the model they are for: {shown}.")
    module.load_state_dict(dict(tensors))


def read_config(folder: Path) -> tuple[ModelSpec, dict[str, Any]]:
    """The specification and the `about` of a model folder.

    Raises:
        CheckpointError: the folder holds no model, a damaged one, or one of a newer format.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{str(folder)!r} is not a model folder: it has no {CONFIG}.")
    config = _up_to_date(path)
    try:
        requires, about = dict(config.get("requires", {})), dict(config.get("about", {}))
        spec_values = config["model"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged or not a model's configuration ({error!r}).") from error
    check_requirements(requires, folder)
    try:
        spec = validated(ModelSpec, spec_values, str(path))
    except (UsageError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{str(path)!r} does not describe a model this djepa can build: {error}") from error
    shapeless = [name for name, stream in spec.streams.items() if stream.shape is None]
    if shapeless:
        raise CheckpointError(f"{str(path)!r} does not say what model.streams.{shapeless[0]}.shape is; a saved model does.")
    return spec, about


def _up_to_date(path: Path) -> dict[str, Any]:
    """A configuration in today's format."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        version = config["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged or not a model's configuration ({error!r}).") from error
    if isinstance(version, int) and version > FORMAT:
        raise CheckpointError(f"{str(path)!r} has format {version}; this djepa ({__version__}) reads up to {FORMAT}. "
                              f"Upgrade with: pip install -U djepa")
    if not isinstance(version, int) or any(step not in MIGRATIONS for step in range(version, FORMAT)):
        raise CheckpointError(f"{str(path)!r} is damaged: there is no format {version!r}; today's is {FORMAT}.")
    for step in range(version, FORMAT):
        config = MIGRATIONS[step](config)
    return config


def load_model(folder: Path) -> tuple[MaskedModel, ModelSpec, dict[str, Tokenizer], dict[str, Any]]:
    """Build the model of a folder and fill in its weights, as float32 on the CPU.

    Raises:
        CheckpointError: the folder is not complete, damaged, or its parts do not fit together.
    """
    spec, about = read_config(folder)
    tensors = read_tensors(folder / WEIGHTS)
    try:
        tokenizers = build_tokenizers(spec)
        with torch.random.fork_rng(devices=[]):  # fresh weights are drawn only to be overwritten: leave no trace
            model = build_model(spec, tokenizers)
    except UsageError as error:
        raise CheckpointError(f"{str(folder / CONFIG)!r} describes a model that cannot be built: {error}") from error
    load_into(model, {name: tensor.float() for name, tensor in tensors.items()}, str(folder))
    for name, tokenizer in tokenizers.items():
        if (folder / ASSETS / name).is_dir():
            tokenizer.load_assets(folder / ASSETS / name)
    return model.eval(), spec, tokenizers, about


def generating(model: MaskedModel, spec: ModelSpec) -> tuple[dict[str, Tensor], ModelSpec]:
    """Weights and specification of a model without what only training needs (the feature head)."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("feature_head.")}
    return tensors, spec.model_copy(update={"feature_head": False})


def required_plugins(spec: ModelSpec) -> dict[str, str]:
    """Distributions other than djepa itself, with their versions, whose components a specification names."""
    named = [("modality", stream.modality) for stream in spec.streams.values()]
    named += [("tokenizer", stream.tokenizer.kind) for stream in spec.streams.values() if stream.tokenizer]
    named += [("head", stream.head.kind) for stream in spec.streams.values()]
    named += [("conditioner", node.kind) for node in spec.conditions.values()]
    named += [("order", spec.generate.order.kind)]
    versions = {record.distribution: record.version for record in host().records}
    distributions = {host().find(kind, name).distribution for kind, name in named} - {"djepa", "local"}
    return {distribution: versions.get(distribution, "") for distribution in sorted(distributions)}


def check_requirements(requires: Mapping[str, str], folder: Path) -> None:
    """Refuse a model whose plugins are not there, saying what to install.

    Raises:
        CheckpointError: a plugin is missing or did not load.
    """
    working = {record.distribution for record in host().records if record.status == "ok"}
    missing = [f"{name}=={version}" if version else name for name, version in requires.items() if name not in working]
    if missing:
        raise CheckpointError(f"The model in {str(folder)!r} was made with plugins that are not installed or do not load: "
                              f"{', '.join(missing)}. Try: pip install {' '.join(missing)}; then: djepa plugins doctor")


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """The complete checkpoints of a run with their steps, oldest first."""
    folder = run / "checkpoints"
    names = folder.iterdir() if folder.is_dir() else []
    found = [(int(match[1]), path) for path in names if (match := _CHECKPOINT.fullmatch(path.name))]
    return sorted((step, path) for step, path in found if (path / PROGRESS).is_file())


def newest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a run; None when there is none."""
    found = checkpoints(run)
    return found[-1][1] if found else None
