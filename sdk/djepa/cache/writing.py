"""A dataset to shards of moments; stopped at any moment, it goes on with the first shard that is not finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from djepa.build import tokenizer
from djepa.cache.index import HEADER, INDEX, Index, Shard, changes, file_digest, problem_of, shard_path
from djepa.cache.loading import Views, load_views
from djepa.dataset import Dataset
from djepa.device import resolve_device
from djepa.errors import RecipeError, UsageError, suggest
from djepa.files import atomic_file, leftovers
from djepa.recipe import Recipe
from djepa.skipping import Skipping, left_out_of
from djepa.tokenizer import Tokenizer
from djepa.tokens import Encoded, Sample

SHARD_SIZE = 512  # examples: with 256 latents of 16 channels each that is 16 MiB a view
DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Progress:
    """How far a cache is.

    Attributes:
        done, total: examples.
    """

    done: int
    total: int


def write_cache(
    recipe: Recipe, folder: str | Path, *, device: str = "auto", dtype: Literal["float32", "float16"] = "float32",
    shard_size: int = SHARD_SIZE, on_shard: Callable[[Progress], None] | None = None,
) -> Path:
    """Encode the dataset of a recipe with the recipe's tokenizers, and return the folder.

    Args:
        recipe: its `data` and the tokenizers of its streams decide what is written; `train.num_workers` load. With
            `train.on_error=skip` others take the place of examples that cannot be read, and the index says of which.
        folder: a new one, or that of a cache that was begun with the same of these.
        device: where the tokenizers compute; "auto" takes a GPU where there is one.
        dtype: of what is stored. float32 loses nothing.
        shard_size: examples per file.
        on_shard: called before every shard that is made, and at the end.

    Raises:
        MediaError: an example cannot be read.
        UsageError: no stream has a tokenizer with a network; the dataset draws more than can be kept; or the folder holds
            something else, such as a cache of another key: the message says what changed.
        StorageError: the disk refused; finished shards stay.
    """
    folder = Path(folder)
    if dtype not in DTYPES:
        raise UsageError(f"A cache cannot be of dtype {dtype!r}. {suggest(dtype, DTYPES)}")
    if shard_size < 1:
        raise UsageError(f"shard_size={shard_size}: a shard holds at least 1 example.")
    plain: Dataset = recipe.data.build()
    dataset = Skipping(plain) if recipe.train.on_error == "skip" else plain
    tokenizers = _tokenizers(recipe, dataset, resolve_device(device))
    index = _begun(folder, _index(recipe, dataset, tokenizers, dtype, shard_size))
    report = on_shard or (lambda _: None)
    done = 0
    for number, start in enumerate(range(0, index.num_examples, shard_size)):
        path, numbers = shard_path(folder, number), range(start, min(start + shard_size, index.num_examples))
        if number >= len(index.shards) or problem_of(path, index.shards[number]):
            report(Progress(done, index.num_examples))
            loaded = load_views(dataset, index.num_views, numbers, recipe.train.num_workers, recipe.train.load_timeout)
            index.shards[number : number + 1] = [_write_shard(path, loaded, tokenizers, index, numbers)]
            index.write(folder)
        done += len(numbers)
    report(Progress(done, index.num_examples))
    return folder


def _tokenizers(recipe: Recipe, dataset: Dataset, device: torch.device) -> dict[str, Tokenizer]:
    """The tokenizers of the streams whose encoding is worth keeping."""
    first, found = dataset.load(0), {}
    for name, stream in recipe.model.streams.items():
        if name not in first.samples:
            raise RecipeError(f"model.streams.{name}: the dataset gives no {name!r}. {suggest(name, first.samples)}")
        one = tokenizer(stream.model_copy(update={"shape": stream.shape or first.samples[name].shape}))
        if one.cacheable:
            found[name] = one.to(device)
    if any(isinstance(sample, Encoded) for sample in first.samples.values()):
        raise UsageError("This dataset is a cache already; nothing would be gained by another.")
    if not found:
        raise UsageError("There is nothing worth keeping: the tokenizers of this recipe have no network, so that encoding "
                         "takes less time than reading a cache. Train from the dataset itself.")
    return found


def _index(recipe: Recipe, dataset: Dataset, tokenizers: Mapping[str, Tokenizer], dtype: str, shard_size: int) -> Index:
    num_views = dataset.num_views()
    if num_views is None:
        raise UsageError(f"The dataset {recipe.data.kind!r} draws every example anew in more ways than can be kept (random "
                         f"crops, for example), or does not say in how many. Set what it draws to something a cache can hold.")
    key = {
        "data": {"kind": recipe.data.kind, **recipe.data.resolved_options()},
        "files": dataset.fingerprint(),
        "tokenizers": {name: one.moments_key() for name, one in tokenizers.items()},
        "dtype": dtype,
    }
    modalities = {name: stream.modality for name, stream in recipe.model.streams.items()}
    plain = json.loads(json.dumps(key))  # as it is read back: no tuples
    return Index(plain, len(dataset), num_views, shard_size, dict(dataset.classes()), modalities)


def _begun(folder: Path, wanted: Index) -> Index:
    """The index to go on with: what is there, if it was begun alike."""
    if not (folder / INDEX).is_file():
        if folder.exists() and (not folder.is_dir() or set(folder.iterdir()) - set(leftovers(folder))):
            raise UsageError(f"{str(folder)!r} exists and holds no cache; choose a folder of its own.")
        wanted.write(folder)
        return wanted
    found = Index.read(folder)
    before, after = ({**index.key, "shard_size": index.shard_size} for index in (found, wanted))
    if different := changes(before, after):
        raise UsageError(f"{str(folder)!r} holds a cache that was made from something else: {'; '.join(different[:5])}. Choose "
                         f"another folder, or remove this one.")
    for leftover in leftovers(folder):
        leftover.unlink(missing_ok=True)
    return replace(found, shards=list(found.shards), left_out=dict(found.left_out))


def _write_shard(
    path: Path, loaded: Iterable[Sequence[Views]], tokenizers: Mapping[str, Tokenizer], index: Index, numbers: range
) -> Shard:
    conditions: list[Any] = []
    values: dict[str, list[Tensor]] = {name: [] for name in index.modalities}
    kinds: dict[str, dict[str, int]] = {name: {} for name in index.modalities}  # what samples may have in common, as JSON
    of: dict[str, list[int]] = {name: [] for name in index.modalities}
    for examples in loaded:
        index.left_out.update({str(one): reason for one, reason in left_out_of(chain.from_iterable(examples)).items()})
        conditions += [dict(views[0].conditions) for views in examples]
        for name in index.modalities:
            samples = [example.samples[name] for views in examples for example in views]
            for sample in _kept(tokenizers.get(name), name, samples, DTYPES[index.key["dtype"]]):
                values[name].append(sample.data.flatten())
                kind = _json({"shape": sample.shape, "data": tuple(sample.data.shape), "meta": sample.meta})
                of[name].append(kinds[name].setdefault(kind, len(kinds[name])))
    about = {name: {"kinds": [json.loads(kind) for kind in kinds[name]], "of": of[name]} for name in index.modalities}
    tensors = {name: torch.cat(parts) for name, parts in values.items()}
    header = {HEADER: _json({"conditions": conditions, "samples": about})}  # one entry: of several the order would vary
    with atomic_file(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=header)
        except SafetensorError as error:  # how it reports a full disk
            raise OSError(str(error)) from error
        temporary.chmod(0o644)  # it is written for its owner alone, unlike everything else
        return Shard(len(numbers), temporary.stat().st_size, file_digest(temporary))


def _kept(one: Tokenizer | None, name: str, samples: Sequence[Sample], dtype: torch.dtype) -> Sequence[Sample]:
    """What is kept of samples: moments, or the samples themselves where encoding them is quick."""
    if one is None:
        return samples
    return [replace(found, data=_finite(found.data.cpu(), dtype, name)) for found in one.moments(samples)]


def _finite(data: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    stored = data.to(dtype).contiguous()
    if not bool(stored.isfinite().all()):
        raise UsageError(f"What the tokenizer of {name!r} finds goes up to {float(data.abs().max()):.3g}, which {dtype} does "
                         f"not hold; store float32.")
    return stored


def _json(value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"Conditions and metadata of this dataset cannot be kept: {error}. Plain values only.") from error
