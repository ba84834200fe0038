"""What a generation starts from: empty places, given streams, masked parts."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from djepa.build import build_tokenizers
from djepa.canvas import composite, make_canvas, token_mask
from djepa.errors import LayoutError
from djepa.recipe.schema import ModelSpec, RotaryPosition, StreamSpec
from djepa.tokens import Sample


def model_spec(position=None, **shapes):
    streams = {name: StreamSpec(modality="image", shape=shape, tokenizer={"kind": "patchify", "patch": {"y": 2, "x": 2}})
               for name, shape in shapes.items()}
    return ModelSpec(streams=streams, width=16, num_heads=2, **({"position": position} if position else {}))


def canvas_of(spec, given=None, masks=None):
    return make_canvas(spec, build_tokenizers(spec), given or {}, masks or {})


def picture(*shape, seed=0):
    return Sample(torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1, {}, "image")


def test_a_stream_that_is_not_given_is_unknown_throughout():
    canvas = canvas_of(model_spec(a=(1, 4, 6), b=(3, 2, 2)))
    assert {name: mask.tolist() for name, mask in canvas.unknown.items()} == {"a": [[True] * 6], "b": [[True]]}
    assert canvas.tokens["a"].values.shape == (1, 6, 4) and canvas.tokens["b"].values.shape == (1, 1, 12)


def test_a_given_stream_is_known_throughout():
    spec, sample = model_spec(a=(1, 4, 6), b=(3, 2, 2)), picture(3, 2, 2)
    canvas = canvas_of(spec, {"b": sample})
    assert not canvas.unknown["b"].any() and canvas.unknown["a"].all()
    decoded = build_tokenizers(spec)["b"].decode_batch(canvas.tokens["b"])[0]
    torch.testing.assert_close(decoded.data, sample.data)


def test_a_masked_part_is_unknown():
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[3, 5] = True  # one pixel of the last of 2 x 3 patches
    canvas = canvas_of(model_spec(a=(1, 4, 6)), {"a": picture(1, 4, 6)}, {"a": mask})
    assert canvas.unknown["a"].tolist() == [[False] * 5 + [True]]


def test_a_batch_repeats_the_canvas():
    canvas = canvas_of(model_spec(a=(1, 4, 6)), {"a": picture(1, 4, 6)}, {"a": torch.ones(4, 6)})
    batch, unknown = canvas.repeated(3, torch.device("cpu"))
    assert len(batch["a"]) == 3 and unknown["a"].shape == (3, 6)
    for row in batch["a"].values:
        assert torch.equal(row, canvas.tokens["a"].values[0])


@pytest.mark.parametrize(("position", "shape", "message"), [
    (None, (1, 4, 8), r"'a' has shape \[1, 4, 8\]; this model takes \[1, 4, 6\] .*, exactly: its positions are learned"),
    (None, (3, 4, 6), r"has shape \[3, 4, 6\]"),
    (RotaryPosition(), (3, 4, 6), r"has shape \[3, 4, 6\]; this model takes \[1, 4, 6\] \(channels first\)\."),
    (RotaryPosition(), (1, 24), r"has shape \[1, 24\]"),
])
def test_a_sample_of_another_shape_is_refused(position, shape, message):
    with pytest.raises(LayoutError, match=message):
        canvas_of(model_spec(position, a=(1, 4, 6)), {"a": picture(*shape)})


def test_rotary_positions_take_other_sizes():
    canvas = canvas_of(model_spec(RotaryPosition(), a=(1, 4, 6)), {"a": picture(1, 8, 2)})
    assert canvas.tokens["a"].grids == ((4, 1),)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.data())
def test_a_token_is_masked_when_anything_in_its_cell_is(rows, columns, height, width, data):
    shape = (rows * height, columns * width)
    size = shape[0] * shape[1]
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size))).view(shape)
    wanted = [bool(mask[r * height:(r + 1) * height, c * width:(c + 1) * width].any())
              for r, c in itertools.product(range(rows), range(columns))]
    assert token_mask(mask, shape, (rows, columns)).tolist() == wanted


def test_masks_broadcast():
    left = torch.tensor([True, True, False, False])
    assert token_mask(left, (6, 4), (3, 2)).tolist() == [True, False] * 3
    assert token_mask(torch.tensor(True), (6, 4), (3, 2)).all()
    assert token_mask(torch.ones(6, 1), (6, 4), (3, 2)).all()


@pytest.mark.parametrize("shape", [(5, 4), (4, 6), (1, 6, 4), (3,)])
def test_a_mask_of_another_shape_is_refused(shape):
    with pytest.raises(LayoutError, match=r"The mask has shape .*; the sample needs \[6, 4\]"):
        token_mask(torch.ones(shape), (6, 4), (3, 2))


@pytest.mark.parametrize("grid", [None, (3,), (3, 2, 1)])
def test_tokens_that_form_no_grid_over_the_sample_cannot_be_masked(grid):
    with pytest.raises(LayoutError, match="which of them"):
        token_mask(torch.ones(6, 4), (6, 4), grid)


def test_a_composite_is_the_original_outside_the_mask_exactly():
    original, generated = picture(3, 4, 4), picture(3, 4, 4, seed=1)
    generated.meta["seed"] = 5
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[1:3] = True
    mixed = composite(original, generated, mask)
    assert torch.equal(mixed.data[:, mask], generated.data[:, mask])
    assert torch.equal(mixed.data[:, ~mask], original.data[:, ~mask])
    assert mixed.meta == {"seed": 5} and mixed.modality == "image"
