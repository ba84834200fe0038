"""One check of one thing, and what became of it."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from djepa.testing.conformance.subject import Subject

Status = Literal["passed", "failed", "skipped", "expected-failure"]
Function = Callable[[Any], None]  # takes a subject; raises when the contract is not kept


class CheckFailed(AssertionError):
    """A contract is not kept; the message says in what."""


class NotApplicable(unittest.SkipTest):
    """There is nothing to check; the message says why. Test runners count it as a skipped test."""


class ExpectedFailure(NotApplicable):
    """The check failed, as its subject said it would."""


def require(kept: bool, otherwise: str) -> None:
    """Fail the check unless the contract is kept."""
    if not kept:
        raise CheckFailed(otherwise)


def one_line(error: BaseException) -> str:
    """An error as one line: its type, unless it is one of a check, and what it says."""
    text = " ".join(str(error).split())
    if isinstance(error, CheckFailed | NotApplicable):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@dataclass(frozen=True)
class Result:
    """What became of a check.

    Attributes:
        subject: what was checked, for example "modality/mocap".
        check: id of the check.
        status: "skipped" where it does not apply, "expected-failure" where the subject had said that it would fail.
        reason: of any status but "passed".
    """

    subject: str
    check: str
    status: Status
    reason: str = ""


@dataclass(frozen=True)
class Check:
    """One check of one subject; its text, which test runners show, names both.

    Attributes:
        subject: what is checked.
        function: how.
    """

    subject: Subject
    function: Function

    @property
    def id(self) -> str:
        """Name of the check: what `expected_failures` are listed by."""
        return id_of(self.function)

    def __str__(self) -> str:
        return f"{self.subject}:{self.id}"

    def run(self) -> None:
        """Check.

        Raises:
            CheckFailed: the contract is not kept, or a failure was expected and did not come.
            NotApplicable: there is nothing to check, or the failure was expected.
            Exception: whatever the subject raised where it should not have.
        """
        if self.id != "loads":
            self.subject.need()
        why = self.subject.expected_failures().get(self.id)
        if why is None:
            return self.function(self.subject)
        try:
            self.function(self.subject)
        except NotApplicable:
            raise
        except Exception as error:
            raise ExpectedFailure(f"{why} ({one_line(error)})") from error
        raise CheckFailed(f"It is expected to fail ({why}) and passes: take it off expected_failures.")

    def result(self) -> Result:
        """Check, and say what became of it."""
        status, reason = self._outcome()
        return Result(str(self.subject), self.id, status, reason)

    def _outcome(self) -> tuple[Status, str]:
        try:
            self.run()
        except ExpectedFailure as error:
            return "expected-failure", one_line(error)
        except unittest.SkipTest as error:
            return "skipped", one_line(error)
        except Exception as error:  # whatever a plugin makes of it
            return "failed", one_line(error)
        return "passed", ""


def id_of(function: Function) -> str:
    """The id of the check that a function is."""
    return function.__name__.replace("_", "-")
