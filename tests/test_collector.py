"""Garbage collection: how much of what lives is looked at in one go.  Objects are counted."""

import gc
from collections.abc import Iterator

import pytest

from trio_feed.collector import spare_collector

CLIENTS, OBJECTS = 2_000, 130
SHORT = 10_000
"""Objects; two to nine milliseconds."""


@pytest.fixture
def looked_at() -> Iterator[list[int]]:
    """Objects that each collection looked at, as a process has them that has started."""
    before, seen = gc.get_threshold(), []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            there = range(info["generation"] + 1)
            seen.append(sum(len(gc.get_objects(generation)) for generation in there))

    spare_collector()
    gc.callbacks.append(note)
    try:
        yield seen
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*before)
        gc.unfreeze()


def come() -> list[list[list[object]]]:
    return [[[] for _ in range(OBJECTS - 1)] for _ in range(CLIENTS)]


def test_no_collection_is_long_while_two_thousand_clients_come(looked_at: list[int]) -> None:
    """Everybody waits for it.  One of a million objects took 0.44 s."""
    clients = come()
    assert max(looked_at) <= SHORT < len(clients) * OBJECTS


def test_an_object_that_stays_is_looked_at_twice(looked_at: list[int]) -> None:
    """And not with every collection that follows."""
    clients = come()
    assert sum(looked_at) <= 2.5 * len(clients) * OBJECTS


def test_what_leaves_a_cycle_behind_is_found(looked_at: list[int]) -> None:
    before = gc.get_stats()[0]["collected"]
    for _ in range(SHORT):
        cycle: list[object] = []
        cycle.append(cycle)
    assert gc.get_stats()[0]["collected"] - before > SHORT / 2
