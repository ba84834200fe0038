"""What a generation starts from: empty places, given streams, masked parts."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from djepa.build import build_tokenizers
from djepa.canvas import make_canvas, sample_mask, token_mask
from djepa.errors import LayoutError, UsageError
from djepa.recipe.schema import ModelSpec, RotaryPosition, StreamSpec
from djepa.tokenizer import Tokenizer
from djepa.tokens import Axis, MediaSpec, Sample, TokenBatch, Tokens, TokenSpec
from djepa_tokenizers.patchify import Patchify


def model_spec(position=None, **shapes):
    streams = {name: StreamSpec(modality="image", shape=shape, tokenizer={"kind": "patchify", "patch": {"y": 2, "x": 2}})
               for name, shape in shapes.items()}
    return ModelSpec(streams=streams, width=16, num_heads=2, **({"position": position} if position else {}))


def canvas_of(spec, given=None, masks=None):
    shapes = {name: stream.shape for name, stream in spec.streams.items()}
    return make_canvas(spec, build_tokenizers(spec), given or {}, masks or {}, shapes)


def picture(*shape, seed=0):
    return Sample(torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1, {}, "image")


def unknown(canvas):
    return {name: stream.unknown.tolist() for name, stream in canvas.streams.items()}


def test_a_stream_that_is_not_given_is_unknown_throughout():
    canvas = canvas_of(model_spec(a=(1, 4, 6), b=(3, 2, 2)))
    assert unknown(canvas) == {"a": [[True] * 6], "b": [[True]]} and canvas.generated() == ["a", "b"]
    assert canvas.streams["a"].tokens.values.shape == (1, 6, 4) and canvas.streams["b"].tokens.values.shape == (1, 1, 12)


def test_a_given_stream_is_known_throughout():
    spec, sample = model_spec(a=(1, 4, 6), b=(3, 2, 2)), picture(3, 2, 2)
    canvas = canvas_of(spec, {"b": sample})
    assert unknown(canvas) == {"a": [[True] * 6], "b": [[False]]} and canvas.generated() == ["a"]
    decoded = build_tokenizers(spec)["b"].decode_batch(canvas.streams["b"].tokens)[0]
    torch.testing.assert_close(decoded.data, sample.data)


def test_a_masked_part_is_unknown_and_the_rest_is_kept():
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[3, 5] = True  # one pixel of the last of 2 x 3 patches
    canvas = canvas_of(model_spec(a=(1, 4, 6)), {"a": picture(1, 4, 6)}, {"a": mask})
    assert unknown(canvas) == {"a": [[False] * 5 + [True]]}
    assert torch.equal(canvas.streams["a"].keep, ~mask)


def test_a_box_says_the_same_as_a_mask():
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[1:3, 4:] = True
    spec, sample = model_spec(a=(1, 4, 6)), picture(1, 4, 6)
    by_mask, by_box = (canvas_of(spec, {"a": sample}, {"a": one}).streams["a"]
                       for one in (mask, {"y": (1, 3), "x": (4, 100)}))
    assert torch.equal(by_mask.unknown, by_box.unknown) and torch.equal(by_mask.keep, by_box.keep)


@pytest.mark.parametrize(("box", "message"), [
    ({"z": (0, 1)}, "axis 'z', which these samples lack"), ({"y": (2, 2)}, "from 2 to 2 along 'y'"),
])
def test_a_box_that_cannot_be_is_refused(box, message):
    with pytest.raises(UsageError, match=message):
        canvas_of(model_spec(a=(1, 4, 6)), {"a": picture(1, 4, 6)}, {"a": box})


def test_a_batch_repeats_the_canvas():
    canvas = canvas_of(model_spec(a=(1, 4, 6)), {"a": picture(1, 4, 6)}, {"a": torch.ones(4, 6)})
    batch = canvas.repeated(3, torch.device("cpu"))
    assert len(batch["a"]) == 3
    for row in batch["a"].values:
        assert torch.equal(row, canvas.streams["a"].tokens.values[0])


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
    assert canvas.streams["a"].tokens.grids == ((4, 1),)


def cut(mask, rows, columns):
    """Which of rows x columns patches of a grey picture a mask hides."""
    height, width = mask.shape
    tokenizer = Patchify(MediaSpec(1, (Axis("y", "px"), Axis("x", "px"))), patch={"y": height // rows, "x": width // columns})
    return token_mask(mask, tokenizer, tokenizer.encode_batch([Sample(torch.zeros(1, height, width))]))


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.data())
def test_a_token_is_masked_when_anything_in_its_cell_is(rows, columns, height, width, data):
    shape = (rows * height, columns * width)
    size = shape[0] * shape[1]
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size))).view(shape)
    wanted = [bool(mask[r * height:(r + 1) * height, c * width:(c + 1) * width].any())
              for r, c in itertools.product(range(rows), range(columns))]
    assert cut(mask, rows, columns).tolist() == wanted


@pytest.mark.parametrize("mask", [torch.tensor([True, True, False, False]), torch.tensor(True), torch.ones(6, 1)])
def test_masks_broadcast(mask):
    tokenizer = build_tokenizers(model_spec(a=(1, 6, 4)))["a"]
    assert torch.equal(sample_mask(mask, picture(1, 6, 4), tokenizer), mask.bool().expand(6, 4))


@pytest.mark.parametrize("shape", [(5, 4), (4, 6), (1, 6, 4), (3,)])
def test_a_mask_of_another_shape_is_refused(shape):
    with pytest.raises(LayoutError, match=r"The mask has shape .*; the sample needs \[6, 4\]"):
        canvas_of(model_spec(a=(1, 6, 4)), {"a": picture(1, 6, 4)}, {"a": torch.ones(shape)})


class Bands(Tokenizer):
    """Sounds as tokens over time and bands, a stand-in for a spectrogram; or as a set that forms no grid."""

    def __init__(self, media, *, grid=True):
        self.media, self.forms_grid = media, grid
        self._spec = TokenSpec(1, (Axis("band", "bin"), Axis("t", "s", "rate")))

    @property
    def spec(self):
        return self._spec

    def layout(self, shape):
        return 2, shape[1] // 2

    def encode(self, sample):
        grid = self.layout(sample.shape)
        band, time = torch.meshgrid(torch.arange(2) + 0.5, (2 * torch.arange(grid[1]) + 1) / sample.meta["rate"], indexing="ij")
        coords = torch.stack([band, time], -1).reshape(-1, 2)
        return Tokens(torch.zeros(len(coords), 1), coords, grid if self.forms_grid else None, sample.meta)

    def decode(self, tokens):
        raise NotImplementedError

    def options(self):
        return {}


SOUND = MediaSpec(1, (Axis("t", "s", "rate"),))


def test_axes_are_matched_by_name():
    tokenizer = Bands(SOUND)
    tokens = tokenizer.encode_batch([Sample(torch.zeros(1, 6), {"rate": 4.0})])
    mask = torch.tensor([False] * 4 + [True, False])
    assert token_mask(mask, tokenizer, tokens).tolist() == [False, False, True] * 2  # band by band


def test_tokens_that_form_no_grid_cannot_be_masked_by_a_tensor():
    tokenizer = Bands(SOUND, grid=False)
    with pytest.raises(LayoutError, match="which of them"):
        token_mask(torch.ones(6), tokenizer, TokenBatch.stack([tokenizer.encode(Sample(torch.zeros(1, 6), {"rate": 4.0}))]))


def test_a_box_along_an_axis_of_the_tokens_keeps_nothing_of_the_sample_in_it():
    from djepa.canvas import _partly_known  # what make_canvas does per stream, of a tokenizer that nobody registered

    sample = Sample(torch.zeros(1, 6), {"rate": 4.0})
    stream = _partly_known(Bands(SOUND), sample, {"band": (1, 2), "t": (0.5, 2.0)})
    assert stream.unknown.tolist() == [[False] * 3 + [False, True, True]]
    assert stream.keep.tolist() == [True, True, False, False, False, False]
