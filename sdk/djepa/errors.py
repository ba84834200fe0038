"""What can go wrong, said so that the reader can mend it.

    DjepaError                     every error of ours; the command line prints it as one paragraph
    ├── UsageError                 the caller asked for something that cannot be (exit code 2)
    │   ├── UnknownNameError       a name nobody registered; suggests the nearest
    │   ├── RecipeError            all problems of a recipe at once
    │   ├── ConditionError         a condition the model does not know
    │   ├── LayoutError            a sample whose shape the tokenizer cannot divide
    │   ├── MediaError             a file that is damaged, too large or not what its name says
    │   └── CheckpointError        a model or run folder that is missing, torn or does not fit
    ├── PluginError                a plugin that failed to load or to keep its contract
    ├── StorageError               the disk is full or refuses to be written
    └── TrainingError              a run that cannot go on (the loss is no longer finite)
        ├── PeerError              another process of the run failed, and has said why
        └── RunStopped             not an error: the run was asked to stop, and has saved itself (exit code 75)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DjepaError(Exception):
    """Every error this package raises on purpose."""

    exit_code = 1


class UsageError(DjepaError, ValueError):
    """The caller asked for something that cannot be."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that nobody registered."""


class RecipeError(UsageError):
    """A recipe that does not fit its schema."""


class ConditionError(UsageError):
    """A condition that the model does not know."""


class LayoutError(UsageError):
    """A sample whose shape the tokenizer cannot divide into tokens."""


class MediaError(UsageError):
    """A media file that cannot be read: damaged, too large, or not what its name says."""


class CheckpointError(UsageError):
    """A model or run folder that is missing, torn, or does not fit the model."""


class PluginError(DjepaError):
    """A plugin that failed to load or broke its contract."""


class StorageError(DjepaError):
    """The file system refused to take what we wrote."""


class TrainingError(DjepaError):
    """A training run that cannot go on."""


class PeerError(TrainingError):
    """Another process of a run failed; that one says why."""


class RunStopped(TrainingError):
    """A run that was asked to stop (SIGTERM, SIGUSR1) and can be resumed from the checkpoint that it left."""

    exit_code = 75  # EX_TEMPFAIL: "try again later"


class ExtrapolationWarning(UserWarning):
    """Something is asked of a model that is far from what it was trained on."""


def suggest(name: object, known: Iterable[object]) -> str:
    """The end of an error message about an unknown name: the nearest known ones, and what there is.

    >>> suggest("gausian", ["gaussian", "flow"])
    "Did you mean 'gaussian'? Known: flow, gaussian."
    """
    options = sorted({str(option) for option in known})
    near = difflib.get_close_matches(str(name), options, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(repr(option) for option in near)}? " if near else ""
    listed = ", ".join(options[:20]) + (f", ... ({len(options)} in all)" if len(options) > 20 else "")
    return f"{hint}Known: {listed or 'none'}."
