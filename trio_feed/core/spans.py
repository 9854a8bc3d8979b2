"""Stretches of time of which something is missing.  Pure."""

from collections.abc import Iterable

Span = tuple[int, int]
"""[first, until), unix ms."""


def joined(spans: Iterable[Span], span: Span) -> list[Span]:
    """The spans with one more; those that it touches become one with it."""
    low, high = span
    apart = []
    for each in spans:
        if each[0] <= high and low <= each[1]:
            low, high = min(low, each[0]), max(high, each[1])
        else:
            apart.append(each)
    return [*apart, (low, high)]
