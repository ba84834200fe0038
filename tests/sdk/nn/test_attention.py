"""Every backend computes softmax(q k^T / sqrt(e)) v, of each sequence on its own, over the keys a query may see."""

import importlib.util
import math
from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from djepa.errors import UnknownNameError, UsageError
from djepa.nn.attention import BlockCausal, Packing, SdpaBackend, XformersBackend, attention
from djepa.random import seeded

CUDA = torch.device("cuda")


def qkv(*shape, dtype=torch.float32, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for _ in range(3)]


def reference(q, k, v, levels=None):
    """One query of one head at a time, in float64, over the keys whose level (b, s) is not above the query's."""
    q, k, v = (tensor.double().cpu() for tensor in (q, k, v))
    levels = torch.zeros(q.shape[:2]) if levels is None else levels
    rows = []
    for batch, place, head in torch.cartesian_prod(*(torch.arange(size) for size in q.shape[:3])).tolist():
        seen = [other for other, level in enumerate(levels[batch].tolist()) if level <= levels[batch, place]]
        scores = torch.stack([(q[batch, place, head] * k[batch, other, head]).sum() / math.sqrt(q.shape[3]) for other in seen])
        weights = (scores - scores.max()).exp()
        rows.append((weights[:, None] * v[batch, seen, head]).sum(dim=0) / weights.sum())
    return torch.stack(rows).view(q.shape)


def each_alone(function, lengths, *tensors):
    """`function` of every packed sequence by itself."""
    ends = list(accumulate(lengths))
    spans = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    return torch.cat([function(*(tensor[:, span] for tensor in tensors)) for span in spans], dim=1)


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


@st.composite
def sequences(draw):
    """Lengths of sequences, packed or of a plain batch, with a level for every token."""
    packed = draw(st.booleans())
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)) if packed else [draw(st.integers(1, 6))] * 2
    values = st.sampled_from([-math.inf, -0.3, 0.0, 1 / 29.97, 2 / 29.97, 7.0])
    levels = torch.tensor(draw(st.lists(values, min_size=sum(lengths), max_size=sum(lengths))))
    return tuple(lengths) if packed else None, levels.view(1 if packed else len(lengths), -1)


@settings(max_examples=60, deadline=None)
@given(sequences(), st.integers(0, 99))
def test_a_block_causal_token_attends_to_its_level_and_those_below(case, seed):
    lengths, levels = case
    inputs = qkv(*levels.shape, 2, 4, seed=seed)
    packing = Packing(lengths) if lengths else None
    ours = attention(*inputs, packing=packing, causal=BlockCausal.of(levels, packing))
    wanted = each_alone(reference, lengths or levels.shape[1:], *inputs, levels)
    assert_close(ours, wanted, 1e-5)
    for gradient, expected in zip(gradients(ours, inputs), gradients(wanted, inputs), strict=True):
        assert_close(gradient, expected, 1e-5)


@pytest.mark.parametrize("packing", [None, Packing((4, 1, 6))])
def test_block_causal_attention_within_one_level_is_full_attention(packing):
    inputs = qkv(1 if packing else 2, 11, 2, 8)
    levels = torch.full(inputs[0].shape[:2], 0.7)
    ours, full = (attention(*inputs, packing=packing, causal=causal) for causal in (BlockCausal.of(levels, packing), None))
    torch.testing.assert_close(ours, full, atol=1e-6, rtol=0)


def test_masks_are_made_once_for_all_layers():
    causal = BlockCausal.of(torch.tensor([[0.0, 1.0]]))
    assert causal.masks is causal.masks
    assert causal.masks[0].tolist() == [[[[True, False], [True, True]]]]


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
    said = XformersBackend().unsupported(device=CUDA, dtype=dtype, head_width=head_width, packed=packed, causal=False)
    assert said is not None and reason in said


def test_xformers_leaves_block_causal_attention_to_others():
    said = XformersBackend().unsupported(device=CUDA, dtype=torch.float32, head_width=64, packed=False, causal=True)
    assert said is not None and "block-causal" in said


@pytest.mark.skipif(importlib.util.find_spec("xformers") is not None, reason="xformers is installed")
def test_missing_xformers_says_how_to_install_it():
    said = XformersBackend().unsupported(device=CUDA, dtype=torch.float32, head_width=64, packed=False, causal=False)
    assert said is not None and "pip install 'djepa[gpu]'" in said


def test_sdpa_serves_everything():
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert SdpaBackend().unsupported(device=CUDA, dtype=dtype, head_width=3, packed=True, causal=True) is None


@pytest.mark.parametrize("lengths", [(2, 3, 1), (4,)])
def test_the_mask_of_xformers_separates_the_sequences(lengths):
    pytest.importorskip("xformers.ops")
    number = torch.tensor([index for index, length in enumerate(lengths) for _ in range(length)])
    allowed = Packing(lengths).xformers_mask.materialize((sum(lengths), sum(lengths))) == 0
    assert torch.equal(allowed, number[:, None] == number[None])


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 5e-4), (torch.bfloat16, 4e-2)])
@pytest.mark.parametrize("lengths", [None, (5, 1, 17, 9)])
@pytest.mark.parametrize(("backend", "causal"), [("sdpa", False), ("xformers", False), ("sdpa", True), (None, True)])
def test_backends_agree_with_the_formula_on_cuda(backend, causal, lengths, dtype, atol):
    shape = (2, 19, 3, 64) if lengths is None else (1, sum(lengths), 3, 64)
    inputs, packing = qkv(*shape, dtype=dtype, device="cuda"), Packing(lengths) if lengths else None
    levels = torch.arange(shape[1]).remainder(4).expand(shape[:2]) if causal else torch.zeros(shape[:2])
    ours = attention(*inputs, packing=packing, causal=BlockCausal.of(levels.cuda(), packing) if causal else None,
                     backend=backend)
    assert ours.dtype == dtype
    wanted = each_alone(reference, lengths or shape[1:2], *inputs, levels)
    assert_close(ours, wanted, atol)
    for gradient, expected in zip(gradients(ours, inputs), gradients(wanted, inputs), strict=True):
        assert_close(gradient, expected, atol)
