"""Recipes of small evaluations."""

import pytest


@pytest.fixture(scope="session")
def small(make_recipe):
    """A recipe whose evaluation takes a second, with further overrides."""
    return lambda *overrides: make_recipe("evaluate.num_samples=80", "evaluate.num_real=100", "evaluate.num_groups=4",
                                          *overrides)
