"""From a model and a recipe to figures."""

import json
from collections import Counter

import pytest
import torch

from djepa import Recipe
from djepa.errors import CheckpointError, RecipeError, UsageError
from djepa.evaluate import evaluate
from djepa.evaluate.blocks import Blocks
from djepa.evaluate.extractor import FeatureExtractor, Features
from djepa.evaluate.frechet import FrechetDistance
from djepa.evaluate.metric import Metric
from djepa.evaluate.task import conditions_of, spread
from djepa.hookspecs import hookimpl
from djepa.plugins import host, temporary


@pytest.fixture(scope="module")
def done(trained, small, tmp_path_factory):
    """A finished evaluation and its folder; not to be changed."""
    folder = tmp_path_factory.mktemp("evaluation") / "folder"
    recipe = small("data.split=heldout")
    return evaluate(trained, recipe, folder, training=small().data, device="cpu"), folder


def values(found):
    return {figure.name: figure.value for figure in found.figures}


# What comes out.

def test_every_standard_metric_has_a_figure_an_error_and_what_training_data_get(done):
    found, _ = done
    assert [figure.name for figure in found.figures] == ["frechet", "kernel", "precision", "recall", "density", "coverage"]
    for figure in found.figures:
        low, high = figure.interval
        assert low <= figure.value <= high and figure.standard_error >= 0 and figure.training is not None
    assert found.num_samples == 80 and found.num_real == 100 and found.num_training == 80 and found.num_features == 64
    # Six steps of training make nothing like a digit; real scans are like real scans.
    frechet = found.figures[0]
    assert frechet.value > 3 * frechet.training


def test_figures_are_those_of_samples_made_by_hand(done, pipe):
    """The conditions of the data in their drawn order, a seed for each, the pixels as they are."""
    found, _ = done
    heldout = Recipe.load("image/digits", ["data.split=heldout"]).data.build()
    conditions = list(conditions_of(heldout, ["label"], range(80)))
    samples = [pipe.generate(condition, seed=number)[0] for number, condition in enumerate(conditions)]
    generated = torch.stack([sample.data.flatten() for sample in samples])
    real = torch.stack([heldout.load(number).samples["image"].data.flatten() for number in spread(397, 100)])
    assert found.value("frechet") == pytest.approx(FrechetDistance().figure(Features(generated), Features(real)), rel=1e-4)


def test_the_outcome_is_kept_and_printed(done):
    found, folder = done
    kept = json.loads((folder / "result.json").read_text())
    assert kept == found.plain() and kept["figures"][0]["name"] == "frechet" and len(kept["figures"][0]["interval"]) == 2
    table = found.table()
    assert "80 samples from seed 0 beside 100 examples of digits(split=heldout)" in table and "training data" in table


def test_conditions_are_distributed_as_in_the_data():
    heldout = Recipe.load("image/digits", ["data.split=heldout"]).data.build()
    labels = [heldout.load(index).conditions["label"] for index in range(397)]
    asked = [one["label"] for one in conditions_of(heldout, ["label"], range(2 * 397))]
    assert Counter(asked[:397]) == Counter(asked[397:]) == Counter(labels)
    assert asked[:397] != asked[397:] and asked[100:300] == [one["label"] for one in conditions_of(heldout, ["label"],
                                                                                                 range(100, 300))]


# The same seed gives the same numbers.

def test_numbers_depend_on_the_seed_alone(done, trained, small, tmp_path):
    found, _ = done
    again = evaluate(trained, small("data.split=heldout"), tmp_path / "again", device="cpu", batch_size=7)
    other = evaluate(trained, small("data.split=heldout", "evaluate.seed=1000"), tmp_path / "other", device="cpu")
    assert values(again) == pytest.approx(values(found), rel=1e-4)
    assert values(other)["frechet"] != pytest.approx(values(found)["frechet"], rel=1e-4)


def test_what_is_finished_is_not_made_again(trained, small, tmp_path):
    folder = tmp_path / "folder"
    first = evaluate(trained, small(), folder, device="cpu")
    file = folder / "generated" / "00000000-00000064.safetensors"
    before = file.stat().st_mtime_ns
    (folder / "generated" / "00000064-00000080.safetensors").unlink()
    assert values(evaluate(trained, small(), folder, device="cpu")) == values(first)
    more = evaluate(trained, small("evaluate.num_samples=150"), folder, device="cpu")  # goes on with those there are
    assert more.num_samples == 150 and file.stat().st_mtime_ns == before


@pytest.mark.parametrize(("change", "said"), [("evaluate.seed=3", "seed was 0 and is 3"),
                                              ("data.split=heldout", "data.split was \"train\" and is \"heldout\"")])
def test_a_folder_of_another_evaluation_is_refused(trained, small, tmp_path, change, said):
    evaluate(trained, small(), tmp_path / "folder", device="cpu")
    with pytest.raises(UsageError, match=said):
        evaluate(trained, small(change), tmp_path / "folder", device="cpu")


def test_another_model_or_other_settings_are_another_evaluation(trained, small, tmp_path):
    evaluate(trained / "checkpoints" / "step_00000006", small(), tmp_path / "folder", device="cpu")
    with pytest.raises(UsageError, match="the weights of model are others"):
        evaluate(trained / "checkpoints" / "step_00000004", small(), tmp_path / "folder", device="cpu")
    with pytest.raises(UsageError, match=r"generate.guidance_scale was 1.5 and is 3.0"):
        evaluate(trained, small(), tmp_path / "folder", device="cpu", guidance_scale=3.0)


def test_a_folder_of_something_else_is_left_alone(trained, small, tmp_path):
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no evaluation"):
        evaluate(trained, small(), tmp_path, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_a_damaged_block_is_named(tmp_path):
    blocks = Blocks(tmp_path, 70)
    blocks.write(range(64), Features(torch.zeros(64, 3)))
    assert blocks.missing() == [range(64, 70)] and blocks.done() == 64
    blocks.write(range(64, 70), Features(torch.ones(6, 3)))
    assert blocks.read().vectors.sum() == 18
    blocks.write(range(64, 70), Features(torch.ones(5, 3)))
    with pytest.raises(CheckpointError, match=r"00000064-00000070\.safetensors' does not hold the features of 6"):
        blocks.read()


# Mistakes are told before anything is generated.

@pytest.mark.parametrize(("overrides", "error", "said"), [
    (["evaluate.metrics=[frechet,frechet]"], UsageError, "'frechet' is there twice"),
    (["evaluate.metrics=[inception-score]"], UsageError, "'values' gives no logits"),
    (["evaluate.stream=sound"], UsageError, "no stream 'sound'"),
    (["evaluate.data.kind=plucked-strings"], RecipeError, "the dataset gives no 'image'"),
])
def test_what_cannot_be_is_refused_at_once(trained, small, tmp_path, overrides, error, said):
    with pytest.raises(error, match=said):
        evaluate(trained, small(*overrides), tmp_path / "folder", device="cpu")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(("override", "said"), [
    ("evaluate.metrics=[frechte]", "Did you mean 'frechet'"), ("evaluate.features=value", "Did you mean 'values'"),
    ("evaluate.num_samples=1", "greater than or equal to 2|at least 2"), ("evaluate.num_groups=1", "must be 0, or from 2"),
    ("evaluate.metrics=[{kind: recall, neighbors: 3}]", "neighbors"),
])
def test_mistakes_in_a_recipe_are_named(override, said):
    with pytest.raises(RecipeError, match=said):
        Recipe.load("image/digits", [override])


# Plugins.

class Brightness(FeatureExtractor):
    """Mean and spread, and a classifier of bright and dark."""

    modalities = ("image",)

    def extract(self, samples):
        rows = torch.stack([torch.stack([sample.data.mean(), sample.data.std()]) for sample in samples])
        return Features(rows, torch.stack([rows[:, 0], -rows[:, 0]], dim=1))


class Broken(FeatureExtractor):
    def extract(self, samples):
        return Features(torch.zeros(len(samples) + 1, 2))


class Brighter(Metric):
    better = "higher"

    def __init__(self, *, by: float = 0.0):
        self.by = by

    def figure(self, generated, real):
        return float(generated.vectors[:, 0].mean() - real.vectors[:, 0].mean()) - self.by


class Plugin:
    @hookimpl
    def djepa_register_feature_extractors(self, register):
        register("brightness", f"{__name__}:Brightness")
        register("broken", f"{__name__}:Broken")

    @hookimpl
    def djepa_register_metrics(self, register):
        register("brighter", f"{__name__}:Brighter")


@pytest.fixture
def plugin(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or __import__(__name__))
    with temporary(Plugin()):
        yield


def test_extractors_and_metrics_come_from_plugins(plugin, trained, small, tmp_path):
    assert "brightness" in host().names("extractor") and "brighter" in host().names("metric")
    found = evaluate(trained, small("evaluate.features=brightness",
                                    "evaluate.metrics=[inception-score, {kind: brighter, by: 1.0}, brighter]"),
                     tmp_path / "folder", device="cpu")
    figures = values(found)
    assert 1.0 <= figures["inception-score"] <= 2.0
    assert figures["brighter"] == pytest.approx(figures["brighter(by=1.0)"] + 1.0)


def test_a_broken_extractor_is_named(plugin, trained, small, tmp_path):
    from djepa.errors import PluginError

    with pytest.raises(PluginError, match=r"'broken' gave vectors of shape \(2, 2\)"):
        evaluate(trained, small("evaluate.features=broken"), tmp_path / "folder", device="cpu")


# The command.

def test_the_command_prints_what_it_found(command, trained, tmp_path, small):
    asked = ("evaluate", trained, "image/digits", "data.split=heldout", "evaluate.num_groups=4", "-n", 70, "--metrics",
             "frechet,recall", "--features", "values", "--device", "cpu", "--out", tmp_path / "folder", "--num-steps", 2)
    shown = command(*asked)
    assert shown.code == 0 and "recall" in shown.out and "training data" in shown.out, shown.err
    found = json.loads(command(*asked, "--json").out)
    assert [figure["name"] for figure in found["figures"]] == ["frechet", "recall"] and found["num_training"] == 70
    assert found["settings"]["num_steps"] == 2


def test_the_command_makes_a_folder_that_says_what_is_in_it(command, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command("evaluate", trained, "image/digits", "evaluate.num_groups=0", "-n", 20, "--metrics", "kernel", "--device",
                   "cpu", "--seed", 7)
    assert done.code == 0 and "95%" in done.out, done.err
    folder, = (tmp_path / "evaluations").iterdir()
    assert (folder / "result.json").is_file()


def test_data_that_do_not_compare_are_refused_at_once(trained, small, tmp_path):
    """Pictures of another size than the model's, without classes and with."""
    picture, root = host().get("modality", "image")().example(0), tmp_path / "pictures"
    recipe = small(f"evaluate.data={{kind: image-folder, root: {root}, size: 16}}")
    picture.save(root / "one.png")
    with pytest.raises(RecipeError, match="the dataset gives no condition 'label'"):
        evaluate(trained, recipe, tmp_path / "folder", device="cpu")
    (root / "3").mkdir()
    (root / "one.png").rename(root / "3" / "one.png")
    with pytest.raises(UsageError, match="have 768 values for the data's samples and 64 for the model's"):
        evaluate(trained, recipe, tmp_path / "folder", device="cpu")


def test_blocks_may_be_made_several_at_a_time(done, trained, small, tmp_path):
    found, _ = done
    both = evaluate(trained, small("data.split=heldout"), tmp_path / "both", device="cpu", batch_size=128)
    assert values(both) == pytest.approx(values(found), rel=1e-4)
    assert len(list((tmp_path / "both" / "generated").iterdir())) == 2
