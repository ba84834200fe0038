"""Bytes out of shards, which stay open while others are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from djepa.errors import MediaError

MAX_OPEN = 64  # shards


class OpenShards:
    """Shards that are opened when they are first read from, and closed when too many are open.

    Args:
        shards: their files.
        stats: size and time of the last change of each, when its members were found.
    """

    def __init__(self, shards: Sequence[Path], stats: Sequence[tuple[int, int]]) -> None:
        self._shards, self._stats = shards, stats
        self._open: dict[int, int] = {}

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Some bytes of a shard.

        Raises:
            MediaError: it is gone, was changed, or ends before they do.
        """
        try:
            content = os.pread(self._descriptor(number), size, offset)
        except OSError as error:
            raise MediaError(f"Cannot read the shard {str(self._shards[number])!r}: {error.strerror}.") from error
        if len(content) != size:
            raise MediaError(f"The shard {str(self._shards[number])!r} is cut short: it ends before byte {offset + size:,}.")
        return content

    def _descriptor(self, number: int) -> int:
        if number not in self._open:
            while len(self._open) >= MAX_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            descriptor = self._open[number] = os.open(self._shards[number], os.O_RDONLY)
            stat = os.fstat(descriptor)
            if (stat.st_size, stat.st_mtime_ns) != self._stats[number]:
                raise MediaError(f"The shard {str(self._shards[number])!r} was changed after its members had been found; what "
                                 f"reads it has to start again.")
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # open files stay in their process

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)
