"""Caches: training from one is training from the data; what has changed since is refused; nothing half-written counts."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from djepa import Recipe, Trainer
from djepa.build import complete
from djepa.cache import Cached, Progress, check_cache, write_cache
from djepa.errors import CheckpointError, UsageError
from djepa.random import numpy_generator, seeded

CONFIG = {"in_channels": 3, "out_channels": 3, "latent_channels": 2, "block_out_channels": (4, 8), "norm_num_groups": 2,
          "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2, "sample_size": 8}
NUM_PICTURES = 10


@pytest.fixture(scope="module")
def make_source(tmp_path_factory):
    """A function that writes a small autoencoder of pictures to a folder."""
    from diffusers import AutoencoderKL

    def make(seed):
        folder = tmp_path_factory.mktemp("autoencoder")
        with seeded(seed, "autoencoder"):
            network = AutoencoderKL(**CONFIG)
        network.save_pretrained(folder, safe_serialization=True)
        return folder

    return make


@pytest.fixture(scope="module")
def source(make_source):
    return make_source(0)


@pytest.fixture
def pictures(tmp_path):
    """Two classes of pictures that are not their own mirror images."""
    rng = np.random.default_rng(0)
    for number in range(NUM_PICTURES):
        path = tmp_path / "pictures" / ("cats" if number % 2 else "ants") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def overrides(pictures, source):
    return ["data.kind=image-folder", f"data.root={pictures}", "data.size=8", "model.streams.image.tokenizer.kind=autoencoder",
            f"model.streams.image.tokenizer.source={source}"]


@pytest.fixture
def recipe(make_recipe, overrides):
    return make_recipe(*overrides, "train.steps=4", "checkpoint.every=4", "train.batch_size=4")


@pytest.fixture
def cache(recipe, tmp_path):
    return write_cache(recipe, tmp_path / "cache", device="cpu", shard_size=4)


def from_cache(recipe, cache):
    return recipe.override(["data.kind=cached", f"data.root={cache}"])


def losses(run):
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return torch.tensor([[record["loss"], record["grad_norm"]] for record in records if "loss" in record])


def test_training_from_a_cache_takes_the_steps_of_training_from_the_data(recipe, cache, tmp_path):
    cached = from_cache(recipe, cache)
    assert complete(cached.model, cached.data.build()) == complete(recipe.model, recipe.data.build())
    for run, one in (("plain", recipe), ("cached", cached)):
        Trainer(one, device="cpu").fit(tmp_path / run)
    plain, ours = losses(tmp_path / "plain"), losses(tmp_path / "cached")
    assert len(plain) == 4
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)


def test_examples_are_those_of_the_dataset_in_the_same_views(recipe, cache):
    dataset, cached = recipe.data.build(), Cached(root=str(cache))
    spec = complete(recipe.model, dataset)
    tokenizer = spec.streams["image"].tokenizer.build(cached_media(spec))
    assert len(cached) == NUM_PICTURES and cached.classes() == dataset.classes() == {"label": ["ants", "cats"]}
    mirrored = 0
    for index in range(NUM_PICTURES):
        for rng in (lambda: None, lambda index=index: numpy_generator(3, "augmentation", index)):
            theirs, ours = dataset.load(index, rng()), cached.load(index, rng())
            assert ours.conditions == theirs.conditions and ours.samples["image"].shape == theirs.samples["image"].shape
            noise = lambda width: torch.ones(1, width)  # noqa: E731
            torch.testing.assert_close(tokenizer.encode_batch([ours.samples["image"]], noise).values,
                                       tokenizer.encode_batch([theirs.samples["image"]], noise).values, rtol=1e-6, atol=1e-6)
            mirrored += not torch.equal(theirs.samples["image"].data, dataset.load(index).samples["image"].data)
    assert 0 < mirrored < NUM_PICTURES


def cached_media(spec):
    from djepa.build import modality
    from djepa.tokens import MediaSpec

    medium = modality(spec.streams["image"])
    return MediaSpec(channels=3, axes=medium.axes, bounds=medium.bounds)


def test_a_cache_needs_neither_the_pictures_nor_another_place(recipe, cache, pictures, tmp_path):
    pictures.rename(tmp_path / "elsewhere")
    cache = cache.rename(tmp_path / "moved")
    assert len(Cached(root=str(cache))) == NUM_PICTURES and not [problem for _, problem in check_cache(cache) if problem]
    Trainer(from_cache(recipe, cache).override(["train.steps=1"]), device="cpu").fit(tmp_path / "run")


def test_half_precision_is_half_as_large_and_nearly_the_same(recipe, cache, tmp_path):
    half = write_cache(recipe, tmp_path / "half", device="cpu", dtype="float16")
    exact, rough = (Cached(root=str(folder)).load(1).samples["image"].data for folder in (cache, half))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=2**-11, atol=1e-6)
    assert not torch.equal(rough, exact)


@pytest.mark.parametrize(("change", "told"), [
    ("data.flip=false", "data.flip was true and is false"),
    ("data.size=16", "data.size was 8 and is 16"),
    ("model.streams.image.tokenizer.tile=4", "tokenizers.image.tile was null and is 4"),
])
def test_another_recipe_does_not_go_on_with_a_cache(recipe, cache, change, told):
    with pytest.raises(UsageError, match=f"made from something else: .*{told}"):
        write_cache(recipe.override([change]), cache, device="cpu", shard_size=4)


def test_a_setting_that_comes_after_the_network_does_not_make_a_cache_stale(recipe, cache, tmp_path):
    changed = recipe.override(["model.streams.image.tokenizer.mean=0.5", "model.streams.image.tokenizer.std=2"])
    write_cache(changed, cache, device="cpu", shard_size=4)
    Trainer(from_cache(changed, cache).override(["train.steps=1"]), device="cpu").fit(tmp_path / "run")


def test_other_weights_are_refused(recipe, cache, make_source, tmp_path):
    other = recipe.override([f"model.streams.image.tokenizer.source={make_source(1)}"])
    with pytest.raises(UsageError, match=r"something else: the weights of tokenizers\.image are others"):
        write_cache(other, cache, device="cpu", shard_size=4)
    with pytest.raises(UsageError, match="made with another tokenizer: the weights of image are others"):
        Trainer(from_cache(other, cache), device="cpu").fit(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    patches = from_cache(recipe, cache).override(["model.streams.image.tokenizer.kind=patchify"])
    with pytest.raises(UsageError, match=r"another tokenizer: image\.kind was .* and is not there"):
        Trainer(patches, device="cpu").fit(tmp_path / "run")


def test_other_pictures_are_refused_unless_told_otherwise(recipe, cache, pictures):
    Image.new("RGB", (8, 8), "red").save(pictures / "ants" / "0.png")
    told = "the files of the dataset are others, or were changed"
    with pytest.raises(UsageError, match=f"is stale: {told}"):
        Cached(root=str(cache))
    with pytest.raises(UsageError, match=f"something else: {told}"):
        write_cache(recipe, cache, device="cpu", shard_size=4)
    assert ("dataset", told) in list(check_cache(cache))
    assert len(Cached(root=str(cache), check_source=False)) == NUM_PICTURES


def test_a_damaged_shard_is_named_and_made_anew(recipe, cache):
    shard = cache / "shard-00001.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert [name for name, problem in check_cache(cache) if problem] == ["shard-00001.safetensors"]
    for damage in (lambda: shard.write_bytes(content[: len(content) // 2]), shard.unlink):
        damage()
        with pytest.raises(CheckpointError, match=r"shard-00001\.safetensors' of the cache is damaged: it"):
            Cached(root=str(cache))
    seen = []
    write_cache(recipe, cache, device="cpu", shard_size=4, on_shard=seen.append)
    assert seen == [Progress(4, NUM_PICTURES), Progress(NUM_PICTURES, NUM_PICTURES)]
    assert not [problem for _, problem in check_cache(cache) if problem] and shard.read_bytes() == content


def test_a_shard_that_is_damaged_under_way_is_named(cache):
    cached = Cached(root=str(cache))
    shard = cache / "shard-00002.safetensors"
    shard.write_bytes(b"\xff" * len(shard.read_bytes()))
    assert cached.load(7).conditions
    with pytest.raises(CheckpointError, match=r"shard-00002\.safetensors"):
        cached.load(9)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 2, "shards": []}', '{"format": 1, "shards": [{}]}'])
def test_a_damaged_index_is_refused(cache, content):
    (cache / "index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        Cached(root=str(cache))


def test_what_cannot_be_cached_is_refused(recipe, make_recipe, cache, tmp_path):
    with pytest.raises(UsageError, match="draws every example anew in more ways than can be kept"):
        write_cache(recipe.override(["data.crop=random"]), tmp_path / "a", device="cpu")
    with pytest.raises(UsageError, match="have no network"):
        write_cache(make_recipe(), tmp_path / "b", device="cpu")
    with pytest.raises(UsageError, match="is a cache already"):
        write_cache(from_cache(recipe, cache), tmp_path / "c", device="cpu")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no cache; choose a folder of its own"):
        write_cache(recipe, tmp_path / "d", device="cpu")
    assert not any((tmp_path / name).exists() for name in "abc") and os.listdir(tmp_path / "d") == ["mine.txt"]


KILLED = """
import sys
import djepa.files
sync = djepa.files._sync
def stop(path):
    sync(path)
    if ".shard-00001" in path.name:
        print("now", flush=True)
        sys.stdin.read()
djepa.files._sync = stop
import djepa.cache.writing
djepa.cache.writing.write_cache.__kwdefaults__["shard_size"] = 4
from djepa.cli import main; main()
"""


def test_a_cache_that_was_killed_goes_on_and_ends_with_the_same_bytes(overrides, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = subprocess.Popen([sys.executable, "-c", KILLED, "cache", "image/digits", *overrides, "--out", str(broken)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "now\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    first = (broken / "shard-00000.safetensors").stat()
    with pytest.raises(CheckpointError, match="not complete: 4 of 10 examples"):
        Cached(root=str(broken))
    recipe = Recipe.load("image/digits", overrides)
    for folder in (whole, broken):
        write_cache(recipe, folder, device="cpu", shard_size=4)
    assert (broken / "shard-00000.safetensors").stat().st_mtime_ns == first.st_mtime_ns
    assert sorted(os.listdir(broken)) == sorted(os.listdir(whole))
    assert all((broken / name).read_bytes() == (whole / name).read_bytes() for name in os.listdir(whole))


def test_the_command_makes_checks_and_says_how_to_train(overrides, command, tmp_path):
    folder = tmp_path / "made"
    made = command("cache", "image/digits", *overrides, "--out", folder, "--device", "cpu")
    assert made.code == 0 and f"data.kind=cached data.root={folder}" in made.out and "10 of 10 examples" in made.err
    assert command("cache", "--check", folder).out == f"{folder} is sound.\n"
    (folder / "shard-00000.safetensors").unlink()
    assert "shard-00000.safetensors: it is missing" in command("cache", "--check", folder).error()
    assert json.loads(command("cache", "--check", folder, "--json").out)["problems"]
    assert "RECIPE --out FOLDER" in command("cache").error()
    assert "either checks" in command("cache", "image/digits", "--check", folder).error()


def test_workers_write_the_same_and_say_which_picture_is_damaged(recipe, cache, pictures, tmp_path):
    busy = recipe.override(["train.num_workers=2"])
    write_cache(busy, tmp_path / "busy", device="cpu", shard_size=4)
    for path in cache.glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "busy" / path.name).read_bytes()
    (pictures / "cats" / "7.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"7\.png"):
        write_cache(busy, tmp_path / "damaged", device="cpu", shard_size=4)
