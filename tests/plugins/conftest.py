"""Video files whose frames say which one they are."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

BITS, CELL = 8, 16        # a frame's number is written in so many squares of so many pixels, black or white
HEIGHT, WIDTH = 48, 128


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Frame `number`, uint8 (h, w, 3): its number above, something that moves below."""
    waves = np.sin(np.arange(width) / 9 + number / 5) + np.cos(np.arange(height)[:, None] / 7 - number / 4)
    pixels = np.stack([waves * 50 + 128, waves * -40 + 110, np.full_like(waves, 90)], axis=-1).astype(np.uint8)
    for bit in range(BITS):
        pixels[:CELL, bit * CELL:(bit + 1) * CELL] = 255 * (number >> bit & 1)
    return pixels


class VideoMaker:
    """Writes videos of numbered frames, and reads the numbers off them."""

    def write(self, path: Path, codec: str = "libx264", num_frames: int = 40, fps: float = 25,
              size: tuple[int, int] = (HEIGHT, WIDTH), times: list[int] | None = None, pix_fmt: str = "yuv420p",
              container: dict[str, str] | None = None, **options: str) -> Path:
        """A video with frames 0, 1, 2, ...; `times` are in milliseconds, `options` the encoder's."""
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w", options=container or {}) as file:
            stream = file.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
            stream.height, stream.width, stream.pix_fmt = size[0], size[1], pix_fmt
            stream.options = {name.replace("_", "-") if codec != "mpeg4" else name: value for name, value in options.items()}
            if times is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for number in range(num_frames):
                frame = av.VideoFrame.from_ndarray(picture(number, *size), "rgb24")
                frame.pts = number if times is None else times[number]
                frame.time_base = Fraction(1, 1000) if times is not None else 1 / stream.codec_context.framerate
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
        return path

    def sound(self, path: Path) -> Path:
        """A file with a sound in it and no video."""
        import av

        with av.open(str(path), "w") as file:
            stream = file.add_stream("aac", rate=48000, layout="mono")
            for _ in range(20):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                frame.sample_rate = 48000
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
        return path

    def numbers(self, frames: np.ndarray) -> list[int]:
        """Which frames these are, uint8 (t, h, w, c)."""
        middles = np.asarray(frames)[:, CELL // 2, CELL // 2::CELL, 0][:, :BITS] > 127
        return [int(sum(1 << bit for bit in range(BITS) if row[bit])) for row in middles]


@pytest.fixture(scope="session")
def videos() -> VideoMaker:
    return VideoMaker()
