"""Reading checkpoint files of others: tensors and plain values; nothing in a file is ever executed.

    .pth, .ckpt, .pt     what torch.save wrote: a state dict, or a dict of them with the settings of the training script
    .safetensors         a state dict

Tensors stay in the file until they are used, so that optimizer states cost nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from djepa.errors import CheckpointError, UsageError
from djepa.storage import read_tensors

Weights = Literal["ema", "raw"]

_ENTRIES = {"raw": ("model", "state_dict"), "ema": ("model_ema",)}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)|[Uu]nsupported class ([\w.]+)")
_MAX_CONFIG = 1 << 20  # bytes of a config.json that is read for settings


@dataclass(frozen=True)
class Source:
    """A checkpoint file.

    Attributes:
        path: where it lies.
        entries: state dicts by the name of their entry; "" for a file that is one.
        settings: whole numbers and texts among the training script's arguments and in a `config.json` beside the file.
        others: names of further entries (optimizer, scaler, epoch, ...).
    """

    path: Path
    entries: Mapping[str, Mapping[str, Tensor]]
    settings: Mapping[str, int | str] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def choose(self, weights: Weights) -> str:
        """The entry that holds the averaged ("ema") or the raw weights.

        Raises:
            CheckpointError: the file has no such weights.
        """
        if weights not in _ENTRIES:
            raise UsageError(f"weights={weights!r}: expected 'ema' or 'raw'.")
        if "" in self.entries:
            return ""
        found = [name for name in _ENTRIES[weights] if name in self.entries]
        if not found:
            wanted, other = " or ".join(map(repr, _ENTRIES[weights])), "raw" if weights == "ema" else "ema"
            raise CheckpointError(f"{str(self.path)!r} has no entry {wanted}, so there are no {weights} weights in it; it has "
                                  f"{', '.join([*self.entries, *self.others])}. To take the others: --weights {other}")
        return found[0]


def read_source(path: Path) -> Source:
    """Read a checkpoint file.

    Raises:
        CheckpointError: it is missing, damaged, holds anything but tensors and plain values, or no state dict.
    """
    if not path.is_file():
        reason = "is a folder; name the checkpoint file in it" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{str(path)!r} {reason}.")
    if path.suffix == ".safetensors":
        return Source(path, {"": _checked(path, read_tensors(path))}, _config_beside(path))
    content = _unpickled(path)
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return Source(path, {"": _checked(path, content)}, _config_beside(path))
    known = [name for names in _ENTRIES.values() for name in names]
    entries = {name: _checked(path, content[name]) for name in known if isinstance(content.get(name), Mapping)}
    if not entries:
        raise CheckpointError(f"{str(path)!r} holds no state dict: expected an entry {' or '.join(map(repr, known))}, or the "
                              f"tensors themselves; found {', '.join(map(repr, list(content)[:5])) or 'nothing'}.")
    arguments = content.get("args")
    arguments = vars(arguments) if isinstance(arguments, argparse.Namespace) else arguments
    settings = _plain(arguments if isinstance(arguments, Mapping) else {})
    others = tuple(str(name) for name in content if name not in entries)
    return Source(path, entries, {**_config_beside(path), **_plain({"epoch": content.get("epoch")}), **settings}, others)


def _unpickled(path: Path) -> Mapping[Any, Any]:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats; what matters of them is checked below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # the file decides what goes wrong here: no list of exceptions would be complete
        raise CheckpointError(_reason(path, error)) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{str(path)!r} holds a {type(content).__name__}; a checkpoint is a dict.")
    return content


def _reason(path: Path, error: Exception) -> str:
    if named := _GLOBAL.search(str(error)):
        return (f"{str(path)!r} asks for {named[1]}, which could run code and is therefore not loaded; a checkpoint here holds "
                f"tensors and plain values. One you trust can be saved again without the rest, or as .safetensors.")
    text = str(error).strip().partition("\n")[0].partition(". ")[0][:200]
    return (f"{str(path)!r} cannot be read as a checkpoint: it is damaged, cut short or of another kind "
            f"({type(error).__name__}: {text}).")


def _checked(path: Path, tensors: Mapping[Any, Any]) -> dict[str, Tensor]:
    """A state dict whose every entry is an ordinary floating-point tensor, without the prefix of a wrapped module."""
    available = path.stat().st_size
    for name, tensor in tensors.items():
        ordinary = isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.dtype in _FLOATS
        if not isinstance(name, str) or not ordinary or tensor.device.type != "cpu":
            what = f"a tensor of {tensor.dtype}" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
            raise CheckpointError(f"{str(path)!r}: the entry {name!r} of the state dict is {what}; expected tensors of "
                                  f"floating-point numbers.")
        if tensor.numel() * tensor.element_size() > available:  # one number repeated by its strides, as often as you like
            raise CheckpointError(f"{str(path)!r}: the tensor {name!r} claims {tensor.numel()} numbers, more than there are in "
                                  f"the whole file.")
    wrapped = all(name.startswith("module.") for name in tensors)
    return {name.removeprefix("module.") if wrapped else name: tensor.detach() for name, tensor in tensors.items()}


def _config_beside(path: Path) -> dict[str, int | str]:
    """The settings in a `config.json` next to the file; none if there is nothing of that kind."""
    config = path.with_name("config.json")
    with suppress(OSError, ValueError, RecursionError):
        if config.stat().st_size <= _MAX_CONFIG:
            content = json.loads(config.read_text(encoding="utf-8"))
            return _plain(content) if isinstance(content, dict) else {}
    return {}


def _plain(values: Mapping[Any, Any]) -> dict[str, int | str]:
    return {str(name): value for name, value in values.items() if isinstance(value, int | str) and not isinstance(value, bool)}
