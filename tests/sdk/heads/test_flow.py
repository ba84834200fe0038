"""The flow head: its loss by plain numbers, its solver against distributions whose exact velocity is known."""

import math
from itertools import pairwise

import pytest
import torch

from djepa.errors import UsageError
from djepa.heads.flow import FlowHead
from djepa.heads.head import DenoisingNetwork
from djepa.heads.mlp import DenoisingMLP
from djepa.random import Draws, seeded

CHANNELS, CONTEXT = 2, 5


def unguided(time):
    return 1.0


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def token_noise(count, *purpose):
    return Draws(0, "test", *purpose).at(torch.arange(count) // 7, torch.arange(count) % 7)


def velocity_slope(t, mean, std):
    """The exact velocity at time t for tokens distributed N(mean, std^2) is mean + slope * (x_t - t * mean)."""
    return (t * std**2 - (1 - t)) / (t**2 * std**2 + (1 - t) ** 2)


class Oracle(DenoisingNetwork):
    """That velocity, channel by channel."""

    def __init__(self, means, stds, time_scale):
        super().__init__()
        self.means, self.stds, self.time_scale = means, stds, time_scale

    def project(self, z):
        return z

    def forward(self, x_t, time, context):
        t = float(time) / self.time_scale
        return torch.stack([mean + velocity_slope(t, mean, std) * (x_t[:, channel].double() - t * mean)
                            for channel, (mean, std) in enumerate(zip(self.means, self.stds, strict=True))], dim=1)


class Watched(DenoisingMLP):
    """The network in use, which remembers what it was asked."""

    def forward(self, x_t, time, context):
        if not hasattr(self, "asked"):
            self.asked = []
        self.asked.append((x_t.clone(), time.clone()))
        return super().forward(x_t, time, context)


def make_head(jitter=0.3, **options):
    with seeded(0, "flow"):
        head = FlowHead(CHANNELS, CONTEXT, depth=2, width=16, **options)
        head.network = Watched(CHANNELS, CHANNELS, CONTEXT, 16, 2)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter += jitter * torch.randn_like(parameter)
    return head


def sample(head, z, z_null=None, source=None, *, num_steps=8, temperature=1.0, guidance=unguided, bounds=None):
    return head.sample(z, z_null, source or token_noise(len(z)), num_steps=num_steps, temperature=temperature,
                       guidance=guidance, bounds=bounds)


# The loss

@pytest.mark.parametrize("time_scale", [1.0, 1000.0])
def test_the_loss_is_the_squared_error_of_the_velocity(time_scale):
    head = make_head(time_scale=time_scale)
    x, epsilon, context = noise(5, 2), noise(5, 2, seed=1), noise(5, 16, seed=2)
    t = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
    loss = head.loss_at(x, context, t, epsilon)
    x_t, time = head.network.asked[0]
    torch.testing.assert_close(time, time_scale * t)
    velocity = head.network(x_t, time, context)
    for row in range(5):
        mixed = [float(t[row]) * float(a) + (1 - float(t[row])) * float(b) for a, b in zip(x[row], epsilon[row], strict=True)]
        assert x_t[row].tolist() == pytest.approx(mixed, abs=1e-6)
        errors = [(float(x[row, c]) - float(epsilon[row, c]) - float(velocity[row, c].detach())) ** 2 for c in range(2)]
        assert float(loss[row].detach()) == pytest.approx(sum(errors) / 2, rel=1e-5)


def test_a_loss_averages_several_times_of_every_token():
    head, source = make_head(num_noise_samples=3), token_noise(20)
    x, z = noise(20, CHANNELS), noise(20, CONTEXT, seed=1)
    times, epsilon = source.uniform("time", 3, 1)[..., 0], source.normal("noise", 3, CHANNELS)
    wanted = sum(head.loss_at(x, head.network.project(z), times[turn], epsilon[turn]) for turn in range(3)) / 3
    torch.testing.assert_close(head.loss(x, z, source)["mse"], wanted, atol=1e-5, rtol=1e-4)


def test_a_fresh_head_predicts_no_velocity():
    head, x, epsilon = make_head(jitter=0.0), noise(5, 2), noise(5, 2, seed=1)
    loss = head.loss_at(x, torch.zeros(5, 16), torch.rand(5), epsilon)
    torch.testing.assert_close(loss, (x - epsilon).square().mean(dim=1))


# Sampling

@pytest.mark.parametrize(("num_steps", "shift", "temperature"),
                         [(5, 1.0, 1.0), (5, 3.0, 0.7), (200, 1.0, 1.0), (200, 2.0, 1.0)])
def test_sampling_with_the_exact_velocity_gives_the_exact_distribution(num_steps, shift, temperature):
    """With it every Euler step is linear, so that mean and spread follow by recursion; many steps reach the data's."""
    means, stds, count = [1.5, -0.4], [0.5, 2.0], 6000
    head = make_head(shift=shift)
    head.network = Oracle(means, stds, head.time_scale)
    samples = sample(head, torch.zeros(count, 1), num_steps=num_steps, temperature=temperature)
    for channel, (data_mean, data_std) in enumerate(zip(means, stds, strict=True)):
        mean, std = plain_euler(data_mean, data_std, num_steps, shift, temperature)
        if num_steps == 200:
            assert (mean, std) == pytest.approx((data_mean, data_std), rel=0.02)
        error = std / math.sqrt(count)
        assert float(samples[:, channel].mean()) == pytest.approx(mean, abs=5 * error)
        assert float(samples[:, channel].std()) == pytest.approx(std, abs=5 * error / math.sqrt(2))


def plain_euler(data_mean, data_std, num_steps, shift, temperature):
    """Mean and standard deviation at the end of the Euler steps."""
    times = [step / num_steps for step in range(num_steps + 1)]
    times = [t / (t + shift - shift * t) for t in times]
    mean, std = 0.0, temperature
    for t, following in pairwise(times):
        slope = velocity_slope(t, data_mean, data_std)
        mean += (following - t) * (data_mean + slope * (mean - t * data_mean))
        std *= abs(1 + (following - t) * slope)
    return mean, std


@pytest.mark.parametrize(("num_steps", "shift", "time_scale"),
                         [(1, 1.0, 1000.0), (2, 3.0, 1000.0), (9, 1.0, 1.0), (25, 0.5, 1000.0)])
def test_the_network_is_asked_once_a_step_at_shifted_times(num_steps, shift, time_scale):
    head, head_times = make_head(shift=shift, time_scale=time_scale), []
    sample(head, noise(3, CONTEXT), noise(3, CONTEXT), num_steps=num_steps, guidance=lambda t: head_times.append(t) or 2.0)
    even = [step / num_steps for step in range(num_steps)]
    wanted = [t / (t + shift - shift * t) for t in even]
    assert head_times == pytest.approx(wanted)
    assert [float(time) for _, time in head.network.asked] == pytest.approx([time_scale * t for t in wanted])


def test_a_shift_above_one_spends_more_steps_near_the_noise():
    times = make_head(shift=3.0).times(10)
    assert times[0] == 0 and times[-1] == 1 and times == sorted(times)
    assert sum(t < 0.5 for t in times) > 6
    assert make_head().times(10) == pytest.approx([step / 10 for step in range(11)])


@pytest.mark.parametrize("shift", [0.0, -1.0])
def test_a_shift_that_turns_time_around_is_refused(shift):
    with pytest.raises(UsageError, match=f"shift={shift}: .* above 0"):
        FlowHead(2, 5, depth=1, width=8, shift=shift)


def test_euler_steps_by_plain_numbers():
    head, z, source = make_head(), noise(4, CONTEXT), token_noise(4)
    x = source.normal("start", 1, CHANNELS)[0].double()
    for step in range(5):
        velocity = head.network(x.float(), torch.tensor([1000.0 * step / 5]), head.network.project(z)).double()
        x = x + velocity / 5
    torch.testing.assert_close(sample(head, z, source=source, num_steps=5).double(), x.detach(), atol=1e-4, rtol=1e-4)


def test_temperature_scales_the_start():
    head, z, source = make_head(), noise(6, CONTEXT), token_noise(6)
    sample(head, z, source=source, temperature=0.3)
    torch.testing.assert_close(head.network.asked[0][0], 0.3 * source.normal("start", 1, CHANNELS)[0])
    assert torch.equal(sample(head, z, source=token_noise(6, "a"), temperature=0.0),
                       sample(head, z, source=token_noise(6, "b"), temperature=0.0))


@pytest.mark.parametrize("num_steps", [1, 2, 20])
def test_clamped_samples_stay_within_bounds(num_steps):
    head, z = make_head(jitter=1.0), noise(200, CONTEXT)
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([0.5, 2.0])
    free = sample(head, z, num_steps=num_steps)
    assert bool(((free < low) | (free > high)).any())
    clamped = sample(head, z, num_steps=num_steps, bounds=(low, high))
    assert bool(((low <= clamped) & (clamped <= high)).all())


def test_bounds_that_are_never_reached_change_nothing():
    head = make_head()
    head.network = Oracle([0.0, 0.0], [0.1, 0.1], head.time_scale)
    wide = (torch.tensor([-5.0, -5.0]), torch.tensor([5.0, 5.0]))
    z = torch.zeros(20, 1)
    torch.testing.assert_close(sample(head, z, bounds=wide), sample(head, z), atol=1e-5, rtol=1e-5)


def test_guidance_moves_the_velocity_from_the_null_answer():
    """One Euler step from noise: x = start + velocity, so that the samples are linear in the scale."""
    head, z, z_null = make_head(), noise(6, CONTEXT), noise(6, CONTEXT, seed=1)
    conditional, null = sample(head, z, num_steps=1), sample(head, z_null, num_steps=1)
    for scale in (0.0, 1.0, 2.5):
        guided = sample(head, z, z_null, num_steps=1, guidance=lambda t, scale=scale: scale)
        torch.testing.assert_close(guided, null + scale * (conditional - null), atol=1e-4, rtol=1e-4)
