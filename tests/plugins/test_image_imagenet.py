"""ImageNet's folders and the names of its classes."""

import pytest
from PIL import Image
from torchvision.models import ResNet18_Weights

from djepa.conditioner import ClassConditioner
from djepa.errors import ConditionError, UsageError
from djepa_image.imagenet import ANCHORS, ImageNet, imagenet_names


def unpacked(root, folders, split="train"):
    for name in folders:
        (root / split / name).mkdir(parents=True)
        Image.new("RGB", (6, 4), "red").save(root / split / name / f"{name}_1.JPEG", "JPEG")
    return root


def all_thousand():
    """1,000 folder names in order, with those of ImageNet where they are checked."""
    names = []
    for index in range(1000):
        names.append(ANCHORS.get(index) or f"n{int(names[-1][1:]) + 1:08d}")
    assert names == sorted(names)
    return names


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return ImageNet(root=str(unpacked(tmp_path_factory.mktemp("imagenet"), all_thousand())), size=4)


def test_all_thousand_folders_have_names_of_their_own(whole):
    assert whole.classes() == {"label": imagenet_names()} and len(whole) == 1000
    example = whole.load(207)
    assert (example.conditions, example.samples["image"].data.shape) == ({"label": "golden retriever"}, (3, 4, 4))


def test_a_part_of_the_folders_keeps_their_names(tmp_path):
    folders = ["n02099601", "n15075141"]
    dataset = ImageNet(root=str(unpacked(tmp_path, folders, "val")), split="val")
    assert dataset.classes() == {"label": folders} and dataset.load(1).conditions == {"label": "n15075141"}


def test_a_thousand_other_folders_keep_their_names(tmp_path):
    folders = [f"n{index:08d}" for index in range(1000)]
    assert ImageNet(root=str(unpacked(tmp_path, folders))).classes() == {"label": folders}


def test_a_root_that_is_not_imagenet_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no folder .*train.*; root is the folder that holds 'train'"):
        ImageNet(root=str(tmp_path))
    unpacked(tmp_path, ["n02099601", "cats"])
    with pytest.raises(UsageError, match="holds a folder 'cats'; expected one folder per class"):
        ImageNet(root=str(tmp_path))
    (tmp_path / "val").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", "JPEG")
    with pytest.raises(UsageError, match="holds no sub-folders"):
        ImageNet(root=str(tmp_path), split="val")


def test_names_are_torchvisions_but_for_those_that_stood_for_two_classes():
    names, theirs = imagenet_names(), ResNet18_Weights.DEFAULT.meta["categories"]
    assert len({name.casefold() for name in names}) == len(names) == len(theirs) == 1000
    changed = {index: name for index, name in enumerate(names) if name != theirs[index]}
    assert changed == {134: "crane (bird)", 264: "Cardigan (dog)", 474: "cardigan (garment)", 517: "crane (machine)",
                       638: "maillot (swimsuit)", 639: "maillot (tank suit)"}


def test_classes_are_asked_for_by_name_or_number():
    conditioner = ClassConditioner(2, names=imagenet_names(), num_tokens=1)
    assert conditioner.prepare(["golden retriever", "Golden_Retriever", 207, "207", "shih-tzu"]).tolist() == [207] * 4 + [155]
    assert conditioner.prepare(imagenet_names()).tolist() == list(range(1000))
    with pytest.raises(ConditionError, match=r"'crane' could be 'crane \(bird\)' or 'crane \(machine\)'"):
        conditioner.prepare(["crane"])
    with pytest.raises(ConditionError, match=r"'cardigan' could be 'Cardigan \(dog\)' or 'cardigan \(garment\)'"):
        conditioner.prepare(["cardigan"])
    with pytest.raises(ConditionError, match="Did you mean 'golden retriever'"):
        conditioner.prepare(["golden retreiver"])
