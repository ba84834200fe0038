"""The gaussian head: its loss by plain numbers, its sampler against distributions whose exact answer is known."""

import math

import pytest
import torch

from djepa.heads.gaussian import GaussianHead
from djepa.heads.head import DenoisingNetwork, GuidedNetwork
from djepa.heads.mlp import DenoisingMLP
from djepa.random import Draws, seeded

CHANNELS, CONTEXT = 2, 5


def unguided(time):
    return 1.0


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def token_noise(count, *purpose):
    return Draws(0, "test", *purpose).at(torch.arange(count) // 7, torch.arange(count) % 7)


def plain_chain(num_steps=1000):
    """(t, abar, abar before) of the steps kept, in plain numbers."""
    def share(step):
        return math.cos((step / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    bars, product = [], 1.0
    for step in range(1000):
        product *= max(share(step + 1) / share(step), 0.001)
        bars.append(product)
    kept = [round(index * 999 / (num_steps - 1)) for index in range(num_steps)] if num_steps > 1 else [999]
    return [(t, bars[t], bars[kept[index - 1]] if index else 1.0) for index, t in enumerate(kept)]


def reverse_step(abar, before):
    """Coefficients of x_0 and x_t in the posterior's mean, and its variance."""
    beta = 1 - abar / before
    of_clean, of_noisy = math.sqrt(before) * beta, math.sqrt(1 - beta) * (1 - before)
    return of_clean / (1 - abar), of_noisy / (1 - abar), beta * (1 - before) / (1 - abar)


class Fixed(DenoisingNetwork):
    """Gives the same output whatever it is asked, and remembers what it was asked."""

    def __init__(self, output):
        super().__init__()
        self.output, self.asked = output, []

    def project(self, z):
        return z

    def forward(self, x_t, time, context):
        self.asked.append((x_t.clone(), time.clone()))
        return self.output


class Oracle(DenoisingNetwork):
    """The exact noise prediction and reverse variance for tokens distributed N(mean, std^2), of any denoising chain."""

    def __init__(self, mean, std, num_steps):
        super().__init__()
        self.mean, self.variance = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64) ** 2
        self.chain = {t: (index, abar, before) for index, (t, abar, before) in enumerate(plain_chain(num_steps))}

    def project(self, z):
        return z

    def forward(self, x_t, time, context):
        index, abar, before = self.chain[round(float(time))]
        total = abar * self.variance + 1 - abar  # the variance of x_t
        predicted = math.sqrt(1 - abar) * (x_t.double() - math.sqrt(abar) * self.mean) / total
        if index == 0:
            return torch.cat([predicted, torch.zeros_like(predicted)], dim=1)
        coef1, _, posterior = reverse_step(abar, before)
        low, high = math.log(posterior), math.log(1 - abar / before)
        needed = posterior + coef1**2 * self.variance * (1 - abar) / total  # spread of the posterior over x_0 | x_t
        fraction = (needed.log() - low) / (high - low)
        return torch.cat([predicted, (2 * fraction - 1).expand_as(predicted)], dim=1)


class Watched(DenoisingMLP):
    """The network in use, which remembers what it was asked."""

    def forward(self, x_t, time, context):
        if not hasattr(self, "asked"):
            self.asked = []
        self.asked.append((x_t.clone(), float(time[0])))
        return super().forward(x_t, time, context)


def make_head(num_noise_samples=4, jitter=0.3):
    with seeded(0, "gaussian"):
        head = GaussianHead(CHANNELS, CONTEXT, depth=2, width=16, num_noise_samples=num_noise_samples)
        head.network = Watched(CHANNELS, 2 * CHANNELS, CONTEXT, 16, 2)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter += jitter * torch.randn_like(parameter)
    return head


def sample(head, z, z_null=None, source=None, *, num_steps=8, temperature=1.0, guidance=unguided, bounds=None):
    return head.sample(z, z_null, source or token_noise(len(z)), num_steps=num_steps, temperature=temperature,
                       guidance=guidance, bounds=bounds)


# The loss

def kl_by_quadrature(mean1, variance1, mean2, variance2):
    """KL(N1 || N2) in nats, as the integral it is."""
    def log_density(x, mean, variance):
        return -0.5 * ((x - mean) ** 2 / variance + math.log(2 * math.pi * variance))

    width = math.sqrt(variance1) * 24 / 4000
    points = [mean1 + (index - 2000) * width for index in range(4001)]
    terms = [math.exp(log_density(x, mean1, variance1)) * (log_density(x, mean1, variance1) - log_density(x, mean2, variance2))
             for x in points]
    return width * sum(terms)


def negative_log_likelihood(x, mean, std):
    """Of the bin of half-width 1/255 around x, with the tanh approximation of the normal distribution."""
    def cdf(value):
        y = (value - mean) / std
        return 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))

    upper = 1.0 if x > 0.999 else cdf(x + 1 / 255)
    lower = 0.0 if x < -0.999 else cdf(x - 1 / 255)
    return -math.log(max(upper - lower, 1e-12))


def plain_bound(x, epsilon, predicted, v, t):
    """The variational bound of one channel, in bits."""
    chain = plain_chain()
    _, abar, before = chain[t]
    coef1, coef2, posterior = reverse_step(abar, before)
    posterior = posterior if t else reverse_step(*chain[1][1:])[2]
    x_t = math.sqrt(abar) * x + math.sqrt(1 - abar) * epsilon
    clean = (x_t - math.sqrt(1 - abar) * predicted) / math.sqrt(abar)
    mean, fraction = coef1 * clean + coef2 * x_t, (v + 1) / 2
    variance = (1 - abar / before) ** fraction * posterior ** (1 - fraction)
    if t == 0:
        return negative_log_likelihood(x, mean, math.sqrt(variance)) / math.log(2)
    return kl_by_quadrature(coef1 * x + coef2 * x_t, posterior, mean, variance) / math.log(2)


def test_the_loss_is_its_formula():
    t = torch.tensor([0, 0, 0, 0, 1, 2, 37, 500, 998])
    x, epsilon = noise(9, CHANNELS), noise(9, CHANNELS, seed=1)
    x[:4] = torch.tensor([[0.3, -0.7], [0.9995, -0.9995], [1.4, -1.3], [0.2, 0.1]])
    output = torch.cat([epsilon + 0.1 * noise(9, CHANNELS, seed=2), 2 * noise(9, CHANNELS, seed=3)], dim=1)
    output[3, :2] += 30.0  # so far off that the bin's probability is cut at 1e-12
    head = make_head()
    head.network = Fixed(output)
    mse, bound = head.loss_at(x, torch.zeros(9, 1), t, epsilon)

    for row in range(9):
        numbers = [[float(part[row, channel]) for part in (x, epsilon, output[:, :2], output[:, 2:])] for channel in range(2)]
        squares = [(eps - predicted) ** 2 for _, eps, predicted, _ in numbers]
        bounds = [plain_bound(*channel, int(t[row])) for channel in numbers]
        assert float(mse[row]) == pytest.approx(sum(squares) / 2, rel=1e-5)
        assert float(bound[row]) == pytest.approx(sum(bounds) / 2, rel=2e-3, abs=1e-4), row
    x_t, time = head.network.asked[0]
    assert time.tolist() == t.tolist()
    for row, (_, abar, _) in enumerate(plain_chain()[step] for step in t.tolist()):
        wanted = math.sqrt(abar) * x[row] + math.sqrt(1 - abar) * epsilon[row]
        torch.testing.assert_close(x_t[row], wanted, atol=1e-6, rtol=1e-6)


def test_the_bound_teaches_the_variance_only_and_the_squared_error_the_noise_only():
    head = make_head()
    output = noise(6, 2 * CHANNELS).requires_grad_()
    head.network = Fixed(output)
    t = torch.tensor([0, 1, 10, 400, 900, 999])
    mse, bound = head.loss_at(noise(6, CHANNELS), torch.zeros(6, 1), t, noise(6, CHANNELS))
    by_mse, by_bound = (torch.autograd.grad(loss.sum(), output)[0] for loss in (mse, bound))
    assert (by_bound[:, :CHANNELS] == 0).all() and (by_bound[:, CHANNELS:] != 0).any(dim=1).all()
    assert (by_mse[:, CHANNELS:] == 0).all() and (by_mse[:, :CHANNELS] != 0).all()


def test_a_loss_averages_several_noise_levels_of_every_token():
    head, source = make_head(num_noise_samples=3), token_noise(20)
    x, z = noise(20, CHANNELS), noise(20, CONTEXT, seed=1)
    parts = head.loss(x, z, source)
    levels, epsilon = source.uniform("time", 3, 1)[..., 0], source.normal("noise", 3, CHANNELS)
    each = [head.loss_at(x, head.network.project(z), (levels[turn] * 1000).long(), epsilon[turn]) for turn in range(3)]
    for name, index in (("mse", 0), ("vb", 1)):
        wanted = sum(losses[index] for losses in each) / 3
        torch.testing.assert_close(parts[name], wanted, atol=1e-5, rtol=1e-4)
    assert len(levels.unique()) == 60


def test_noise_levels_cover_all_steps_evenly():
    head = make_head(num_noise_samples=4)
    head.network = Fixed(torch.zeros(4 * 5000, 2 * CHANNELS))
    head.loss(torch.zeros(5000, CHANNELS), torch.zeros(5000, 1), token_noise(5000))
    t = head.network.asked[0][1]
    assert torch.equal(t, t.round()) and t.min() >= 0 and t.max() <= 999
    counts = torch.histc(t, 10, 0, 1000)
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 40  # chi-squared, 9 degrees of freedom


def test_a_fresh_head_predicts_no_noise():
    head = make_head(jitter=0.0)
    x, epsilon, t = noise(5, CHANNELS), noise(5, CHANNELS, seed=1), torch.tensor([0, 5, 100, 600, 999])
    mse, _ = head.loss_at(x, head.network.project(noise(5, CONTEXT)), t, epsilon)
    torch.testing.assert_close(mse, epsilon.square().mean(dim=1))


# Sampling

@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("num_steps", [2, 10, 60])
def test_sampling_with_the_exact_answer_gives_the_exact_distribution(num_steps, temperature):
    """With it every step is linear, so that mean and spread follow by recursion; at temperature 1 they are the data's."""
    means, stds, count = [1.5, -0.4], [0.3, 2.0], 6000
    head = make_head()
    head.network = Oracle(means, stds, num_steps)
    samples = sample(head, torch.zeros(count, 1), num_steps=num_steps, temperature=temperature)
    for channel, (data_mean, data_std) in enumerate(zip(means, stds, strict=True)):
        mean, std = plain_recursion(data_mean, data_std, num_steps, temperature)
        if temperature == 1.0:
            assert (mean, std) == pytest.approx((data_mean, data_std), rel=0.01)
        error = std / math.sqrt(count)
        assert float(samples[:, channel].mean()) == pytest.approx(mean, abs=5 * error)
        assert float(samples[:, channel].std()) == pytest.approx(std, abs=5 * error / math.sqrt(2))


def plain_recursion(data_mean, data_std, num_steps, temperature):
    """Mean and standard deviation after the last step."""
    mean, variance = 0.0, 1.0
    for index, (_, abar, before) in reversed(list(enumerate(plain_chain(num_steps)))):
        total = abar * data_std**2 + 1 - abar
        coef1, coef2, posterior = reverse_step(abar, before)
        slope = coef1 * math.sqrt(abar) * data_std**2 / total + coef2  # of E[x_0 | x_t], and of x_t itself
        offset = coef1 * data_mean * (1 - abar) / total
        added = temperature**2 * (posterior + coef1**2 * data_std**2 * (1 - abar) / total) if index else 0.0
        mean, variance = slope * mean + offset, slope**2 * variance + added
    return mean, math.sqrt(variance)


def test_one_step_gives_the_mean():
    head = make_head()
    head.network = Oracle([1.5, -0.4], [0.3, 2.0], 1)
    torch.testing.assert_close(sample(head, torch.zeros(50, 1), num_steps=1),
                               torch.tensor([1.5, -0.4]).expand(50, 2), atol=0.02, rtol=0)


def test_one_denoising_step_by_plain_numbers():
    head, output, x_t, draw = make_head(), noise(4, 4), noise(4, 2, seed=1), noise(4, 2, seed=2)
    head.network = Fixed(output)
    network = GuidedNetwork(head.network, torch.zeros(4, 1), None, unguided)
    for step, (_, abar, before) in enumerate(plain_chain(6)):
        coef1, coef2, posterior = reverse_step(abar, before)
        posterior = posterior if step else reverse_step(*plain_chain(6)[1][1:])[2]
        ours = head.denoise(network, x_t, step, 6, draw, 0.8, None)
        for row, channel in torch.cartesian_prod(torch.arange(4), torch.arange(2)).tolist():
            predicted, fraction = float(output[row, channel]), (float(output[row, channel + 2]) + 1) / 2
            clean = (float(x_t[row, channel]) - math.sqrt(1 - abar) * predicted) / math.sqrt(abar)
            variance = (1 - abar / before) ** fraction * posterior ** (1 - fraction)
            wanted = coef1 * clean + coef2 * float(x_t[row, channel]) + 0.8 * math.sqrt(variance) * float(draw[row, channel])
            assert float(ours[row, channel]) == pytest.approx(wanted, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("num_steps", [1, 2, 9])
def test_the_network_is_asked_once_a_step_and_told_the_step_of_the_full_schedule(num_steps):
    head, times = make_head(), []
    sample(head, noise(3, CONTEXT), noise(3, CONTEXT, seed=1), num_steps=num_steps, guidance=lambda t: times.append(t) or 2.0)
    kept = [t for t, _, _ in reversed(plain_chain(num_steps))]
    assert [time for _, time in head.network.asked] == kept
    assert times == pytest.approx([1 - (t + 1) / 1000 for t in kept])  # head time: 0 noise, 1 data


class Counted:
    """Noise that remembers what was taken; `other` replaces what is drawn at the steps."""

    def __init__(self, source, other=None):
        self.source, self.other, self.taken = source, other, []

    def normal(self, purpose, num, width):
        self.taken.append((purpose, num))
        return (self.other if self.other and purpose == "step" else self.source).normal(purpose, num, width)


def test_the_last_step_adds_no_noise():
    head, source = make_head(), Counted(token_noise(3))
    sample(head, noise(3, CONTEXT), source=source, num_steps=7)
    assert source.taken == [("start", 1), ("step", 6)]


def test_temperature_zero_leaves_no_randomness_but_the_start():
    head, z = make_head(), noise(6, CONTEXT)

    def run(start, steps):
        return sample(head, z, source=Counted(token_noise(6, start), token_noise(6, steps)), temperature=0.0)

    assert torch.equal(run("a", "b"), run("a", "c"))
    assert not torch.isclose(run("a", "b"), run("d", "b")).any()


def test_temperature_leaves_the_start_alone():
    head, source = make_head(), token_noise(6)
    sample(head, noise(6, CONTEXT), source=source, temperature=0.3)
    assert torch.equal(head.network.asked[0][0], source.normal("start", 1, CHANNELS)[0])


@pytest.mark.parametrize("num_steps", [1, 2, 20])
def test_clamped_samples_stay_within_bounds(num_steps):
    head, z = make_head(), noise(200, CONTEXT)
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([0.5, 2.0])
    free = sample(head, z, num_steps=num_steps)
    assert bool(((free < low) | (free > high)).any())
    clamped = sample(head, z, num_steps=num_steps, bounds=(low, high))
    assert bool(((low <= clamped) & (clamped <= high)).all())


def test_bounds_that_are_never_reached_change_nothing():
    head = make_head()
    head.network = Oracle([0.0, 0.0], [0.1, 0.1], 10)
    wide = (torch.tensor([-3.0, -3.0]), torch.tensor([3.0, 3.0]))
    z = torch.zeros(20, 1)
    assert torch.equal(sample(head, z, num_steps=10), sample(head, z, num_steps=10, bounds=wide))


# Guidance

def guided(head, scale, x_t, z, z_null):
    return GuidedNetwork(head.network, z, z_null, lambda time: scale)(x_t, 400.0, 0.6)


def test_guidance_goes_from_the_null_answer_through_the_conditional_and_beyond():
    head, x_t, z, z_null = make_head(), noise(4, 2), noise(4, CONTEXT, seed=1), noise(4, CONTEXT, seed=2)
    conditional, null = (GuidedNetwork(head.network, part, None, unguided)(x_t, 400.0, 0.6) for part in (z, z_null))
    assert torch.equal(guided(head, 1.0, x_t, z, z_null), conditional)
    torch.testing.assert_close(guided(head, 0.0, x_t, z, z_null)[:, :2], null[:, :2])
    for scale in (-0.5, 0.3, 2.5, torch.tensor([[0.0], [1.0], [2.0], [7.5]])):
        ours = guided(head, scale, x_t, z, z_null)
        torch.testing.assert_close(ours[:, :2], null[:, :2] + scale * (conditional - null)[:, :2], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours[:, 2:], conditional[:, 2:])  # the variance is the conditional's


def test_both_halves_see_the_same_noisy_tokens():
    head, x_t = make_head(), noise(4, 2)
    guided(head, 3.0, x_t, noise(4, CONTEXT, seed=1), noise(4, CONTEXT, seed=2))
    assert torch.equal(head.network.asked[0][0], torch.cat([x_t, x_t]))


def test_guidance_one_samples_as_if_there_were_none():
    head, z = make_head(), noise(6, CONTEXT)
    assert torch.equal(sample(head, z, noise(6, CONTEXT, seed=1)), sample(head, z))
    assert not torch.isclose(sample(head, z, noise(6, CONTEXT, seed=1), guidance=lambda t: 2.0), sample(head, z)).any()


def test_a_scale_per_token_is_that_scale_for_each():
    head, z, z_null, source = make_head(), noise(5, CONTEXT), noise(5, CONTEXT, seed=1), token_noise(5)
    scales = torch.tensor([[1.0], [0.0], [2.0], [3.5], [1.0]])
    together = sample(head, z, z_null, source, guidance=lambda t: scales)
    for row, scale in enumerate(scales[:, 0].tolist()):
        alone = sample(head, z, z_null, source, guidance=lambda t, scale=scale: scale)
        torch.testing.assert_close(together[row], alone[row], atol=1e-3, rtol=1e-4)
