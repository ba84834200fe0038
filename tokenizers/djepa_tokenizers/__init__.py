"""Networks and transforms between samples and tokens: no files and no hooks, but for `plugin.py`, which names them."""
