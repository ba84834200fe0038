"""The masked model: what each part sees, that padding never matters, that everything learns, how large it is."""

import pytest
import torch

from djepa.build import build_model, build_tokenizers
from djepa.errors import RecipeError
from djepa.losses import training_losses
from djepa.model import MaskedModel
from djepa.random import Draws, seeded
from djepa.recipe.schema import ModelSpec, StreamSpec
from djepa.tokens import TokenBatch, Tokens

VARIANTS = {
    "learned": {},
    "rotary": {"num_tokens": None},
    "mar": {"mar": True, "feature_head": False},
    "unconditional": {"classes": 0},
    "flow": {"head": "flow", "num_tokens": None},
}


def hidden_masks(batch, *, share=0.5, seed=0):
    """Random masks; every sample has hidden tokens in every stream."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, tokens in batch.items():
        masks[name] = torch.rand(tokens.valid.shape, generator=generator) < share
        masks[name][:, 0] = True
    return masks


def prepared(model, rows):
    raw = [number % 3 for number in range(rows)]
    return {name: conditioner.prepare(raw) for name, conditioner in model.conditioners.items()}


def rows_of(batch, row):
    """One sample of a batch by itself, without its padding."""
    return {name: TokenBatch.stack([tokens[row]]) for name, tokens in batch.items()}


def masks_of(masks, batch, row):
    return {name: mask[row][batch[name].valid[row]][None] for name, mask in masks.items()}


def conditions_of(conditions, row):
    return {name: tensor[row : row + 1] for name, tensor in conditions.items()}


@pytest.fixture(params=VARIANTS)
def options(request):
    return VARIANTS[request.param]


@pytest.fixture
def variant(options, small_model, token_batch):
    """A model of two streams, with a batch, masks and conditions."""
    model = small_model({"a": 3, "b": 2}, **options)
    batch = {"a": token_batch(3, [6, 6, 6]), "b": token_batch(2, [6, 6, 6], seed=1)}
    return model, batch, hidden_masks(batch), prepared(model, 3)


def changed(batch, masks):
    """Other values where `masks` is True."""
    return {name: tokens.with_values(torch.where(masks[name][..., None], tokens.values + 5.0, tokens.values))
            for name, tokens in batch.items()}


@torch.no_grad()
def test_hidden_tokens_are_never_seen(variant):
    model, batch, hidden, conditions = variant
    z, other = (model(version, hidden, conditions) for version in (batch, changed(batch, hidden)))
    for name in z:
        assert torch.equal(z[name], other[name])


@torch.no_grad()
def test_every_visible_token_is_seen(variant):
    model, batch, hidden, conditions = variant
    z = model(batch, hidden, conditions)
    for name, mask in hidden.items():
        for row, column in (~mask).nonzero().tolist():
            one = {other: torch.zeros_like(masked) for other, masked in hidden.items()}
            one[name][row, column] = True
            moved = model(changed(batch, one), hidden, conditions)
            for stream in z:  # the sample's tokens of every stream know of it, other samples do not
                assert not torch.isclose(moved[stream][row], z[stream][row], atol=1e-7).all(dim=-1).any()
                others = [index for index in range(3) if index != row]
                assert torch.equal(moved[stream][others], z[stream][others])


@torch.no_grad()
def test_conditions_are_seen(small_model, token_batch):
    model, batch = small_model({"a": 3}), {"a": token_batch(3, [6, 6])}
    everything = {"a": torch.ones(2, 6, dtype=torch.bool)}
    z = model(batch, everything, {"label": torch.tensor([0, 1])})["a"]
    same = model(batch, everything, {"label": torch.tensor([1, 1])})["a"]
    assert not torch.isclose(z[0], z[1]).all(dim=-1).any() and torch.equal(same[0], same[1])


@torch.no_grad()
@pytest.mark.parametrize("classes", [3, 0])
def test_padding_never_matters(small_model, token_batch, classes):
    model = small_model({"a": 3, "b": 2}, num_tokens=None, classes=classes)
    batch = {"a": token_batch(3, [5, 8, 1, 7]), "b": token_batch(2, [4, 1, 6, 2], seed=1)}
    hidden, conditions = hidden_masks(batch), prepared(model, 4)
    for tokens in batch.values():
        tokens.values[~tokens.valid] = float("nan")  # whatever it holds
        tokens.coords[~tokens.valid] = float("nan")
    z, features = model(batch, hidden, conditions), model.target_features(batch, conditions)
    for row in range(4):
        alone, masks, condition = rows_of(batch, row), masks_of(hidden, batch, row), conditions_of(conditions, row)
        wanted_z, wanted = model(alone, masks, condition), model.target_features(alone, condition)
        for name, tokens in batch.items():
            real = tokens.valid[row]
            torch.testing.assert_close(z[name][row][real], wanted_z[name][0], atol=1e-5, rtol=0)
            torch.testing.assert_close(features[name][row][real], wanted[name][0], atol=1e-5, rtol=0)
            assert not z[name].isnan().any()


@torch.no_grad()
def test_masks_of_unequal_sizes_are_as_good_as_equal_ones(variant):
    """Samples with as many visible tokens form a plain batch, others are packed: the same answer either way."""
    model, batch, _, conditions = variant
    hidden = {name: torch.zeros(3, 6, dtype=torch.bool) for name in batch}
    for name in hidden:
        for row in range(3):
            hidden[name][row, row : row + 2 + row] = True
    together = model(batch, hidden, conditions)
    for row in range(3):
        alone = model(rows_of(batch, row), masks_of(hidden, batch, row), conditions_of(conditions, row))
        for name in together:
            torch.testing.assert_close(together[name][row], alone[name][0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_everything_hidden_and_nothing_hidden(variant):
    model, batch, _, conditions = variant
    for value in (True, False):
        z = model(batch, {name: torch.full((3, 6), value) for name in batch}, conditions)
        assert all(vectors.shape == (3, 6, 24) and bool(vectors.isfinite().all()) for vectors in z.values())


@torch.no_grad()
def test_a_rotary_model_reads_places_from_coordinates_not_from_indices(small_model, token_batch):
    model, batch = small_model({"a": 3}, num_tokens=None), {"a": token_batch(3, [6])}
    hidden, conditions = hidden_masks(batch), prepared(model, 1)
    tokens = batch["a"]
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    shuffled = TokenBatch(tokens.values[:, order], tokens.coords[:, order], tokens.valid, tokens.grids, tokens.metas)
    z = model(batch, hidden, conditions)["a"]
    other = model({"a": shuffled}, {"a": hidden["a"][:, order]}, conditions)["a"]
    torch.testing.assert_close(other, z[:, order], atol=1e-5, rtol=0)
    tokens.coords[0, 2, 0] += 0.5
    assert not torch.isclose(model(batch, hidden, conditions)["a"], z, atol=1e-6).all(dim=-1).any()


def test_every_parameter_learns(variant, options, small_model):
    model, batch, hidden, conditions = variant
    target = small_model({"a": 3, "b": 2}, seed=1, **options) if model.feature_head else None
    drop = torch.tensor([True, False, False])
    sums = training_losses(model, target, batch, hidden, conditions, drop, torch.arange(3), Draws(0, "loss"))
    sum(sum(stream.parts.values()) for stream in sums.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


def test_a_model_for_generation_may_lack_the_feature_head(small_model):
    full, light = small_model({"a": 3}), small_model({"a": 3}, feature_head=False)
    assert {name.split(".")[0] for name in set(full.state_dict()) ^ set(light.state_dict())} == {"feature_head"}


def test_positions_of_mar(small_model, token_batch):
    """Its predictor has positions for condition tokens too, and its context vectors get a third table."""
    model, batch = small_model({"a": 3}, mar=True), {"a": token_batch(3, [6])}
    hidden, conditions = hidden_masks(batch), prepared(model, 1)
    with torch.no_grad():
        z = model(batch, hidden, conditions)["a"]
        output = model.streams["a"].output_position.clone()
        model.streams["a"].output_position.zero_()
        torch.testing.assert_close(model(batch, hidden, conditions)["a"] + output, z, atol=1e-6, rtol=0)
        assert model.predictor.condition_position.shape == (4, 24)
        model.predictor.condition_position.zero_()
        assert not torch.isclose(model(batch, hidden, conditions)["a"] + output, z, atol=1e-6).all(dim=-1).any()


# Built from specifications

def latent_spec(width, depth, num_heads, head, *, mar=False):
    """A class-conditional model of 16 x 16 tokens of 16 channels, as published."""
    stream = StreamSpec(modality="image", shape=(16, 16, 16), head=head,
                        tokenizer={"kind": "patchify", "patch": {"y": 1, "x": 1}})
    return ModelSpec(
        streams={"image": stream}, width=width, encoder_depth=depth, predictor_depth=depth, num_heads=num_heads,
        conditions={"label": {"kind": "class", "names": [str(number) for number in range(1000)], "num_tokens": 64}},
        qk_norm=not mar, feature_head=not mar, predictor_condition_position=mar, output_position=mar,
    )


@pytest.mark.parametrize(("width", "depth", "num_heads", "head_depth", "head_width", "gaussian", "flow"), [
    (768, 12, 12, 6, 1024, 212_410_656, 212_394_256),      # D-JEPA-B
    (1024, 24, 16, 8, 1280, 687_946_272, 687_925_776),     # D-JEPA-L
    (1280, 32, 16, 12, 1536, 1_427_386_144, 1_427_361_552),  # D-JEPA-H
])
def test_sizes_of_d_jepa(width, depth, num_heads, head_depth, head_width, gaussian, flow):
    for kind, wanted in (("gaussian", gaussian), ("flow", flow)):
        head = {"kind": kind, "depth": head_depth, "width": head_width}
        assert num_parameters(latent_spec(width, depth, num_heads, head)) == wanted


@pytest.mark.parametrize(("width", "depth", "num_heads", "head_depth", "head_width", "wanted"), [
    (768, 12, 12, 6, 1024, 207_924_768),    # MAR-B
    (1024, 16, 16, 8, 1280, 478_326_304),   # MAR-L
    (1280, 20, 16, 12, 1536, 942_403_104),  # MAR-H
])
def test_sizes_of_mar(width, depth, num_heads, head_depth, head_width, wanted):
    """Our K learned condition vectors are the first K of MAR's encoder positions."""
    head = {"kind": "gaussian", "depth": head_depth, "width": head_width}
    assert num_parameters(latent_spec(width, depth, num_heads, head, mar=True)) == wanted


def num_parameters(spec):
    with torch.device("meta"):
        model = build_model(spec, build_tokenizers(spec))
    return sum(parameter.numel() for parameter in model.parameters())


def tiny_spec(**options):
    stream = StreamSpec(modality="image", shape=(1, 4, 4), head={"kind": "flow", "depth": 1, "width": 8},
                        tokenizer={"kind": "patchify", "patch": {"y": 2, "x": 2}})
    return ModelSpec(**{"streams": {"image": stream}, "width": 16, "num_heads": 2, "encoder_depth": 1, "predictor_depth": 1,
                        **options})


@pytest.mark.parametrize("position", [{"kind": "learned"}, {"kind": "rotary"}])
@pytest.mark.parametrize("predictor_width", [None, 24])
def test_encoder_and_predictor_may_differ_in_width(position, predictor_width):
    spec = tiny_spec(position=position, predictor_width=predictor_width)
    model = build_model(spec, build_tokenizers(spec))
    batch = {"image": TokenBatch.stack([Tokens(torch.randn(4, 4), torch.rand(4, 2))])}
    z = model(batch, {"image": torch.tensor([[True, False, True, False]])}, {})
    assert z["image"].shape == (1, 4, predictor_width or 16)


@pytest.mark.parametrize("key", ["output_position", "predictor_condition_position"])
def test_tables_of_positions_need_learned_positions(key):
    tiny_spec(**{key: True})
    with pytest.raises(ValueError, match=f"{key}.*learned"):
        tiny_spec(**{key: True, "position": {"kind": "rotary"}})


def test_scales_are_of_axes_the_model_has():
    spec = tiny_spec(position={"kind": "rotary", "scale": {"z": 2.0}})
    with pytest.raises(RecipeError, match=r"model.position.scale: 'z' is not an axis of this model. .*Known: x, y"):
        build_model(spec, build_tokenizers(spec))


def test_the_causal_axis_is_one_the_model_has():
    for axis, index in ((None, None), ("y", 0), ("x", 1)):
        spec = tiny_spec(causal_axis=axis)
        assert build_model(spec, build_tokenizers(spec)).causal_axis == index
    spec = tiny_spec(causal_axis="t")
    with pytest.raises(RecipeError, match=r"model.causal_axis: 't' is not an axis of this model. .*Known: x, y"):
        build_model(spec, build_tokenizers(spec))


def test_heads_need_a_pair_of_channels_per_axis():
    spec = tiny_spec(position={"kind": "rotary"}, num_heads=8)
    with pytest.raises(RecipeError, match="heads of 2 channels are too narrow for rotary positions over 2 axes"):
        build_model(spec, build_tokenizers(spec))


def test_a_fresh_model_is_a_function_of_its_seed():
    def build(seed):
        with seeded(seed, "weights"):
            return build_model(tiny_spec(), build_tokenizers(tiny_spec())).state_dict()

    one, same, other = build(0), build(0), build(1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    name = "encoder.transformer.blocks.0.mlp.fc1.weight"
    assert not torch.equal(one[name], other[name])


def test_an_unconditional_model_has_start_tokens(small_model, token_batch):
    model = small_model({"a": 3}, classes=0)
    assert isinstance(model, MaskedModel) and model.start is not None and model.start.shape == (1, 16)
    assert model.condition({}, 5).values.shape == (5, 1, 16)
