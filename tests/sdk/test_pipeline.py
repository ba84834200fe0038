"""What a user holds: loading, generating, completing, saving."""

import json

import numpy as np
import pytest
import torch

from djepa import Pipeline, Sample, __version__
from djepa.errors import ConditionError, LayoutError, RecipeError, UsageError
from djepa.generate import GenerationCancelled
from djepa_image.modality import Image

CLOSE = {"atol": 1e-4, "rtol": 0.0}  # sums over a batch of another size are rounded otherwise


def data(samples):
    return torch.stack([sample.data for sample in samples])


def described(samples):
    return [(sample.meta["condition"], sample.meta["seed"]) for sample in samples]


@pytest.fixture(scope="module")
def three(pipe):
    """A picture of a three, and the seed it has."""
    return pipe.generate(3, seed=5)[0]


# Conditions


@pytest.mark.parametrize("condition", [3, "3", [3], ["3"], (3,), {"label": 3}, [{"label": "3"}], np.int64(3)])
def test_a_condition_may_be_written_in_many_ways(pipe, three, condition, tmp_path):
    sample, = pipe.generate(condition, seed=5)
    assert torch.equal(sample.data, three.data) and str(sample.meta["condition"]["label"]) == "3"
    sample.save(tmp_path / "three.png")  # whatever it was, its metadata can be written


@pytest.mark.parametrize("condition", [None, [None], {}, {"label": None}])
def test_without_a_condition_samples_are_of_anything(pipe, three, condition):
    sample, = pipe.generate(condition, seed=5)
    assert sample.meta["condition"] == {} and not torch.allclose(sample.data, three.data, **CLOSE)


@pytest.mark.parametrize(("condition", "told"), [
    (10, "10"), ("thre", "thre"), (3.5, "3.5"), (-1, "-1"), (True, "True"), ([3, "x"], "'x'"), ({"label": [3, 4]}, "[3, 4]"),
    ({"lable": 3}, "Did you mean 'label'?"), (torch.tensor([3, 7]), "tensor"),
])
def test_an_unknown_condition_is_refused_by_name(pipe, condition, told):
    with pytest.raises(ConditionError) as caught:
        pipe.generate(condition)
    assert told in str(caught.value) and "Known: " in str(caught.value) and caught.value.exit_code == 2


def test_the_conditions_of_a_model_are_listed(pipe):
    assert pipe.conditions() == {"label": [str(digit) for digit in range(10)]}


# Seeds


def test_seeds_count_on_from_the_first_of_each_condition(pipe):
    samples = pipe.generate([3, 7, 3], num_samples=2, seed=10)
    three, seven = {"label": 3}, {"label": 7}
    assert described(samples) == [(three, 10), (three, 11), (seven, 10), (seven, 11), (three, 12), (three, 13)]
    assert len({tuple(sample.data.flatten().tolist()) for sample in samples}) == 6


@pytest.mark.parametrize("settings", [{}, {"guidance_scale": 2.5}, {"order": "raster"}, {"num_steps": 16, "temperature": 0.7}],
                         ids=str)
def test_a_seed_gives_the_same_sample_alone_and_among_others(pipe, settings):
    conditions = [3, None, 7, 0, 3, 9, "5", 1]
    together = pipe.generate(conditions, num_samples=2, seed=40, **settings)
    assert len(together) == 16
    for index in (0, 3, 8, 15):
        sample = together[index]
        alone, = pipe.generate(sample.meta["condition"], seed=sample.meta["seed"], **settings)
        assert torch.allclose(alone.data, sample.data, **CLOSE)
        assert alone.meta == sample.meta


def test_chunks_are_not_to_be_seen(pipe):
    whole = pipe.generate([1, 2, None], num_samples=3, seed=1, guidance_scale=2.0)
    for size in (1, 3, 4):
        chunked = pipe.generate([1, 2, None], num_samples=3, seed=1, guidance_scale=2.0, batch_size=size)
        assert torch.allclose(data(chunked), data(whole), **CLOSE)
        assert [sample.meta for sample in chunked] == [sample.meta for sample in whole]


def test_the_same_call_gives_the_same_bits_whatever_the_global_random_state(pipe, three):
    with torch.random.fork_rng():
        torch.manual_seed(123)
        assert torch.equal(pipe.generate(3, seed=5)[0].data, three.data)


def test_generating_leaves_global_random_states_alone(pipe, three, untouched):
    pipe.generate([1, None], num_samples=2, guidance_scale=3.0)
    pipe.inpaint(three, torch.ones(8, 8))


# Settings


@pytest.mark.parametrize("settings", [
    {"num_steps": 3}, {"num_denoising_steps": 9}, {"temperature": 0.5}, {"guidance_scale": 3.0}, {"order": "raster"},
    {"order": {"kind": "causal", "axis": "y"}}, {"seed": 6},
], ids=str)
def test_a_setting_makes_a_difference_and_is_recorded(pipe, three, settings):
    sample, = pipe.generate(3, **{"seed": 5, **settings})
    assert not torch.allclose(sample.data, three.data, **CLOSE)
    recorded = {"seed": sample.meta["seed"], **sample.meta["settings"]}
    for name, value in settings.items():
        assert recorded[name] == ({"kind": value} if isinstance(value, str) else value)


def test_recorded_settings_make_the_sample_again(pipe):
    sample, = pipe.generate(3, seed=9, num_steps=5, guidance_scale=2.0, guidance_schedule="interval",
                            guidance_interval=(0.2, 0.9), order={"kind": "causal", "axis": "x"}, clamp=False)
    meta = json.loads(json.dumps(sample.meta))  # as a file would give it back
    again, = pipe.generate(meta["condition"], seed=meta["seed"], **meta["settings"])
    assert torch.equal(again.data, sample.data) and again.meta == sample.meta


def test_all_settings_that_cannot_be_are_named_at_once(pipe):
    with pytest.raises(RecipeError) as caught:
        pipe.generate(3, num_steps=0, num_denoising_steps=-5, temperature=-1.0, guidance_schedule="liner", order="rastr",
                      guidance_interval=(0.0, 2.0))
    told = str(caught.value)
    assert caught.value.exit_code == 2
    for word in ("num_steps", "num_denoising_steps", "temperature", "guidance_schedule", "order", "guidance_interval"):
        assert word in told
    assert "'raster'" in told and "'linear'" in told


@pytest.mark.parametrize(("settings", "told"), [
    ({"num_samples": 0}, "num_samples=0"), ({"num_samples": 1.5}, "num_samples=1.5"), ({"seed": -1}, "seed=-1"),
    ({"seed": "x"}, "seed='x'"), ({"batch_size": 0}, "batch_size=0"), ({"batch_size": -3}, "batch_size=-3"),
    ({"batch_size": 2.5}, "batch_size=2.5"), ({"temperature": float("nan")}, "temperature"), ({"guidance_scale": "two"}, "two"),
    ({"order": {"kind": "causal"}}, "axis"), ({"order": {"kind": "causal", "axis": "t"}}, "'t'"), ({"conditions": []}, "empty"),
    ({"stream": "sound"}, "'sound'"), ({"given": {"sound": Sample(torch.zeros(1, 8, 8))}}, "'sound'"),
    ({"masks": {"image": torch.tensor(True)}}, "'image'"), ({"masks": {"sound": torch.tensor(True)}}, "'sound'"),
    ({"given": {"image": Sample(torch.zeros(1, 8, 8))}}, "nothing is left"),
], ids=str)
def test_what_cannot_be_asked_for_is_refused_by_name(pipe, settings, told):
    with pytest.raises(UsageError) as caught:
        pipe.generate(**{"conditions": 3, **settings})
    assert told in str(caught.value) and caught.value.exit_code == 2


# Samples


def test_a_sample_says_everything_about_itself_and_so_does_its_file(pipe, trained, tmp_path):
    sample, = pipe.generate("7", seed=2, guidance_scale=2.5)
    settings = sample.meta["settings"]
    assert sample.meta == {"model": str(trained), "condition": {"label": "7"}, "seed": 2, "settings": settings,
                           "djepa": __version__}
    assert settings == {**pipe.spec.generate.dump(), "guidance_scale": 2.5}
    loaded = Image().load(sample.save(tmp_path / "seven.png"))
    assert loaded.meta == sample.meta and (loaded.data - sample.data).abs().max() <= 1 / 255 + 1e-6


def test_samples_are_plain_float_tensors_of_the_trained_shape_and_range(pipe, three):
    filled, = pipe.inpaint(three, torch.eye(8))
    for sample in (three, filled):
        assert sample.data.shape == (1, 8, 8) and sample.data.dtype == torch.float32 and sample.modality == "image"
        assert sample.data.isfinite().all() and not sample.data.is_inference() and not sample.data.requires_grad
        sample.data.clone().add_(1.0)


def test_clamped_estimates_stay_in_the_range_of_pictures(pipe):
    samples = pipe.generate([0, 1], num_samples=4, num_denoising_steps=20)
    assert -1 - 1e-5 <= data(samples).min() and data(samples).max() <= 1 + 1e-5


# Progress


def test_progress_is_told_step_by_step_and_can_be_looked_at(pipe):
    seen, previews = [], []

    def watch(progress):
        seen.append((progress.chunk, progress.num_chunks, progress.step, progress.num_steps))
        previews.append(progress.preview)

    samples = pipe.generate([1, 2, 3], batch_size=2, num_steps=4, on_step=watch)
    assert seen == [(chunk, 2, step, 4) for chunk in (1, 2) for step in (1, 2, 3, 4)]
    shown = [preview() for preview in previews]  # later: each still shows the samples as they were then
    assert [len(one) for one in shown] == [2] * 4 + [1] * 4
    assert torch.equal(data([*shown[3], *shown[7]]), data(samples))
    assert [sample.meta for sample in shown[0]] == [sample.meta for sample in samples[:2]]
    known = [(data(one) == data(samples[:2])).float().mean() for one in shown[:4]]
    assert known == sorted(known) and known[0] < 0.5 and known[-1] == 1


def test_a_generation_can_be_cancelled(pipe):
    steps = []

    def cancel(progress):
        steps.append(progress.step)
        return progress.step < 2

    with pytest.raises(GenerationCancelled, match="step 2 of 4"):
        pipe.generate(3, on_step=cancel)
    assert steps == [1, 2]


# Completing


def test_known_pixels_stay_exactly_and_masked_ones_are_made_anew(pipe, three):
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[3:6, 1:7] = True  # across the borders of patches
    first, second = pipe.inpaint(three, mask, 3, num_samples=2, seed=70)
    assert described([first, second]) == [({"label": 3}, 70), ({"label": 3}, 71)]
    for sample in (first, second):
        assert torch.equal(sample.data[:, ~mask], three.data[:, ~mask])
        assert not torch.isclose(sample.data[:, mask], three.data[:, mask]).all()
    assert not torch.allclose(first.data[:, mask], second.data[:, mask], **CLOSE)
    again, = pipe.inpaint(three, mask, 3, seed=71)
    assert torch.allclose(again.data, second.data, **CLOSE)


def test_what_is_known_matters(pipe, three):
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:2] = True
    other = Sample(-three.data, {}, "image")
    ours, theirs = (pipe.inpaint(sample, mask, 3)[0].data[:, mask] for sample in (three, other))
    assert not torch.allclose(ours, theirs, **CLOSE)


@pytest.mark.parametrize("convert", [lambda mask: mask.numpy(), lambda mask: mask.tolist(), lambda mask: mask.float(),
                                     lambda mask: mask[:1]], ids=["array", "list", "numbers", "a row for all"])
def test_a_mask_may_be_written_in_many_ways(pipe, three, convert):
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, 4:] = True
    assert torch.equal(pipe.inpaint(three, convert(mask))[0].data, pipe.inpaint(three, mask)[0].data)


def test_nothing_masked_is_nothing_changed_and_everything_is_a_new_sample(pipe, three):
    assert torch.equal(pipe.inpaint(three, torch.zeros(8, 8))[0].data, three.data)
    assert torch.allclose(pipe.inpaint(Sample(torch.zeros(1, 8, 8)), torch.ones(8, 8), 3, seed=5)[0].data, three.data, **CLOSE)


def test_the_sample_that_is_completed_is_not_changed(pipe, three):
    before, meta = three.data.clone(), dict(three.meta)
    pipe.inpaint(three, torch.ones(8, 8), 4, seed=1)
    assert torch.equal(three.data, before) and three.meta == meta


@pytest.mark.parametrize(("shape", "mask"), [
    ((1, 8, 10), (8, 10)), ((3, 8, 8), (8, 8)), ((8, 8), (8, 8)), ((1, 7, 8), (7, 8)), ((1, 8, 8), (4, 4)),
    ((1, 8, 8), (1, 8, 8)), ((1, 8, 8), (8, 9)),
])
def test_a_sample_or_mask_of_another_shape_is_refused(pipe, shape, mask):
    with pytest.raises(LayoutError) as caught:
        pipe.inpaint(Sample(torch.zeros(shape), {}, "image"), torch.ones(mask))
    assert "shape" in str(caught.value)


def test_a_stream_that_the_model_does_not_have_is_refused(pipe, three):
    with pytest.raises(UsageError, match="'sound'"):
        pipe.inpaint(three, torch.ones(8, 8), stream="sound")


# Devices and precisions


@pytest.mark.parametrize(("settings", "told"), [
    ({"device": "cpuu"}, "'cpuu'"), ({"device": "cuda:99"}, "'cuda:99'"), ({"dtype": "float16"}, "Did you mean 'bfloat16'"),
    ({"device": "meta"}, "'meta'"),
])
def test_a_device_or_precision_that_is_not_to_be_had_is_refused(trained, settings, told):
    with pytest.raises(UsageError) as caught:
        Pipeline.from_pretrained(trained, **settings)
    assert told in str(caught.value)


def test_half_precision_gives_nearly_the_same_model(trained, pipe):
    half = Pipeline.from_pretrained(trained, device="cpu", dtype="bfloat16")
    assert half.dtype == torch.bfloat16 and next(half.model.parameters()).dtype == torch.float32
    ours, theirs = data(half.generate([1, 2], num_samples=4)), data(pipe.generate([1, 2], num_samples=4))
    assert ours.dtype == torch.float32 and ours.isfinite().all() and (ours - theirs).abs().mean() < 0.1


# Saving


def test_a_saved_model_makes_the_same_samples_without_what_only_training_needs(pipe, tmp_path):
    folder = pipe.save_pretrained(tmp_path / "model")
    loaded = Pipeline.from_pretrained(folder, device="cpu")
    assert loaded.model.feature_head is None and pipe.model.feature_head is not None
    assert torch.equal(data(loaded.generate([3, None], seed=4)), data(pipe.generate([3, None], seed=4)))
    assert str(folder) in loaded.generate(1)[0].meta["model"]
    assert "library_name: djepa" in (folder / "README.md").read_text()


def test_a_model_can_be_named_by_a_path(pipe, trained):
    assert Pipeline.from_pretrained(str(trained), device="cpu").name == pipe.name == str(trained)
