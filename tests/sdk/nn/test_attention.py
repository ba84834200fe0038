"""Every backend computes softmax(q k^T / sqrt(e)) v, of each sequence on its own."""

import importlib.util
import math
from itertools import accumulate

import pytest
import torch

from djepa.errors import UnknownNameError, UsageError
from djepa.nn.attention import Packing, SdpaBackend, XformersBackend, attention
from djepa.random import seeded

CUDA = torch.device("cuda")


def qkv(*shape, dtype=torch.float32, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for _ in range(3)]


def reference(q, k, v):
    """One query of one head at a time, in float64."""
    q, k, v = (tensor.double().cpu() for tensor in (q, k, v))
    rows = []
    for batch, place, head in torch.cartesian_prod(*(torch.arange(size) for size in q.shape[:3])).tolist():
        scores = torch.stack([(q[batch, place, head] * key).sum() / math.sqrt(q.shape[3]) for key in k[batch, :, head]])
        weights = (scores - scores.max()).exp()
        rows.append((weights[:, None] * v[batch, :, head]).sum(dim=0) / weights.sum())
    return torch.stack(rows).view(q.shape)


def each_alone(function, lengths, q, k, v):
    """`function` of every packed sequence by itself."""
    ends = list(accumulate(lengths))
    spans = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    return torch.cat([function(q[:, span], k[:, span], v[:, span]) for span in spans], dim=1)


def gradients(output, inputs):
    """Of a sum over the output that weighs every element differently."""
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape).to(output)
    return [gradient.double().cpu() for gradient in torch.autograd.grad((output * weights).sum(), inputs)]


def assert_close(ours, theirs, atol):
    torch.testing.assert_close(ours.double().cpu(), theirs, atol=atol, rtol=0)


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 1, 1, 2), (3, 7, 2, 16)])
def test_sdpa_is_the_formula(shape):
    inputs = qkv(*shape)
    ours, wanted = attention(*inputs, backend="sdpa"), reference(*inputs)
    assert_close(ours, wanted, 1e-5)
    for gradient, expected in zip(gradients(ours, inputs), gradients(wanted, inputs), strict=True):
        assert_close(gradient, expected, 1e-5)


@pytest.mark.parametrize("lengths", [(3, 1, 5), (1, 1, 1, 2), (6,)])
def test_packed_sequences_are_attended_to_alone(lengths):
    inputs = qkv(1, sum(lengths), 2, 4)
    ours = attention(*inputs, packing=Packing(lengths))
    wanted = each_alone(reference, lengths, *inputs)
    assert_close(ours, wanted, 1e-5)
    for gradient, expected in zip(gradients(ours, inputs), gradients(wanted, inputs), strict=True):
        assert_close(gradient, expected, 1e-5)


def test_a_packed_sequence_knows_nothing_of_its_neighbours():
    q, k, v = (tensor.detach() for tensor in qkv(1, 8, 2, 4))
    before = attention(q, k, v, packing=Packing((3, 5)))
    for tensor in (q, k, v):
        tensor[:, 3:] += 1.0
    after = attention(q, k, v, packing=Packing((3, 5)))
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.isclose(before[:, 3:], after[:, 3:]).any(dim=-1).all()


def test_dropout_drops_and_keeps_the_mean():
    q, k, v = (tensor.detach() for tensor in qkv(64, 8, 4, 4))
    with seeded(0, "dropout"):
        change = attention(q, k, v, dropout=0.5) - attention(q, k, v)
    assert float(change.abs().mean()) > 0.1
    assert float(change.mean().abs()) < 5 * float(change.std()) / math.sqrt(change.numel() / 8)  # 8 keys share a value


def test_on_a_cpu_sdpa_is_chosen():
    inputs = qkv(2, 5, 3, 8)
    assert torch.equal(attention(*inputs), attention(*inputs, backend="sdpa"))


def test_xformers_forced_on_a_cpu_is_refused_and_says_why():
    with pytest.raises(UsageError, match=r"'xformers' was asked for .* CUDA only, .* on cpu.*Leave `attention` out"):
        attention(*qkv(1, 2, 1, 8), backend="xformers")


def test_an_unknown_backend_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'xformers'\?"):
        attention(*qkv(1, 2, 1, 8), backend="xformer")


@pytest.mark.parametrize(("dtype", "head_width", "reason"), [
    (torch.float32, 12, "heads of 8, 16, ..., 256 channels, not 12"),
    (torch.bfloat16, 264, "not 264"),
    (torch.float64, 64, "float64"),
])
@pytest.mark.parametrize("packed", [False, True])
def test_xformers_says_what_it_has_no_kernels_for(dtype, head_width, reason, packed):
    said = XformersBackend().unsupported(device=CUDA, dtype=dtype, head_width=head_width, packed=packed)
    assert said is not None and reason in said


@pytest.mark.skipif(importlib.util.find_spec("xformers") is not None, reason="xformers is installed")
def test_missing_xformers_says_how_to_install_it():
    said = XformersBackend().unsupported(device=CUDA, dtype=torch.float32, head_width=64, packed=False)
    assert said is not None and "pip install 'djepa[gpu]'" in said


def test_sdpa_serves_everything():
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert SdpaBackend().unsupported(device=CUDA, dtype=dtype, head_width=3, packed=True) is None


@pytest.mark.parametrize("lengths", [(2, 3, 1), (4,)])
def test_the_mask_of_xformers_separates_the_sequences(lengths):
    pytest.importorskip("xformers.ops")
    number = torch.tensor([index for index, length in enumerate(lengths) for _ in range(length)])
    allowed = Packing(lengths).xformers_mask.materialize((sum(lengths), sum(lengths))) == 0
    assert torch.equal(allowed, number[:, None] == number[None])


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 5e-4), (torch.bfloat16, 4e-2)])
@pytest.mark.parametrize("lengths", [None, (5, 1, 17, 9)])
@pytest.mark.parametrize("backend", ["sdpa", "xformers"])
def test_backends_agree_with_the_formula_on_cuda(backend, lengths, dtype, atol):
    shape = (2, 19, 3, 64) if lengths is None else (1, sum(lengths), 3, 64)
    inputs = qkv(*shape, dtype=dtype, device="cuda")
    ours = attention(*inputs, packing=Packing(lengths) if lengths else None, backend=backend)
    assert ours.dtype == dtype
    wanted = each_alone(reference, lengths, *inputs) if lengths else reference(*inputs)
    assert_close(ours, wanted, atol)
    for gradient, expected in zip(gradients(ours, inputs), gradients(wanted, inputs), strict=True):
        assert_close(gradient, expected, atol)
