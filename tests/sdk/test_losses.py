"""What training minimizes: on hidden tokens only, sample by sample, against the averaged model's features."""

import pytest
import torch

from djepa.losses import training_losses
from djepa.masking import Subset
from djepa.random import Draws
from djepa.tokens import TokenBatch

LENGTHS = {"a": [5, 7, 1, 6], "b": [3, 2, 6, 4]}
SAMPLES = torch.tensor([11, 4, 2**40, 7])
KEEP, DROP = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)


@pytest.fixture(params=["gaussian", "flow"])
def setting(request, small_model, token_batch):
    """A model and its target, a ragged batch of two streams, masks and conditions."""
    model, target = (small_model({"a": 3, "b": 2}, head=request.param, num_tokens=None, seed=seed) for seed in (0, 1))
    batch = {"a": token_batch(3, LENGTHS["a"]), "b": token_batch(2, LENGTHS["b"], seed=1)}
    generator = torch.Generator().manual_seed(0)
    hidden = {name: torch.rand(tokens.valid.shape, generator=generator) < 0.6 for name, tokens in batch.items()}
    for mask in hidden.values():
        mask[:, 0] = True
    return model, target, batch, hidden, {"label": torch.tensor([0, 1, 2, 0])}


def losses(setting, *, drop=KEEP, samples=SAMPLES, seed=0, target=True):
    model, average, batch, hidden, prepared = setting
    return training_losses(model, average if target else None, batch, hidden, prepared, drop, samples, Draws(seed, "loss"))


def rows(setting, chosen):
    """Some of the samples as a batch of their own, no longer than its longest."""
    model, target, batch, hidden, prepared = setting
    parts = {name: TokenBatch.stack([tokens[row] for row in chosen]) for name, tokens in batch.items()}
    masks = {name: hidden[name][chosen][:, : part.values.shape[1]] for name, part in parts.items()}
    return model, target, parts, masks, {name: tensor[chosen] for name, tensor in prepared.items()}


@torch.no_grad()
@pytest.mark.parametrize("parts", [[[0], [1], [2], [3]], [[0, 1], [2, 3]], [[3, 0, 2], [1]]])
def test_sums_over_micro_batches_add_up_to_the_batch(setting, parts):
    """Hence a sample's loss does not know which other samples it is batched with."""
    drop = torch.tensor([True, False, False, True])
    whole = losses(setting, drop=drop)
    pieces = [losses(rows(setting, chosen), drop=drop[chosen], samples=SAMPLES[chosen]) for chosen in parts]
    for name, sums in whole.items():
        assert sums.count == sum(piece[name].count for piece in pieces)
        for part, value in sums.parts.items():
            torch.testing.assert_close(sum(piece[name].parts[part] for piece in pieces), value, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_losses_are_summed_over_hidden_tokens_one_by_one(setting):
    model, target, batch, hidden, prepared = setting
    z, features = model(batch, hidden, prepared), target.target_features(batch, prepared)
    for name, sums in losses(setting).items():
        places = (hidden[name] & batch[name].valid).nonzero().tolist()
        assert sums.count == len(places) > 0
        totals = dict.fromkeys(sums.parts, 0.0)
        for row, item in places:
            noise = Draws(0, "loss", "head", name).at(SAMPLES[row : row + 1], torch.tensor([item]))
            one = z[name][row, item][None]
            parts = model.stream(name).head.loss(batch[name].values[row, item][None], one, noise)
            parts = {**parts, "jepa": plain_smooth_l1(model.feature_head(one)[0], features[name][row, item])}
            totals = {part: total + float(parts[part]) for part, total in totals.items()}
        assert {part: float(value) for part, value in sums.parts.items()} == pytest.approx(totals, rel=1e-4)


def plain_smooth_l1(predicted, wanted):
    """Quadratic up to a distance of 2, linear beyond; mean over channels."""
    distances = [abs(a - b) for a, b in zip(predicted.tolist(), wanted.tolist(), strict=True)]
    return sum(d * d / 4 if d < 2 else d - 1 for d in distances) / len(distances)


def test_smooth_l1_is_tried_on_both_sides_of_its_corner(setting):
    model, target, batch, hidden, prepared = setting
    with torch.no_grad():
        predicted = model.feature_head(model(batch, hidden, prepared)["a"])
        distances = (predicted - target.target_features(batch, prepared)["a"]).abs()[batch["a"].valid & hidden["a"]]
    assert bool((distances < 2).any()) and bool((distances > 2).any())


@torch.no_grad()
def test_parts_have_names_and_without_a_target_there_is_no_jepa_loss(setting):
    head = {"mse", "vb"} if "Gaussian" in type(setting[0].stream("a").head).__name__ else {"mse"}
    assert [set(sums.parts) for sums in losses(setting).values()] == [head | {"jepa"}] * 2
    alone = losses(setting, target=False)
    assert [set(sums.parts) for sums in alone.values()] == [head] * 2
    for name, sums in losses(setting).items():
        assert all(torch.equal(sums.parts[part], alone[name].parts[part]) for part in head)


@torch.no_grad()
def test_dropping_conditions_gives_the_model_the_null_condition_and_the_target_the_true_one(setting):
    model, target, batch, hidden, prepared = setting
    null = {"label": torch.full((4,), 3)}
    z, features = model(batch, hidden, null)["a"], target.target_features(batch, prepared)["a"]
    masked = Subset.of(hidden["a"] & batch["a"].valid)
    wanted = sum(plain_smooth_l1(p, w) for p, w in zip(model.feature_head(masked.take(z)), masked.take(features), strict=True))
    assert float(losses(setting, drop=DROP)["a"].parts["jepa"]) == pytest.approx(wanted, rel=1e-4)
    nulled = (model, target, batch, hidden, null)
    for name, sums in losses(setting, drop=DROP).items():
        torch.testing.assert_close(sums.parts["mse"], losses(nulled)[name].parts["mse"])
        assert not torch.isclose(sums.parts["mse"], losses(setting)[name].parts["mse"])


@torch.no_grad()
def test_the_target_sees_every_token_and_the_condition(setting):
    _, target, batch, _, prepared = setting
    features = target.target_features(batch, prepared)
    assert {name: tuple(part.shape) for name, part in features.items()} == {"a": (4, 7, 16), "b": (4, 6, 16)}
    versions = [({**batch, name: moved(batch[name], column)}, prepared) for name, column in (("a", 0), ("a", 4), ("b", 1))]
    for version, condition in [*versions, (batch, {"label": torch.tensor([1, 1, 2, 0])})]:
        other = target.target_features(version, condition)
        for name, part in features.items():
            same = torch.isclose(part, other[name], atol=1e-6).all(dim=-1)
            assert not same[0][batch[name].valid[0]].any()  # every token of the first sample looks different
            assert same[1:].all()                           # and none of any other


def moved(tokens, column):
    """The batch with one token of the first sample changed."""
    values = tokens.values.clone()
    values[0, column] += 3.0
    return tokens.with_values(values)


def test_gradients_reach_the_model_and_not_its_target(setting):
    model, target = setting[:2]
    total = sum(sum(sums.parts.values()) for sums in losses(setting).values())
    total.backward()
    assert all(parameter.grad is None for parameter in target.parameters())
    assert model.feature_head.fc1.weight.grad.abs().sum() > 0 and model.encoder.norm_in.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_a_stream_without_hidden_tokens_has_no_loss(setting):
    model, target, batch, hidden, prepared = setting
    given = {**hidden, "b": torch.zeros_like(hidden["b"])}
    given["b"][0, 5] = True  # padding
    assert set(losses((model, target, batch, given, prepared))) == {"a"}


@torch.no_grad()
def test_noise_belongs_to_sample_and_seed(setting):
    def mse(**options):
        return float(losses(setting, **options)["a"].parts["mse"])

    assert mse() == mse() != mse(seed=1)
    assert mse() != mse(samples=SAMPLES + 1)
