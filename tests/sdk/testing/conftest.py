"""What tests of the conformance checks share: a kind of media that keeps its contracts, and many things that do not."""

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from djepa.hookspecs import hookimpl
from djepa.plugins import temporary

# Modules with names, so that processes started anew can import them.
sys.path.insert(0, str(Path(__file__).parent / "toys"))


class Offering:
    """A plugin that offers one class."""

    def __init__(self, kind, name, target):
        self.kind, self.name, self.target = kind, name, target

    def _offer(self, kind, register):
        if kind == self.kind:
            register(self.name, f"{self.target.__module__}:{self.target.__qualname__}")

    @hookimpl
    def djepa_register_modalities(self, register):
        self._offer("modality", register)

    @hookimpl
    def djepa_register_tokenizers(self, register):
        self._offer("tokenizer", register)

    @hookimpl
    def djepa_register_datasets(self, register):
        self._offer("dataset", register)

    @hookimpl
    def djepa_register_orders(self, register):
        self._offer("order", register)


@pytest.fixture(scope="session")
def offered():
    """Register a class for as long as a block runs."""
    @contextmanager
    def offer(kind, name, target):
        with temporary(Offering(kind, name, target), "offering"):
            yield

    return offer


@pytest.fixture
def curves():
    """The kind of media that keeps its contracts."""
    import curves_plugin

    with temporary(curves_plugin):
        yield
