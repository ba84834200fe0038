"""Tables that the datasets library wrote, offline: saved folders, parquet, JSON and folders of files."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter

import djepa.testing
from djepa import Trainer
from djepa.errors import MediaError, UsageError
from djepa.plugins import host
from djepa.recipe.component import DatasetNode

datasets = pytest.importorskip("datasets")
NAMES = ["ant", "bee", "cat"]
NUM = 7


@pytest.fixture(autouse=True, scope="module")
def library_cache(tmp_path_factory):
    """A cache of its own, and no progress bars."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        datasets.disable_progress_bars()
        yield
        datasets.enable_progress_bars()


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def png(number):
    content = io.BytesIO()
    Image.fromarray(pixels(number)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def table():
    numbers = range(NUM)
    rows = {"picture": [{"bytes": png(number), "path": None} for number in numbers], "kind": [number % 3 for number in numbers],
            "caption": [f"caption {number}" for number in numbers], "seconds": [number / 2 for number in numbers]}
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=NAMES),
                                  "caption": datasets.Value("string"), "seconds": datasets.Value("float64")})
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture(scope="module")
def saved(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "table"
    table.save_to_disk(folder)
    return folder


def build(path, **options):
    return TypeAdapter(DatasetNode).validate_python({"kind": "huggingface", "path": str(path), **options}).build()


def check(dataset):
    assert len(dataset) == NUM
    for number in range(NUM):
        example = dataset.load(number)
        expected = torch.from_numpy(pixels(number)).permute(2, 0, 1) / 127.5 - 1
        assert torch.equal(example.samples["image"].data, expected) and example.samples["image"].modality == "image"
        assert example.conditions == {"kind": NAMES[number % 3], "caption": f"caption {number}"}
    assert dataset.classes() == {"kind": NAMES}


def test_a_folder_that_was_saved(saved):
    check(build(saved))


def test_one_split_of_several(table, tmp_path):
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "splits")
    check(build(tmp_path / "splits"))
    assert build(tmp_path / "splits", split="test").load(0).conditions["caption"] == "caption 1"
    with pytest.raises(UsageError, match=r"no dataset .*splits' with the split 'valid'"):
        build(tmp_path / "splits", split="valid")


def test_parquet_files(table, tmp_path):
    table.to_parquet(tmp_path / "a.parquet")
    check(build("parquet", data_files=str(tmp_path / "*.parquet")))
    assert len(build("parquet", data_files=[str(tmp_path / "a.parquet")], split="train[:3]")) == 3


def test_a_folder_of_files_with_metadata(tmp_path):
    lines = []
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"caption {number}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    dataset = build("imagefolder", data_dir=str(tmp_path))
    example = dataset.load(2)
    assert example.conditions == {"text": "caption 2"}
    assert torch.equal(example.samples["image"].data, torch.from_numpy(pixels(2)).permute(2, 0, 1) / 127.5 - 1)


def test_sounds_are_read_by_their_modality(tmp_path):
    modality = host().get("modality", "audio")()
    paths = [modality.save(modality.example(number), tmp_path / f"{number}.wav") for number in range(2)]
    rows = {"sound": [{"bytes": path.read_bytes(), "path": path.name} for path in paths]}
    plain = datasets.Features({"sound": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}})
    sounds = datasets.Dataset.from_dict(rows, features=plain).cast_column("sound", datasets.Audio(decode=False))
    sounds.save_to_disk(tmp_path / "table")
    dataset = build(tmp_path / "table")
    assert torch.equal(dataset.load(1).samples["audio"].data, modality.load(paths[1]).data)
    fitted = build(tmp_path / "table", shapes={"audio": [2, 3000]}, rates={"sample_rate": 8000})
    assert fitted.load(0).samples["audio"].shape == (2, 3000)


def test_columns_can_be_named_and_lengths_told(saved):
    dataset = build(saved, streams={"x": "picture"}, conditions={"label": "kind"}, length="seconds", flip=True)
    assert dataset.load(4).conditions == {"label": "bee"} and dataset.classes() == {"label": NAMES}
    assert dataset.lengths().tolist() == [number / 2 for number in range(NUM)] and dataset.num_views() == 2
    assert build(saved).lengths() is None


def test_rows_without_a_label_or_a_file(table, tmp_path):
    rows = {"picture": [None, {"bytes": b"no picture", "path": None}, {"bytes": png(0), "path": None}], "kind": [0, 0, -1]}
    features = datasets.Features({name: table.features[name] for name in rows})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "table")
    dataset = build(tmp_path / "table")
    assert dataset.load(2).conditions == {"kind": None}
    with pytest.raises(MediaError, match=r"'picture' in row 0 of .*table' is empty"):
        dataset.load(0)
    with pytest.raises(MediaError, match=r"'picture' in row 1 of .* is no picture"):
        dataset.load(1)


@pytest.mark.parametrize(("options", "says"), [
    ({"streams": {"image": "pictur"}}, "streams: .* has no column 'pictur'. Did you mean 'picture'"),
    ({"streams": {"image": "caption"}}, "'caption' for 'image' holds no files of a known modality"),
    ({"conditions": {"label": "knid"}}, "Did you mean 'kind'"),
    ({"length": "second"}, "Did you mean 'seconds'"),
    ({"shapes": {"image": [3, 8]}}, "shapes: 'image' has the shape"),
])
def test_columns_that_are_not_there_are_refused(saved, options, says):
    with pytest.raises(UsageError, match=says):
        build(saved, **options)


def test_no_program_is_run_and_no_network_is_needed(tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('run!')")
    with pytest.raises(UsageError, match=r"evil\.py' is a program, and none is run"):
        build(tmp_path / "evil.py")
    with pytest.raises(UsageError, match="There is no dataset 'nobody/nothing'"):
        build("nobody/nothing")


def test_a_run_goes_through_a_table(saved, make_recipe, tmp_path):
    recipe = make_recipe("data.kind=huggingface", f"data.path={saved}", "data.conditions={label: kind}", "data.flip=true",
                         "data.shapes={image: [1, 8, 8]}", "train.steps=2")
    assert Trainer(recipe, device="cpu").fit(tmp_path / "run").name == "step_00000002"


CHECKS = [check.id for check in djepa.testing.checks("dataset", "huggingface", options={"path": "x"})]


@pytest.mark.parametrize("name", CHECKS)
def test_tables_keep_the_contract_of_datasets(name, saved):
    options = {"path": str(saved), "flip": True, "shapes": {"image": [3, 8, 8]}}
    {check.id: check for check in djepa.testing.checks("dataset", "huggingface", options=options)}[name].run()
