"""Which weights decay, how fast they are learned, and how they are averaged."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from djepa.build import build_model, build_tokenizers
from djepa.errors import CheckpointError
from djepa.recipe import TrainSpec
from djepa.train.optimizer import (
    Optimizer,
    averaged_copy,
    ema_decay,
    update_average,
)

NEVER_DECAYED = ("bias", "norm", "position", "mask_token", "embedding", "null_condition", "tokens", "start")


@pytest.fixture
def model(pipe):
    with torch.random.fork_rng():
        return build_model(pipe.spec, build_tokenizers(pipe.spec))


def stepped(model, optimizer, steps):
    for step in range(steps):
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, 0.1 * (number % 3) + 0.01 * step)
        optimizer.step(0.01)


# Weight decay


def test_exactly_the_weights_of_linear_layers_decay(model):
    decayed, free = Optimizer(model, TrainSpec(weight_decay=0.3)).adamw.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert sorted(map(id, decayed["params"] + free["params"])) == sorted(names)
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert {names[id(parameter)] for parameter in decayed["params"]} == linear
    for parameter in decayed["params"]:
        assert parameter.ndim == 2 and not any(word in names[id(parameter)] for word in NEVER_DECAYED), names[id(parameter)]
    for parameter in free["params"]:
        assert any(word in names[id(parameter)] for word in NEVER_DECAYED), names[id(parameter)]


def test_without_a_gradient_only_decaying_weights_move(model):
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = Optimizer(model, TrainSpec(weight_decay=0.5, lr=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.1)
    for name, parameter in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if name in {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)} else 1
        assert torch.allclose(parameter, factor * before[name], rtol=1e-6, atol=0), name


def test_the_settings_reach_the_optimizer(model):
    optimizer = Optimizer(model, TrainSpec(lr=0.02, betas=(0.8, 0.9), eps=1e-7))
    for group in optimizer.adamw.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.02, (0.8, 0.9), 1e-7)


# The average


def test_the_decay_starts_low_and_ends_where_it_should():
    spec = TrainSpec(ema_decay=0.99)
    assert [ema_decay(spec, step) for step in (0, 1, 90)] == [0.1, 2 / 11, 0.91]
    assert ema_decay(spec, 890) == ema_decay(spec, 10**6) == 0.99
    assert ema_decay(TrainSpec(ema_decay=0.99, ema_warmup=False), 0) == 0.99


@given(decay=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_average_is_what_a_loop_says(decay, seed):
    generator = torch.Generator().manual_seed(seed)
    modules = [nn.ModuleList([nn.Linear(3, 2), nn.LayerNorm(4)]) for _ in range(2)]
    for parameter in (*modules[0].parameters(), *modules[1].parameters()):
        parameter.data = torch.randn(parameter.shape, generator=generator)
    average, model = modules
    expected = [[decay * a + (1 - decay) * b for a, b in zip(first.flatten().tolist(), second.flatten().tolist(), strict=True)]
                for first, second in zip(average.parameters(), model.parameters(), strict=True)]
    theirs = [parameter.clone() for parameter in model.parameters()]
    update_average(average, model, decay)
    for parameter, values in zip(average.parameters(), expected, strict=True):
        assert parameter.flatten().tolist() == pytest.approx(values, abs=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), theirs, strict=True))


def test_the_average_of_equals_stays_bit_for_bit():
    model = nn.Linear(50, 50)
    average = nn.Linear(50, 50)
    average.load_state_dict(model.state_dict())
    update_average(average, model, 0.3)
    assert torch.equal(average.weight, model.weight)


def test_the_copy_that_holds_the_average_is_apart_and_frozen(model):
    average = averaged_copy(model.train())
    assert model.training and not average.training and not any(p.requires_grad for p in average.parameters())
    first, copied = next(model.parameters()), next(average.parameters())
    assert torch.equal(first, copied) and first.data_ptr() != copied.data_ptr()


# Saving and loading


def test_an_optimizer_that_is_put_back_goes_on_as_if_nothing_had_happened(model):
    spec = TrainSpec(weight_decay=0.1, lr=0.01)
    optimizer = Optimizer(model, spec)
    stepped(model, optimizer, 3)
    other = averaged_copy(model).requires_grad_(True)
    successor = Optimizer(other, spec)
    for name, room in successor.blank_state(optimizer.state()).items():
        room.copy_(optimizer.state()[name])
    for each, its in ((model, optimizer), (other, successor)):
        stepped(each, its, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert optimizer.state().keys() == successor.state().keys()


def test_a_parameter_that_was_never_used_has_no_state(model):
    optimizer = Optimizer(model, TrainSpec())
    model.encoder.norm_in.weight.grad = torch.ones(32)
    optimizer.step(0.1)
    tensors = optimizer.state()
    assert set(tensors) == {f"{key}.encoder.norm_in.weight" for key in ("step", "exp_avg", "exp_avg_sq")}
    assert Optimizer(model, TrainSpec()).blank_state(tensors).keys() == tensors.keys()


@pytest.mark.parametrize(("change", "told"), [
    (lambda names: names.remove("exp_avg.encoder.norm_in.weight"), "exp_avg.encoder.norm_in.weight"),
    (lambda names: names.add("exp_avg.nobody"), "exp_avg.nobody"),
    (lambda names: names.add("momentum.encoder.norm_in.weight"), "momentum.encoder.norm_in.weight"),
], ids=["missing", "of no parameter", "of another optimizer"])
def test_a_state_that_does_not_fit_is_refused_by_name(model, change, told):
    optimizer = Optimizer(model, TrainSpec())
    stepped(model, optimizer, 1)
    names = set(optimizer.state())
    change(names)
    with pytest.raises(CheckpointError, match=told):
        Optimizer(model, TrainSpec()).blank_state(names)


# The norm of the gradient


@given(scale=st.floats(1e-3, 1e3), limit=st.floats(1e-2, 1e2), seed=st.integers(0, 99))
def test_a_gradient_is_clipped_as_torch_clips_it(scale, limit, seed):
    generator = torch.Generator().manual_seed(seed)
    models = [nn.ModuleList([nn.Linear(3, 2), nn.LayerNorm(4), nn.Linear(2, 5)]) for _ in range(2)]
    for ours, theirs in zip(*(list(model.parameters()) for model in models), strict=True):
        ours.grad = scale * torch.randn(ours.shape, generator=generator)
        theirs.grad = ours.grad.clone()
    norm = Optimizer(models[0], TrainSpec()).clip(limit, lambda number: number)
    wanted = torch.nn.utils.clip_grad_norm_(models[1].parameters(), limit)
    assert norm == pytest.approx(float(wanted), rel=1e-5)
    for ours, theirs in zip(*(list(model.parameters()) for model in models), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_number_that_is_none_shows_in_the_norm(model, value):
    optimizer = Optimizer(model, TrainSpec())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    model.encoder.norm_in.weight.grad[3] = value
    assert not math.isfinite(optimizer.clip(1.0, lambda number: number))
