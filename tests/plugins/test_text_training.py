"""Models conditioned on text, end to end: trained, resumed, saved, and generating for texts of any length at once."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from djepa import Dataset, Example, Pipeline, Recipe, Trainer
from djepa.errors import CheckpointError, ConditionError, UsageError
from djepa.hookspecs import hookimpl
from djepa.plugins import temporary
from djepa.random import seeded
from djepa.storage import newest_checkpoint
from djepa_image.digits import Digits
from djepa_image.modality import Image

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEXTS = ["a three", "a picture of a seven, as big as it gets", None, "zwölf = 12"]


class Captioned(Dataset):
    """Digits, each with a caption; every fifth goes without."""

    def __init__(self) -> None:
        self._digits = Digits()

    def __len__(self):
        return 40

    def load(self, index, rng=None):
        example = self._digits.load(index, rng)
        word = WORDS[int(example.conditions["label"])]
        caption = None if index % 5 == 4 else f"a {word}" if index % 2 else f"this one is called {word}"
        return Example(example.samples, {**example.conditions, "caption": caption})

    def classes(self):
        return self._digits.classes()


@pytest.fixture(scope="module", autouse=True)
def captioned():
    class Plugin:
        @hookimpl
        def djepa_register_datasets(self, register):
            register("captioned", f"{__name__}:Captioned")

    with temporary(Plugin()):
        yield


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """The folder of a tiny T5 that reads bytes; not to be changed."""
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("encoders") / "t5"
    with seeded(0, "t5"):
        T5EncoderModel(T5Config(vocab_size=384, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)).save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def make_recipe(t5):
    nodes = {"bytes": {"kind": "bytes", "max_bytes": 60, "num_heads": 2, "depth": 1},
             "t5": {"kind": "t5", "source": str(t5), "max_tokens": 60}}

    def make(kind, *overrides, label=True):
        return Recipe.from_dict({
            "schema_version": 1,
            "data": {"kind": "captioned"},
            "model": {
                "streams": {"image": {"modality": "image", "head": {"kind": "gaussian", "depth": 1, "width": 16},
                                      "tokenizer": {"kind": "patchify", "patch": 4, "mean": -0.4, "std": 0.75}}},
                "conditions": {**({"label": {"kind": "class", "num_tokens": 2}} if label else {}), "caption": nodes[kind]},
                "width": 16, "num_heads": 2, "encoder_depth": 1, "predictor_depth": 1,
                "generate": {"num_steps": 2, "num_denoising_steps": 3, "guidance_scale": 2.0},
            },
            "train": {"steps": 4, "batch_size": 6, "lr": 1e-3, "warmup_steps": 0, "mask": "cosine"},
            "checkpoint": {"every": 2, "keep": 9},
            "preview": {"every": 0},
        }, overrides)

    return make


@pytest.fixture(scope="module", params=["bytes", "t5"])
def run(request, make_recipe, tmp_path_factory):
    """The folder of a finished run with labels and captions; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    recipe = make_recipe(request.param, "preview.every=2", "preview.num_samples=1",
                         "preview.conditions=[{label: 3, caption: 'a, b = c'}, {caption: long words}]")
    Trainer(recipe, device="cpu").fit(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(run):
    return Pipeline.from_pretrained(run, device="cpu")


def wanted(texts):
    return [{"label": number, "caption": text} for number, text in enumerate(texts)]


def test_a_sample_does_not_depend_on_the_texts_beside_it(pipe):
    together = pipe.generate(wanted(TEXTS), seed=3)
    in_chunks = pipe.generate(wanted(TEXTS), seed=3, batch_size=3)
    for condition, one, other in zip(wanted(TEXTS), together, in_chunks, strict=True):
        alone, = pipe.generate(condition, seed=3)
        assert alone.data.std() > 0.05
        torch.testing.assert_close(one.data, alone.data, rtol=0, atol=1e-5)
        torch.testing.assert_close(other.data, alone.data, rtol=0, atol=1e-5)
    assert together[0].meta["condition"] == {"label": 0, "caption": "a three"} and together[2].meta["condition"] == {"label": 2}


def test_text_and_guidance_make_a_difference(pipe):
    def drawn(text, scale):
        return pipe.generate({"label": 3, "caption": text}, guidance_scale=scale, guidance_schedule="constant")[0].data

    assert (drawn("a three", 2.0) - drawn("this one is called nine", 2.0)).abs().max() > 1e-4
    assert (drawn("a three", 2.0) - drawn("a three", 1.0)).abs().max() > 1e-4
    guided, free = (pipe.generate(None, guidance_scale=scale)[0].data for scale in (2.0, 1.0))
    torch.testing.assert_close(guided, free, rtol=0, atol=1e-5)  # away from itself: nowhere


def test_a_saved_model_generates_the_same(pipe, tmp_path):
    again = Pipeline.from_pretrained(pipe.save_pretrained(tmp_path / "saved"), device="cpu")
    for one, other in zip(pipe.generate(wanted(TEXTS)), again.generate(wanted(TEXTS)), strict=True):
        assert torch.equal(one.data, other.data)


def test_a_resumed_run_ends_in_the_same_weights(run, make_recipe, tmp_path):
    """Also where the texts of the first half are remembered in one run and read anew, among others, in the other."""
    half = shutil.copytree(run, tmp_path / "half")
    shutil.rmtree(half / "checkpoints" / "step_00000004")
    Trainer.resume(half, ["preview.conditions=[{label: 5}]", "preview.every=0"], device="cpu")
    for name in ("model.safetensors", "training.safetensors"):
        assert (newest_checkpoint(half) / name).read_bytes() == (run / "checkpoints" / "step_00000004" / name).read_bytes()


def test_checkpoints_hold_what_is_trained_and_nothing_else(run, make_recipe):
    trained = {"bytes": {"embedding", "null_condition", "transformer"}, "t5": {"norm", "proj", "null_condition"}}
    names = [name.split(".") for name in load_file(newest_checkpoint(run) / "model.safetensors")]
    assert {name[2] for name in names if name[:2] == ["conditioners", "caption"]} == trained[run.name]


def test_the_average_follows_what_is_trained_and_shares_what_is_not(make_recipe, tmp_path):
    trainer = Trainer(make_recipe("t5", "train.steps=2", "train.condition_drop=0.5"), device="cpu")
    trainer.fit(tmp_path / "run")
    one, other = (model.conditioners["caption"] for model in (trainer.engine.model, trainer.engine.average))
    assert one.encoder is other.encoder and not torch.equal(one.proj.weight, other.proj.weight)
    trained = {id(parameter) for group in trainer.engine.optimizer.adamw.param_groups for parameter in group["params"]}
    assert not trained & {id(parameter) for parameter in one.encoder._network.parameters()}
    assert all(parameter.grad is None for parameter in one.encoder._network.parameters())
    assert trained == {id(parameter) for parameter in trainer.engine.model.parameters()}


def test_previews_show_the_texts_that_were_asked_for(run):
    sheets = sorted((run / "samples").iterdir())
    assert len(sheets) == 4
    height, width = Image().load(sheets[0]).data.shape[1:]
    assert height > 1.5 * width  # two conditions, one sample each


@pytest.mark.parametrize(("conditions", "told"), [("[{caption: ''}]", "is empty"), ("[{label: 33}]", "'33'|33"),
                                                  ("[{captoin: a}]", "Did you mean 'caption'"), ("[a dog]", "give a mapping")])
def test_previews_that_cannot_be_are_refused_before_a_run_begins(make_recipe, tmp_path, conditions, told):
    with pytest.raises(ConditionError, match=told):
        Trainer(make_recipe("bytes", f"preview.conditions={conditions}"), device="cpu").fit(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_caption_that_is_too_long_is_shown(make_recipe, tmp_path):
    with pytest.raises(ConditionError, match=r"'this one is called \w+' has 2\d bytes; this model reads up to 10"):
        Trainer(make_recipe("bytes", "model.conditions.caption.max_bytes=10"), device="cpu").fit(tmp_path / "run")
    Trainer(make_recipe("bytes", "model.conditions.caption.max_bytes=10", "model.conditions.caption.truncate=true",
                        "train.steps=1"), device="cpu").fit(tmp_path / "cut")


def test_tables_for_conditions_of_one_length_are_refused(make_recipe, tmp_path):
    with pytest.raises(UsageError, match=r"exactly 3 condition tokens.*model\.predictor_condition_position=false"):
        Trainer(make_recipe("bytes", "model.predictor_condition_position=true"), device="cpu").fit(tmp_path / "run")


def test_an_encoder_that_is_gone_is_named_when_a_model_is_loaded(make_recipe, t5, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(t5, "mine")
    Trainer(make_recipe("t5", "model.conditions.caption.source=mine", "train.steps=1"), device="cpu").fit("run")
    config = json.loads((newest_checkpoint(tmp_path / "run") / "config.json").read_text())
    assert config["model"]["conditions"]["caption"]["source"] == str(tmp_path / "mine")
    shutil.move("mine", "elsewhere")
    with pytest.raises(CheckpointError, match=f"cannot be built: There is no text encoder '{tmp_path / 'mine'}'"):
        Pipeline.from_pretrained("run", device="cpu")


# The command line


@pytest.fixture
def generate(monkeypatch, capsys, tmp_path):
    """`djepa generate` for one condition as it is typed; what the sample says it is of."""
    from djepa.cli import main

    def call(model, typed):
        words = ["djepa", "generate", str(model), "-c", typed, "--out", str(tmp_path / "x.png"), "--device", "cpu", "--json"]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
        return json.loads(capsys.readouterr().out)["samples"][0]["condition"]

    return call


def test_texts_are_typed_as_they_are(generate, run, make_recipe, tmp_path):
    text = "zwei, drei = 3, and so on"
    assert generate(run, f"label=3, caption={text}") == {"label": "3", "caption": text}
    assert generate(run, f"caption={text},label=3") == {"label": "3", "caption": text}
    assert generate(run, f"caption={text}") == {"caption": text}


def test_a_model_of_one_condition_takes_bare_texts(generate, make_recipe, tmp_path):
    Trainer(make_recipe("bytes", "train.steps=1", label=False), device="cpu").fit(tmp_path / "run")
    for text in ("a dog, with = and commas", "x=1,y=2", "caption"):
        assert generate(tmp_path / "run", text) == generate(tmp_path / "run", f"caption={text}") == {"caption": text}
