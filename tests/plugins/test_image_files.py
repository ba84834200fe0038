"""Picture files: every kind read the same way, nothing lost that a format can hold, damage named."""

import io
import json
import os
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from djepa.errors import MediaError, StorageError, UsageError
from djepa_image.files import MAX_PIXELS, decode, encode, read, write

ANY_FILE = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
                     max_leaves=8)


def colour_pixels(height=24, width=16):
    """A smooth picture without any symmetry, uint8 (h, w, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([8 * y + x, 200 - 5 * x, 3 * y * x // 5 + 20], axis=-1).clip(0, 255).astype(np.uint8)


def as_tensor(pixels):
    """The documented scale: 0 is -1, 255 is 1."""
    pixels = torch.from_numpy(np.asarray(pixels).astype(np.float32))
    return (pixels if pixels.ndim == 3 else pixels[:, :, None]).permute(2, 0, 1) / 127.5 - 1.0


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def hollow_png(path, width, height):
    """A valid PNG of zeros, small on disk however large it claims to be."""
    packer, rows = zlib.compressobj(9), bytearray()
    for _ in range(height):
        rows += packer.compress(bytes(1 + width // 8))
    rows += packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", bytes(rows)) + chunk(b"IEND", b""))
    return path


# ---- reading

@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.jpg", "a.jpeg"])
def test_colour_files_of_every_kind(tmp_path, name):
    pixels = colour_pixels()
    Image.fromarray(pixels).save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {"quality": 98}))
    data, meta = read(tmp_path / name)
    assert (data.shape, data.dtype, meta) == ((3, 24, 16), torch.float32, {})
    torch.testing.assert_close(data, as_tensor(pixels), rtol=0, atol=0.12 if "j" in name else 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_content_decides_and_not_the_name(tmp_path, kind):
    Image.fromarray(colour_pixels()).save(tmp_path / "picture", kind)
    (tmp_path / "picture").rename(tmp_path / "picture.png")
    assert read(tmp_path / "picture.png")[0].shape == (3, 24, 16)


def test_grey_files_have_one_channel_unless_asked_otherwise(tmp_path):
    levels = colour_pixels()[:, :, 0]
    Image.fromarray(levels).save(tmp_path / "grey.png")
    Image.fromarray(colour_pixels()).save(tmp_path / "colour.png")
    assert torch.equal(read(tmp_path / "grey.png")[0], as_tensor(levels))
    assert torch.equal(read(tmp_path / "grey.png", 3)[0], as_tensor(levels).expand(3, -1, -1))
    grey = as_tensor(Image.fromarray(colour_pixels()).convert("L"))
    assert torch.equal(read(tmp_path / "colour.png", 1)[0], grey)


def test_sixteen_bit_grey_keeps_its_precision(tmp_path):
    levels = np.arange(0, 65536, 128, dtype=np.uint16).reshape(16, 32)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    data, _ = read(tmp_path / "deep.png")
    expected = torch.from_numpy(levels.astype(np.float32))[None] / 32767.5 - 1.0
    torch.testing.assert_close(data, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(read(tmp_path / "deep.png", 3)[0], expected.expand(3, -1, -1), rtol=0, atol=1 / 255)


def test_one_bit_pictures_are_black_and_white(tmp_path):
    Image.fromarray(np.eye(8, dtype=bool)).save(tmp_path / "bits.png")
    assert torch.equal(read(tmp_path / "bits.png")[0], (torch.eye(8) * 2 - 1)[None])


def test_inks_become_colours(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "inks.jpg", quality=98)
    red, green, blue = read(tmp_path / "inks.jpg")[0].mean(dim=(1, 2)).tolist()
    assert red > 0.9 and green < -0.9 and blue < -0.9


def clear(mode):
    """A red picture whose right half is transparent."""
    image = Image.new("RGBA", (8, 4), (255, 0, 0, 255))
    image.paste((0, 0, 255, 0), (4, 0, 8, 4))
    return image.convert(mode) if mode != "P" else image.quantize(4)


@pytest.mark.parametrize(("mode", "name", "left"), [
    ("RGBA", "a.png", [255, 0, 0]), ("RGBA", "a.webp", [255, 0, 0]), ("P", "a.png", [255, 0, 0]),
    ("RGBA", "a.gif", [255, 0, 0]), ("LA", "a.png", [76]),
])
def test_transparency_lies_on_white(tmp_path, mode, name, left):
    clear(mode).save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    data = (read(tmp_path / name)[0] + 1) * 127.5
    assert data[:, 0, 0].tolist() == pytest.approx(left, abs=0.01)
    assert data[:, 0, 7].tolist() == pytest.approx([255] * len(left), abs=0.01)


def test_a_transparent_colour_counts_too(tmp_path):
    Image.fromarray(np.array([[10, 200]], dtype=np.uint8)).save(tmp_path / "key.png", transparency=10)
    assert ((read(tmp_path / "key.png")[0] + 1) * 127.5).tolist() == [[[255, 200]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_pictures_are_upright(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(colour_pixels()).save(tmp_path / name, exif=exif)
    with Image.open(tmp_path / name) as image:
        expected = as_tensor(ImageOps.exif_transpose(image))
    assert torch.equal(read(tmp_path / name)[0], expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow says so, and goes on
def test_a_damaged_exif_block_does_not_cost_the_picture(tmp_path):
    Image.fromarray(colour_pixels()).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff junk")
    assert read(tmp_path / "a.jpg")[0].shape == (3, 24, 16)


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in "a.gif", "a.webp":
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert read(tmp_path / name)[0][:, 0, 0].tolist() == [1, -1, -1]


# ---- what is refused

@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_bomb_is_an_error_before_it_is_decoded(tmp_path, side):
    bomb = hollow_png(tmp_path / "bomb.png", side, side)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(MediaError) as caught:
        read(bomb)
    for word in ("bomb.png", f"{side * side:,}", f"{MAX_PIXELS:,}"):
        assert word in str(caught.value)


def test_the_size_is_judged_by_the_header_alone(tmp_path):
    bomb = hollow_png(tmp_path / "bomb.png", 20_000, 20_000)
    bomb.write_bytes(bomb.read_bytes()[:200])  # had it been decoded, it would be cut short instead
    with pytest.raises(MediaError, match="too large"):
        read(bomb)


@pytest.mark.parametrize("content", [b"hello, I am a text", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x00", b"RIFF\0\0\0\0WAVEfmt "])
def test_what_is_no_picture_is_an_error_whatever_its_name(tmp_path, content):
    (tmp_path / "text.png").write_bytes(content)
    with pytest.raises(MediaError, match=r"text\.png.*no picture"):
        read(tmp_path / "text.png")


def test_missing_empty_and_folders(tmp_path):
    (tmp_path / "empty.png").touch()
    for name, words in ("empty.png", "empty"), ("missing.png", "No such file"), ("", "Not a file"):
        with pytest.raises(MediaError, match=words):
            read(tmp_path / name)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("part", [0.9, 0.5, 0.1])
def test_a_picture_cut_short_is_an_error(tmp_path, kind, part):
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(content, kind)
    (tmp_path / "cut.png").write_bytes(content.getvalue()[:int(len(content.getvalue()) * part)])
    with pytest.raises(MediaError, match=r"cut\.png.*damaged or cut short"):
        read(tmp_path / "cut.png")


@pytest.mark.filterwarnings("ignore")
@ANY_FILE
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP"]), st.integers(0, 2**32))
def test_damage_never_surprises(tmp_path, kind, seed):
    draw, content = random.Random(seed), io.BytesIO()
    Image.fromarray(colour_pixels()).save(content, kind)
    damaged = bytearray(content.getvalue())
    for _ in range(draw.randint(1, 8)):
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
    (tmp_path / "damaged").write_bytes(damaged)
    try:
        data, meta = read(tmp_path / "damaged")
    except MediaError as error:
        assert "'damaged'" in str(error).replace(str(tmp_path) + "/", "")
    else:
        assert bool((data.abs() <= 1).all()) and isinstance(meta, dict)


# ---- writing

@ANY_FILE
@given(st.sampled_from(["png", "webp"]), st.sampled_from([1, 3]), st.integers(1, 12), st.integers(1, 12),
       st.dictionaries(st.text(max_size=6), PLAIN, max_size=3), st.integers(0, 1000))
def test_lossless_formats_keep_levels_and_metadata(tmp_path, extension, channels, height, width, meta, seed):
    levels = torch.randint(256, (channels, height, width), generator=torch.Generator().manual_seed(seed))
    data = levels / 127.5 - 1.0
    back, kept = read(write(data, tmp_path / f"a.{extension}", extension, meta))
    assert back.shape == data.shape
    torch.testing.assert_close(back, data, rtol=0, atol=1e-6)
    assert kept == meta


@pytest.mark.parametrize("extension", ["jpg", "jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_close_and_keeps_metadata(tmp_path, extension, channels):
    data, meta = as_tensor(colour_pixels())[:channels], {"prompt": "grün 🐈", "seed": 3, "nested": {"a": [1.5, None]}}
    back, kept = read(write(data, tmp_path / f"a.{extension}", extension, meta))
    torch.testing.assert_close(back, data, rtol=0, atol=0.12)
    assert kept == meta


def test_other_programs_can_read_the_metadata(tmp_path):
    for extension in "png", "jpg":
        write(torch.zeros(1, 4, 4), tmp_path / f"a.{extension}", extension, {"seed": 3})
    with Image.open(tmp_path / "a.png") as image:
        assert json.loads(image.info["djepa"]) == {"seed": 3}
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.getexif().get_ifd(0x8769)[0x9286].startswith(b"ASCII\0\0\0{")


@pytest.mark.parametrize("text", ["not json", "[1, 2]", "[" * 100_000, "3", '{"djepa": 4}'])
def test_foreign_text_under_our_name_is_left_alone(tmp_path, text):
    info = PngImagePlugin.PngInfo()
    info.add_text("djepa", text)
    Image.fromarray(colour_pixels()).save(tmp_path / "a.png", pnginfo=info)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + text[:1000].encode()
    Image.fromarray(colour_pixels()).save(tmp_path / "a.jpg", exif=exif)
    assert read(tmp_path / "a.jpg")[1] == {}
    assert read(tmp_path / "a.png")[1] == (json.loads(text) if text.startswith("{") else {})


def test_values_outside_the_range_are_clipped(tmp_path):
    data = torch.tensor([[[-9.0, -1.0, 0.999, 1.5, float("inf")]]])
    before = data.clone()
    assert read(write(data, tmp_path / "a.png", "png", {}))[0].flatten().tolist() == [-1, -1, 1, 1, 1]
    assert torch.equal(data, before)


@pytest.mark.parametrize("data", [
    torch.full((1, 4, 4), torch.nan), torch.zeros(2, 4, 4), torch.zeros(4, 4), torch.zeros(3, 0, 4),
    torch.zeros(3, 4, 4, dtype=torch.uint8),
])
def test_what_is_no_picture_is_not_written(tmp_path, data):
    write(torch.zeros(1, 2, 2), tmp_path / "a.png", "png", {"seed": 1})
    with pytest.raises(UsageError):
        write(data, tmp_path / "a.png", "png", {})
    assert read(tmp_path / "a.png")[1] == {"seed": 1}  # what was there is still there
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
def test_metadata_must_be_plain(extension):
    with pytest.raises(UsageError, match="Plain values"):
        encode(torch.zeros(1, 4, 4), extension, {"condition": torch.zeros(3)})


def test_what_a_format_cannot_hold_is_said_with_the_way_out():
    for data, extension, meta in ((torch.zeros(1, 1, 16_400), "webp", {}), (torch.zeros(1, 65_600, 1), "jpg", {}),
                                  (torch.zeros(1, 4, 4), "jpg", {"prompt": "a" * 70_000})):
        with pytest.raises(UsageError, match="write a png"):
            encode(data, extension, meta)


def test_a_disk_that_refuses_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        write(torch.zeros(1, 4, 4), tmp_path / "file" / "a.png", "png", {})


def test_half_precision_pictures_are_written(tmp_path):
    data = torch.linspace(-1, 1, 16).reshape(1, 4, 4).bfloat16()
    image, _ = decode(write(data, tmp_path / "a.png", "png", {}))
    assert image.size == (4, 4)
