"""The image modality and the plugin that registers it."""

import base64
import importlib
import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import djepa_image
from djepa.dataset import Dataset
from djepa.errors import UsageError
from djepa.modality import Modality
from djepa.tokenizer import Tokenizer
from djepa.tokens import MediaSpec, Sample
from djepa_image.modality import Image as ImageModality
from djepa_image.sheet import BACKGROUND, GAP, MIN_CELL, contact_sheet
from djepa_tokenizers import plugin as tokenizer_plugin
from djepa_tokenizers.patchify import Patchify

MODALITY = ImageModality()


def flat(value, channels=1, height=8, width=8):
    return Sample(torch.full((channels, height, width), float(value)), {}, "image")


# ---- the plugin

def test_every_registered_name_leads_to_a_class_of_its_kind():
    offers = {}

    def register_as(kind):
        return lambda name, target, *, summary="": offers.update({(kind, name): (target, summary)})

    djepa_image.djepa_register_modalities(register_as(Modality))
    djepa_image.djepa_register_datasets(register_as(Dataset))
    tokenizer_plugin.djepa_register_tokenizers(register_as(Tokenizer))
    assert {name for _, name in offers} == {"image", "digits", "image-folder", "imagenet", "patchify", "autoencoder", "log-mel"}
    for (kind, _), (target, summary) in offers.items():
        module, _, attribute = target.partition(":")
        assert issubclass(getattr(importlib.import_module(module), attribute), kind)
        assert summary


def test_the_plugins_are_light():
    script = ("import sys, djepa_image, djepa_tokenizers.plugin\n"
              "print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# ---- the modality

@pytest.mark.parametrize("extension", ImageModality.extensions)
def test_save_and_load(tmp_path, extension):
    sample = MODALITY.example(3)
    sample.meta.update(seed=3, condition={"label": "cat"})
    back = MODALITY.load(MODALITY.save(sample, tmp_path / f"deep/er/a.{extension.upper()}"))
    assert (back.meta, back.modality, back.data.shape) == (sample.meta, "image", sample.data.shape)
    error = (back.data - sample.data).abs()
    assert error.mean() < 0.03 if extension.startswith("j") else error.max() < 1e-6


def test_an_unknown_extension_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'jpeg'"):
        MODALITY.save(MODALITY.example(0), tmp_path / "a.jpegg")


def test_examples_depend_on_the_seed_alone():
    first, again, other = (MODALITY.example(seed).data for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (3, 16, 16) and bool((first.abs() <= 1).all())
    assert 0.2 < first.std() < 0.9


def test_examples_fit_the_default_tokenizer():
    node = dict(MODALITY.default_tokenizer())
    assert node.pop("kind") == "patchify"
    tokenizer = Patchify(MediaSpec(3, MODALITY.axes, MODALITY.bounds), **node)
    sample = MODALITY.example(0)
    tokens = tokenizer.encode(sample)
    assert (tokens.grid, tokens.values.shape) == ((4, 4), (16, 48))
    assert tokenizer.decode(tokens).modality == "image"


def test_previews_are_png_in_base64():
    shown = MODALITY.preview(flat(0.5))
    assert list(shown) == ["image/png"]
    with Image.open(io.BytesIO(base64.b64decode(shown["image/png"], validate=True))) as image:
        assert (image.format, image.size) == ("PNG", (MIN_CELL + 2 * GAP, MIN_CELL + 2 * GAP))
    assert isinstance(MODALITY.preview_sheet([flat(0), flat(1)])["image/png"], str)


# ---- sheets

def test_a_sheet_is_written_with_what_the_samples_share(tmp_path):
    samples = [Sample(flat(0).data, {"model": "m", "seed": seed}, "image") for seed in range(5)]
    sheet = MODALITY.load(MODALITY.sheet(samples, tmp_path / "all.png", columns=5))
    assert sheet.data.shape == (1, MIN_CELL + 2 * GAP, 5 * (MIN_CELL + GAP) + GAP)
    assert sheet.meta == {"model": "m"}


@settings(deadline=None)
@given(st.integers(1, 12), st.none() | st.integers(1, 15), st.integers(1, 100), st.integers(1, 100))
def test_every_picture_is_in_its_place(count, columns, height, width):
    values = torch.linspace(-1, 1, count)
    sheet = contact_sheet([flat(value, 1, height, width).data for value in values], columns)
    across = min(columns, count) if columns else int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    cell_height, cell_width = ((size - GAP) // cells - GAP for size, cells in zip(sheet.shape[1:], (down, across), strict=True))
    assert max(cell_height, cell_width) >= MIN_CELL
    assert cell_height % height == cell_width % width == 0 and cell_height // height == cell_width // width
    assert cell_height == height or max(cell_height - height, cell_width - width) < MIN_CELL
    for number, value in enumerate(values):
        row, column = divmod(number, across)
        top, left = GAP + row * (cell_height + GAP), GAP + column * (cell_width + GAP)
        cell = sheet[0, top:top + cell_height, left:left + cell_width]
        assert bool((cell == value).all())
        assert sheet[0, top - 1, left] == sheet[0, top, left - 1] == BACKGROUND


def test_small_pictures_are_enlarged_without_blending():
    picture = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    sheet = contact_sheet([picture])[:, GAP:-GAP, GAP:-GAP]
    assert torch.equal(sheet[:, ::8, ::8], picture) and torch.equal(sheet[:, 7::8, 7::8], picture)


def test_grey_colour_and_odd_sizes_share_a_sheet():
    grey, colour = torch.full((1, 64, 64), -1.0), torch.ones(3, 32, 16)
    sheet = contact_sheet([grey, colour], columns=2)
    assert sheet.shape == (3, 64 + 2 * GAP, 2 * 64 + 3 * GAP)
    second = sheet[:, GAP:-GAP, 64 + 2 * GAP:-GAP]
    assert bool((second[:, 16:48, 24:40] == 1).all()) and second.sum() == 3 * 32 * 16 + BACKGROUND


@pytest.mark.parametrize(("pictures", "columns"), [([], None), ([torch.zeros(1, 8, 8)], 0), ([torch.zeros(8, 8)], None)])
def test_sheets_that_cannot_be_are_refused(pictures, columns):
    with pytest.raises(UsageError):
        contact_sheet(pictures, columns)
