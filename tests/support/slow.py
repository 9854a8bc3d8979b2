"""Which cases of a test only ``scripts/test --all`` runs; see the marker in pyproject.toml."""

from collections.abc import Iterable
from typing import Any

import pytest


def but_slow(cases: Iterable[Any], quick: Iterable[Any]) -> list[Any]:
    """Parameters of a test: ``cases``, of which those that are not ``quick`` are marked."""
    always = [*quick]
    return [c if c in always else pytest.param(c, marks=pytest.mark.slow) for c in cases]
