"""Small real data for the recipes that need some: pictures, clips, sounds, speech with its text, and an autoencoder."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from djepa import Sample

CLASSES = ("cats", "dogs")


def write_pictures(root: Path, classes: Sequence[str] = CLASSES, suffix: str = "png") -> Path:
    for number, name in enumerate([f"{name}/{file}" for name in classes for file in "ab"]):
        waves = torch.sin(torch.arange(40.0)[:, None] * (number + 1) / 9 + torch.arange(48.0) / 5).expand(3, -1, -1)
        Sample(waves, {}, "image").save(root / f"{name}.{suffix}")
    return root


def write_sound(path: Path, frequency: float, seconds: float, sample_rate: int) -> Path:
    times = torch.arange(int(seconds * sample_rate)) / sample_rate
    Sample(0.5 * torch.sin(2 * torch.pi * frequency * times)[None], {"sample_rate": sample_rate}, "audio").save(path)
    return path


def write_clip(path: Path, number: int, fps: float, num_frames: int = 20) -> Path:
    frames = torch.sin(torch.arange(float(num_frames))[:, None, None] / 3 + torch.arange(32.0)[:, None] / (number + 2)
                       + torch.arange(48.0) / 7)
    Sample(frames.expand(3, -1, -1, -1), {"fps": fps}, "video").save(path)
    return path


def write_speech(root: Path) -> Path:
    for number in range(4):
        write_sound(root / "wavs" / f"LJ001-{number:04d}.wav", 220.0 * (number + 1), 0.3 + 0.1 * number, 22050)
    rows = [f"LJ001-{number:04d}|The {number}th tone.|The tone number {number}.\n" for number in range(4)]
    (root / "metadata.csv").write_text("".join(rows))
    return root


def write_ucf101(root: Path) -> Path:
    names = [f"{name}/v_{name}_g01_c{take:02d}.avi" for name in ("Archery", "YoYo") for take in (1, 2)]
    for number, name in enumerate(names):
        clip = write_clip(root / "made" / f"{number}.mp4", number, 25)
        (root / "UCF-101" / name).parent.mkdir(parents=True, exist_ok=True)
        clip.rename(root / "UCF-101" / name)  # what is in it is told from its content
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Archery\n2 YoYo\n")
    (lists / "trainlist01.txt").write_text("".join(f"{name} {1 + number // 2}\n" for number, name in enumerate(names)))
    return root


def write_autoencoder(folder: Path) -> Path:
    """An AutoencoderKL of a few thousand parameters with KL-16's stride of 16."""
    from diffusers import AutoencoderKL

    levels = 5
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoencoderKL(in_channels=3, latent_channels=16, block_out_channels=(4,) * levels, norm_num_groups=2, sample_size=256,
                      down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
                      scaling_factor=0.2325).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def supplies(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """The overrides that give a recipe what only its user can: small real files, written when they are first asked for."""
    folder = tmp_path_factory.mktemp("supplies")
    made: dict[str, Path] = {}

    def there(name: str, write: Callable[[Path], object]) -> Path:
        if name not in made:
            made[name] = folder / name
            made[name].mkdir()
            write(made[name])
        return made[name]

    def sounds(root: Path) -> None:
        for number, name in enumerate(["low/a", "low/b", "high/a", "high/b"]):
            write_sound(root / f"{name}.wav", 200.0 * 2**number, 0.7, 24000)

    def clips(root: Path) -> None:
        for number, name in enumerate(["up/a", "up/b", "down/a", "down/b"]):
            write_clip(root / f"{name}.mp4", number, 8)

    def overrides(recipe: str) -> list[str]:
        match recipe.split("-")[0]:
            case "image/folder":
                return [f"data.root={there('pictures', write_pictures)}"]
            case "image/imagenet256":
                root = there("imagenet", lambda root: write_pictures(root / "train", ("n01440764", "n01443537"), "jpg"))
                return [f"data.root={root}",
                        f"model.streams.image.tokenizer.source={there('autoencoder', write_autoencoder)}"]
            case "audio/folder":
                return [f"data.root={there('sounds', sounds)}"]
            case "audio/ljspeech":
                return [f"data.root={there('speech', write_speech)}"]
            case "video/folder":
                return [f"data.root={there('clips', clips)}"]
            case "video/ucf101":
                return [f"data.root={there('ucf101', write_ucf101)}"]
        return []

    return overrides
