"""The denoising MLP is what its formulas say, each token on its own."""

import math

import pytest
import torch

from djepa.heads.mlp import DenoisingMLP, sinusoid
from djepa.random import seeded

CHANNELS, OUT, CONTEXT, WIDTH, DEPTH = 3, 6, 5, 16, 2


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make(jitter=0.3):
    with seeded(0, "mlp"):
        mlp = DenoisingMLP(CHANNELS, OUT, CONTEXT, WIDTH, DEPTH)
        with torch.no_grad():
            for parameter in mlp.parameters():
                parameter += jitter * torch.randn_like(parameter)
    return mlp


def normalized(x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def silu(x):
    return x / (1 + (-x).exp())


def reference(mlp, x, times, z):
    """One token after another, in float64, from the names of the parameters."""
    p = {name: parameter.detach().double() for name, parameter in mlp.named_parameters()}

    def linear(name, value):
        return p[f"{name}.weight"] @ value + p[f"{name}.bias"]

    outputs = []
    for x_t, t, context in zip(x.double(), times, z.double(), strict=True):
        angles = [t * math.exp(-math.log(10000) * k / 128) for k in range(128)]
        wave = torch.tensor([*map(math.cos, angles), *map(math.sin, angles)], dtype=torch.float64)
        y = linear("time_mlp.2", silu(linear("time_mlp.0", wave))) + linear("context_proj", context)
        h = linear("input_proj", x_t)
        for block in range(DEPTH):
            name = f"blocks.{block}"
            shift, scale, gate = linear(f"{name}.modulation", silu(y)).chunk(3)
            inner = normalized(h) * p[f"{name}.norm.weight"] + p[f"{name}.norm.bias"]
            inner = linear(f"{name}.mlp.2", silu(linear(f"{name}.mlp.0", inner * (1 + scale) + shift)))
            h = h + gate * inner
        shift, scale = linear("output_modulation", silu(y)).chunk(2)
        outputs.append(linear("output", normalized(h) * (1 + scale) + shift))
    return torch.stack(outputs)


def test_the_network_is_its_formula():
    mlp, x, z = make(), noise(6, CHANNELS), noise(6, CONTEXT, seed=1)
    times = [0.0, 1.0, 0.37, 12.5, 500.0, 999.0]
    ours = mlp(x, torch.tensor(times), mlp.project(z))
    torch.testing.assert_close(ours.double(), reference(mlp, x, times, z), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("time", [0.0, 0.5, 3.0, 250.0, 999.0])
def test_the_sinusoid(time):
    angles = [time * math.exp(-math.log(10000) * k / 128) for k in range(128)]
    wanted = [*map(math.cos, angles), *map(math.sin, angles)]
    assert sinusoid(torch.tensor([time]))[0].tolist() == pytest.approx(wanted, abs=2e-4)  # 999 rad in float32


def test_one_time_for_all_tokens_or_one_each():
    mlp, x, z = make(), noise(4, CHANNELS), noise(4, CONTEXT, seed=1)
    one, each = mlp(x, torch.tensor([7.0]), mlp.project(z)), mlp(x, torch.full((4,), 7.0), mlp.project(z))
    torch.testing.assert_close(one, each, atol=1e-5, rtol=1e-5)


def test_tokens_do_not_know_each_other():
    mlp, x, z = make(), noise(4, CHANNELS), noise(4, CONTEXT, seed=1)
    times = torch.tensor([1.0, 20.0, 300.0, 900.0])
    before = mlp(x, times, mlp.project(z))
    x[2] += 1.0
    z[2] += 1.0
    after = mlp(x, times, mlp.project(z))
    others = [0, 1, 3]
    assert torch.equal(before[others], after[others]) and not torch.isclose(before[2], after[2]).any()


def test_a_fresh_network_predicts_zero_and_its_blocks_do_nothing():
    mlp = make(jitter=0.0)
    assert (mlp(noise(4, CHANNELS), torch.tensor([3.0]), mlp.project(noise(4, CONTEXT))) == 0).all()
    x, y = noise(4, WIDTH), noise(4, WIDTH, seed=1)
    assert torch.equal(mlp.blocks[0](x, y), x)


def test_fresh_weights():
    """Zeros where training shall start from nothing, normal with std 0.02 in the time MLP, Xavier-uniform elsewhere."""
    with seeded(0, "mlp"):
        state = DenoisingMLP(32, 64, 64, 128, 1).state_dict()
    for name, parameter in state.items():
        if name.endswith(("bias", "modulation.weight")) or name == "output.weight":
            assert (parameter == 0).all(), name
        elif name.startswith("time_mlp"):
            assert float(parameter.std()) == pytest.approx(0.02, rel=0.05), name
            assert float(parameter.abs().max()) > 3 * 0.02, name  # a normal's tail, which a uniform lacks
        elif parameter.dim() == 2:
            bound = math.sqrt(6 / sum(parameter.shape))
            assert float(parameter.abs().max()) <= bound, name
            assert float(parameter.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05), name
        else:
            assert (parameter == 1).all(), name
