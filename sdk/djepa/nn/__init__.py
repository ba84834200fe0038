"""The network's parts: attention and its backends, positions, transformer blocks."""
