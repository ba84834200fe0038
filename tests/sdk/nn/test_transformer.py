"""Transformer blocks are what their formulas say."""

import math

import pytest
import torch

from djepa.nn.attention import Packing
from djepa.nn.positions import RotaryPosition
from djepa.nn.transformer import Block, HeadNorm, Transformer
from djepa.random import seeded


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomized(module, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight + bias


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def rotate(x, cos, sin):
    """Pairs (i, i + e/2) of one head at one place."""
    half = len(x) // 2
    return torch.cat([x[:half] * cos - x[half:] * sin, x[:half] * sin + x[half:] * cos])


def reference(block, x, num_heads, rotation=None):
    """One sequence x (s, d) through a block, in float64, from the names of its parameters."""
    p = {name: parameter.detach().double() for name, parameter in block.named_parameters()}
    x = x.double()
    y = layer_norm(x, p["norm1.weight"], p["norm1.bias"])
    qkv = y @ p["attention.qkv.weight"].T + p["attention.qkv.bias"]
    width, e = x.shape[1], x.shape[1] // num_heads
    heads = []
    for head in range(num_heads):
        q, k, v = (qkv[:, part * width + head * e : part * width + (head + 1) * e] for part in range(3))
        if "attention.q_norm.weight" in p:
            q, k = (t / (t.square().mean(-1, keepdim=True) + 1e-6).sqrt() * p[f"attention.{name}_norm.weight"]
                    for name, t in (("q", q), ("k", k)))
        if rotation is not None:
            cos, sin = rotation.cos[0].double(), rotation.sin[0].double()
            q, k = (torch.stack([rotate(*row) for row in zip(t, cos, sin, strict=True)]) for t in (q, k))
        scores = q @ k.T / math.sqrt(e)
        weights = (scores - scores.max(-1, keepdim=True).values).exp()
        heads.append(weights / weights.sum(-1, keepdim=True) @ v)
    x = x + torch.cat(heads, dim=1) @ p["attention.proj.weight"].T + p["attention.proj.bias"]
    y = layer_norm(x, p["norm2.weight"], p["norm2.bias"])
    y = gelu(y @ p["mlp.fc1.weight"].T + p["mlp.fc1.bias"])
    return x + y @ p["mlp.fc2.weight"].T + p["mlp.fc2.bias"]


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
def test_a_block_is_its_formula(qk_norm, rotary):
    block = randomized(Block(24, 3, 4.0, qk_norm, 0.0, None))
    x = noise(2, 5, 24)
    rotation = RotaryPosition(("x",), 8, {}, 100.0)(noise(1, 5, 1, seed=2) * 5) if rotary else None
    ours = block(x, None, rotation)
    for row, sequence in zip(ours, x, strict=True):
        torch.testing.assert_close(row.double(), reference(block, sequence, 3, rotation), atol=2e-5, rtol=0)


def test_a_transformer_is_its_blocks_and_a_norm():
    transformer = randomized(Transformer(16, 3, 2, mlp_ratio=2, qk_norm=True, dropout=0.0, backend=None))
    x = noise(1, 4, 16)
    wanted = x[0]
    for block in transformer.blocks:
        wanted = reference(block, wanted, 2)
    wanted = layer_norm(wanted, transformer.norm.weight.double(), transformer.norm.bias.double())
    torch.testing.assert_close(transformer(x)[0].double(), wanted, atol=2e-5, rtol=0)


def test_packed_sequences_pass_as_if_alone():
    transformer = randomized(Transformer(16, 2, 2, mlp_ratio=4, qk_norm=True, dropout=0.0, backend=None))
    lengths, x = (2, 5, 1), noise(1, 8, 16)
    packed = transformer(x, Packing(lengths))
    alone = torch.cat([transformer(part) for part in x.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=0)


def test_weights_start_xavier_uniform_with_zero_biases():
    with seeded(0, "weights"):
        transformer = Transformer(64, 1, 4, mlp_ratio=4, qk_norm=True, dropout=0.0, backend=None)
    for name, parameter in transformer.state_dict().items():
        if parameter.dim() == 2:
            bound = math.sqrt(6 / sum(parameter.shape))
            assert 0.98 * bound < float(parameter.abs().max()) <= bound
            assert float(parameter.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)
        else:
            assert (parameter == (0.0 if name.endswith("bias") else 1.0)).all(), name


@pytest.mark.parametrize(("dtype", "size"), [(torch.float16, 300.0), (torch.bfloat16, 1.0), (torch.bfloat16, 1e-3)])
def test_head_norm_works_in_float32(dtype, size):
    """Squares of 300 overflow a float16, and a mean of squares in bfloat16 is off by percents."""
    norm = HeadNorm(64)
    with torch.no_grad():
        norm.weight.add_(noise(64, seed=3) * 0.2)
    x = (noise(2, 7, 3, 64) * size).to(dtype)
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight.detach().double()
    ours = norm(x)
    assert ours.dtype == dtype
    rounding = torch.finfo(dtype).eps / 2 * 1.01  # one rounding to the result's precision and nothing before
    assert bool(((ours.double() - exact).abs() <= rounding * exact.abs() + 1e-6).all())


def test_dropout_is_on_in_training_only():
    block = randomized(Block(16, 2, 4.0, True, 0.5, None))
    x = noise(1, 6, 16)
    assert torch.equal(block(x), block(x))
    block.train()
    assert not torch.equal(block(x), block(x))
