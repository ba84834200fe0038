"""Clips that go on, ends that are joined, lengths and sizes other than the trained ones."""

import warnings
from itertools import pairwise

import pytest
import torch

from djepa import Pipeline, Sample
from djepa.build import build_model, build_tokenizers
from djepa.errors import ExtrapolationWarning, LayoutError, UsageError
from djepa.random import seeded
from djepa.recipe.schema import LearnedPosition, ModelSpec, RotaryPosition, StreamSpec

FPS = 4.0
CLOSE = {"atol": 1e-4, "rtol": 0.0}


def make_pipe(position=None, streams=("clip",), order="random", trained=8, sizes=None):
    """An untrained model of grey clips of 8 frames of 4x4 pixels, two seconds long; in tokens: 4 rows of 4."""
    patch = {"kind": "patchify", "patch": {"t": 2, "y": 2, "x": 2}}
    spec = ModelSpec(
        streams={name: StreamSpec(modality="video", shape=(1, trained, 4, 4), sizes=sizes, meta={"fps": FPS},
                                  tokenizer=patch, head={"kind": "flow", "depth": 1, "width": 16}) for name in streams},
        width=16, encoder_depth=1, predictor_depth=1, num_heads=1, position=position or RotaryPosition(),
        generate={"num_steps": 3, "num_denoising_steps": 2, "order": order},
    )
    tokenizers = build_tokenizers(spec)
    with seeded(0, "model"), torch.no_grad():
        model = build_model(spec, tokenizers)
        for parameter in model.parameters():  # none is zero, as some are at the start of training
            parameter += 0.1 * torch.randn_like(parameter)
    return Pipeline(model, spec, tokenizers, device="cpu")


@pytest.fixture(scope="module")
def pipe():
    return make_pipe()


def clip(frames, seed=0, size=4):
    generator = torch.Generator().manual_seed(seed)
    return Sample(torch.rand(1, frames, size, size, generator=generator) * 2 - 1, {"fps": FPS}, "video")


# Extending


@pytest.mark.parametrize("seconds", [0.25, 1.0, 2.0, 7.0])
@pytest.mark.parametrize("frames", [2, 7, 8, 21])
def test_an_extended_clip_begins_with_the_clip_and_is_as_long_as_asked(pipe, frames, seconds):
    given = clip(frames)
    extended, = pipe.extend(given, seconds)
    assert extended.shape == (1, frames + round(seconds * FPS), 4, 4)
    assert torch.equal(extended.data[:, :frames], given.data)
    assert extended.meta["fps"] == FPS and extended.modality == "video" and bool(extended.data.isfinite().all())


def test_samples_of_a_continuation_differ_and_depend_on_their_own_seed_only(pipe):
    both = pipe.extend(clip(8), 3.0, num_samples=2, seed=3)
    alone, = pipe.extend(clip(8), 3.0, seed=4)
    torch.testing.assert_close(both[1].data, alone.data, **CLOSE)
    assert not torch.allclose(both[0].data, both[1].data, **CLOSE)


def test_windows_do_not_repeat_one_another(pipe):
    data = pipe.extend(clip(8), 4.0)[0].data
    assert not torch.allclose(data[:, 8:12], data[:, 12:16], **CLOSE)


def test_a_continuation_within_the_trained_length_is_that_of_inpainting(pipe):
    extended, = pipe.extend(clip(4), 1.0, seed=2)
    mask = torch.arange(8)[:, None, None] >= 4
    padded = Sample(torch.cat([clip(4).data, torch.zeros(1, 4, 4, 4)], 1), {"fps": FPS}, "video")
    torch.testing.assert_close(extended.data, pipe.inpaint(padded, mask, seed=2)[0].data, **CLOSE)


def test_a_window_looks_back_on_as_much_as_is_asked(pipe):
    """With the least context, a change before it does not matter; with more, it does."""
    one, other = clip(8), clip(8)
    other.data[:, :4] *= -1
    short, long = ([pipe.extend(given, 1.0, context=context)[0].data[:, 8:] for given in (one, other)]
                   for context in (0.5, 1.5))
    torch.testing.assert_close(*short, **CLOSE)
    assert not torch.allclose(*long, **CLOSE)


def test_learned_positions_serve_windows_of_the_trained_length():
    learned = make_pipe(LearnedPosition())
    assert learned.extend(clip(8), 3.0)[0].shape == (1, 20, 4, 4)


def test_streams_go_on_together():
    pipe = make_pipe(streams=("left", "right"))
    steps = []
    extended, = pipe.extend(clip(8), 2.0, stream="right", on_step=lambda progress: steps.append(progress.step))
    assert extended.shape == (1, 16, 4, 4) and torch.equal(extended.data[:, :8], clip(8).data)
    assert steps == list(range(1, 3 * 3 + 1))  # three windows: the other stream begins with nothing


def test_progress_counts_all_windows_and_shows_the_whole(pipe):
    seen = []
    pipe.extend(clip(8), 4.0, on_step=lambda progress: seen.append((progress.step, progress.num_steps, progress.preview())))
    assert [(step, total) for step, total, _ in seen] == [(step, 12) for step in range(1, 13)]
    assert all(torch.equal(shown[0].data[:, :8], clip(8).data) for *_, shown in seen)


@pytest.mark.parametrize(("frames", "arguments", "message"), [
    (8, {"seconds": 0}, "seconds=0"), (8, {"seconds": -1.0}, "seconds=-1.0"),
    (8, {"seconds": 1, "context": 2.0}, "context=2.0"), (8, {"seconds": 1, "context": 0}, "context=0"),
    (1, {"seconds": 1}, "1 steps of time, and a token of this model covers 2"),
])
def test_what_cannot_be_extended_is_refused(pipe, frames, arguments, message):
    with pytest.raises(UsageError, match=message):
        pipe.extend(clip(frames), **arguments)


def test_a_sample_at_another_rate_is_taken_with_a_warning(pipe):
    fast = Sample(clip(8).data, {"fps": 8.0}, "video")
    with pytest.warns(ExtrapolationWarning, match="fps 8; this model was trained at 4"):
        extended, = pipe.extend(fast, 1.0)
    assert extended.shape[1] == 16 and extended.meta["fps"] == 8.0


def test_a_model_of_stills_extends_nothing():
    from djepa.recipe.schema import ModelSpec as Spec
    spec = Spec(streams={"image": StreamSpec(modality="image", shape=(1, 4, 4))}, width=16, num_heads=1, encoder_depth=1,
                predictor_depth=1)
    tokenizers = build_tokenizers(spec)
    pipe = Pipeline(build_model(spec, tokenizers), spec, tokenizers, device="cpu")
    with pytest.raises(UsageError, match="does not go on in time"):
        pipe.extend(Sample(torch.zeros(1, 4, 4)), 1.0)
    with pytest.raises(UsageError, match="nothing this model generates is measured in s"):
        pipe.generate(seconds=1.0)


# Interpolating


@pytest.mark.parametrize("frames", [2, 3])
def test_the_ends_stay_and_the_middle_is_made(pipe, frames):
    first, last = clip(frames, 1), clip(2, 2)
    made = pipe.interpolate(first, last, num_samples=2)
    for sample in made:
        assert sample.shape == (1, 8, 4, 4)
        assert torch.equal(sample.data[:, :frames], first.data) and torch.equal(sample.data[:, -2:], last.data)
    middle = slice(4, 6)
    assert not torch.allclose(made[0].data[:, middle], made[1].data[:, middle], **CLOSE)


def test_a_still_is_held_for_one_token(pipe):
    first, last = (Sample(clip(1, seed).data[:, 0], {}, "image") for seed in (1, 2))
    made, = pipe.interpolate(first, last)
    assert torch.equal(made.data[:, 0], first.data) and torch.equal(made.data[:, 1], first.data)
    assert torch.equal(made.data[:, 6], last.data) and torch.equal(made.data[:, 7], last.data)
    assert made.meta["fps"] == FPS and made.modality == "video"


def test_ends_that_leave_nothing_between_them_are_refused(pipe):
    with pytest.raises(LayoutError, match="Nothing lies between"):
        pipe.interpolate(clip(4), clip(4))
    with pytest.raises(LayoutError, match="only its length in time may differ"):
        pipe.interpolate(clip(2), clip(2, size=6))


# Lengths and sizes


def test_rotary_positions_make_other_lengths_and_sizes(pipe):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pipe.generate(seconds=3.0)[0].shape == (1, 12, 4, 4)
        assert pipe.generate(size=6)[0].shape == (1, 8, 6, 6)
        assert pipe.generate(size=(6, 2), seconds=1.5)[0].shape == (1, 6, 6, 2)


def test_far_from_the_trained_length_a_warning_says_so(pipe):
    with pytest.warns(ExtrapolationWarning, match=r"trained on 2 s along 't'; 5 s is far outside"):
        assert pipe.generate(seconds=5.0)[0].shape == (1, 20, 4, 4)


def test_trained_on_many_lengths_a_model_makes_all_of_these_without_a_warning():
    pipe = make_pipe(sizes=((2, 16), (4, 4), (4, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [pipe.generate(seconds=seconds)[0].shape[1] for seconds in (0.5, 8.0)] == [2, 32]
    with pytest.warns(ExtrapolationWarning, match=r"trained on 0.5 to 4 s along 't'; 9 s is far outside"):
        pipe.generate(seconds=9.0)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"seconds": 0.0}, "seconds=0.0"), ({"size": 0}, "size=0"), ({"size": (2, 2, 2)}, r"one for each of y, x"),
    ({"seconds": 1.25}, "Axis 't' has size 5"),
])
def test_a_length_or_size_that_cannot_be_is_refused(pipe, arguments, message):
    with pytest.raises(UsageError, match=message):
        pipe.generate(**arguments)


def test_learned_positions_make_nothing_but_the_trained_size():
    with pytest.raises(UsageError, match=r"learned positions.*Pipeline\.extend"):
        make_pipe(LearnedPosition()).generate(seconds=4.0)


def test_an_order_along_time_makes_earlier_rows_first():
    pipe = make_pipe(order={"kind": "causal", "axis": "t"})
    shown = []
    pipe.generate(num_steps=4, on_step=lambda progress: shown.append(progress.preview()[0].data))
    changed = [(before != after).flatten(2).any(2)[0].nonzero().flatten().tolist() for before, after in pairwise(shown)]
    assert all(max(early) <= min(late) + 1 for early, late in pairwise(changed) if early and late)
