"""The recipes of the paper: sizes that give the published numbers of parameters, and the published training."""

import pytest
import torch

from djepa import Recipe
from djepa.build import build_model, build_tokenizers
from djepa.errors import UsageError
from djepa.outline import outline
from djepa.recipe.schema import ModelSpec

KL16 = {"_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 16,
        "block_out_channels": [128, 128, 256, 256, 512], "layers_per_block": 2,
        "down_block_types": ["DownEncoderBlock2D"] * 4 + ["AttnDownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"] * 5, "scaling_factor": 0.2325, "sample_size": 256}
NUM_PARAMETERS = {"base": 212_410_656, "base-flow": 212_394_256, "large": 687_946_272, "large-flow": 687_925_776,
                  "huge": 1_427_386_144, "huge-flow": 1_427_361_552}
EPOCHS = {"base": 1400, "large": 480, "huge": 320}
NUM_PICTURES = 1_281_167


def load(size):
    return Recipe.load(f"image/imagenet256-{size}", ["data.root=imagenet"])


def with_what_the_data_says(recipe):
    raw = recipe.model.dump()
    raw["streams"]["image"]["tokenizer"]["config"] = KL16
    raw["conditions"]["label"]["names"] = [str(number) for number in range(1000)]
    return ModelSpec.model_validate(raw)


@pytest.mark.parametrize("size", NUM_PARAMETERS)
def test_a_model_has_as_many_parameters_as_published(size):
    spec = with_what_the_data_says(load(size))
    tokenizers = build_tokenizers(spec)
    with torch.device("meta"):
        model = build_model(spec, tokenizers)
    assert sum(parameter.numel() for parameter in model.parameters()) == NUM_PARAMETERS[size]
    assert tokenizers["image"].layout(spec.streams["image"].shape) == (16, 16)
    assert tokenizers["image"].options()["std"] == [pytest.approx(1 / 0.2325)] * 16


def test_parameters_are_counted_without_the_data_where_the_recipe_says_what_they_would():
    spec = with_what_the_data_says(load("base"))
    found = outline(load("base").override({"model": spec}))
    assert found.num_parameters == NUM_PARAMETERS["base"] and found.grids == {"image": (16, 16)}
    with pytest.raises(UsageError, match="names"):
        outline(load("base").override({"model.streams.image.tokenizer.config": KL16}))


@pytest.mark.parametrize("size", NUM_PARAMETERS)
def test_training_is_as_long_as_published(size):
    train = load(size).train
    assert train.steps == round(EPOCHS[size.removesuffix("-flow")] * NUM_PICTURES / train.batch_size)
    assert train.warmup_steps == round(100 * NUM_PICTURES / train.batch_size)
    assert (train.batch_size, train.lr) == (2048, pytest.approx(1e-4 * 2048 / 256))


@pytest.mark.parametrize("size", ["base", "large", "huge"])
def test_a_flow_recipe_differs_in_head_and_temperature_only(size):
    gaussian, flow = load(size).dump(), load(f"{size}-flow").dump()
    heads = [recipe["model"]["streams"]["image"].pop("head") for recipe in (gaussian, flow)]
    temperatures = [recipe["model"]["generate"].pop("temperature") for recipe in (gaussian, flow)]
    assert [recipe.pop("description") != "" for recipe in (gaussian, flow)] == [True, True]
    assert gaussian == flow
    assert [head["kind"] for head in heads] == ["gaussian", "flow"] and temperatures == [0.98, 1.0]
    assert heads[0].items() - {("kind", "gaussian")} <= heads[1].items()
    assert heads[1]["time_scale"] == 1000
