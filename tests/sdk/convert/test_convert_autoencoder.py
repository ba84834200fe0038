"""The autoencoder under MAR and D-JEPA becomes a folder that diffusers loads and that computes the same."""

import json

import golden_vectors
import pytest
import torch
from golden_autoencoder import Autoencoder
from safetensors.torch import load_file

from djepa.convert import convert
from djepa.errors import CheckpointError, UsageError


def tensors(path):
    return torch.load(path, weights_only=True)["model"]


def test_every_tensor_is_used_but_the_losses(published_autoencoder, tmp_path):
    report = convert(published_autoencoder, tmp_path / "out")
    source, written = tensors(published_autoencoder), load_file(tmp_path / "out" / "diffusion_pytorch_model.safetensors")
    assert report.kind == "kl16" and set(report.used) == set(source) - {"loss.logvar"}
    assert report.dropped == {"loss.logvar": "a loss of its training"}
    assert {name for names in report.used.values() for name in names} == set(written)
    assert all(torch.equal(source[name].flatten(), written[target].flatten()) for name, (target,) in report.used.items())


@pytest.mark.parametrize("sizes", [
    {"channels": (32, 64), "latents": 3},
    {"channels": (64, 32, 32), "blocks": 2, "latents": 4, "encoder_attention": (False, True, True),
     "decoder_attention": (True, False, False)},  # as latent diffusion: attention in the decoder, too
])
def test_diffusers_computes_the_same(sizes, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    options = {"blocks": 1, "encoder_attention": (False,) * 2, "decoder_attention": (False,) * 2, **sizes}
    generator = torch.Generator().manual_seed(3)
    plain = Autoencoder(**options).scatter(generator)
    torch.save({"state_dict": plain.state_dict()}, tmp_path / "vae.ckpt")
    convert(tmp_path / "vae.ckpt", tmp_path / "out")
    network = diffusers.AutoencoderKL.from_pretrained(tmp_path / "out", low_cpu_mem_usage=False)
    pixels, z = torch.randn(1, 3, 16, 24, generator=generator), torch.randn(1, options["latents"], 4, 6, generator=generator)
    with torch.no_grad():
        assert torch.allclose(network.encode(pixels).latent_dist.parameters, plain.moments(pixels), atol=1e-4)
        assert torch.allclose(network.decode(z).sample, plain.decoded(z), atol=1e-4)


def test_half_precision_becomes_single(published_autoencoder, tmp_path):
    torch.save({name: tensor.half() for name, tensor in tensors(published_autoencoder).items()}, tmp_path / "half.ckpt")
    convert(tmp_path / "half.ckpt", tmp_path / "out", kind="kl16")
    written = load_file(tmp_path / "out" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.float32}


def test_the_configuration_says_where_attention_is(published_autoencoder, tmp_path):
    convert(published_autoencoder, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["block_out_channels"] == [32, 32, 32, 64] and config["latent_channels"] == 2
    assert config["down_block_types"] == ["DownEncoderBlock2D"] * 2 + ["AttnDownEncoderBlock2D"] * 2
    assert config["up_block_types"] == ["UpDecoderBlock2D"] * 2 + ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"]
    assert config["scaling_factor"] == 0.2325


@pytest.mark.parametrize(("name", "changed", "words"), [
    ("encoder.norm_out.bias", None, "missing 'encoder.norm_out.bias'"),
    ("encoder.down.1.block.0.conv1.weight", torch.zeros(48, 32, 3, 3), "48 channels; its group norms need a multiple of 32"),
    ("decoder.up.0.block.1.conv2.weight", torch.zeros(32, 32, 1, 1), "'decoder.up.0.block.1.conv2.weight' has shape"),
    ("quant_conv.weight", torch.zeros(6, 4, 1, 1), "'quant_conv.weight' has shape"),
    ("encoder.down.2.attn.0.k.weight", None, "missing 'encoder.down.2.attn.0.k.weight'"),
    ("extra", torch.zeros(1), "unknown 'extra'"),
])
def test_tensors_that_do_not_fit_are_named(name, changed, words, published_autoencoder, tmp_path):
    state = {**tensors(published_autoencoder), name: changed}
    torch.save({key: tensor for key, tensor in state.items() if tensor is not None}, tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError, match=words):
        convert(tmp_path / "bad.ckpt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_is_not_overwritten_by_an_autoencoder(published, published_autoencoder, tmp_path):
    convert(published("mar"), tmp_path / "out")
    with pytest.raises(UsageError, match="choose a folder of its own"):
        convert(published_autoencoder, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_an_autoencoder_is_written_over_its_former_self(published_autoencoder, tmp_path):
    for _ in range(2):
        convert(published_autoencoder, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]


def test_golden_vectors_can_be_written_in_any_size(tmp_path):
    folder = golden_vectors.write_autoencoder(tmp_path / "kl", channels=(32,), latents=1, encoder_attention=(True,),
                                              decoder_attention=(True,))
    assert convert(folder / "kl16-tiny.ckpt", tmp_path / "out").sizes["channels"] == (32,)
