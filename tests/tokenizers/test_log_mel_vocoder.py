"""LogMel with a vocoder: a network of transformers in a folder, as `save_pretrained` writes it."""

import json
import math

import pytest
import torch

from djepa.errors import CheckpointError, UsageError
from djepa.tokens import Axis, MediaSpec, Sample
from djepa_tokenizers.log_mel import LogMel

MONO = MediaSpec(1, (Axis("t", "s", "sample_rate"),))
OPTIONS = {"sample_rate": 8000, "n_fft": 256, "hop": 64, "num_mels": 16, "patch": {"t": 4, "mel": 8}, "floor": 1e-4}


@pytest.fixture(scope="module")
def network():
    """A vocoder of a few thousand random weights, 64 samples a frame."""
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SpeechT5HifiGan(SpeechT5HifiGanConfig(
            model_in_dim=16, sampling_rate=8000, upsample_initial_channel=8, upsample_rates=[8, 8],
            upsample_kernel_sizes=[16, 16], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]], normalize_before=False,
            initializer_range=0.3)).eval()


@pytest.fixture
def folder(network, tmp_path):
    network.save_pretrained(tmp_path / "vocoder")
    return tmp_path / "vocoder"


@pytest.fixture
def sample():
    noise = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
    return Sample(0.2 * noise, {"sample_rate": 8000}, "audio")


def tokenizer(folder, **options):
    return LogMel(MONO, **{**OPTIONS, "vocoder": str(folder), **options})


@pytest.mark.parametrize(("log", "factor"), [("ln", 1.0), ("log10", 1 / math.log(10))])
def test_it_makes_the_waveform_of_the_logarithms_it_was_trained_on(network, folder, sample, log, factor):
    one = tokenizer(folder, vocoder_log=log)
    tokens = one.encode(sample)
    logarithms = tokens.values.view(8, 2, 4, 8).transpose(1, 2).reshape(1, 32, 16)
    with torch.no_grad():
        expected = network(logarithms * factor).clamp(-1, 1)[:, :2000]
    back = one.decode(tokens)
    torch.testing.assert_close(back.data, expected)
    assert (back.shape, back.meta, back.modality) == (sample.shape, sample.meta, "audio")


def test_statistics_are_taken_off_before(folder, sample):
    plain = tokenizer(folder)
    fitted = plain.measured([sample])
    assert fitted.options()["mean"] is not None
    torch.testing.assert_close(fitted.decode(fitted.encode(sample)).data, plain.decode(plain.encode(sample)).data)


def test_what_is_kept_is_exact_and_the_rest_goes_on_from_it(folder, sample):
    one, keep = tokenizer(folder), torch.arange(2000) < 900
    restored = one.restore(one.encode(sample), sample, keep).data
    assert torch.equal(restored[:, keep], sample.data[:, keep])
    assert not torch.equal(restored, torch.where(keep, sample.data, one.decode(one.encode(sample)).data))


def test_options_and_assets_rebuild_it_without_its_source(folder, sample, tmp_path):
    one = tokenizer(folder)
    tokens = one.encode(sample)
    saved = tmp_path / "saved"
    saved.mkdir()
    one.save_assets(saved)
    folder.rename(tmp_path / "gone")
    again = LogMel(MONO, **json.loads(json.dumps(one.options())))
    again.load_assets(saved)
    assert torch.equal(again.decode(tokens).data, one.decode(tokens).data)
    assert again.options() == one.options()


def test_griffin_lim_has_no_assets(tmp_path):
    LogMel(MONO, **OPTIONS).save_assets(tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_read_before_it_is_needed(tmp_path, sample):
    one = tokenizer(tmp_path / "nowhere")
    tokens = one.encode(sample)
    with pytest.raises(CheckpointError, match=r"there is no vocoder .*nowhere"):
        one.decode(tokens)


@pytest.mark.parametrize(("changes", "message"), [
    ({"num_mels": 32}, "is for num_mels=16; this tokenizer has num_mels=32"),
    ({"sample_rate": 16000}, "is for sample_rate=8000; this tokenizer has sample_rate=16000"),
    ({"hop": 32}, "is for hop=64; this tokenizer has hop=32"),
    ({"vocoder_log": "log2"}, "vocoder_log must be 'log10' or 'ln'; got 'log2'"),
])
def test_a_vocoder_for_other_spectrograms_is_refused(folder, changes, message):
    with pytest.raises(UsageError, match=message):
        tokenizer(folder, **changes)


def test_another_kind_of_network_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(UsageError, match="is of the kind 'bert'; expected 'speecht5_hifigan'"):
        tokenizer(folder)


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign", "unpickled"])
def test_damaged_weights_are_refused(folder, sample, damage):
    from safetensors.torch import load_file, save_file

    one, weights = tokenizer(folder), folder / "model.safetensors"
    tensors = load_file(weights)
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "foreign":
        save_file({name: tensor for name, tensor in tensors.items() if not name.startswith("conv_pre")}, weights,
                  metadata={"format": "pt"})
    else:
        weights.unlink()
        if damage == "unpickled":
            torch.save(tensors, folder / "pytorch_model.bin")
    state = torch.get_rng_state()
    with pytest.raises(CheckpointError, match=r"the vocoder in .* cannot be loaded|there is no conv_pre"):
        one.decode(one.encode(sample))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("content", ["", "[1, 2]", "{"])
def test_a_damaged_configuration_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        tokenizer(folder)
