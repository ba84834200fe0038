"""Fine-tuning: a new model starts from the weights of another one, as far as they fit, and says how far that is.

A tensor fits where name and shape agree. The vectors of classes are matched by the names of the classes, so that a model of
other classes, or of the same in another order, keeps what it knows of those that both have.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from djepa.cache.index import changes
from djepa.conditioner import ClassConditioner
from djepa.errors import CheckpointError
from djepa.locate import locate_model
from djepa.model import MaskedModel
from djepa.recipe.schema import ModelSpec
from djepa.storage import WEIGHTS, read_config, read_tensors
from djepa.train.log import RunLog

INITIALIZED = "initialized"  # event: which weights a run began with
NUM_SHOWN = 6  # names of a kind in the report that is printed


@dataclass(frozen=True)
class Initialization:
    """What became of the weights of another model.

    Attributes:
        source: what it was called.
        matched: names of tensors that were taken as they are.
        classes: of tensors of classes, the classes that were found in the other model.
        new: names of tensors of this model that kept their fresh values, each with the reason.
        left_over: names of tensors of the other model that nobody took.
        differences: how the tokens differ that the two models are for; weights mean something else where these do.
    """

    source: str
    matched: list[str] = field(default_factory=list)
    classes: dict[str, list[str]] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report in words."""
        total = len(self.matched) + len(self.classes) + len(self.new)
        found = [f"Weights from {self.source}: {len(self.matched)} of {total} tensors are taken as they are."]
        found += [f"  {name}: {len(names)} classes of the same name ({_some(names)})" for name, names in self.classes.items()]
        if self.new:
            found.append(f"  {len(self.new)} are new: {_some([f'{name} ({why})' for name, why in self.new.items()])}")
        if self.left_over:
            found.append(f"  {len(self.left_over)} of the other model are left over: {_some(self.left_over)}")
        return found + [f"  its tokens were others: {text}" for text in self.differences]


@torch.no_grad()
def initialize(model: MaskedModel, spec: ModelSpec, source: str) -> Initialization:
    """Fill a fresh model with the weights of another one where they fit.

    Args:
        model: as it was drawn; what finds no match stays so.
        spec: of that model, complete.
        source: the other one: a shipped name, a model folder, a run, or a repository on the Hub.

    Raises:
        CheckpointError: there is no such model, it is damaged, or nothing of it fits.
    """
    folder = locate_model(source)
    their_spec, _ = read_config(folder)
    theirs = read_tensors(folder / WEIGHTS)
    report = Initialization(source, differences=_differences(their_spec, spec))
    rows = _tables_of_classes(model)
    for name, ours in model.state_dict().items():
        if name in rows and name in theirs and (names := _names(their_spec, name)) != rows[name]:
            _fill_rows(report, name, ours, rows[name], theirs[name], names)
        elif name in theirs and theirs[name].shape == ours.shape:
            ours.copy_(theirs[name])
            report.matched.append(name)
        else:
            report.new[name] = f"was {_sizes(theirs[name])}, is {_sizes(ours)}" if name in theirs else "not there"
    report.left_over.extend(sorted(set(theirs) - set(report.matched) - set(report.classes)))
    if not report.matched and not report.classes:
        raise CheckpointError(f"train.init_from: nothing of the model {source!r} fits this one, as in: "
                              f"{_some([f'{name} ({why})' for name, why in report.new.items()])}. The keys of `model` decide "
                              f"about names and shapes; those of that model are in {str(folder / 'config.json')!r}.")
    return report


def report_initialization(log: RunLog, found: Initialization) -> None:
    """Print the report, and write it down once: a run that is killed before its first checkpoint begins anew."""
    print("\n".join(found.lines()), file=sys.stderr, flush=True)
    if not log.events(INITIALIZED):
        log.event(0, INITIALIZED, **asdict(found))


def _fill_rows(
    report: Initialization, name: str, ours: Tensor, our_names: list[str], theirs: Tensor, their_names: list[str]
) -> None:
    """Take the rows of the classes that both models have."""
    common = [one for one in our_names if one in their_names]
    if not common or theirs.shape[1:] != ours.shape[1:] or len(theirs) != len(their_names):
        report.new[name] = f"was {_sizes(theirs)}, is {_sizes(ours)}" if common else "no class of the same name"
        return
    ours[[our_names.index(one) for one in common]] = theirs[[their_names.index(one) for one in common]].to(ours)
    report.classes[name] = common


def _tables_of_classes(model: MaskedModel) -> dict[str, list[str]]:
    """The names of the classes whose vectors are the rows of a tensor, by the name of the tensor."""
    return {f"{name}.embedding": list(module.names) for name, module in model.named_modules()
            if isinstance(module, ClassConditioner)}


def _names(spec: ModelSpec, tensor: str) -> list[str]:
    """The names of the classes of another model, for one of these tensors."""
    node = spec.conditions.get(tensor.split(".")[1])
    return [str(name) for name in node.options.get("names", ())] if node else []


def _differences(theirs: ModelSpec, ours: ModelSpec) -> list[str]:
    def tokenizers(spec: ModelSpec) -> dict[str, Any]:
        return {name: {"kind": stream.tokenizer.kind, **stream.tokenizer.options} for name, stream in spec.streams.items()
                if stream.tokenizer and name in theirs.streams and name in ours.streams}

    return changes(tokenizers(theirs), tokenizers(ours))


def _sizes(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _some(names: list[str]) -> str:
    return ", ".join(names[:NUM_SHOWN]) + (f", ... ({len(names)} in all)" if len(names) > NUM_SHOWN else "")
