"""The noise schedule, against its formulas in plain Python numbers."""

import math

import pytest
import torch

from djepa.errors import UsageError
from djepa.heads import schedule
from djepa.heads.schedule import cosine_schedule, respaced

NAMES = ("betas", "abar", "signal", "noise", "coef1", "coef2", "log_beta", "log_variance")


def plain_alpha_bars():
    """Squared cosine with offset 0.008; no single step keeps less than 0.001."""
    def share(step):
        return math.cos((step / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    kept, product = [], 1.0
    for step in range(1000):
        product *= max(share(step + 1) / share(step), 0.001)
        kept.append(product)
    return kept


def plain_entries(alpha_bars):
    """Everything that follows from the products of alphas, by Bayes' rule for Gaussians."""
    entries = []
    for index, abar in enumerate(alpha_bars):
        before = alpha_bars[index - 1] if index else 1.0
        alpha = abar / before
        beta = 1 - alpha
        if index:
            # x_t | x_{t-1} ~ N(sqrt(alpha) x_{t-1}, beta) times x_{t-1} | x_0 ~ N(sqrt(before) x_0, 1 - before)
            variance = 1 / (alpha / beta + 1 / (1 - before))
            coef1, coef2 = variance * math.sqrt(before) / (1 - before), variance * math.sqrt(alpha) / beta
        else:
            coef1, coef2, variance = 1.0, 0.0, None  # x_{-1} is x_0 itself
        entries.append({"betas": beta, "abar": abar, "signal": math.sqrt(abar), "noise": math.sqrt(1 - abar), "coef1": coef1,
                        "coef2": coef2, "log_beta": math.log(beta), "log_variance": variance and math.log(variance)})
    entries[0]["log_variance"] = entries[1]["log_variance"] if len(entries) > 1 else entries[0]["log_beta"]
    return {name: [entry[name] for entry in entries] for name in NAMES}


def assert_equals_plain(ours, wanted):
    for name in NAMES:
        assert getattr(ours, name).tolist() == pytest.approx(wanted[name], rel=1e-9, abs=1e-12), name


def test_the_full_schedule_follows_its_formulas():
    ours = cosine_schedule()
    assert_equals_plain(ours, plain_entries(plain_alpha_bars()))
    assert ours.times.tolist() == list(range(1000))
    assert float(ours.betas[-1]) == 0.999


@pytest.mark.parametrize("num_steps", [2, 3, 10, 21, 50, 64, 100, 250, 999])
def test_a_respaced_schedule_keeps_evenly_spread_steps_and_rebuilds_the_rest(num_steps):
    time, kept = 0.0, []
    for _ in range(num_steps):
        kept.append(round(time))  # of a sum, as published samplers do it: 21 steps hit 499.5 only almost
        time += 999 / (num_steps - 1)
    full = plain_alpha_bars()
    ours = respaced(num_steps)
    assert ours.times.tolist() == kept and len(ours) == num_steps
    assert_equals_plain(ours, plain_entries([full[step] for step in kept]))


def test_all_thousand_steps_are_the_full_schedule():
    ours, full = respaced(1000), cosine_schedule()
    assert torch.equal(ours.times, full.times)
    for name in NAMES:
        torch.testing.assert_close(getattr(ours, name), getattr(full, name), rtol=1e-9, atol=1e-12)


def test_a_single_step_is_the_noisiest():
    ours = respaced(1)
    assert ours.times.tolist() == [999]
    assert_equals_plain(ours, plain_entries(plain_alpha_bars()[-1:]))


@pytest.mark.parametrize("num_steps", [0, -3, 1001])
def test_there_are_one_to_a_thousand_steps(num_steps):
    with pytest.raises(UsageError, match=rf"num_denoising_steps={num_steps}: .*1 to 1000"):
        respaced(num_steps)


def test_the_device_a_model_is_built_on_leaves_no_trace_in_the_schedule():
    """Schedules are computed once and shared: a first use under another default device must not place them there."""
    schedule.cosine_schedule.cache_clear()
    schedule.respaced.cache_clear()
    with torch.device("meta"):
        inside = [cosine_schedule(), respaced(7)]
    for ours in (*inside, cosine_schedule(), respaced(7)):
        assert {getattr(ours, name).device.type for name in (*NAMES, "times")} == {"cpu"}
