"""UCF101's layout, in small, with real AVI files."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import djepa
from djepa.errors import MediaError, UsageError
from djepa_video.ucf101 import LISTS, VIDEOS, Ucf101, readable

CLASSES = ["ApplyEyeMakeup", "HandstandPushups", "YoYo"]  # the second one's files are spelt otherwise: v_HandStandPushups
NAMES = ["apply eye makeup", "handstand pushups", "yo yo"]


def file(name, group):
    return f"{name}/v_{name.replace('Handstand', 'HandStand')}_g{group:02d}_c01.avi"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory, videos):
    """The folder in which both archives were unpacked."""
    folder = tmp_path_factory.mktemp("ucf101")
    first = videos.write(folder / VIDEOS / file(CLASSES[0], 1), "mpeg4", num_frames=32, b="2000000", bf="2")
    for name in CLASSES:
        for group in range(1, 5):
            target = folder / VIDEOS / file(name, group)
            target.parent.mkdir(exist_ok=True)
            if target != first:
                shutil.copy(first, target)
    lists = folder / LISTS
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{number} {name}\r\n" for number, name in enumerate(CLASSES, 1)))
    for fold in 1, 2, 3:
        train = [(number, name, group) for number, name in enumerate(CLASSES, 1) for group in range(1, 5) if group != fold]
        lines = [f"{file(name, group)} {number}\n" for number, name, group in train]
        (lists / f"trainlist0{fold}.txt").write_text("".join(lines))
        (lists / f"testlist0{fold}.txt").write_text("".join(f"{file(name, fold)}\n" for name in CLASSES))
    return folder


def names(dataset):
    return [Path(path).name for path, _ in dataset._files]


def test_the_official_splits(unpacked):
    train, test = (Ucf101(root=str(unpacked), split=split, fold=2) for split in ("train", "test"))
    assert (len(train), len(test)) == (9, 3)
    assert names(test) == ["v_ApplyEyeMakeup_g02_c01.avi", "v_HandStandPushups_g02_c01.avi", "v_YoYo_g02_c01.avi"]
    assert not set(names(train)) & set(names(test))
    assert train.classes() == test.classes() == {"label": NAMES}
    assert [test.load(index).conditions for index in range(3)] == [{"label": name} for name in NAMES]


def test_a_clip_is_sixteen_frames_in_a_row(unpacked, videos):
    dataset = Ucf101(root=str(unpacked), size=(48, 128), flip=False)
    sample = dataset.load(0).samples["video"]
    assert sample.data.shape == (3, 16, 48, 128) and sample.meta == {"fps": 25.0}
    shown = ((sample.data + 1) * 127.5).round().permute(1, 2, 3, 0).numpy()
    assert videos.numbers(shown) == list(range(8, 24))
    firsts = {videos.numbers(((dataset.load(0, np.random.default_rng(seed)).samples["video"].data + 1) * 127.5)
                             .round().permute(1, 2, 3, 0).numpy())[0] for seed in range(12)}
    assert len(firsts) > 5


@pytest.mark.parametrize("layout", ["beside", "within", "elsewhere", "flat"])
def test_lists_are_found_where_people_put_them(unpacked, tmp_path, layout):
    root, lists = tmp_path / VIDEOS, {"beside": tmp_path / LISTS, "within": tmp_path / VIDEOS / LISTS,
                                      "elsewhere": tmp_path / "somewhere", "flat": tmp_path / VIDEOS}[layout]
    shutil.copytree(unpacked / VIDEOS, root)
    shutil.copytree(unpacked / LISTS, lists, dirs_exist_ok=True)
    options = {"lists": str(lists)} if layout == "elsewhere" else {}
    assert len(Ucf101(root=str(root), split="test", **options)) == 3


def test_what_is_missing_is_said(unpacked, tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        Ucf101(root=str(tmp_path / "nowhere"))
    shutil.copytree(unpacked, tmp_path / "copy")
    for name in CLASSES[1:]:
        shutil.rmtree(tmp_path / "copy" / VIDEOS / name)
    with pytest.raises(UsageError, match=r"9 videos in trainlist01\.txt, 6 are not in .*StandPushups_g02_c01\.avi.*and 3 more"):
        Ucf101(root=str(tmp_path / "copy"))
    (tmp_path / "copy" / LISTS / "testlist03.txt").unlink()
    with pytest.raises(UsageError, match=r"no list .*testlist03\.txt"):
        Ucf101(root=str(tmp_path / "copy"), split="test", fold=3)
    (tmp_path / "copy" / LISTS / "testlist02.txt").write_text("Yodeling/v_Yodeling_g01_c01.avi\n")
    with pytest.raises(UsageError, match=r"Yodeling.*classInd"):
        Ucf101(root=str(tmp_path / "copy"), split="test", fold=2)
    shutil.rmtree(tmp_path / "copy" / LISTS)
    with pytest.raises(UsageError, match="lists="):
        Ucf101(root=str(tmp_path / "copy"))


@pytest.mark.parametrize("options", [{"split": "val"}, {"fold": 4}, {"fold": 0}, {"size": 0}, {"num_frames": 0}])
def test_settings_that_cannot_be_are_refused(unpacked, options):
    with pytest.raises(UsageError, match=next(iter(options))):
        Ucf101(root=str(unpacked), **options)


def test_a_video_that_is_too_short_is_named(unpacked):
    with pytest.raises(MediaError, match=r"v_ApplyEyeMakeup_g02_c01\.avi.*32 frames"):
        Ucf101(root=str(unpacked), num_frames=33).load(0)
    assert Ucf101(root=str(unpacked), num_frames=33, short="loop", size=8).load(0).samples["video"].data.shape == (3, 33, 8, 8)


@pytest.mark.parametrize(("name", "shown"), [("TaiChi", "tai chi"), ("Basketball", "basketball"),
                                             ("WalkingWithDog", "walking with dog")])
def test_names_are_readable(name, shown):
    assert readable(name) == shown


def test_the_recipe_fits(unpacked):
    recipe = djepa.Recipe.load("video/ucf101", [f"data.root={unpacked}"])
    dataset = recipe.data.build()
    sample = dataset.load(0).samples["video"]
    assert sample.data.shape == (3, 16, 64, 64) and sample.meta["fps"] == 25.0
    tokens = djepa.build.build_tokenizers(djepa.build.complete(recipe.model, dataset))["video"].encode(sample)
    assert tokens.grid == (8, 8, 8)
