"""Checks that a plugin keeps the contracts of djepa: shipped, so that authors run them on their own.

In a test, one test per check:

    import djepa.testing, pytest

    @pytest.mark.parametrize("check", djepa.testing.checks("modality", "mocap"), ids=str)
    def test_it_keeps_its_contract(check):
        check.run()

On the command line: ``djepa plugins check mocap``. Both import nothing of a test framework.

A class may say which checks it is known to fail, and why: ``expected_failures = {"files-come-back": "the format keeps no
metadata"}``. Such a check has to fail: when it passes, the entry has become wrong, and that is a failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from djepa.errors import UsageError, suggest
from djepa.plugins import KINDS
from djepa.testing.conformance import (
    dataset,
    learning,
    modality_files,
    tokenizer_places,
    tokenizer_state,
    tokenizer_values,
)
from djepa.testing.conformance import modality as modality_checks
from djepa.testing.conformance.check import Check, CheckFailed, ExpectedFailure, Function, NotApplicable, Result
from djepa.testing.conformance.subject import GENERAL, Subject
from djepa.testing.conformance.tokenizer_subject import TokenizerSubject

__all__ = ["Check", "CheckFailed", "ExpectedFailure", "NotApplicable", "Result", "checks"]

FUNCTIONS: dict[str, tuple[Function, ...]] = {
    "modality": modality_checks.FUNCTIONS + modality_files.FUNCTIONS,
    "tokenizer": tokenizer_values.FUNCTIONS + tokenizer_places.FUNCTIONS + tokenizer_state.FUNCTIONS + learning.FUNCTIONS,
    "dataset": dataset.FUNCTIONS,
}
SUBJECTS: dict[str, type[Subject]] = {"modality": modality_checks.ModalitySubject, "dataset": dataset.DatasetSubject}


def checks(
    kind: str, name: str, *, options: Mapping[str, Any] | None = None, modality: str | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> list[Check]:
    """The checks of one contribution; nothing is imported before the first of them runs.

    Args:
        kind: "modality", "tokenizer", "dataset" and so on. Of kinds without checks of their own, that they load.
        name: as registered.
        options: of a tokenizer or dataset, what a recipe would give beside `kind`.
        modality: of a tokenizer, whose examples it is to be checked on.
        expected_failures: why a check is known to fail, by its id, beside those that the class declares.

    Raises:
        UsageError: there is no such kind, it has no options, an expected failure is of no check, or a tokenizer comes without a
            modality.
    """
    if kind not in KINDS.values():
        raise UsageError(f"There is no kind {kind!r} of contributions to check. {suggest(kind, KINDS.values())}")
    if (modality is not None) != (kind == "tokenizer"):
        raise UsageError("A tokenizer is checked on a modality, say which: checks('tokenizer', NAME, modality=...)."
                         if modality is None else f"A {kind} is not checked on a modality; leave out {modality!r}.")
    if options and kind not in ("tokenizer", "dataset"):
        raise UsageError(f"A {kind} is checked without options; leave out {', '.join(options)}.")
    expected = expected_failures or {}
    subject = (SUBJECTS.get(kind, Subject)(kind, name, options or {}, expected) if modality is None
               else TokenizerSubject(name, modality, options or {}, expected))
    made = [Check(subject, function) for function in (*GENERAL, *FUNCTIONS.get(kind, ()))]
    subject.check_ids = frozenset(check.id for check in made)
    for unknown in expected.keys() - subject.check_ids:
        raise UsageError(f"There is no check {unknown!r} that could be expected to fail. {suggest(unknown, subject.check_ids)}")
    return made
