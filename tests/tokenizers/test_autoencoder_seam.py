"""What autoencoders decode beside what is kept: joined without a step, but for the decoder's own and those of its error."""

import warnings

import pytest
import torch

from djepa.tokens import Axis, MediaSpec, Sample
from djepa_tokenizers.autoencoder import Autoencoder

CLIPS = MediaSpec(1, (Axis("t", "s", "fps"), Axis("y", "px"), Axis("x", "px")))
SOUNDS = MediaSpec(2, (Axis("t", "s", "sample_rate"),))
WAN = {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 1], "num_res_blocks": 1, "temperal_downsample": [True, True],
       "in_channels": 1, "out_channels": 1, "latents_mean": [0.0] * 4, "latents_std": [0.3] * 4}
OOBLECK = {"encoder_hidden_size": 8, "downsampling_ratios": [2, 4], "channel_multiples": [1, 2], "decoder_channels": 8,
           "decoder_input_channels": 4, "sampling_rate": 8000}


def saved(folder, kind, config):
    import diffusers

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's old weight norm
        torch.manual_seed(0)
        getattr(diffusers, kind).from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return Autoencoder(CLIPS, source=saved(tmp_path_factory.mktemp("wan"), "AutoencoderKLWan", WAN))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return Autoencoder(SOUNDS, source=saved(tmp_path_factory.mktemp("oobleck"), "AutoencoderOobleck", OOBLECK), patch=4)


def waves(*shape, seed=0):
    """Something smooth, of moderate values, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, shape[0], *(2 + size // 8 for size in shape[1:]), generator=generator)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(shape) - 1]
    fine = torch.nn.functional.interpolate(coarse, shape[1:], mode=mode)[0]
    return 0.6 * fine - 0.3 + 0.02 * torch.randn(shape, generator=generator)


def half_known(one, shape, seam, axis, meta):
    """The sample, what is decoded of tokens that are its own up to a seam and others from there, and the restored sample."""
    sample, other = (Sample(waves(*shape, seed=seed), meta) for seed in (1, 2))
    first = (torch.arange(shape[axis + 1]) < seam).view([-1 if index == axis else 1 for index in range(len(shape) - 1)])
    keep = first.expand(shape[1:])
    tokens = one.encode(Sample(torch.where(keep, sample.data, other.data), meta))
    return sample.data, one.decode(tokens).data, one.restore(tokens, sample, keep).data, keep


def size(steps):
    return float(steps.square().mean().sqrt())


def assert_joined(original, decoded, restored, keep, seam, axis):
    assert torch.equal(restored[:, keep], original[:, keep])
    beyond_own = (restored - decoded).diff(dim=axis + 1)
    over, before = beyond_own.select(axis + 1, seam - 1), beyond_own.narrow(axis + 1, 0, seam - 1)
    as_pasted = torch.where(keep, original - decoded, 0.0).diff(dim=axis + 1).select(axis + 1, seam - 1)
    assert size(over) < size(as_pasted)
    assert seam == 1 or size(over) <= size(before)


@pytest.mark.parametrize("seam", [1, 5, 7])  # after the first frame, after a token, within one
def test_clips(clips, seam):
    assert_joined(*half_known(clips, (1, 13, 16, 16), seam, 0, {"fps": 8.0}), seam, 0)


def test_clips_are_as_decoded_a_token_later(clips):
    _, decoded, restored, _ = half_known(clips, (1, 13, 16, 16), 5, 0, {"fps": 8.0})
    assert torch.equal(restored[:, 9:], decoded[:, 9:]) and not torch.equal(restored[:, 8], decoded[:, 8])


@pytest.mark.parametrize("axis", [0, 1])
def test_pictures(autoencoder, axis):
    assert_joined(*half_known(autoencoder(patch=2), (3, 16, 16), 8, axis, {}), 8, axis)


def test_a_hole_in_a_picture_is_joined_all_around(autoencoder):
    one, meta = autoencoder(patch=2), {}
    sample, other = (Sample(waves(3, 24, 24, seed=seed), meta) for seed in (1, 2))
    keep = torch.ones(24, 24, dtype=torch.bool)
    keep[8:16, 4:20] = False
    tokens = one.encode(Sample(torch.where(keep, sample.data, other.data), meta))
    decoded, restored = one.decode(tokens).data, one.restore(tokens, sample, keep).data
    assert torch.equal(restored[:, keep], sample.data[:, keep])
    for axis in (0, 1):
        crossing = keep.narrow(axis, 0, 23) != keep.narrow(axis, 1, 23)
        ours, pasted = (change.diff(dim=axis + 1)[:, crossing] for change in (
            restored - decoded, torch.where(keep, sample.data - decoded, 0.0)))
        assert crossing.any() and size(ours) < 0.7 * size(pasted)


@pytest.mark.parametrize("seam", [128, 131])
def test_sounds(sounds, seam):
    assert_joined(*half_known(sounds, (2, 250), seam, 0, {"sample_rate": 8000}), seam, 0)
