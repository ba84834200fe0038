"""What ships with djepa keeps the contracts that it asks of others."""

import pytest

import djepa.testing
from djepa.plugins import host
from djepa.random import seeded
from djepa.testing.conformance.check import Check
from djepa.testing.conformance.selection import checks_of_plugin

OURS = [check for record in host().records if record.distribution == "djepa" for check in checks_of_plugin(record)]
FOLDERS = {  # datasets: what their files are, and settings that the examples of that modality are long enough for
    "image-folder": ("image", {"size": 16}),
    "video-folder": ("video", {"size": 16, "num_frames": 4}),
    "audio-folder": ("audio", {}),
}
WITH_SETTINGS = {*(f"dataset/{name}" for name in FOLDERS), "tokenizer/autoencoder"}  # checked below
ELSEWHERE = {f"dataset/{name}" for name in (  # layouts that their own tests make
    "imagenet", "ucf101", "ljspeech", "cached", "mixture", "webdataset", "huggingface")}


def ids(kind, name, **options):
    return [check.id for check in djepa.testing.checks(kind, name, **options)]


@pytest.mark.parametrize("check", [check for check in OURS if isinstance(check, Check)], ids=str)
def test_what_we_ship_keeps_its_contract(check):
    check.run()


def test_nothing_is_left_unchecked():
    assert {str(one.subject) for one in OURS if not isinstance(one, Check)} <= WITH_SETTINGS | ELSEWHERE


@pytest.fixture(scope="module")
def folder_checks(tmp_path_factory):
    """The checks of a dataset of files, by id: two classes of three examples each."""
    made = {}

    def checks(name):
        if name not in made:
            root, (kind, options) = tmp_path_factory.mktemp(name), FOLDERS[name]
            modality = host().get("modality", kind)()
            for seed in range(6):
                modality.save(modality.example(seed), root / "ab"[seed % 2] / f"{seed}.{modality.extensions[0]}")
            planned = djepa.testing.checks("dataset", name, options={"root": str(root), **options})
            made[name] = {check.id: check for check in planned}
        return made[name]

    return checks


@pytest.mark.parametrize(("name", "check"), [(name, check) for name in FOLDERS for check in ids("dataset", name)])
def test_folders_of_files_keep_their_contract(folder_checks, name, check):
    folder_checks(name)[check].run()


@pytest.fixture(scope="module")
def autoencoder_checks(tmp_path_factory):
    """The checks of the autoencoder tokenizer, by id, with a tiny network."""
    from diffusers import AutoencoderKL

    source = tmp_path_factory.mktemp("autoencoder")
    with seeded(0, "autoencoder"):
        network = AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4,
                                down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    network.save_pretrained(source)
    options = {"source": str(source), "patch": 2}
    return {check.id: check for check in djepa.testing.checks("tokenizer", "autoencoder", modality="image", options=options)}


@pytest.mark.parametrize("check", ids("tokenizer", "autoencoder", modality="image"))
def test_an_autoencoder_keeps_its_contract(autoencoder_checks, check):
    autoencoder_checks[check].run()
