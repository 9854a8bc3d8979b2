"""Where the reading of a chain goes on: what is written for the store and what clients know."""

import json

import pytest
from support.make import T0

from trio_feed.core.chain_cursor import ChainCursor, CursorKeeper
from trio_feed.model import Interval

CURSOR = ChainCursor("s9", 900, T0, T0 + 61_500, T0 - 5, ("A", "B"), told_slot=900)


def test_what_is_written_is_read_again() -> None:
    told = CURSOR.with_told({"x": 901})
    assert ChainCursor.parse(told.text()) == told
    assert told.last == ("s9", 900)


def test_a_cursor_of_before_knows_nothing_of_what_was_told() -> None:
    old = json.loads(CURSOR.text())
    del old["told_slot"], old["told"]
    old["bounds"] = [[T0, 900]]
    found = ChainCursor.parse(json.dumps(old))
    assert (found.told_slot, found.told, found.symbols) == (0, (), ("A", "B"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"signature": "s"}', "null", "7"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        ChainCursor.parse(text)


def test_of_what_was_told_only_later_slots_are_kept_by_name() -> None:
    told = CURSOR.with_told({"a": 899, "b": 900, "c": 901, "d": 902})
    assert told.told == ("c", "d")
    assert [told.was_told(name, slot) for name, slot in (("z", 900), ("c", 901), ("z", 901))] == [
        True, True, False,
    ]  # fmt: skip


def test_only_so_many_names_are_kept_and_the_latest() -> None:
    told = CURSOR.with_told({f"s{n}": 901 + n for n in range(2_500)}).told
    assert (len(told), told[0], told[-1]) == (2_000, "s500", "s2499")


def test_candles_are_certain_up_to_the_one_that_ran() -> None:
    assert CURSOR.made_anew_from(Interval.M1) == T0 + 60_000
    assert CURSOR.made_anew_from(Interval.S1) == T0 + 61_000


def test_it_covers_what_it_names_from_its_time_on() -> None:
    assert CURSOR.covers("A", T0 - 5)
    assert not CURSOR.covers("A", T0 - 6)
    assert not CURSOR.covers("C", T0)


def test_a_run_that_goes_on_counts_from_where_the_last_one_had_settled() -> None:
    """And not from when it began itself: what lies between would be made twice, or never."""
    keeper = CursorKeeper((Interval.M1,), last=CURSOR)
    found = keeper.settled(("s10", 910), [], T0 + 600_000, ("A", "B"))
    assert found is not None
    assert found.settled_ms == T0
