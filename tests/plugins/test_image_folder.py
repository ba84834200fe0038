"""A folder of real picture files as a dataset."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from djepa.errors import MediaError, UsageError
from djepa_image.folder import ImageFolder

EXTENSIONS = ("png", "jpg", "jpeg", "webp", "bmp", "gif")


def picture(path, colour="red", size=(16, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def ramp(path, width=64, height=32):
    """Brightness grows from left to right: what is cropped or mirrored can be read off it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))).save(path)
    return path


def image(dataset, index=0, rng=None):
    return dataset.load(index, rng).samples["image"].data


def test_sub_folders_are_classes_and_every_kind_of_file_is_found(tmp_path):
    for extension in EXTENSIONS:
        picture(tmp_path / "cats" / f"a.{extension}")
    picture(tmp_path / "ants" / "deep" / "er" / "A.PNG", "blue")
    dataset = ImageFolder(root=str(tmp_path), size=8)
    assert len(dataset) == 7
    assert dataset.classes() == {"label": ["ants", "cats"]}
    labels = [dataset.load(index).conditions["label"] for index in range(7)]
    assert labels == ["ants"] + ["cats"] * 6
    assert [image(dataset, index).shape for index in range(7)] == [(3, 8, 8)] * 7
    torch.testing.assert_close(image(dataset)[:, 0, 0], torch.tensor([-1.0, -1.0, 1.0]))


def test_hidden_and_other_files_are_skipped(tmp_path):
    picture(tmp_path / "cats" / "a.png")
    for name in ("cats/.hidden.png", "cats/.folder/a.png", ".git/a.png", "beside.png"):
        picture(tmp_path / name)
    (tmp_path / "cats" / "notes.txt").write_text("not a picture")
    dataset = ImageFolder(root=str(tmp_path))
    assert (len(dataset), dataset.classes()) == (1, {"label": ["cats"]})


def test_without_sub_folders_there_is_no_condition(tmp_path):
    for name in "b.png", "a.png":
        picture(tmp_path / name)
    dataset = ImageFolder(root=str(tmp_path), size=(4, 6), channels=1)
    assert (len(dataset), dataset.classes(), dataset.load(0).conditions) == (2, {}, {})
    assert image(dataset).shape == (1, 4, 6)


def test_a_missing_an_empty_and_a_half_empty_root_are_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        ImageFolder(root=str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="no pictures"):
        ImageFolder(root=str(tmp_path))
    (tmp_path / "dogs").mkdir()
    with pytest.raises(UsageError, match="no pictures"):
        ImageFolder(root=str(tmp_path))
    picture(tmp_path / "cats" / "a.png")
    with pytest.raises(UsageError, match="dogs"):
        ImageFolder(root=str(tmp_path))


@pytest.mark.parametrize("options", [
    {"size": 0}, {"size": (4, 4, 4)}, {"size": (4, -1)}, {"size": 2.5}, {"channels": 2}, {"crop": "middle"},
])
def test_settings_that_cannot_be_are_refused(tmp_path, options):
    picture(tmp_path / "a.png")
    with pytest.raises(UsageError, match=next(iter(options))):
        ImageFolder(root=str(tmp_path), **options)


def test_a_damaged_picture_is_named(tmp_path):
    path = picture(tmp_path / "cats" / "broken.png", size=(64, 64))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(MediaError, match=r"broken\.png"):
        ImageFolder(root=str(tmp_path)).load(0)


def test_without_a_generator_the_middle_is_shown_unmirrored(tmp_path):
    ramp(tmp_path / "a.png")
    for crop in "center", "random":
        data = image(ImageFolder(root=str(tmp_path), size=32, channels=1, crop=crop, flip=True))
        expected = torch.linspace(-1, 1, 64)[16:48].expand(1, 32, 32)
        torch.testing.assert_close(data, expected, rtol=0, atol=0.02)


def test_draws_come_from_the_generator_alone(tmp_path):
    ramp(tmp_path / "a.png")
    dataset = ImageFolder(root=str(tmp_path), size=16, channels=1, crop="random")
    for seed in range(5):
        assert torch.equal(*(image(dataset, 0, np.random.default_rng(seed)) for _ in range(2)))
    lefts = {round(image(dataset, 0, np.random.default_rng(seed))[0, 0, 0].item(), 2) for seed in range(20)}
    assert len(lefts) > 10


def test_half_of_the_pictures_are_mirrored(tmp_path):
    ramp(tmp_path / "a.png", 32, 32)
    mirrored, plain = (ImageFolder(root=str(tmp_path), size=16, channels=1, flip=flip) for flip in (True, False))
    straight, rng = image(plain), np.random.default_rng(0)
    shown = [image(mirrored, 0, rng) for _ in range(100)]
    count = sum(torch.equal(data, straight.flip(-1)) for data in shown)
    assert 30 < count < 70
    assert all(torch.equal(data, straight) or torch.equal(data, straight.flip(-1)) for data in shown)
    assert all(torch.equal(image(plain, 0, rng), straight) for _ in range(10))


def test_random_crops_reach_both_ends(tmp_path):
    ramp(tmp_path / "a.png", 96, 32)
    dataset = ImageFolder(root=str(tmp_path), size=32, channels=1, crop="random", flip=False)
    rng = np.random.default_rng(0)
    lefts = [image(dataset, 0, rng)[0, 0, 0].item() for _ in range(60)]
    assert min(lefts) < -0.9 and max(lefts) > 0.25  # the last possible left edge is two thirds along: 0.33


def test_shrinking_does_not_alias(tmp_path):
    stripes = np.zeros((256, 256), dtype=np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    data = image(ImageFolder(root=str(tmp_path), size=30, channels=1))
    assert data.abs().max() < 0.1


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_any_picture_covers_any_size(tmp_path, width, height, out_height, out_width, seed):
    picture(tmp_path / "a.png", (200, 100, 0), (width, height))
    dataset = ImageFolder(root=str(tmp_path), size=(out_height, out_width), crop="random")
    data = image(dataset, 0, np.random.default_rng(seed))
    expected = torch.tensor([200, 100, 0])[:, None, None] / 127.5 - 1
    torch.testing.assert_close(data, expected.expand(3, out_height, out_width), rtol=0, atol=1e-6)


def test_instances_pickle(tmp_path):
    ramp(tmp_path / "cats" / "a.png")
    dataset = ImageFolder(root=str(tmp_path))
    assert torch.equal(image(pickle.loads(pickle.dumps(dataset))), image(dataset))
