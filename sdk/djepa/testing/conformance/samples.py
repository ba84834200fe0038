"""What checks ask of samples, and what they make of them."""

from __future__ import annotations

from dataclasses import replace

import torch

from djepa.modality import Modality
from djepa.testing.conformance.check import require
from djepa.tokens import Sample


def check_sample(sample: Sample, modality: Modality, called: str) -> None:
    """Fail unless a sample is one of this modality."""
    require(isinstance(sample, Sample), f"{called} should be a Sample; it is {type(sample).__name__}.")
    require(sample.data.dtype == torch.float32, f"{called} should be float32; it is {sample.data.dtype}.")
    require(sample.data.ndim == 1 + len(modality.axes) and sample.data.numel() > 0,
            f"{called} has shape {sample.shape}; expected channels and then {[axis.name for axis in modality.axes]}.")
    require(bool(sample.data.isfinite().all()), f"{called} holds values that are not finite.")
    if modality.bounds is not None:
        low, high = float(sample.data.min()), float(sample.data.max())
        require(modality.bounds[0] <= low and high <= modality.bounds[1],
                f"{called} goes from {low:.4g} to {high:.4g}, outside of {modality.bounds}.")
    missing = [key for key in modality.required_meta if key not in sample.meta]
    require(not missing, f"{called} has no meta {missing}, which the modality requires.")
    for axis in modality.axes:
        require(axis.rate(sample.meta) > 0, f"{called}: the rate of axis {axis.name!r} should be above 0.")
    require(sample.modality == modality.name, f"{called} says its modality is {sample.modality!r}, not {modality.name!r}.")


def cut(sample: Sample, axis: int, size: int) -> Sample:
    """The first `size` steps of a sample along one of its axes."""
    return replace(sample, data=sample.data.narrow(1 + axis, 0, size).clone(), meta=dict(sample.meta))


def copied(sample: Sample) -> Sample:
    """The same sample in memory of its own."""
    return replace(sample, data=sample.data.clone(), meta=dict(sample.meta))
