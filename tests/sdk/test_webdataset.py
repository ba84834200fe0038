"""Shards that the webdataset library wrote: every member is found, read alone, and named when it is damaged."""

import gc
import gzip
import io
import json
import os
import shutil
import tarfile
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter

import djepa.testing
from djepa import Trainer
from djepa.errors import MediaError, UsageError
from djepa.plugins import host
from djepa.recipe.component import DatasetNode
from djepa.shards import WebDataset
from djepa.shards.index import ShardIndex
from djepa.shards.selection import shards_of
from djepa.train.data import DataOrder, batches

webdataset = pytest.importorskip("webdataset")
NUM, PER_SHARD = 25, 10


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user cache"))


def png(number):
    rng = np.random.default_rng(number)
    content = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()


def written(path, samples):
    """One shard, by the reference implementation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(sample)
    return path


def picture(number):
    return {"__key__": f"{number:04d}", "png": png(number), "cls": number % 3, "txt": f"picture {number}",
            "json": {"caption": f"caption {number}", "seconds": float(number % 4), "nested": {"list": [number]}}}


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for shard, start in enumerate(range(0, NUM, PER_SHARD)):
        written(folder / f"train-{shard:03d}.tar", map(picture, range(start, min(NUM, start + PER_SHARD))))
    return folder


@pytest.fixture
def copied(shards, tmp_path):
    """Shards that a test may damage."""
    return shutil.copytree(shards, tmp_path / "copied", ignore=shutil.ignore_patterns(".djepa"))


def build(root, **options):
    node = TypeAdapter(DatasetNode).validate_python({"kind": "webdataset", "root": str(root), **options})
    return node.build()


# ---- what is read

@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # the reference's
def test_examples_are_those_that_the_reference_reads(shards):
    dataset = build(shards)
    reference = webdataset.WebDataset(sorted(map(str, shards.glob("*.tar"))), shardshuffle=False)
    keys = []
    for index, theirs in enumerate(reference):
        ours = dataset.load(index)
        expected = torch.from_numpy(np.array(Image.open(io.BytesIO(theirs["png"])))).permute(2, 0, 1) / 127.5 - 1
        assert torch.equal(ours.samples["image"].data, expected)
        assert ours.conditions == {"label": theirs["cls"].decode(), "text": theirs["txt"].decode()}
        keys.append(theirs["__key__"])
    del reference
    gc.collect()
    assert len(keys) == len(dataset) == NUM
    assert all(repr(key) in dataset.described(index) for index, key in enumerate(keys))


def test_streams_and_conditions_can_be_named(shards):
    dataset = build(shards, streams={"x": "image"}, conditions={"caption": "json:caption", "deep": "json:nested", "c": ".CLS"})
    example = dataset.load(7)
    assert example.samples["x"].modality == "image"
    assert example.conditions == {"caption": "caption 7", "deep": {"list": [7]}, "c": "1"}
    assert dataset.classes() == {"c": ["0", "1", "2"]}


@pytest.mark.parametrize("as_file", [False, True])
def test_numbers_of_classes_are_given_names(shards, tmp_path, as_file):
    names = ["ant", "bee", "cat"]
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    dataset = build(shards, classes=str(tmp_path / "names.txt") if as_file else names)
    assert [dataset.load(index).conditions["label"] for index in range(4)] == ["ant", "bee", "cat", "ant"]
    assert dataset.classes() == {"label": names}
    with pytest.raises(UsageError, match=r"'0002' in .*train-000.tar' is of the class '2', which is none of the 2"):
        build(shards, classes=names[:2])


def test_names_of_classes_are_sorted(tmp_path):
    written(tmp_path / "a.tar", [{"__key__": str(number), "png": png(number), "cls": name.encode()}
                                 for number, name in enumerate(["dog", "ant", "dog"])])
    dataset = build(tmp_path)
    assert dataset.classes() == {"label": ["ant", "dog"]} and dataset.load(2).conditions == {"label": "dog"}


@pytest.mark.parametrize(("name", "options", "shape"), [
    ("audio", {}, (1, 6000)), ("audio", {"shapes": {"audio": [2, 8000]}, "rates": {"sample_rate": 16000}}, (2, 8000)),
    ("video", {"streams": {"video": "video"}}, (3, 8, 16, 16)),
    ("video", {"shapes": {"video": [1, 4, 8, 12]}, "rates": {"fps": 4}}, (1, 4, 8, 12)),
])
def test_sounds_and_clips_are_read_by_their_modality(tmp_path, name, options, shape):
    modality = host().get("modality", name)()
    samples = []
    for number in range(3):
        path = modality.save(modality.example(number), tmp_path / f"{number}.{modality.extensions[0]}")
        samples.append({"__key__": f"dir/{number}", modality.extensions[0]: path.read_bytes()})
    written(tmp_path / "shards" / "a.tar", samples)
    dataset = build(tmp_path / "shards", **options)
    for number in range(3):
        sample = dataset.load(number).samples[name]
        assert sample.shape == shape
        if not options.get("shapes"):
            assert torch.equal(sample.data, modality.load(tmp_path / f"{number}.{modality.extensions[0]}").data)
        assert all(sample.meta[key] == rate for key, rate in options.get("rates", {}).items())


def test_pictures_are_fitted_mirrored_and_cropped(shards):
    plain = build(shards, shapes={"image": [1, 6, 6]}, flip=True)
    assert plain.num_views() == 2 and plain.load(3).samples["image"].shape == (1, 6, 6)
    assert torch.equal(plain.view(3, 1).samples["image"].data, plain.view(3, 0).samples["image"].data.flip(-1))
    cropped = build(shards, shapes={"image": [3, 12, 12]}, crop="random")
    places = {cropped.load(3, np.random.default_rng(seed)).samples["image"].data.numpy().tobytes() for seed in range(40)}
    assert cropped.num_views() is None and len(places) == 5  # 16 columns, 12 of them shown
    whole = build(shards).load(3).samples["image"].data
    assert torch.equal(cropped.load(3).samples["image"].data, whole[:, :, 2:14])


# ---- order, resuming, workers

@given(seed=st.integers(0, 999), window=st.integers(1, 30))
def test_an_order_of_shards_stays_within_its_windows(shards, seed, window):
    dataset = WebDataset(root=str(shards), shuffle="shards", window=window)
    order = dataset.order(np.random.default_rng(seed)).tolist()
    assert sorted(order) == list(range(NUM))
    shard_of = [index // PER_SHARD for index in range(NUM)]
    turns = list(dict.fromkeys(shard_of[index] for index in order))
    in_turn = sorted(range(NUM), key=lambda index: turns.index(shard_of[index])) if window == 1 else None
    assert in_turn is None or order == in_turn
    starts = range(0, NUM, window)
    assert all(len({shard_of[index] for index in order[start : start + window]}) <= 1 + -(-window // 5) for start in starts)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("shuffle", ["global", "shards"])
def test_a_run_goes_on_within_a_shard(shards, shuffle):
    dataset = build(shards, shuffle=shuffle, window=4)
    order = DataOrder(3, NUM, 4, dataset.order)

    def keys(first, num_workers):
        return [[example.conditions["text"] for example in examples]
                for examples in batches(dataset, order, range(first, 14), num_workers)]

    everything = keys(0, 0)
    assert keys(5, 0) == keys(5, 2) == everything[5:] and keys(0, 2) == everything
    assert sorted(list(chain.from_iterable(everything))[:NUM]) == sorted(f"picture {number}" for number in range(NUM))


def test_training_from_shards_is_killed_and_resumed_like_any(shards, make_recipe, tmp_path):
    options = [f"data.root={shards}", "data.shapes={image: [1, 8, 8]}", "data.shuffle=shards", "data.window=4"]
    recipe = make_recipe("data.kind=webdataset", *options, "train.steps=6", "checkpoint.every=3", "checkpoint.keep=2")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    Trainer(recipe, device="cpu").fit(whole)
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "step_00000006")
    Trainer.resume(parts, device="cpu")
    losses = [[json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()] for run in (whole, parts)]
    assert losses[0] == losses[1] and len(losses[0]) == 6


def test_lengths_come_out_of_json_or_bytes(shards):
    assert build(shards).lengths() is None
    assert build(shards, length="json:seconds").lengths().tolist() == [number % 4 for number in range(NUM)]
    assert np.isnan(build(shards, length="json:nothing").lengths()).all()
    assert build(shards, length="bytes").lengths().tolist() == [len(png(number)) for number in range(NUM)]
    with pytest.raises(UsageError, match="length must be 'bytes' or 'json:'"):
        build(shards, length="seconds")


# ---- the index

def test_an_index_is_kept_beside_the_shards_and_found_anew_when_one_changes(copied, monkeypatch):
    build(copied)
    kept = sorted((copied / ".djepa").iterdir())
    assert [path.name for path in kept] == [f"train-{number:03d}.tar.json" for number in range(3)]
    with monkeypatch.context() as context:
        context.setattr("djepa.shards.index.members", None)  # no shard is read through
        assert len(build(copied)) == NUM
    written(copied / "train-001.tar", map(picture, range(50, 53)))
    dataset = build(copied)
    assert len(dataset) == NUM - PER_SHARD + 3 and dataset.load(10).conditions["text"] == "picture 50"
    for content in ("", "{}", "[1]", kept[0].read_text()[:100], kept[0].read_text().replace('"format":1', '"format":9')):
        kept[0].write_text(content)
        assert len(build(copied)) == len(dataset)


def test_where_nothing_can_be_written_the_index_goes_to_the_users_cache(copied, tmp_path):
    (copied / ".djepa").write_text("a file, where a folder should be")
    build(copied)
    assert len(list((tmp_path / "user cache" / "djepa" / "shards").iterdir())) == 3


def test_a_shard_that_changes_under_way_is_noticed(copied):
    dataset = build(copied)
    os.utime(copied / "train-001.tar", ns=(1, 1))
    assert dataset.load(3)
    with pytest.raises(MediaError, match=r"train-001\.tar' was changed"):
        dataset.load(12)
    (copied / "train-002.tar").unlink()
    with pytest.raises(MediaError, match=r"train-002\.tar.*No such file"):
        dataset.load(22)


def test_the_fingerprint_follows_shards_and_options(copied):
    plain = build(copied).fingerprint()
    assert plain == build(copied).fingerprint() != build(copied, flip=True).fingerprint()
    os.utime(copied / "train-001.tar", ns=(1, 1))
    assert build(copied).fingerprint() != plain


# ---- damage

@pytest.mark.parametrize("how", ["in a member", "in a header", "before its end"])
def test_a_shard_that_is_cut_short_is_named_with_its_member(copied, how):
    shard = copied / "train-001.tar"
    last = ShardIndex.of(shard).groups[-1]
    offset, size = max(last.members.values())
    shutil.rmtree(copied / ".djepa")
    end = {"in a member": offset + size // 2, "in a header": offset + -(-size // 512) * 512 - 512 - 700,
           "before its end": offset + -(-size // 512) * 512}[how]
    os.truncate(shard, end)
    with pytest.raises(MediaError, match=r"train-001\.tar' is (damaged or )?cut short.*'0019\."):
        build(copied)


def test_a_header_that_is_damaged_is_noticed(copied):
    shard = copied / "train-001.tar"
    offset, _ = ShardIndex.of(shard).groups[4].members["png"]
    shutil.rmtree(copied / ".djepa")
    content = bytearray(shard.read_bytes())
    content[offset - 512 : offset - 400] = b"\xff" * 112
    shard.write_bytes(content)
    with pytest.raises(MediaError, match=r"train-001\.tar' is damaged or cut short after '0014\.json'"):
        build(copied)


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.tar' is (no tar archive|cut short)"):
        build(tmp_path)


def test_compressed_archives_are_refused(copied):
    packed = copied / "packed.tar"
    packed.write_bytes(gzip.compress((copied / "train-000.tar").read_bytes()))
    with pytest.raises(MediaError, match=r"packed\.tar' is compressed \(gzip\)"):
        build(packed)


def tar(path, *entries):
    with tarfile.open(path, "w") as archive:
        for name, change in entries:
            info = tarfile.TarInfo(name)
            content = png(0)
            info.size = len(content)
            change(info)
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def as_link(info):
    info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0


@pytest.mark.parametrize(("name", "change", "says"), [
    ("../a.png", lambda info: None, r"'\.\./a\.png' has a name that leads out"),
    ("/etc/a.png", lambda info: None, "'/etc/a.png' has a name that leads out"),
    ("x/../../a.png", lambda info: None, "leads out"),
    ("a.png", as_link, "'a.png' is a link"),
    ("a.png", lambda info: setattr(info, "type", tarfile.FIFOTYPE), "'a.png' is no plain file"),
])
def test_tricks_with_paths_are_refused(tmp_path, name, change, says):
    with pytest.raises(MediaError, match=says):
        build(tar(tmp_path / "a.tar", ("0.png", lambda info: None), (name, change)))


def test_long_names_folders_and_other_files_are_no_trouble(tmp_path):
    def as_folder(info):
        info.type, info.size = tarfile.DIRTYPE, 0

    long = "d" * 80 + "/" + "ü" * 60
    plain = lambda info: None  # noqa: E731
    path = tar(tmp_path / "a.tar", ("sub", as_folder), ("README", plain), ("sub/._0.png", plain), ("__meta__.png", plain),
               (f"{long}.png", plain), ("sub/1.seg.png", plain), ("sub/1.PNG", plain))
    groups = ShardIndex.of(path).groups
    assert [(group.key, sorted(group.members)) for group in groups] == [(long, ["png"]), ("sub/1", ["png", "seg.png"])]
    assert build(path, streams={"mask": "image"}, extensions={"mask": ["seg.png", "png"]}).load(1)


def test_an_example_that_lacks_a_member_is_named_or_left_out(tmp_path):
    samples = [picture(number) for number in range(4)]
    del samples[2]["png"]
    written(tmp_path / "a.tar", samples)
    with pytest.raises(MediaError, match=r"a\.tar': the example '0002' has no member '\.png'.*side by side"):
        build(tmp_path)
    dataset = build(tmp_path, missing="skip")
    assert [dataset.load(index).conditions["text"] for index in range(3)] == ["picture 0", "picture 1", "picture 3"]


def test_a_damaged_member_is_named_with_its_shard(tmp_path):
    written(tmp_path / "a.tar", [picture(0), {**picture(1), "png": png(1)[:60]}, {**picture(2), "txt": b"\xff"}])
    dataset = build(tmp_path)
    with pytest.raises(MediaError, match=r"a\.tar:0001\.png.*damaged or cut short"):
        dataset.load(1)
    with pytest.raises(MediaError, match=r"a\.tar:0002\.txt' does not say 'text'"):
        dataset.load(2)
    with pytest.raises(MediaError, match=r"a\.tar:0000\.json' does not say 'x': it has no value at 'a\.b'"):
        build(tmp_path, conditions={"x": "json:a.b"}).load(0)


# ---- which shards, which streams

def test_shards_by_folder_range_pattern_and_list(shards):
    everything = sorted(shards.glob("*.tar"))
    assert shards_of(str(shards)) == everything
    assert shards_of(f"{shards}/train-{{000..001}}.tar") == everything[:2]
    assert shards_of(f"{shards}/tr*-00?.tar") == everything
    listed = shards_of([f"{shards}/train-{{002,000}}.tar", f"{shards}/train-001.tar"])
    assert listed == [everything[2], everything[0], everything[1]]


@pytest.mark.parametrize(("root", "says"), [
    ("{folder}/none.tar", r"there is no shard .*none\.tar"), ("{folder}/x*.tar", "there is no shard"), ([], "is empty"),
    ("pipe:cat x.tar", "is no file.*nothing is run"), ("https://example.org/{{0..9}}.tar", "is no file"),
    (["{folder}/train-000.tar", "{folder}/train-00*.tar"], "more than once"), ("{folder}/empty", "holds no shards"),
])
def test_shards_that_there_are_not_are_refused(copied, root, says):
    (copied / "empty").mkdir()
    asked = [one.format(folder=copied) for one in root] if isinstance(root, list) else root.format(folder=copied)
    with pytest.raises(UsageError, match=says):
        shards_of(asked)


@pytest.mark.parametrize(("options", "says"), [
    ({"extensions": {"imag": ["png"]}}, "no stream 'imag'. Did you mean 'image'"),
    ({"shapes": {"image": [3, 8]}}, r"shapes: 'image' has the shape \(channels, y, x\)"),
    ({"shapes": {"x": [3, 8, 8]}}, "shapes: there is no stream 'x'"),
    ({"window": 0}, "window must be at least 1"),
])
def test_settings_that_do_not_go_with_the_shards_are_refused(shards, options, says):
    with pytest.raises(UsageError, match=says):
        build(shards, **options)


def test_what_cannot_be_told_is_asked_for(tmp_path):
    written(tmp_path / "a" / "a.tar", [{"__key__": "0", "webp": b"x"}])
    with pytest.raises(UsageError, match=r"members \.webp may be image or video; say which"):
        build(tmp_path / "a")
    written(tmp_path / "b" / "a.tar", [{"__key__": "0", "npy": np.zeros(3)}])
    with pytest.raises(UsageError, match=r"no modality knows a member of the first example, '0', which has: npy"):
        build(tmp_path / "b")


CHECKS = [check.id for check in djepa.testing.checks("dataset", "webdataset", options={"root": "x"})]


@pytest.mark.parametrize("name", CHECKS)
def test_shards_keep_the_contract_of_datasets(name, shards):
    options = {"root": str(shards), "shuffle": "shards", "window": 4, "flip": True, "shapes": {"image": [3, 8, 8]}}
    {check.id: check for check in djepa.testing.checks("dataset", "webdataset", options=options)}[name].run()
