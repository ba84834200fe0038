"""The video modality and the plugin that registers it."""

import base64
import importlib
import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import djepa_video
from djepa.dataset import Dataset
from djepa.errors import UsageError
from djepa.modality import Modality
from djepa.tokens import MediaSpec, Sample
from djepa_tokenizers.patchify import Patchify
from djepa_video.modality import Video
from djepa_video.sheet import BACKGROUND, GAP, MIN_CELL, side_by_side

MODALITY = Video()


def flat(value, num_frames=2, height=8, width=8, channels=1):
    return torch.full((channels, num_frames, height, width), float(value))


# ---- the plugin

def test_every_registered_name_leads_to_a_class_of_its_kind():
    offers = {}

    def register_as(kind):
        return lambda name, target, *, summary="": offers.update({(kind, name): (target, summary)})

    djepa_video.djepa_register_modalities(register_as(Modality))
    djepa_video.djepa_register_datasets(register_as(Dataset))
    assert {name for _, name in offers} == {"video", "moving-digits", "video-folder", "ucf101"}
    for (kind, _), (target, summary) in offers.items():
        module, _, attribute = target.partition(":")
        assert issubclass(getattr(importlib.import_module(module), attribute), kind)
        assert summary


def test_libraries_are_imported_when_they_are_used():
    script = ("import sys, djepa_video; light = [n for n in ('torch', 'numpy', 'PIL', 'av', 'decord') if n in sys.modules]\n"
              "import djepa_video.modality, djepa_video.folder, djepa_video.ucf101\n"
              "print(light, [name for name in ('av', 'decord') if name in sys.modules])")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[] []"


# ---- the modality

@pytest.mark.parametrize("extension", Video.extensions)
def test_save_and_load(tmp_path, extension):
    sample = MODALITY.example(3)
    sample.meta.update(seed=3, condition={"label": "cat"})
    back = MODALITY.load(MODALITY.save(sample, tmp_path / f"deep/er/a.{extension.upper()}"))
    assert (back.meta, back.modality, back.data.shape) == (sample.meta, "video", sample.data.shape)
    error = (back.data - sample.data).abs()
    assert error.mean() < 0.15 if extension == "mp4" else error.max() < 1e-6  # few pixels, hence few colours


def test_an_unknown_extension_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'mp4'"):
        MODALITY.save(MODALITY.example(0), tmp_path / "a.mp3")


def test_a_clip_without_a_rate_is_refused(tmp_path):
    for refused in (lambda: MODALITY.save(Sample(flat(0), {}, "video"), tmp_path / "a.mp4"),
                    lambda: MODALITY.sheet([Sample(flat(0), {}, "video")], tmp_path / "a.mp4"),
                    lambda: MODALITY.preview(Sample(flat(0), {}, "video"))):
        with pytest.raises(UsageError, match="fps"):
            refused()


def test_examples_depend_on_the_seed_alone_and_move():
    first, again, other = (MODALITY.example(seed) for seed in (1, 1, 2))
    assert torch.equal(first.data, again.data) and not torch.equal(first.data, other.data)
    assert first.data.shape == (3, 8, 16, 16) and bool((first.data.abs() <= 1).all()) and first.meta == {"fps": 8.0}
    assert 0.2 < first.data.std() < 0.9
    motion, contrast = first.data.diff(dim=1).abs().mean(), first.data.diff(dim=2).abs().mean()
    assert 0.1 * contrast < motion < contrast


def test_examples_fit_the_default_tokenizer():
    node = dict(MODALITY.default_tokenizer())
    assert node.pop("kind") == "patchify"
    tokenizer = Patchify(MediaSpec(3, MODALITY.axes, MODALITY.bounds), **node)
    tokens = tokenizer.encode(MODALITY.example(0))
    assert (tokens.grid, tokens.values.shape) == ((4, 4, 4), (64, 96))
    assert tokens.coords[0].tolist() == [0.125, 2.0, 2.0]  # seconds, pixels, pixels
    assert tokenizer.decode(tokens).meta == {"fps": 8.0}


def test_previews_are_players(tmp_path):
    shown = MODALITY.preview_sheet([MODALITY.example(0), MODALITY.example(1)])
    page = re.fullmatch(r'<video controls loop autoplay muted playsinline src="data:video/mp4;base64,([^"]+)"></video>',
                        shown["text/html"])
    (tmp_path / "a.mp4").write_bytes(base64.b64decode(page[1], validate=True))
    clip = MODALITY.load(tmp_path / "a.mp4")
    assert clip.data.shape == (3, 8, MIN_CELL + 2 * GAP, 2 * MIN_CELL + 3 * GAP) and clip.meta == {"fps": 8.0}
    assert list(MODALITY.preview(MODALITY.example(0))) == ["text/html"]


# ---- sheets

@pytest.mark.parametrize("extension", Video.extensions)
def test_a_sheet_is_written_with_what_the_samples_share(tmp_path, extension):
    samples = [Sample(flat(0, number + 1), {"model": "m", "seed": number, "fps": 4}, "video") for number in range(5)]
    sheet = MODALITY.load(MODALITY.sheet(samples, tmp_path / f"all.{extension}", columns=5))
    assert sheet.data.shape == (1, 5, MIN_CELL + 2 * GAP, 5 * (MIN_CELL + GAP) + GAP)
    assert sheet.meta == {"model": "m", "fps": 4.0}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=7),
       st.none() | st.integers(1, 9))
def test_every_clip_is_in_its_cell_and_holds_its_last_frame(sizes, columns):
    clips = [torch.linspace(-1, -0.1, frames)[None, :, None, None].expand(1, frames, height, width) * (number + 1) / len(sizes)
             for number, (frames, height, width) in enumerate(sizes)]
    sheet = side_by_side(clips, [8.0] * len(clips), columns)
    across = min(columns or next(side for side in range(1, 9) if side * side >= len(clips)), len(clips))
    down = -(-len(clips) // across)
    most = [max(size[axis] for size in sizes) for axis in range(3)]
    factor = max(1, -(-MIN_CELL // max(most[1:])))
    cell = [side * factor + GAP for side in most[1:]]
    assert sheet.shape == (1, most[0], down * cell[0] + GAP, across * cell[1] + GAP)
    for number, (clip, (frames, height, width)) in enumerate(zip(clips, sizes, strict=True)):
        top, left = GAP + number // across * cell[0], GAP + number % across * cell[1]
        inside = sheet[0, :, top:top + cell[0] - GAP, left:left + cell[1] - GAP]
        for tick in range(most[0]):
            level = clip[0, min(tick, frames - 1), 0, 0]
            assert int((inside[tick] == level).sum()) == height * width * factor**2
            assert int((inside[tick] != BACKGROUND).sum()) == height * width * factor**2


def test_small_clips_are_enlarged_without_blending():
    clip = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sheet = side_by_side([clip], [8.0])[:, :, GAP:-GAP, GAP:-GAP]
    step = MIN_CELL // 8
    assert torch.equal(sheet[:, :, ::step, ::step], clip) and torch.equal(sheet[:, :, step - 1::step, step - 1::step], clip)


def test_clips_of_different_rates_keep_their_own_time():
    slow, fast = (torch.arange(1.0, count + 1)[None, :, None, None].expand(1, count, 96, 96) / 10 for count in (2, 6))
    sheet = side_by_side([slow, fast], [4.0, 12.0], columns=2)
    assert torch.allclose(sheet[0, :, 50, 50] * 10, torch.tensor([1.0, 1, 1, 2, 2, 2]))
    assert torch.allclose(sheet[0, :, 50, 150] * 10, torch.tensor([1.0, 2, 3, 4, 5, 6]))


def test_grey_and_colour_share_a_sheet():
    sheet = side_by_side([flat(-1, height=96, width=96), flat(1, channels=3, height=96, width=96)], [8.0, 8.0], columns=2)
    assert sheet.shape == (3, 2, 96 + 2 * GAP, 2 * 96 + 3 * GAP) and sheet[:, 0, 50, 50].tolist() == [-1.0] * 3


@pytest.mark.parametrize(("clips", "columns"), [([], None), ([flat(0)], 0), ([torch.zeros(1, 8, 8)], None)])
def test_sheets_that_cannot_be_are_refused(clips, columns):
    with pytest.raises(UsageError):
        side_by_side(clips, [8.0] * len(clips), columns)
