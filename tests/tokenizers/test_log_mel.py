"""LogMel: spectrograms at known times, waveforms that have them, and phases that go on from what is kept."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from djepa.errors import LayoutError, UsageError
from djepa.plugins import host
from djepa.tokens import Axis, MediaSpec, Sample, TokenBatch
from djepa_tokenizers.griffin_lim import Known, griffin_lim
from djepa_tokenizers.log_mel import LogMel
from djepa_tokenizers.spectrogram import Spectrogram

TIME = Axis("t", "s", "sample_rate")
MONO, STEREO = MediaSpec(1, (TIME,)), MediaSpec(2, (TIME,))
RATE = 8000
SMALL = {"sample_rate": RATE, "n_fft": 256, "hop": 64, "num_mels": 32, "patch": {"t": 4, "mel": 8}, "floor": 1e-4}


def tokenizer(media=MONO, **options):
    return LogMel(media, **{**SMALL, **options})


def strings(length=4096, channels=1, seed=0):
    """A few partials that die away, each channel with others."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(length) / RATE
    pitch = 200 + 300 * torch.rand(channels, 1, 1, generator=generator)
    harmonics = torch.arange(1, 5)[:, None]
    phases = 2 * torch.pi * torch.rand(channels, 4, 1, generator=generator)
    waves = torch.sin(2 * torch.pi * pitch * harmonics * time + phases) / harmonics
    return Sample(0.3 * waves.sum(1) * torch.exp(-3 * time), {"sample_rate": RATE}, "audio")


def distance(one, waveform, sample):
    """How far a waveform's logarithmic mel spectrogram is from a sample's, on average."""
    logs = [one.unscaled().encode(Sample(data, sample.meta)).values for data in (waveform, sample.data)]
    return float((logs[0] - logs[1]).abs().mean())


def test_it_is_found_by_its_name():
    assert host().get("tokenizer", "log-mel") is LogMel


# The spectrogram ----------------------------------------------------------------------------------------------------------


def test_mel_magnitudes_are_those_of_librosa():
    import librosa

    sound = strings().data[0]
    one = Spectrogram(RATE, 256, 64, 32, 40.0, 4000.0)
    padded = np.pad(sound.numpy(), 96, mode="reflect")
    theirs = librosa.feature.melspectrogram(y=padded, sr=RATE, n_fft=256, hop_length=64, n_mels=32, fmin=40.0, fmax=4000.0,
                                            power=1.0, center=False)
    torch.testing.assert_close(one.mel(sound[None])[0].T, torch.from_numpy(theirs), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([(64, 16), (64, 32), (96, 24), (128, 8), (50, 24)]), st.integers(1, 30), st.integers(0, 100))
def test_the_inverse_transform_undoes_the_transform(sizes, frames, seed):
    n_fft, hop = sizes
    one = Spectrogram(RATE, n_fft, hop, 4, 0.0, 4000.0)
    waveform = torch.randn(2, frames * hop, generator=torch.Generator().manual_seed(seed))
    spectra = one.transform(waveform)
    assert spectra.shape == (2, frames, n_fft // 2 + 1)
    torch.testing.assert_close(one.inverse_transform(spectra), waveform, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frame", [0, 3, 20, 31])
def test_a_frame_is_centred_in_its_own_hop(frame):
    one = Spectrogram(RATE, 256, 64, 32, 0.0, 4000.0)
    click = torch.zeros(1, 32 * 64)
    click[0, frame * 64 + 31 : frame * 64 + 33] = 1.0
    assert int(one.mel(click)[0].sum(1).argmax()) == frame


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.floats(1e-4, 1.0))
def test_no_waveform_is_louder_than_the_loudest(seed, level):
    one = Spectrogram(RATE, 256, 64, 32, 0.0, 4000.0)
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(1, 1024, generator=generator).sign() * level
    wave = torch.cos(torch.arange(1024) * (torch.rand(1, 1, generator=generator) * torch.pi)) * level
    for sound in (square, wave):
        assert bool((one.mel(sound) <= one.loudest()).all())


def test_magnitudes_are_non_negative_and_have_the_mel_bins_they_are_made_of():
    one = Spectrogram(RATE, 256, 64, 32, 0.0, 4000.0)
    mel = one.mel(strings().data)
    found = one.magnitudes(mel)
    assert bool((found >= 0).all())
    assert float((found @ one.filters - mel).norm() / mel.norm()) < 0.02
    assert not bool(one.magnitudes(torch.zeros_like(mel)).any())


def test_magnitudes_are_closer_to_the_true_ones_than_least_squares_clipped_at_zero():
    one = Spectrogram(RATE, 256, 64, 32, 0.0, 4000.0)
    true = one.transform(strings().data).abs()
    clipped = (true @ one.filters @ torch.linalg.pinv(one.filters)).clamp(min=0)
    ours = one.magnitudes(true @ one.filters)
    assert float((ours - true).norm()) < 0.9 * float((clipped - true).norm())


def test_an_empty_mel_bin_is_refused():
    with pytest.raises(UsageError, match=r"200 mel bins from 0 to 4000 Hz leave some without .*window of 256 samples"):
        tokenizer(num_mels=200)


# Griffin-Lim ----------------------------------------------------------------------------------------------------------------


def test_more_iterations_come_closer_to_the_magnitudes():
    one = Spectrogram(RATE, 256, 64, 32, 0.0, 4000.0)
    magnitudes = one.transform(strings().data).abs()
    errors = [float((one.transform(griffin_lim(one, magnitudes, iterations)).abs() - magnitudes).norm() / magnitudes.norm())
              for iterations in (0, 5, 60)]
    assert errors[2] < 0.3 * errors[1] < 0.3 * errors[0]


def test_a_start_with_the_right_phases_is_kept():
    one = Spectrogram(RATE, 256, 64, 32, 0.0, 4000.0)
    sound = strings().data
    torch.testing.assert_close(griffin_lim(one, one.transform(sound).abs(), 3, start=sound), sound, rtol=1e-3, atol=1e-4)


def test_the_share_of_a_frame_that_is_known_is_what_it_sees_of_it():
    one = Spectrogram(RATE, 256, 64, 32, 0.0, 4000.0)
    share = Known(torch.zeros(1, 1024), torch.arange(1024) < 512).share(one)[:, 0]
    assert bool((share[:6] > 0.999).all()) and bool((share[10:] < 0.001).all())
    assert bool((share.diff() <= 1e-6).all()) and float(share[7] + share[8]) == pytest.approx(1.0, abs=0.02)


# Places ---------------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3000), st.sampled_from([1, 2, 4]), st.sampled_from([4, 8, 32]), st.sampled_from([MONO, STEREO]))
def test_any_length_is_covered_and_comes_back(length, frames, bins, media):
    one = tokenizer(media, patch={"t": frames, "mel": bins}, iterations=1)
    sample = strings(length, media.channels)
    tokens, blank = one.encode(sample), one.blank(sample.shape, sample.meta, "audio")
    rows, columns = one.layout(sample.shape)
    assert tokens.grid == blank.grid == (rows, columns) == (math.ceil(length / (64 * frames)), 32 // bins)
    assert tokens.values.shape == blank.values.shape == (rows * columns, media.channels * frames * bins)
    assert tokens.size == blank.size == (length,)
    assert torch.equal(tokens.coords, blank.coords) and not bool(blank.values.any())
    assert torch.equal(one.cells(sample.shape)["t"], torch.arange(length) // (64 * frames))
    back = one.decode(tokens)
    assert (back.shape, back.meta, back.modality) == (sample.shape, sample.meta, "audio")


def test_coordinates_are_seconds_and_bins():
    tokens = tokenizer().encode(strings(1024))
    assert [axis.name for axis in tokenizer().spec.axes] == ["t", "mel"]
    assert [axis.unit for axis in tokenizer().spec.axes] == ["s", "bin"]
    grid = tokens.coords.unflatten(0, tokens.grid)
    torch.testing.assert_close(grid[:, 0, 0], (torch.arange(4) + 0.5) * 256 / RATE)
    assert grid[0, :, 1].tolist() == [4, 12, 20, 28]


def test_a_token_holds_its_own_patch_of_the_spectrogram():
    one, sample = tokenizer(STEREO), strings(1024, 2)
    logs = Spectrogram(RATE, 256, 64, 32, 0.0, 4000.0).mel(sample.data).clamp(min=1e-4).log()
    values = one.encode(sample).values.view(4, 4, 2, 4, 8)  # rows, columns, channels, frames, bins
    torch.testing.assert_close(values[2, 1], logs[:, 8:12, 8:16])


def test_silence_follows_a_sound_that_does_not_fill_its_tokens():
    one, sample = tokenizer(), strings(900)
    longer = Sample(torch.nn.functional.pad(sample.data, (0, 124)), sample.meta)
    assert torch.equal(one.encode(sample).values, one.encode(longer).values)


@pytest.mark.parametrize("shape", [(2, 100), (1, 0), (1, 10, 10), (100,)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(LayoutError, match=r"Expected a sound of shape \(1, t\)"):
        tokenizer().layout(shape)


def test_another_sample_rate_is_refused():
    sample = Sample(torch.zeros(1, 1024), {"sample_rate": 16000})
    one = tokenizer()
    for use in (one.encode, lambda sample: one.blank(sample.shape, sample.meta), lambda sample: one.measured([sample])):
        with pytest.raises(UsageError, match="a sound of 16000 Hz; this tokenizer is for 8000 Hz"):
            use(sample)


# Values ---------------------------------------------------------------------------------------------------------------------


def test_measured_brings_every_bin_to_unit_scale():
    samples = [strings(seed=seed) for seed in range(8)]
    one = tokenizer(STEREO).measured([Sample(item.data.repeat(2, 1), item.meta) for item in samples])
    values = torch.stack([one.encode(Sample(item.data.repeat(2, 1), item.meta)).values for item in samples])
    bins = values.view(8, 16, 4, 2, 4, 8).movedim(2, 4).reshape(-1, 32)
    torch.testing.assert_close(bins.mean(0), torch.zeros(32), atol=1e-4, rtol=0)
    torch.testing.assert_close(bins.std(0), torch.ones(32), atol=1e-3, rtol=0)
    assert one.measured([]) is one and len(one.options()["mean"]) == 32


def test_a_bin_that_is_always_silent_does_not_blow_up():
    one = tokenizer().measured([Sample(torch.zeros(1, 1024), {"sample_rate": RATE})])
    assert min(one.options()["std"]) == 0.1
    assert float(one.encode(strings()).values.abs().max()) < 150


def test_nothing_to_measure_is_refused():
    with pytest.raises(UsageError, match="no samples"):
        tokenizer().measured([])
    with pytest.raises(UsageError, match="not finite"):
        tokenizer().measured([Sample(torch.full((1, 512), torch.nan), {"sample_rate": RATE})])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([0.0, 1e-3, 1.0]), st.booleans())
def test_values_stay_within_the_bounds(seed, level, measured):
    one = tokenizer().measured([strings(), strings(seed=1)]) if measured else tokenizer()
    noise = torch.randn(1, 1024, generator=torch.Generator().manual_seed(seed)).sign() * level
    values = one.encode(Sample(noise, {"sample_rate": RATE})).values
    low, high = one.spec.bounds
    assert low.shape == high.shape == (32,)
    assert bool((values >= low - 1e-4).all()) and bool((values <= high + 1e-4).all())


def test_bounds_are_no_wider_than_a_bin_needs():
    one = tokenizer().measured([strings(), strings(seed=1)])
    silent = one.encode(Sample(torch.zeros(1, 256), {"sample_rate": RATE})).values
    torch.testing.assert_close(silent.amin(0), one.spec.bounds[0])


def test_options_rebuild_it_by_way_of_json():
    one = tokenizer(STEREO, f_min=50.0, f_max=3500.0, iterations=7).measured([strings(channels=2)])
    again = LogMel(STEREO, **json.loads(json.dumps(one.options())))
    sample = strings(channels=2, seed=3)
    assert again.options() == one.options()
    assert torch.equal(again.encode(sample).values, one.encode(sample).values)
    copy = pickle.loads(pickle.dumps(one))
    assert torch.equal(copy.decode(one.encode(sample)).data, one.decode(one.encode(sample)).data)


def test_without_statistics_it_measures_again():
    one = tokenizer().measured([strings()])
    assert one.unscaled().options() == tokenizer().options()


# There and back -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("media", [MONO, STEREO])
def test_a_sound_comes_back_with_nearly_its_spectrogram(media):
    sample = strings(4000, media.channels)
    one = tokenizer(media).measured([sample])
    assert distance(one, one.decode(one.encode(sample)).data, sample) < 0.3


def test_silence_comes_back_silent():
    one = tokenizer().measured([strings()])
    assert not bool(one.decode(one.encode(Sample(torch.zeros(1, 1024), {"sample_rate": RATE}))).data.any())


def test_what_a_model_overshoots_stays_a_sound():
    one = tokenizer().measured([strings()])
    tokens = one.encode(strings())
    for values in (tokens.values + 20, tokens.values - 20):
        data = one.decode(type(tokens)(values, tokens.coords, tokens.grid, tokens.meta, size=tokens.size)).data
        assert bool(data.isfinite().all()) and float(data.abs().max()) <= 1.0


def test_batches_change_nothing():
    one = tokenizer().measured([strings()])
    samples = [strings(2000, seed=seed) for seed in range(3)]
    for items in (samples, [*samples, strings(700)]):
        batch = one.encode_batch(items)
        for row, sample in enumerate(items):
            alone = one.encode(sample)
            torch.testing.assert_close(batch[row].values, alone.values, rtol=1e-4, atol=1e-4)
            assert (batch[row].size, batch[row].grid) == (alone.size, alone.grid)
        for back, tokens in zip(one.decode_batch(batch), batch, strict=True):
            # Phases are found by steps that make much of rounding, so the spectrograms are what has to be the same.
            assert distance(one, back.data, one.decode(tokens)) < 0.05
            assert back.data.untyped_storage().nbytes() == 4 * back.data.numel()


def test_decoding_draws_nothing():
    one = tokenizer()
    tokens = one.encode(strings())
    state = torch.get_rng_state()
    first, second = one.decode(tokens).data, one.decode(tokens).data
    assert torch.equal(first, second) and torch.equal(state, torch.get_rng_state())


def test_tokens_made_up_by_a_model_need_no_size():
    one = tokenizer()
    tokens = one.encode(strings(1024))
    plain = TokenBatch.stack([tokens])
    assert one.decode_batch(TokenBatch(plain.values, plain.coords, plain.valid, plain.grids, plain.metas))[0].shape == (1, 1024)


# Restoring ------------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 2000), st.lists(st.integers(0, 2000), min_size=1, max_size=4), st.integers(0, 100))
def test_what_is_kept_is_exact(length, borders, seed):
    one, sample, other = tokenizer(STEREO, iterations=2), strings(length, 2), strings(length, 2, seed=seed + 1)
    keep = sum((torch.arange(length) >= border).int() for border in borders) % 2 == 0
    restored = one.restore(one.encode(other), sample, keep)
    assert restored.shape == sample.shape
    assert torch.equal(restored.data[:, keep], sample.data[:, keep])
    assert bool(restored.data.isfinite().all())


@pytest.mark.parametrize("known", ["beginning", "end"])
def test_phases_go_on_from_what_is_kept(known):
    """A steady tone is known up to the middle, or from there: next to it, what is made is in phase with it."""
    time = torch.arange(4096) / RATE
    sample = Sample(0.5 * torch.sin(2 * torch.pi * 440.0 * time)[None], {"sample_rate": RATE})
    one = tokenizer().measured([sample])
    keep, beside = torch.arange(4096) < 2048, slice(2048, 2176)
    if known == "end":
        keep, beside = ~keep, slice(1920, 2048)

    def error(data):
        return float((data - sample.data)[:, beside].norm() / sample.data[:, beside].norm())

    tokens = one.encode(sample)
    assert error(one.restore(tokens, sample, keep).data) < 0.4
    assert error(one.restore(tokens, sample, torch.zeros_like(keep)).data) > 0.8


@pytest.mark.parametrize("seed", range(4))
def test_nothing_jumps_where_what_is_kept_ends(seed):
    one, sample = tokenizer().measured([strings()]), strings(seed=seed)
    keep = torch.arange(4096) < 2000
    steps = one.restore(one.encode(sample), sample, keep).data[0].diff().abs()
    assert float(steps[1999]) <= float(steps[1500:2500].quantile(0.95))


def test_partials_go_on_as_sharp_as_they_are_in_what_is_kept():
    """Mel bins blur them; next to the seam, the spectrum of what is made is closer to the true one than what is decoded."""
    one, errors = tokenizer().measured([strings()]), []
    for seed in range(5):
        sample, tokens = strings(seed=seed), one.encode(strings(seed=seed))
        for keep, beside in ((torch.arange(4096) < 2048, slice(2048, 2304)), (torch.arange(4096) >= 2048, slice(1792, 2048))):
            true, ours, decoded = (torch.fft.rfft(data[0, beside] * torch.hann_window(256)).abs() for data in (
                sample.data, one.restore(tokens, sample, keep).data, one.decode(tokens).data))
            errors.append([float((found - true).norm() / true.norm()) for found in (ours, decoded)])
    restored, plain = np.mean(errors, axis=0)
    assert restored < 0.73 * plain  # 0.81 with phases alone


# Settings -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"sample_rate": 0}, "sample_rate must be a whole number, at least 1; got 0"),
    ({"n_fft": 256.0}, "n_fft must be a whole number"),
    ({"hop": 129}, "an even n_fft, and an even hop of at most half of it; got n_fft=256, hop=129"),
    ({"n_fft": 255}, "an even n_fft"),
    ({"hop": 256}, "at most half"),
    ({"iterations": -1}, "iterations must be a whole number, at least 0; got -1"),
    ({"num_mels": 0}, "num_mels must be a whole number, at least 1"),
    ({"f_max": 5000.0}, "f_max <= 4000 Hz, half of the sample rate; got f_min=0.0, f_max=5000.0"),
    ({"f_min": 300.0, "f_max": 200.0}, "f_min < f_max"),
    ({"floor": 0.0}, "a floor above 0 and below 1; got 0.0"),
    ({"patch": {"t": 4, "mel": 5}}, "patches of 5 bins do not divide num_mels=32"),
    ({"patch": {"time": 4}}, r"patches of a spectrogram: .*no axis 'time' to cut"),
    ({"mean": [0.0] * 32}, "both mean and std or neither"),
    ({"mean": [0.0] * 31, "std": [1.0] * 31}, r"on 32 bins: .*one per media channel \(32\)"),
])
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        tokenizer(**options)


def test_pictures_are_refused():
    with pytest.raises(UsageError, match=r"for sounds, which have one axis; these samples have 2 \(y, x\)"):
        LogMel(MediaSpec(1, (Axis("y", "px"), Axis("x", "px"))), sample_rate=RATE)
