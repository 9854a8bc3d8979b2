"""Stretches of time that touch become one."""

import pytest

from trio_feed.core.spans import Span, joined


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((50, 60), [(10, 20), (30, 40), (50, 60)]),
        ((20, 25), [(30, 40), (10, 25)]),
        ((5, 10), [(30, 40), (5, 20)]),
        ((12, 15), [(30, 40), (10, 20)]),
        ((20, 30), [(10, 40)]),
        ((0, 99), [(0, 99)]),
        ((21, 29), [(10, 20), (30, 40), (21, 29)]),
    ],
)
def test_what_a_span_touches_becomes_one_with_it(span: Span, expected: list[Span]) -> None:
    assert joined([(10, 20), (30, 40)], span) == expected
