"""What is asked of a generation is laid out sample by sample, or refused before anything is computed."""

import numpy as np
import pytest

from djepa.errors import ConditionError, RecipeError, UsageError
from djepa.recipe.schema import GenerateSpec
from djepa.request import MAX_SEED, lay_out, settings_from


def pairs(conditions, names=("label",), num_samples=1, seed=0):
    return [(*wanted.condition.values(), wanted.seed) for wanted in lay_out(conditions, list(names), num_samples, seed)]


def test_samples_are_laid_out_condition_by_condition():
    assert pairs([3, "dog"], num_samples=3, seed=10) == [(3, 10), (3, 11), (3, 12), ("dog", 10), ("dog", 11), ("dog", 12)]


def test_a_condition_that_is_listed_again_goes_on_counting():
    assert pairs([3, 5, 3], num_samples=2) == [(3, 0), (3, 1), (5, 0), (5, 1), (3, 2), (3, 3)]


@pytest.mark.parametrize("conditions", [4, [4], (4,), range(4, 5), {"label": 4}, [{"label": 4}]])
def test_one_condition_in_its_many_forms(conditions):
    assert pairs(conditions) == [(4, 0)]


def test_a_text_is_one_condition():
    assert pairs("dog") == [("dog", 0)]


def test_nothing_is_the_null_condition():
    assert pairs(None, num_samples=2) == [(None, 0), (None, 1)]
    assert lay_out(None, [], 1, 0)[0].condition == {}
    assert lay_out(None, ["label", "caption"], 1, 0)[0].condition == {"label": None, "caption": None}


def test_several_conditions_are_given_by_name_and_may_be_left_out():
    wanted = lay_out([{"caption": "a dog"}, {"label": 1, "caption": "x"}], ["label", "caption"], 1, 0)
    assert [item.condition for item in wanted] == [{"label": None, "caption": "a dog"}, {"label": 1, "caption": "x"}]


def test_whole_numbers_of_numpy_will_do():
    assert pairs(1, num_samples=np.int64(2), seed=np.int32(5)) == [(1, 5), (1, 6)]
    assert all(type(item.seed) is int for item in lay_out(1, ["label"], np.int64(2), np.int32(5)))


@pytest.mark.parametrize("num_samples", [0, -1, 1.5, "3", True, None])
def test_a_number_of_samples_that_is_none_is_refused(num_samples):
    with pytest.raises(UsageError, match=r"num_samples=.*at least 1"):
        lay_out(1, ["label"], num_samples, 0)


@pytest.mark.parametrize("seed", [-1, 2**63, MAX_SEED, 0.5, "a", False])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(UsageError, match=r"seed=.*from 0 to 2\*\*63 - 1"):
        lay_out(1, ["label"], 2, seed)


def test_the_largest_seed_may_be_used():
    assert pairs(1, seed=MAX_SEED) == [(1, MAX_SEED)]
    assert pairs([1, 1], seed=MAX_SEED - 1) == [(1, MAX_SEED - 1), (1, MAX_SEED)]


def test_counting_on_past_the_largest_seed_is_refused():
    with pytest.raises(UsageError, match="seed="):
        lay_out([1, 1], ["label"], 1, MAX_SEED)


@pytest.mark.parametrize(("conditions", "names", "message"), [
    ({"lable": 1}, ["label"], r"no condition 'lable'. Did you mean 'label'\?"),
    (3, [], "unconditional and cannot be asked for 3"),
    (3, ["label", "caption"], "has the conditions label, caption; give a mapping .* not 3"),
])
def test_conditions_the_model_does_not_have_are_refused(conditions, names, message):
    with pytest.raises(ConditionError, match=message):
        lay_out(conditions, names, 1, 0)


def test_an_empty_list_is_refused():
    with pytest.raises(UsageError, match="empty"):
        lay_out([], ["label"], 1, 0)


def test_given_settings_take_the_place_of_the_models():
    defaults = GenerateSpec(num_steps=5, temperature=0.9)
    chosen = settings_from(defaults, {"num_steps": 7, "temperature": None, "order": "raster", "clamp": False})
    assert (chosen.num_steps, chosen.temperature, chosen.order.kind, chosen.clamp) == (7, 0.9, "raster", False)
    assert settings_from(defaults, {"num_steps": None}) == defaults


def test_all_settings_out_of_range_are_named():
    with pytest.raises(RecipeError) as error:
        settings_from(GenerateSpec(), {"num_steps": 0, "temperature": -1.0, "guidance_schedule": "lniear"})
    for name in ("num_steps", "temperature", "guidance_schedule"):
        assert name in str(error.value)


def test_every_sample_may_have_a_seed_of_its_own():
    wanted = lay_out(["a", "b"], ["label"], 2, [7, 3, 3, 0])
    assert [(item.condition["label"], item.seed) for item in wanted] == [("a", 7), ("a", 3), ("b", 3), ("b", 0)]


@pytest.mark.parametrize(("seeds", "said"), [([1], "1 seeds for 2 samples"), ([1, -1], "seed=-1"), ("12", "seed='1'")])
def test_a_list_of_seeds_that_cannot_be(seeds, said):
    with pytest.raises(UsageError, match=said):
        lay_out(["a", "b"], ["label"], 1, seeds)
