"""Picture files to tensors and back.

Reading: a file is recognised by its content, never by its name, and its size is checked before a single pixel is decoded.
What comes out is upright (EXIF orientation applied), opaque (transparency laid on white), in 8-bit RGB or in grey of 8 or
16 bits; colour profiles are not applied.

Writing: 8 bits a channel, with the sample's metadata as JSON: a PNG text entry, the EXIF user comment of the others.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch

# Each import makes one format known to Pillow; what is not imported here is not read. Pillow's full list has formats
# that start other programs.
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401
from torch import Tensor

from djepa.errors import MediaError, UsageError
from djepa.files import atomic_file
from djepa.modality import require_file

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 89_478_485  # where Pillow begins to warn of decompression bombs: a quarter of a gibibyte of RGB
MAX_SIDE = {"jpg": 65_500, "jpeg": 65_500, "webp": 16_383}  # what the formats can hold
MAX_EXIF = 65_000        # bytes: one JPEG segment

NOTE_KEY = "djepa"       # PNG text entry; key of the JSON in the EXIF comment of the other formats
EXIF_IFD, EXIF_ORIENTATION, EXIF_COMMENT = 0x8769, 0x0112, 0x9286
EXIF_ASCII = b"ASCII\0\0\0"  # the eight bytes that say how a comment is encoded

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read(path: Path, channels: Literal[1, 3] | None = None) -> tuple[Tensor, dict[str, Any]]:
    """The pixels of a picture file, float32 (c, h, w) in [-1, 1], and the metadata it was written with, if any.

    Arguments and errors are those of `decode`.
    """
    image, meta = decode(path, channels)
    return to_tensor(image), meta


def decode(path: Path, channels: Literal[1, 3] | None = None) -> tuple[Image.Image, dict[str, Any]]:
    """A picture file as a Pillow image of mode "RGB", "L", or "F" (16-bit grey scaled to 0..255), and its metadata.

    Args:
        path: the file; its extension does not matter. Of an animation, the first frame is read.
        channels: 1 for grey, 3 for RGB, None for grey where the file itself is stored as grey and RGB otherwise.

    Raises:
        MediaError: the file is missing, empty, no picture, damaged, cut short, or larger than `MAX_PIXELS`.
    """
    require_file(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise MediaError(f"Cannot open {str(path)!r}: {error.strerror}.") from error
    with file:
        try:
            encoded = _recognised(file, path)
            encoded.load()
            note, orientation = _note(encoded), _orientation(encoded)
            image = _flat(encoded, _is_grey(encoded, note) if channels is None else channels == 1)
        except MediaError:
            raise
        except Exception as error:  # given damaged data, decoders raise nearly anything
            raise MediaError(f"Cannot read {str(path)!r}: the picture is damaged or cut short "
                             f"({str(error) or type(error).__name__}).") from error
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    meta = note.get(NOTE_KEY)
    return image, meta if isinstance(meta, dict) else {}


def to_tensor(image: Image.Image) -> Tensor:
    """A Pillow image of mode "L", "RGB" or "F" (0..255) as float32 (c, h, w) in [-1, 1]."""
    pixels = torch.from_numpy(np.array(image)).reshape(image.height, image.width, -1)
    return pixels.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format, copy=True) \
                 .div_(127.5).sub_(1.0).clamp_(-1.0, 1.0)


def write(data: Tensor, path: Path, extension: str, meta: Mapping[str, Any]) -> Path:
    """Write a picture, all or nothing; the arguments and errors of `encode`.

    Raises:
        StorageError: the disk refused.
    """
    content = encode(data, extension, meta)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return path


def encode(data: Tensor, extension: str, meta: Mapping[str, Any]) -> bytes:
    """The content of a picture file.

    Args:
        data: floating point (c, h, w) with 1 or 3 channels; values outside [-1, 1] are clipped.
        extension: "png" or "webp" (both keep every 8-bit level), "jpg" or "jpeg" (quality 95, full colour resolution).
        meta: plain values, which `read` gives back.

    Raises:
        UsageError: not a picture, values that are not numbers, or metadata that the format cannot hold.
    """
    image = _to_image(data)
    limit = MAX_SIDE.get(extension)
    if limit is not None and max(image.size) > limit:
        raise UsageError(f"A {image.width}x{image.height} picture does not fit into a {extension} file, whose sides "
                         f"end at {limit} pixels; write a png.")
    content = io.BytesIO()
    if extension == "png":
        text = PngImagePlugin.PngInfo()
        text.add_itxt(NOTE_KEY, _json(meta, ensure_ascii=False))
        image.save(content, "PNG", pnginfo=text)
    elif extension == "webp":
        image.save(content, "WEBP", lossless=True, exif=_exif(meta, image))
    else:
        image.save(content, "JPEG", quality=95, subsampling=0, exif=_exif(meta, image))
    return content.getvalue()


def check_picture(data: Tensor) -> None:
    """Raise UsageError unless `data` has the shape and type of a picture."""
    if data.ndim != 3 or len(data) not in (1, 3) or 0 in data.shape or not data.is_floating_point():
        raise UsageError(f"A picture is a floating-point tensor (1 or 3 channels, height, width) in [-1, 1]; got "
                         f"{tuple(data.shape)} of {data.dtype}.")


def _recognised(file: IO[bytes], path: Path) -> ImageFile.ImageFile:
    """The file with its header read and its pixels not.

    Not through `Image.open`, which only warns of pictures that we refuse, or says nothing, by settings that belong to the
    whole process.
    """
    start = file.read(16)
    for name in FORMATS:
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(start) is True:
            file.seek(0)
            encoded = factory(file, "")  # no name, so that pixels are read and never mapped from the file
            width, height = encoded.size
            if width * height > MAX_PIXELS:
                raise MediaError(f"{str(path)!r} is too large: {width}x{height} = {width * height:,} pixels, and no more "
                                 f"than {MAX_PIXELS:,} are decoded. Make it smaller first.")
            return encoded
    raise MediaError(f"{str(path)!r} is no picture of a known kind ({', '.join(FORMATS)}): it begins with {start!r}.")


def _flat(image: Image.Image, grey: bool) -> Image.Image:
    """The picture without palette, transparency or inks."""
    if image.mode.startswith("I;16"):
        levels = np.array(image).astype(np.float32) / 257.0
        return Image.fromarray(levels) if grey else Image.fromarray(np.rint(levels).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if grey else "RGB")


def _is_grey(image: Image.Image, note: Mapping[str, Any]) -> bool:
    # WebP has no grey; a grey sample that was written as WebP says so in its note.
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I;16") or note.get("channels") == 1


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # pixels beside a damaged EXIF block are still a picture
        return 1


def _note(image: Image.Image) -> dict[str, Any]:
    """What `encode` wrote beside the pixels."""
    text = image.info.get(NOTE_KEY)
    if isinstance(text, str):
        return {NOTE_KEY: _parsed(text)}
    try:
        comment = image.getexif().get_ifd(EXIF_IFD).get(EXIF_COMMENT)
    except Exception:  # as above
        return {}
    if isinstance(comment, bytes) and comment.startswith(EXIF_ASCII):
        return _parsed(comment.removeprefix(EXIF_ASCII).decode("ascii", "replace"))
    return {}


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # someone else's text under our name
        return {}
    return value if isinstance(value, dict) else {}


def _to_image(data: Tensor) -> Image.Image:
    check_picture(data)
    pixels = data.detach().to("cpu", torch.float32)
    if bool(pixels.isnan().any()):
        raise UsageError(f"The picture holds {int(pixels.isnan().sum())} values that are not numbers (NaN); it cannot be "
                         f"written.")
    levels = ((pixels.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)


def _exif(meta: Mapping[str, Any], image: Image.Image) -> bytes:
    comment = _json({NOTE_KEY: dict(meta), "channels": len(image.getbands())}, ensure_ascii=True).encode("ascii")
    if len(comment) > MAX_EXIF:
        raise UsageError(f"The metadata takes {len(comment):,} bytes, and these files hold {MAX_EXIF:,}; write a png.")
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[EXIF_COMMENT] = EXIF_ASCII + comment
    return exif.tobytes()


def _json(meta: Mapping[str, Any], ensure_ascii: bool) -> str:
    try:
        return json.dumps(dict(meta), ensure_ascii=ensure_ascii)
    except (TypeError, ValueError) as error:
        raise UsageError(f"The metadata cannot be written with the picture: {error}. Plain values only: numbers, text, "
                         f"lists, dictionaries.") from error
