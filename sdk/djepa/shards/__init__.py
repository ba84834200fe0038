"""Examples in tar shards, in the layout of WebDataset: the members of an example lie side by side and share a name.

    tar.py       the members of an archive, and where they lie
    index.py     a shard's members by example, found once and kept beside it
    layout.py    streams and conditions by the extensions of members
    selection.py which shards are meant
    reading.py   bytes out of shards
    dataset.py   WebDataset: the shards as numbered examples

A shard is uncompressed, so that any member is read without the others: examples are numbered like those of a folder, and a run
goes on within a shard exactly where it was.
"""

from __future__ import annotations

from djepa.shards.dataset import WebDataset

__all__ = ["WebDataset"]
