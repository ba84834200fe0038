"""Sheets of samples drawn while training."""

import pytest
import torch

from djepa import Pipeline, Trainer
from djepa.build import build_model, build_tokenizers
from djepa.recipe.schema import PreviewSpec
from djepa.train.optimizer import averaged_copy
from djepa.train.preview import preview_conditions, save_previews
from djepa_image.modality import Image


@pytest.fixture
def models(pipe):
    with torch.random.fork_rng():
        raw = build_model(pipe.spec, build_tokenizers(pipe.spec)).train()
    return {"raw": raw, "averaged": averaged_copy(raw)}


def test_a_sheet_per_model_is_drawn_and_the_models_stay_as_they_were(tmp_path, pipe, models, untouched):
    before = {kind: [parameter.clone() for parameter in model.parameters()] for kind, model in models.items()}
    paths = save_previews(tmp_path, 20, models, pipe.spec, pipe.tokenizers, PreviewSpec(num_samples=2, num_conditions=3))
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "samples/step_00000020_raw.png", "samples/step_00000020_averaged.png"]
    assert models["raw"].training and not models["averaged"].training
    for kind, model in models.items():
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before[kind], strict=True))


def test_a_sheet_has_a_row_per_condition_and_says_what_it_shows(tmp_path, pipe, models):
    preview = PreviewSpec(num_samples=4, num_conditions=2, seed=9)
    path, _ = save_previews(tmp_path, 20, models, pipe.spec, pipe.tokenizers, preview)
    sheet = Image().load(path)
    height, width = sheet.data.shape[1:]
    assert width > 1.5 * height  # two conditions of four samples
    assert sheet.meta["model"] == f"{tmp_path.name}, step 20" and sheet.meta["settings"]["num_steps"] == 4
    assert "seed" not in sheet.meta  # the samples differ in it


def test_the_first_conditions_are_drawn(pipe):
    assert preview_conditions(pipe, 3) == [{"label": "0"}, {"label": "1"}, {"label": "2"}]
    assert len(preview_conditions(pipe, 99)) == 10


def test_a_model_without_conditions_is_drawn_too(tmp_path, make_recipe):
    recipe = make_recipe("model.conditions=null", "train.steps=2", "preview.every=2", "preview.num_samples=3")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        checkpoint = Trainer(recipe, device="cpu").fit("run")
    pipeline = Pipeline.from_pretrained(tmp_path / checkpoint, device="cpu")
    assert preview_conditions(pipeline, 3) == [{}] and len(list((tmp_path / "run" / "samples").iterdir())) == 2


@pytest.mark.parametrize(("every", "expected"), [(0, []), (2, [2, 3]), (3, [3]), (5, [3])])
def test_previews_come_as_often_as_asked_and_at_the_end(tmp_path, make_recipe, every, expected):
    recipe = make_recipe("train.steps=3", f"preview.every={every}", "preview.num_samples=1", "preview.num_conditions=1")
    Trainer(recipe, device="cpu").fit(tmp_path / "run")
    names = sorted(path.name for path in tmp_path.glob("run/samples/*"))
    assert names == sorted(f"step_{step:08d}_{kind}.png" for step in expected for kind in ("averaged", "raw"))


def test_previews_do_not_change_what_is_learned(tmp_path, make_recipe):
    for every in (0, 1):
        Trainer(make_recipe("train.steps=3", "model.dropout=0.2", f"preview.every={every}", "preview.num_conditions=1"),
                device="cpu").fit(tmp_path / str(every))
    contents = [(tmp_path / str(every) / "checkpoints" / "step_00000003" / "training.safetensors").read_bytes()
                for every in (0, 1)]
    assert contents[0] == contents[1]
