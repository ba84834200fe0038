"""Block-causal attention along an axis: what comes later is never known earlier, in no layer and no layout of the batch."""

from dataclasses import replace

import pytest
import torch

from djepa import Pipeline, Trainer
from djepa.conditioner import ConditionTokens
from djepa.tokenizer import grid_coords
from djepa.tokens import TokenBatch, Tokens

WIDTHS = {"a": 3, "b": 2}
PLACES = {"a": grid_coords((3, 2), (0.1, 1.0)), "b": grid_coords((2, 3), (0.2, 1.0))}  # times 0.05 0.15 0.25 and 0.1 0.3
EQUAL, RAGGED = [6, 6, 6], [6, 4, 5]
CASES = {  # options of the model, tokens of the samples
    "learned": ({}, EQUAL),
    "mar": ({"mar": True, "feature_head": False}, EQUAL),
    "rotary": ({"num_tokens": None}, EQUAL),
    "packed": ({"num_tokens": None}, RAGGED),
    "unconditional": ({"num_tokens": None, "classes": 0}, RAGGED),
}


@pytest.fixture(params=CASES)
def case(request, small_model):
    """A model of two streams and two axes, the first of them the causal one; a batch; its condition tokens."""
    options, lengths = CASES[request.param]
    model = small_model(WIDTHS, **options)
    model.causal_axis = 0
    return model, clips(lengths), conditions(model)


def clips(lengths, seed=0):
    """Both streams, their values with gradients; sample j lacks the last tokens of either."""
    generator = torch.Generator().manual_seed(seed)
    batch = {name: TokenBatch.stack([Tokens(torch.randn(length, width, generator=generator), PLACES[name][:length])
                                     for length in lengths]) for name, width in WIDTHS.items()}
    for tokens in batch.values():
        tokens.values.requires_grad_()
    return batch


def hidden_masks(batch, equal=False):
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(tokens.valid.shape, generator=generator) < 0.5 for name, tokens in batch.items()}
    return {name: mask[:1].expand(mask.shape) if equal else mask for name, mask in masks.items()}


def conditions(model):
    """Condition tokens of three samples, with gradients."""
    made = model.condition({name: one.prepare([0, 1, 2]) for name, one in model.conditioners.items()}, 3)
    return ConditionTokens(made.values.detach().requires_grad_(), made.valid)


def places(batch):
    """Of every real token: stream, row and column, and its time."""
    return [(name, row, column, float(tokens.coords[row, column, 0]))
            for name, tokens in batch.items() for row, column in tokens.valid.nonzero().tolist()]


def assert_the_past_is_known_and_nothing_else(outputs, batch, condition, visible):
    """Outputs (b, n, w) have gradients for conditions and visible past tokens of their sample; for all others exactly none."""
    values = [condition.values, *(tokens.values for tokens in batch.values())]
    for stream, row, column, time in places(batch):
        output = outputs[stream][row, column]
        weighted = (output * torch.linspace(-1, 1, len(output)) ** 3).sum()
        of_condition, *gradients = (gradient.abs().amax(dim=-1) for gradient in
                                    torch.autograd.grad(weighted, values, retain_graph=True))
        assert of_condition[row].all() and torch.count_nonzero(of_condition) == of_condition.shape[1]
        of_tokens = dict(zip(batch, gradients, strict=True))
        for other, other_row, other_column, other_time in places(batch):
            past = other_row == row and other_time <= time
            known = float(of_tokens[other][other_row, other_column]) > 0
            assert known == (past and bool(visible[other][other_row, other_column])), (stream, row, column, other, other_column)


@pytest.mark.parametrize("equal", [True, False], ids=["equal masks", "unequal masks"])
def test_no_context_vector_knows_of_later_tokens(case, equal):
    model, batch, condition = case
    hidden = hidden_masks(batch, equal)
    z = model.context_vectors(batch, hidden, condition)
    assert_the_past_is_known_and_nothing_else(z, batch, condition, {name: ~mask for name, mask in hidden.items()})


def test_no_feature_of_the_encoder_knows_of_later_tokens(case):
    model, batch, condition = case
    sequence = model.sequence(batch, condition)
    features = model.encode(batch, None, sequence)
    full = features.new_zeros(*sequence.valid.shape, 16).masked_scatter(sequence.valid[..., None], features)
    outputs = {name: full[:, column] for name, column in sequence.columns.items()}
    assert_the_past_is_known_and_nothing_else(outputs, batch, condition, {name: one.valid for name, one in batch.items()})


def test_condition_tokens_know_of_each_other_only(case):
    """What they knew of a late token, an early one would learn from them in the next layer."""
    model, batch, condition = case
    sequence = model.sequence(batch, condition)
    features = model.encode(batch, None, sequence)
    starts = sequence.valid.sum(dim=1).cumsum(dim=0) - sequence.valid.sum(dim=1)
    of_conditions = torch.cat([features[start : start + sequence.num_conditions] for start in starts.tolist()])
    gradients = torch.autograd.grad((of_conditions**3).sum(), [tokens.values for tokens in batch.values()], allow_unused=True)
    assert not any(gradient.any() for gradient in gradients)


def test_a_stream_without_the_axis_comes_first(small_model):
    """Every token may know of it, and it of nothing but itself."""
    model = small_model(WIDTHS, num_tokens=None)
    model.causal_axis, model.stream("b").axes = 0, (1,)
    batch, condition = clips(EQUAL), conditions(model)
    batch["b"] = replace(batch["b"], coords=batch["b"].coords[..., 1:])
    z = model.context_vectors(batch, {name: torch.zeros(3, 6, dtype=torch.bool) for name in batch}, condition)
    as_if = {"a": batch["a"], "b": replace(batch["b"], coords=torch.full((3, 6, 2), -torch.inf))}
    assert_the_past_is_known_and_nothing_else(z, as_if, condition, {name: one.valid for name, one in batch.items()})


def only(batch, kept):
    """The tokens to keep, of which all samples have as many."""
    return {name: replace(tokens, values=tokens.values[kept[name]].view(3, -1, WIDTHS[name]),
                          coords=tokens.coords[kept[name]].view(3, -1, 2), valid=tokens.valid[kept[name]].view(3, -1))
            for name, tokens in batch.items()}


@torch.no_grad()
@pytest.mark.parametrize("time", [0.1, 0.15, 0.25])
def test_the_past_stays_as_it_is_when_the_future_is_revealed_or_cut_off(small_model, time):
    model = small_model(WIDTHS, num_tokens=None)
    model.causal_axis = 0
    batch, condition = clips(EQUAL), conditions(model)
    past, hidden = {name: tokens.coords[..., 0] <= time for name, tokens in batch.items()}, hidden_masks(batch)
    z = model.context_vectors(batch, hidden, condition)
    revealed = model.context_vectors(batch, {name: mask & past[name] for name, mask in hidden.items()}, condition)
    cut_hidden = {name: mask[past[name]].view(3, -1) for name, mask in hidden.items()}
    cut = model.context_vectors(only(batch, past), cut_hidden, condition)
    for name, kept in past.items():
        torch.testing.assert_close(revealed[name][kept], z[name][kept], atol=1e-5, rtol=0)
        torch.testing.assert_close(cut[name].flatten(0, 1), z[name][kept], atol=1e-5, rtol=0)
        assert bool(kept.all()) or not torch.isclose(revealed[name][~kept], z[name][~kept], atol=1e-4).all()


def test_a_causal_model_trains_and_generates_after_it_was_saved(make_recipe, tmp_path):
    recipe = make_recipe("model.causal_axis=y", "model.generate.order={kind: causal, axis: y}", "train.steps=2")
    pipe = Pipeline.from_pretrained(Trainer(recipe, device="cpu").fit(tmp_path / "run"), device="cpu")
    assert pipe.model.causal_axis == 0
    samples = pipe.generate([3, 7], guidance_scale=2.0, seed=0)
    assert all(bool(sample.data.isfinite().all()) for sample in samples)
