"""Datasets encoded once and trained from many times.

    index.py     what a cache is made from, and its shards: `index.json`
    loading.py   all views of examples, by several processes
    writing.py   `write_cache`: a dataset to shards; goes on where it was stopped
    reading.py   `Cached`: the shards as a dataset again; `check_cache`

A cache holds what the tokenizers' networks find in every example and every view of it (`Tokenizer.moments`), not tokens: these
are still drawn anew each time, and training takes the same steps as from the dataset itself.
"""

from __future__ import annotations

from djepa.cache.reading import Cached, check_cache
from djepa.cache.writing import Progress, write_cache

__all__ = ["Cached", "Progress", "check_cache", "write_cache"]
