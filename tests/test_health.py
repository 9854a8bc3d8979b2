"""What is told of a stream key's upstream, as a table of events."""

import pytest

from trio_feed.core.health import Health

LOST, FLOWS = ("lost", "why"), ("flows", None)
MISSES = ("flows", (10, 30))
SPAN, HOLE = (10, 30), (15, 20)
LIVE = ("live",)
"""What comes first of all: who subscribed before it waits for it."""


def told(*events: tuple[str, object]) -> list[tuple[object, ...]]:
    """Each change in a word, with its span where it has one."""
    health, found = Health(), []
    for name, value in events:
        if name == "goes_on":
            health.goes_on = True
            continue
        for change in getattr(health, name)(value):
            found.append((str(change.state), *(() if change.span is None else (change.span,))))
    return found


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([FLOWS], [LIVE]),
        ([LOST, LOST, FLOWS], [LIVE]),
        ([FLOWS, LOST, LOST], [LIVE, ("stale",)]),
        ([FLOWS, LOST, FLOWS, FLOWS], [LIVE, ("stale",), ("live",)]),
        ([FLOWS, LOST, MISSES], [LIVE, ("stale",), ("repairing", SPAN)]),
        (
            [FLOWS, LOST, MISSES, ("reached", 20), ("reached", 30), ("reached", 40)],
            [LIVE, ("stale",), ("repairing", SPAN), ("repaired", SPAN)],
        ),
        (
            [FLOWS, LOST, MISSES, ("hole", HOLE), ("reached", 30)],
            [LIVE, ("stale",), ("repairing", SPAN), ("unrepairable", HOLE)],
        ),
        (
            [FLOWS, LOST, MISSES, ("hole", HOLE), ("hole", (22, 25)), ("reached", 30)],
            [LIVE, ("stale",), ("repairing", SPAN), ("unrepairable", (15, 25))],
        ),
        ([FLOWS, ("hole", HOLE), FLOWS], [LIVE, ("unrepairable", HOLE)]),
        ([("hole", HOLE), FLOWS], [LIVE]),
        ([("goes_on", True), ("hole", HOLE), FLOWS], [("unrepairable", HOLE), LIVE]),
        (
            [FLOWS, LOST, ("hole", HOLE), FLOWS],
            [LIVE, ("stale",), ("unrepairable", HOLE), ("stale",), ("live",)],
        ),
        ([MISSES, LOST, FLOWS, LOST], [LIVE, ("stale",), ("live",), ("stale",)]),
        (
            [FLOWS, LOST, MISSES, LOST, ("reached", 30), FLOWS],
            [LIVE, ("stale",), ("repairing", SPAN), ("stale",), ("live",)],
        ),
        (
            [FLOWS, LOST, MISSES, ("hole", HOLE), LOST, FLOWS],
            [LIVE, ("stale",), ("repairing", SPAN), ("unrepairable", HOLE), ("stale",), ("live",)],
        ),
        (
            [FLOWS, LOST, MISSES, ("reached", 30), LOST, FLOWS],
            [LIVE, ("stale",), ("repairing", SPAN), ("repaired", SPAN), ("stale",), ("live",)],
        ),
        (
            [FLOWS, ("hole", HOLE), LOST, FLOWS],
            [LIVE, ("unrepairable", HOLE), ("stale",), ("live",)],
        ),
    ],
)
def test_each_change_is_told_once_and_in_order(
    events: list[tuple[str, object]], expected: list[tuple[object, ...]]
) -> None:
    assert told(*events) == expected


def test_what_is_missing_is_known_only_while_it_is_repaired() -> None:
    health = Health()
    for name, value, missing in (
        (*FLOWS, None), (*LOST, None), (*MISSES, SPAN), (*LOST, None), (*MISSES, SPAN),
        ("reached", 30, None),
    ):  # fmt: skip
        getattr(health, name)(value)
        assert health.missing == missing
