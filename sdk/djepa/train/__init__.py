"""Training: one loop, whose every draw is a function of (seed, step, sample), so that a resumed run is the same run."""

from djepa.train.trainer import Trainer

__all__ = ["Trainer"]
