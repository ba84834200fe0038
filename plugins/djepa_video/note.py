"""What is written beside the frames: the metadata of a sample, and what its format cannot say of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from djepa.errors import UsageError

KEY = "djepa"           # of the metadata in the JSON
RATE_TOLERANCE = 1e-3   # relative: a file that runs at another rate than its note says has been changed since


@dataclass(frozen=True)
class Note:
    """The note of a clip; where a file has none, one that says nothing.

    Attributes:
        meta: of the sample, its frame rate "fps" included.
        channels: of the sample.
        size: height and width of the sample.
        num_frames: of the sample.
    """

    meta: Mapping[str, Any] = field(default_factory=dict)
    channels: Literal[1, 3] | None = None
    size: tuple[int, int] | None = None
    num_frames: int | None = None

    def text(self) -> str:
        """As JSON, in ASCII.

        Raises:
            UsageError: the metadata is not made of plain values.
        """
        entries = {KEY: dict(self.meta), "channels": self.channels, "size": self.size, "num_frames": self.num_frames}
        try:
            return json.dumps(entries)
        except (TypeError, ValueError) as error:
            raise UsageError(f"The metadata cannot be written with the clip: {error}. Plain values only: numbers, text, lists, "
                             f"dictionaries.") from error

    @classmethod
    def parsed(cls, text: str) -> Note:
        """The note in a text, which anyone may have written."""
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError):
            return cls()
        if not isinstance(entries, dict) or not isinstance(entries.get(KEY), dict):
            return cls()
        channels, size, count = (entries.get(name) for name in ("channels", "size", "num_frames"))
        return cls(entries[KEY], channels if channels in (1, 3) else None, _pair(size), count if _is_count(count) else None)

    @property
    def fps(self) -> float | None:
        """The frame rate of the sample, if it is said and can be one."""
        fps = self.meta.get("fps")
        return float(fps) if isinstance(fps, int | float) and math.isfinite(fps) and fps > 0 else None

    def rate(self, measured: float) -> float:
        """The frame rate of the sample, exactly as it was, unless the file now runs at another."""
        return self.fps if self.fps and abs(self.fps / measured - 1.0) < RATE_TOLERANCE else measured

    def crop(self, height: int, width: int) -> tuple[int, int]:
        """How much of a frame of this size is the sample: odd sides were written with one more row or column."""
        return self.size if self.size and (height, width) == padded(*self.size) else (height, width)


def padded(height: int, width: int) -> tuple[int, int]:
    """The nearest size with even sides that holds this one: what colour at half the resolution can be stored with."""
    return height + height % 2, width + width % 2


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _pair(size: Any) -> tuple[int, int] | None:
    return (size[0], size[1]) if isinstance(size, list) and len(size) == 2 and all(map(_is_count, size)) else None
