"""Which cases of a test only ``scripts/test --all`` runs; see the marker in pyproject.toml."""

from collections.abc import Iterable
from typing import Any

import pytest


def but_slow(cases: Iterable[Any], quick: Iterable[Any]) -> list[Any]:
    """Parameters of a test: ``cases``, of which those that are not ``quick`` are marked.  A case of
    several arguments is a tuple."""
    always = [*quick]
    return [c if c in always else _slow(*(c if isinstance(c, tuple) else (c,))) for c in cases]


def _slow(*arguments: Any) -> Any:
    return pytest.param(*arguments, marks=pytest.mark.slow)
