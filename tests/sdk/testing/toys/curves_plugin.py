"""The plugin of curves: light, as it has to be."""

from djepa.hookspecs import hookimpl


@hookimpl
def djepa_register_modalities(register):
    register("curve", "curves:Curve")


@hookimpl
def djepa_register_datasets(register):
    register("curves", "curves:Curves")
