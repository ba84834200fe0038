"""A plugin that imports more than it needs to say what it offers."""

import numpy  # noqa: F401

from djepa.hookspecs import hookimpl


@hookimpl
def djepa_register_modalities(register):
    register("curve", "curves:Curve")
