"""From a model and a recipe to figures, by way of a folder of features that survives being killed.

    evaluation.json              what is evaluated, and by what: the same command goes on with it, another one is refused
    real-397/, training-1000/    features of real examples, a block to a file
    generated/                   features of generated samples
    result.json                  the figures
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch

from djepa.cache.index import changes
from djepa.device import Precision, resolve_device, resolve_precision
from djepa.errors import CheckpointError, UsageError
from djepa.evaluate.blocks import Blocks
from djepa.evaluate.metric import Metric
from djepa.evaluate.processes import run_workers
from djepa.evaluate.result import Evaluation, build_metrics, figures_of, notes_on
from djepa.evaluate.task import SetName, Task, check_examples, model_digest, spread
from djepa.evaluate.work import Workshop, make_blocks
from djepa.files import atomic_file, leftovers
from djepa.locate import locate_model
from djepa.recipe import Recipe
from djepa.recipe.component import Component
from djepa.recipe.schema import EvaluateSpec, ModelSpec
from djepa.request import Settings, settings_from
from djepa.storage import read_config
from djepa.tokens import Sample

FORMAT = 1
TASK, RESULT = "evaluation.json", "result.json"


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is.

    Attributes:
        done, total: samples whose features there are, real ones included.
    """

    done: int
    total: int


OnProgress = Callable[[Progress], Any]


def evaluate(
    model: str | Path, recipe: Recipe, folder: str | Path | None = None, *, training: Component | None = None, nproc: int = 1,
    device: str = "auto", dtype: Precision = "auto", batch_size: int | None = None, on_progress: OnProgress | None = None,
    **settings: Unpack[Settings],
) -> Evaluation:
    """Compare samples that a model generates with real ones.

    The same seed gives the same numbers, whatever the number of processes and the batch size, but for the rounding of kernels.
    An evaluation that was stopped goes on when it is called again with the same of all this.

    Args:
        model: as for `Pipeline.from_pretrained`.
        recipe: its `evaluate` block says what to compare and by what; `evaluate.data`, or else `data`, is compared with.
        folder: for the features and `result.json`; by default a folder in `evaluations` of a name that says what is in it.
        training: the dataset that the model was trained on, if other than what is compared with: what figures its examples
            get is reported beside. By default the recipe's `data`.
        nproc: processes that generate, each with its share of the samples. On several GPUs each takes one.
        device: "auto" takes a GPU where there is one.
        dtype: that the model computes in, as for `Pipeline`.
        batch_size: samples generated at a time; by default what fits memory.
        on_progress: called as blocks of samples are finished.
        settings: of generation, where other than the model's own; see `djepa.request.Settings`.

    Raises:
        CheckpointError: there is no such model.
        RecipeError: the data do not have what the model makes.
        UsageError: the folder holds another evaluation, or something asked for cannot be.
        StorageError: the disk refused; what is finished stays.
    """
    if nproc < 1:
        raise UsageError(f"nproc={nproc}: at least 1 process is needed.")
    wanted, where = recipe.evaluate, resolve_device(device)
    precision = str(resolve_precision(dtype, where)).removeprefix("torch.")
    home = locate_model(model).resolve()
    spec = read_config(home)[0]
    task = Task.of(spec, recipe, model=str(home), training=training, generate=settings_from(spec.generate, settings),
                   dtype=precision, batch_size=batch_size)
    shop, metrics = Workshop(task, where), build_metrics(wanted.metrics)
    check_work(shop, spec, metrics)
    key = task_key(shop, model_digest(home))
    place = Path(folder) if folder is not None else default_folder(str(model), key)
    sets = _sets(place, shop, wanted)
    _begin(place, task, key, sets)
    if nproc > 1:
        run_workers(place, sets, nproc, where, lambda: _report(on_progress, sets))
    else:
        for _ in make_blocks(shop, sets):
            _report(on_progress, sets)
    found = outcome(str(model), task, wanted, metrics, sets)
    with atomic_file(place / RESULT) as temporary:
        temporary.write_text(json.dumps(found.plain(), indent=2) + "\n", encoding="utf-8")
    return found


def check_work(shop: Workshop, spec: ModelSpec, metrics: Mapping[str, Metric]) -> None:
    """Find out before anything is generated whether all parts fit together.

    Raises:
        RecipeError: the data do not have what the model makes.
        UsageError: the extractor is for something else, finds other features in samples of the model's shape, or gives no
            logits where a metric needs them.
    """
    task = shop.task
    check_examples(shop.dataset("real"), spec, task.stream)
    if task.training:
        check_examples(shop.dataset("training"), spec, task.stream)
    found = shop.extracted([shop.dataset("real").load(0).samples[task.stream]])
    stream = spec.streams[task.stream]
    assert stream.shape is not None
    made = shop.extractor.extract([Sample(torch.zeros(stream.shape), dict(stream.meta), stream.modality)])
    if made.vectors.shape != found.vectors.shape:
        raise UsageError(f"Features {task.features.kind!r} have {found.vectors.shape[1]:,} values for the data's samples and "
                         f"{made.vectors.shape[1]:,} for the model's, which are of shape {stream.shape}; choose an extractor "
                         f"for samples of any shape, or data of that shape.")
    for name, metric in metrics.items():
        if metric.needs_logits and found.logits is None:
            raise UsageError(f"Metric {name!r} needs an extractor that classifies; {task.features.kind!r} gives no logits.")


def task_key(shop: Workshop, weights: str) -> dict[str, Any]:
    """All that decides the features of every set, as plain values."""
    values = shop.task.model_dump(mode="json", context={"resolved": True})
    files = [shop.dataset("training").fingerprint()] if shop.task.training else []
    key = {**values, **real_key(shop), "model": {"weights": weights}, "training": {"is": values["training"], "files": files}}
    return {name: value for name, value in key.items() if name != "batch_size"}


def real_key(shop: Workshop) -> dict[str, Any]:
    """All that decides the features of the real examples, as plain values."""
    values = shop.task.model_dump(mode="json", context={"resolved": True})
    values["features"]["weights"] = shop.extractor.fingerprint()
    return {**{name: values[name] for name in ("data", "stream", "skip_unreadable", "features")},
            "files": shop.dataset("real").fingerprint()}


def digest(key: Mapping[str, Any]) -> str:
    """A short name for a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def default_folder(model: str, key: Mapping[str, Any]) -> Path:
    """Where an evaluation goes that names no folder."""
    return Path("evaluations") / f"{re.sub(r'[^A-Za-z0-9]+', '-', model).strip('-')[-40:] or 'model'}-{digest(key)}"


def outcome(
    model: str, task: Task, wanted: EvaluateSpec, metrics: Mapping[str, Metric], sets: Mapping[SetName, Blocks]
) -> Evaluation:
    """The figures of features that are all there."""
    features = {name: blocks.read() for name, blocks in sets.items()}
    generated, real, training = features["generated"], features["real"], features.get("training")
    return Evaluation(
        model, task.data.model_dump(mode="json"), task.features.model_dump(mode="json"), len(generated), len(real),
        0 if training is None else len(training), generated.vectors.shape[1], task.generate.model_dump(mode="json"), task.seed,
        figures_of(metrics, wanted, generated, real, training), list(notes_on(metrics, generated, real)),
    )


def _sets(place: Path, shop: Workshop, wanted: EvaluateSpec) -> dict[SetName, Blocks]:
    """The blocks to be made; which real examples there are depends on how many, which generated samples does not."""
    most: dict[SetName, int | None] = {"real": wanted.num_real}
    if shop.task.training:  # as many as are generated: some figures depend on that
        most["training"] = wanted.num_samples
    sets: dict[SetName, Blocks] = {}
    for name, count in most.items():
        total = len(spread(len(shop.dataset(name)), count))
        sets[name] = Blocks(place / f"{name}-{total}", total)
    sets["generated"] = Blocks(place / "generated", wanted.num_samples)
    return sets


def _begin(place: Path, task: Task, key: Mapping[str, Any], sets: Mapping[SetName, Blocks]) -> None:
    """Make the folder ready: a new one, or one of an evaluation of the same."""
    path = place / TASK
    if path.is_file():
        if different := changes(_read(path)["key"], json.loads(json.dumps(key))):
            raise UsageError(f"{str(place)!r} holds an evaluation of something else: {'; '.join(different[:5])}. Choose "
                             f"another folder, or remove this one.")
    elif place.exists() and (not place.is_dir() or set(place.iterdir()) - set(leftovers(place))):
        raise UsageError(f"{str(place)!r} exists and holds no evaluation; choose a folder of its own.")
    totals = {name: [blocks.folder.name, blocks.total] for name, blocks in sets.items()}
    document = {"format": FORMAT, "key": key, "task": task.model_dump(mode="json"), "sets": totals}
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for blocks in sets.values():
        blocks.sweep()


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] == FORMAT and isinstance(document["key"], dict):
            return document
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged ({error!r}); remove the folder to start over.") from error
    raise CheckpointError(f"{str(path)!r} has format {document['format']!r}; this djepa reads {FORMAT}.")


def _report(on_progress: OnProgress | None, sets: Mapping[SetName, Blocks]) -> None:
    if on_progress is not None:
        on_progress(Progress(sum(blocks.done() for blocks in sets.values()), sum(blocks.total for blocks in sets.values())))
