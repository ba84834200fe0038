"""What ships for checking rather than for use.

    checks("modality", "mocap")            whether a plugin keeps its contracts: see `djepa.testing.conformance`
    python -m djepa.testing.golden DIR     compare with recorded numbers of the reference implementations
"""

from __future__ import annotations

from djepa.testing.conformance import Check, CheckFailed, ExpectedFailure, NotApplicable, Result, checks

__all__ = ["Check", "CheckFailed", "ExpectedFailure", "NotApplicable", "Result", "checks"]
