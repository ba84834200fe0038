"""Learning rates and weight decays are what their formulas say, and older ways to write them mean what they did."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from djepa.errors import RecipeError
from djepa.recipe.schema import TrainSpec
from djepa.train.optimizer import Optimizer
from djepa.train.schedules import learning_rate, weight_decay


@pytest.mark.parametrize(("settings", "expected"), [
    ({"warmup_steps": 4}, {0: 0.25, 1: 0.5, 2: 0.75, 3: 1.0, 4: 1.0, 99: 1.0}),
    ({"warmup_steps": 0}, {0: 1.0, 99: 1.0}),
    ({"warmup_steps": 0, "lr_schedule": "cosine"}, {0: 1.0, 25: 0.5 + 0.5 * 2**-0.5, 50: 0.5, 100: 0.0}),
    ({"warmup_steps": 20, "lr_schedule": "cosine"}, {0: 0.05, 19: 1.0, 20: 1.0, 60: 0.5, 100: 0.0}),
    ({"warmup_steps": 300}, {99: 100 / 300}),
    ({"warmup_steps": 300, "lr_schedule": "cosine"}, {99: 100 / 300}),
])
def test_the_learning_rate_at(settings, expected):
    spec = TrainSpec(steps=100, lr=3e-4, **settings)
    for step, share in expected.items():
        assert learning_rate(spec, step) == pytest.approx(3e-4 * share, abs=1e-18), step


FALLING = ["constant", "cosine", "linear", "inverse-square-root", "warmup-stable-decay", {"kind": "cosine", "end": 0.01},
           {"kind": "linear", "end": 0.1}, {"kind": "inverse-square-root", "timescale": 7.0},
           {"kind": "warmup-stable-decay", "decay": 1.0, "shape": "sqrt"}]


@given(steps=st.integers(1, 500), warmup=st.integers(0, 600), schedule=st.sampled_from(FALLING))
def test_the_learning_rate_rises_then_never_rises_again(steps, warmup, schedule):
    spec = TrainSpec(steps=steps, lr=0.1, warmup_steps=warmup, lr_schedule=schedule)
    rates = [learning_rate(spec, step) for step in range(steps)]
    top = min(warmup, steps)
    assert all(0 < rate <= 0.1 for rate in rates)
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)


def test_the_cosine_is_half_a_period():
    spec = TrainSpec(steps=8, lr=1.0, warmup_steps=0, lr_schedule="cosine")
    assert [learning_rate(spec, step) for step in range(8)] == pytest.approx(
        [math.cos(math.pi * step / 16) ** 2 for step in range(8)])


@given(lr=st.floats(1e-6, 1.0), warmup=st.integers(0, 50), step=st.integers(0, 119))
def test_a_plain_cosine_is_bit_for_bit_what_it_was_before_it_had_an_end(lr, warmup, step):
    spec = TrainSpec(steps=120, lr=lr, warmup_steps=warmup, lr_schedule="cosine")
    warm = min(1.0, (step + 1) / warmup) if warmup else 1.0
    share = max(0, step - warmup) / max(1, 120 - warmup)
    assert learning_rate(spec, step) == lr * warm * 0.5 * (1 + math.cos(math.pi * share))


@pytest.mark.parametrize(("schedule", "at"), [
    ({"kind": "cosine", "end": 0.25}, lambda step: 0.25 + 0.75 * math.cos(math.pi * step / 200) ** 2),
    ({"kind": "linear"}, lambda step: 1 - step / 100),
    ({"kind": "linear", "end": 0.5}, lambda step: 1 - step / 200),
    ({"kind": "inverse-square-root", "timescale": 3.0}, lambda step: (1 + step / 3) ** -0.5),
    ({"kind": "warmup-stable-decay"}, lambda step: min(1.0, (100 - step) / 20)),
    ({"kind": "warmup-stable-decay", "decay": 0.5, "shape": "sqrt", "end": 0.1},
     lambda step: 1.0 if step <= 50 else 1 - 0.9 * math.sqrt((step - 50) / 50)),
])
def test_without_a_warm_up_the_rate_is(schedule, at):
    spec = TrainSpec(steps=100, lr=1.0, warmup_steps=0, lr_schedule=schedule)
    assert [learning_rate(spec, step) for step in range(100)] == pytest.approx([at(step) for step in range(100)])


@given(warmup=st.integers(1, 60), step=st.integers(0, 999))
def test_by_default_the_inverse_square_root_is_that_of_the_transformer(warmup, step):
    spec = TrainSpec(steps=1000, lr=1.0, warmup_steps=warmup, lr_schedule="inverse-square-root")
    # Vaswani et al., equation 3, over its peak of 1 / sqrt(warmup)
    assert learning_rate(spec, step) == pytest.approx((step + 1) / warmup if step < warmup else math.sqrt(warmup / step))


def test_an_inverse_square_root_does_not_depend_on_the_length_of_the_run():
    short, long = (TrainSpec(steps=steps, lr_schedule="inverse-square-root") for steps in (200, 2000))
    assert [learning_rate(short, step) for step in range(200)] == [learning_rate(long, step) for step in range(200)]


@given(start=st.floats(0, 1), end=st.floats(0, 1), steps=st.integers(1, 300))
def test_weight_decay_goes_along_half_a_cosine(start, end, steps):
    spec = TrainSpec(steps=steps, weight_decay=start, weight_decay_schedule={"kind": "cosine", "end": end})
    values = [weight_decay(spec, step) for step in range(steps)]
    assert values == pytest.approx([end + (start - end) * math.cos(math.pi * step / steps / 2) ** 2 for step in range(steps)])
    assert sorted(values, reverse=start > end) == pytest.approx(values)
    assert weight_decay(TrainSpec(steps=steps, weight_decay=start), steps - 1) == start


def test_only_the_groups_that_decay_get_a_scheduled_decay():
    optimizer = Optimizer(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), TrainSpec(weight_decay=0.0))
    spec = TrainSpec(steps=10, lr=1.0, warmup_steps=0, weight_decay=0.0, weight_decay_schedule={"kind": "cosine", "end": 0.4})
    optimizer.step(learning_rate(spec, 5), weight_decay(spec, 5))
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.adamw.param_groups] == [
        (1.0, pytest.approx(0.2)), (1.0, 0.0)]


def test_a_name_alone_will_do_and_settings_can_be_given_one_by_one(make_recipe):
    assert make_recipe("train.lr_schedule=cosine").train.lr_schedule == TrainSpec(lr_schedule={"kind": "cosine"}).lr_schedule
    recipe = make_recipe("train.lr_schedule.end=1e-5", "train.weight_decay_schedule={kind: cosine, end: 0.4}")
    assert (recipe.train.lr_schedule.kind, recipe.train.lr_schedule.end) == ("cosine", 1e-5)  # the recipe says cosine
    assert recipe.train.weight_decay_schedule.end == 0.4


@pytest.mark.parametrize(("override", "words"), [
    ("train.lr_schedule.edn=1", "train.lr_schedule.edn : unknown key - did you mean 'end'?"),
    ("train.lr_schedule.end=1", r"lr_schedule.end=1 is above lr=0\.001"),
    ("train.lr_schedule={kind: warmup-stable-decay, decay: 0}", "train.lr_schedule.decay : expected a positive number, got 0"),
    ("train.weight_decay_schedule=linear", "train.weight_decay_schedule.kind : expected one of 'constant', 'cosine'"),
])
def test_a_schedule_that_cannot_be_is_refused(make_recipe, override, words):
    with pytest.raises(RecipeError, match=words):
        make_recipe(override)
