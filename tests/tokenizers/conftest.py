"""What tests of autoencoders share: a tiny one with random weights, in a folder as diffusers writes it."""

import shutil

import pytest
import torch

from djepa.tokens import Axis, MediaSpec, Sample

PICTURES = MediaSpec(3, (Axis("y", "px"), Axis("x", "px")))


def tiny_config(levels=2, **changes):
    """AutoencoderKL of 15,000 parameters with a stride of 2."""
    return {"in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": [8] * levels,
            "down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels,
            "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 16, "scaling_factor": 0.5, "shift_factor": 0.25,
            **changes}


def write_autoencoder(folder, config):
    from diffusers import AutoencoderKL

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AutoencoderKL.from_config(config)
        for parameter in network.parameters():  # biases start at zero and norms at one: let every parameter tell
            parameter.data += 0.05 * torch.randn_like(parameter)
        network.quant_conv.bias.data[config["latent_channels"]:] -= 1.0  # a spread that is neither nothing nor everything
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def saved_autoencoder(tmp_path_factory):
    """The folder of the tiny autoencoder; not to be changed."""
    return write_autoencoder(tmp_path_factory.mktemp("autoencoder") / "tiny", tiny_config())


@pytest.fixture
def own_autoencoder(saved_autoencoder, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(saved_autoencoder, tmp_path / "own")


@pytest.fixture(scope="session")
def network(saved_autoencoder):
    """The same autoencoder as diffusers runs it."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(saved_autoencoder, low_cpu_mem_usage=False).eval().requires_grad_(False)


@pytest.fixture
def autoencoder(saved_autoencoder):
    """The tokenizer, with any options."""
    from djepa_tokenizers.autoencoder import Autoencoder

    return lambda **options: Autoencoder(PICTURES, **{"source": str(saved_autoencoder), **options})


@pytest.fixture(scope="session")
def config():
    return tiny_config


@pytest.fixture(scope="session")
def write_folder():
    return write_autoencoder


@pytest.fixture(scope="session")
def picture():
    """A picture of smooth colours and some noise."""
    def make(height=16, width=16, seed=0):
        y, x = torch.meshgrid(torch.arange(height) / 8, torch.arange(width) / 8, indexing="ij")
        smooth = torch.stack([(y + seed).sin(), (x * 1.3).cos(), (x + y + seed).sin()])
        noise = torch.rand(smooth.shape, generator=torch.Generator().manual_seed(seed)) - 0.5
        return Sample((0.7 * smooth + 0.4 * noise).clamp(-1, 1), {"file": f"{seed}.png"}, "image")

    return make
