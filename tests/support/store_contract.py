"""What every store answers, as checks that run on each of them.

``tests/test_store.py`` runs them on memory in virtual time, ``tests/live/test_store_contract.py``
on SQLite: with everything unwritten, and with everything on the disk.
"""

from collections.abc import Awaitable, Callable
from decimal import Decimal

from attrs import evolve, frozen

from trio_feed.model import Hole, Interval, Kline, Series
from trio_feed.settings.fields import Duration
from trio_feed.store import KlineStore, StoredEnd

from .make import MINUTE, SERIES, T0, kline, message

OTHER = Series("okx", "ETHUSDT", Interval.H1)
STRANGER = Series("binance_usdm", "ETHUSDT", Interval.M1)
KEEP = {Interval.M1: Duration("1h")}
"""Every store of a kit keeps minutes for an hour."""
EPOCH = 5_000


@frozen
class Kit:
    """A store with epoch EPOCH or larger.  ``written``: as much as this kind of store writes in
    between is on the disk; ``retain``: all is, and retention has been applied."""

    store: KlineStore
    written: Callable[[], Awaitable[None]]
    retain: Callable[[], Awaitable[None]]

    def put(
        self,
        n: int,
        offset: int,
        close: str = "100.50",
        *,
        series: Series = SERIES,
        revision: bool = False,
        received_ms: float | None = None,
    ) -> Kline:
        """A candle of minute ``n``."""
        row = kline(T0 + n * MINUTE, close)
        sent = message(row, series, epoch=self.store.epoch, offset=offset)
        at = sent.received_ms if received_ms is None else received_ms
        self.store.put(evolve(sent, revision=revision, received_ms=at))
        return row

    async def opens(self, series: Series = SERIES, **where: int) -> list[int]:
        found = await self.store.history(series, **{"limit": 500, **where})
        return [(k.open_ms - T0) // MINUTE for k in found]

    async def after(
        self, offset: int, *, epoch: int | None = None, limit: int = 100
    ) -> list[tuple[int, int, str, bool]] | None:
        """(minute, offset, close, whether a revision)"""
        epoch = self.store.epoch if epoch is None else epoch
        found = await self.store.after(SERIES, epoch, offset, limit=limit)
        if found is None:
            return None
        assert all(m.received_ms == 0 and m.epoch == epoch for m in found)
        return [
            ((m.kline.open_ms - T0) // MINUTE, m.offset, str(m.kline.close), m.revision)
            for m in found
        ]


async def history_by_range_and_limit(kit: Kit) -> None:
    for offset, n in enumerate((3, 1, 0, 2, 4)):
        kit.put(n, offset + 1)
        await kit.written()
    at = [T0 + n * MINUTE for n in range(6)]
    assert await kit.opens() == [0, 1, 2, 3, 4]
    assert await kit.opens(limit=2) == [3, 4]
    assert await kit.opens(end_ms=at[2]) == [0, 1]
    assert await kit.opens(limit=1, end_ms=at[2]) == [1]
    assert await kit.opens(limit=2, start_ms=at[1]) == [1, 2]
    assert await kit.opens(limit=2, start_ms=at[0], end_ms=at[4]) == [2, 3]
    assert await kit.opens(start_ms=at[2], end_ms=at[2]) == []
    assert await kit.store.first_open(SERIES) == T0


async def strangers_have_nothing(kit: Kit) -> None:
    kit.put(0, 1)
    await kit.written()
    assert await kit.opens(STRANGER) == []
    assert await kit.store.first_open(STRANGER) is None
    assert await kit.store.after(STRANGER, kit.store.epoch, 0, limit=5) == []
    assert await kit.store.revisions(STRANGER, limit=5) == []


async def all_twelve_columns_come_back_digit_by_digit(kit: Kit) -> None:
    largest = str(2**128 - 1)
    rows = [
        evolve(
            kline(),
            open=Decimal(largest),
            high=Decimal(f"{largest}.{'1' * 18}"),
            low=Decimal("0.000000000000000000000000000001"),
            close=Decimal("85000.10"),
            volume=Decimal("0E-8"),
            taker_buy_volume=Decimal("0.5000"),
            taker_buy_quote_volume=Decimal("75.10"),
            first_trade_id=2**63 - 1,
            last_trade_id=0,
            last_stream_id=77,
            complete=False,
        ),
        kline(T0 + MINUTE),
    ]
    for offset, row in enumerate(rows):
        kit.store.put(message(row, epoch=kit.store.epoch, offset=offset + 1))
    await kit.written()
    found = await kit.store.history(SERIES, limit=5)
    assert found == rows
    assert [format(k.close, "f") for k in found] == ["85000.10", "100.50"]
    assert (found[1].first_trade_id, found[1].taker_buy_volume) == (None, None)


async def the_same_candle_twice_is_one_row_with_the_later_values(kit: Kit) -> None:
    """Its number stays."""
    kit.put(0, 3, "1.5")
    await kit.written()
    kit.put(0, 9, "1.6")
    await kit.written()
    (row,) = await kit.store.history(SERIES, limit=10)
    assert str(row.close) == "1.6"


async def a_candle_that_comes_again_before_it_was_written_counts_once(kit: Kit) -> None:
    kit.put(0, 1)
    kit.put(1, 2)
    kit.put(0, 3, "7.0")
    await kit.retain()
    assert dict(kit.store.statistics().sizes.rows) == {Interval.M1: 2}


async def tails_say_where_series_end(kit: Kit) -> None:
    kit.put(1, 4)
    await kit.written()
    kit.put(0, 5)
    last = evolve(kline(T0 + 2 * MINUTE), last_stream_id=70)
    kit.store.put(message(last, epoch=kit.store.epoch, offset=9))
    newest = kit.put(3, 10)
    await kit.written()
    expected = StoredEnd(newest, newest.open_ms, T0, 70)
    assert await kit.store.stored_ends() == {SERIES: expected}
    kit.put(3, 11, "101.00", revision=True)
    await kit.written()
    assert str((await kit.store.stored_ends())[SERIES].kline.close) == "101.00"


async def tails_of_some_series(kit: Kit) -> None:
    for series in (SERIES, STRANGER, OTHER):
        kit.put(0, 1, series=series)
    await kit.written()

    async def of(venue: str | None, symbols: list[str] | None) -> set[Series]:
        return set(await kit.store.stored_ends(venue, symbols))

    assert await of(None, None) == {SERIES, STRANGER, OTHER}
    assert await of("binance_usdm", None) == {SERIES, STRANGER}
    assert await of("binance_usdm", ["ETHUSDT", "XRPUSDT"]) == {STRANGER}
    assert await of("binance_usdm", []) == set()
    assert await of(None, ["ETHUSDT"]) == {STRANGER, OTHER}
    assert await of("okx", ["BTCUSDT"]) == set()


async def holes_settle(kit: Kit) -> None:
    """Also before the first candle; what was settled stays so."""
    kit.store.put_hole(SERIES, Hole(T0, T0 + 5 * MINUTE))
    await kit.written()
    assert await kit.store.stored_ends() == {}
    assert await kit.store.first_open(SERIES) is None
    kit.put(2, 1)
    await kit.written()
    kit.store.put_hole(SERIES, Hole(T0, T0 + 3 * MINUTE))
    await kit.written()
    stored_end = (await kit.store.stored_ends())[SERIES]
    assert stored_end.settled_ms == T0 + 5 * MINUTE
    kit.put(6, 2)
    await kit.written()
    assert (await kit.store.stored_ends())[SERIES].settled_ms == T0 + 6 * MINUTE


async def what_was_published_after_a_number(kit: Kit) -> None:
    for n, offset in ((0, 3), (1, 7), (2, 9)):
        kit.put(n, offset)
        await kit.written()
    kit.put(1, 12, "100.75", revision=True)
    await kit.written()
    rest = [(1, 7, "100.75", False), (2, 9, "100.50", False), (1, 12, "100.75", True)]
    assert await kit.after(5) == rest
    assert await kit.after(3) == rest
    assert await kit.after(2) == [(0, 3, "100.50", False), *rest]
    assert await kit.after(7) == rest[1:]
    assert await kit.after(9) == rest[2:]
    assert await kit.after(12) == []
    assert await kit.after(5, limit=3) == rest
    assert await kit.after(5, limit=2) is None
    assert await kit.after(0, epoch=kit.store.epoch + 1) is None


async def a_revision_of_an_unknown_candle_is_one_message(kit: Kit) -> None:
    kit.put(1, 7)
    kit.put(0, 8, "1.5", revision=True)
    await kit.written()
    assert await kit.after(7) == [(0, 8, "1.5", True)]
    assert await kit.opens() == [0, 1]


async def a_candle_that_comes_late_or_again_is_in_no_partial_answer(kit: Kit) -> None:
    kit.put(0, 1)
    kit.put(3, 2)
    kit.put(1, 3)
    kit.put(4, 4)
    await kit.written()
    whole = [(1, 3, "100.50", False), (4, 4, "100.50", False)]
    assert await kit.after(2) in (None, whole)
    assert await kit.after(3) == whole[1:]
    kit.put(4, 5, "7.0")
    await kit.written()
    assert await kit.after(4) in (None, [(4, 5, "7.0", False)])
    assert await kit.after(5) == []


async def what_was_never_published_is_in_no_answer(kit: Kit) -> None:
    """History that is fetched, and silent candles of a chain: numbered 0."""
    for n in (10, 11, 12, 13):
        kit.put(n, n - 9)
    await kit.written()
    for n in (3, 4, 5):  # older than the first
        kit.put(n, 0)
    kit.put(14, 0)  # and one behind the last
    assert await kit.after(2) == [(12, 3, "100.50", False), (13, 4, "100.50", False)]
    assert await kit.after(4) == []
    await kit.written()
    assert await kit.after(2) == [(12, 3, "100.50", False), (13, 4, "100.50", False)]
    assert await kit.after(4) == []
    assert await kit.opens() == [3, 4, 5, 10, 11, 12, 13, 14]
    kit.put(15, 5)
    await kit.written()
    assert await kit.after(3) == [(13, 4, "100.50", False), (15, 5, "100.50", False)]
    kit.put(12, 0)  # keeps the number that it was published with
    await kit.written()
    assert (await kit.after(2) or [])[0] == (12, 3, "100.50", False)
    kit.put(14, 6, "102.50")  # it came late: on the disk no answer spans it
    await kit.written()
    assert await kit.after(5) in (None, [(14, 6, "102.50", False)])
    assert await kit.after(6) == []


async def revisions_keep_when_and_what_was_before(kit: Kit) -> None:
    first = kit.put(0, 1, "1.0")
    await kit.written()
    second = kit.put(0, 2, "2.0", revision=True, received_ms=T0 + 500.5)
    kit.put(1, 3)
    kit.put(0, 4, "3.0", revision=True, received_ms=T0 + 900)
    kit.put(2, 5, revision=True, received_ms=T0 + 950)
    found = await kit.store.revisions(SERIES, limit=5)
    assert [(r.open_ms, r.offset, r.learned_ms, r.before) for r in found] == [
        (T0, 2, T0 + 500, first),
        (T0, 4, T0 + 900, second),
        (T0 + 2 * MINUTE, 5, T0 + 950, None),
    ]
    assert {r.epoch for r in found} == {kit.store.epoch}
    assert await kit.store.revisions(SERIES, limit=1) == found[:1]
    assert await kit.store.revisions(SERIES, start_ms=T0 + 1, limit=5) == found[2:]
    assert await kit.store.revisions(SERIES, end_ms=T0 + MINUTE, limit=5) == found[:2]


async def numbers_beyond_64_bits_are_refused_alone(kit: Kit) -> None:
    kit.put(0, 1)
    good = kline(T0 + MINUTE)
    for name, value in (
        ("trades", 2**63),
        ("event_ms", 2**70),
        ("open_ms", -(2**63) - 1),
        ("last_stream_id", 2**63),
        ("first_trade_id", 2**64),
        ("last_trade_id", 2**63),
        ("close", Decimal("NaN")),
        ("taker_buy_volume", Decimal("Infinity")),
    ):
        bad = evolve(good, **{name: value})
        kit.store.put(message(bad, epoch=kit.store.epoch, offset=2))
    kit.store.put(evolve(message(good, epoch=kit.store.epoch, offset=2), received_ms=float("inf")))
    kit.store.put(message(good, epoch=kit.store.epoch, offset=2**63))
    kit.store.put_hole(SERIES, Hole(T0, 2**63))
    kit.put(2, 3)
    await kit.written()
    assert await kit.opens() == [0, 2]
    assert kit.store.statistics().refused == 11
    assert (await kit.store.stored_ends())[SERIES].settled_ms == T0 + 2 * MINUTE
    # Nobody is given an answer that leaves the refused candle out.
    assert await kit.after(1) is None
    assert await kit.after(2) == [(2, 3, "100.50", False)]


async def retention_deletes_what_is_too_old(kit: Kit) -> None:
    for n in range(100):
        kit.put(n, n + 1)
    kit.put(5, 101, "7.0", revision=True)
    kit.put(95, 102, "8.0", revision=True)
    kit.put(0, 1, series=OTHER, received_ms=T0 + 101 * MINUTE)
    kit.store.put_hole(SERIES, Hole(T0 + 100 * MINUTE, T0 + 110 * MINUTE))
    await kit.retain()
    # The newest candle opened at minute 99; an hour before that is minute 39.
    assert await kit.opens() == [*range(39, 100)]
    assert await kit.store.first_open(SERIES) == T0 + 39 * MINUTE
    stored_end = (await kit.store.stored_ends())[SERIES]
    assert (stored_end.first_open_ms, stored_end.settled_ms) == (
        T0 + 39 * MINUTE,
        T0 + 110 * MINUTE,
    )
    assert await kit.opens(OTHER) == [0]
    assert [r.offset for r in await kit.store.revisions(SERIES, limit=5)] == [102]
    assert kit.store.statistics().pruned == 39
    assert dict(kit.store.statistics().sizes.rows) == {Interval.M1: 61, Interval.H1: 1}
    await kit.retain()
    assert kit.store.statistics().pruned == 39  # nothing more was too old
    # Numbers up to 101 belong to something that is gone.
    assert await kit.after(100) is None
    assert await kit.after(101) == [(95, 102, "8.0", True)]


async def no_clock_deletes_the_last_hour(kit: Kit) -> None:
    """Neither ours, years ahead, nor the time of one candle that is."""
    kit.put(0, 1)
    kit.put(59, 2, received_ms=T0 + 10_000_000 * MINUTE)
    await kit.retain()
    assert await kit.opens() == [0, 59]


async def a_clock_that_was_wrong_for_a_while_deletes_nothing_later(kit: Kit) -> None:
    kit.put(0, 1, received_ms=T0 + 10_000_000 * MINUTE)
    kit.put(10_000_000, 2, received_ms=T0 + MINUTE)
    await kit.retain()
    assert await kit.opens() == [0, 10_000_000]


async def one_absurd_candle_deletes_nothing(kit: Kit) -> None:
    kit.put(0, 1)
    kit.put(10_000_000, 2, received_ms=T0 + MINUTE)
    await kit.retain()
    assert await kit.opens() == [0, 10_000_000]


async def the_last_candle_of_a_series_always_stays(kit: Kit) -> None:
    kit.put(0, 1)
    kit.put(1, 2)
    kit.put(500, 1, series=OTHER)
    await kit.retain()
    assert await kit.opens() == [1]
    assert (await kit.store.stored_ends())[SERIES].settled_ms == T0 + MINUTE
    assert await kit.after(0) is None
    assert await kit.after(1) == [(1, 2, "100.50", False)]
    await kit.retain()
    assert await kit.opens() == [1]


async def a_cursor_is_what_was_put_last(kit: Kit) -> None:
    store = kit.store
    assert await store.cursor("chain") is None
    store.put_cursor("chain", "one")
    assert await store.cursor("chain") == "one"
    await kit.written()
    store.put_cursor("other", "x")
    kit.put(0, 1)
    store.put_cursor("chain", "two")
    assert await store.cursor("chain") == "two"
    await kit.written()
    assert [await store.cursor(name) for name in ("chain", "other", "nothing")] == [
        "two",
        "x",
        None,
    ]
    # It belongs to no series, and no answer about one has it in it.
    assert await kit.opens() == [0]
    assert set(await store.stored_ends()) == {SERIES}
    assert await kit.after(0) == [(0, 1, "100.50", False)]
    await kit.retain()
    assert await store.cursor("chain") == "two"


CHECKS = [
    a_cursor_is_what_was_put_last,
    history_by_range_and_limit,
    strangers_have_nothing,
    all_twelve_columns_come_back_digit_by_digit,
    the_same_candle_twice_is_one_row_with_the_later_values,
    a_candle_that_comes_again_before_it_was_written_counts_once,
    tails_say_where_series_end,
    tails_of_some_series,
    holes_settle,
    what_was_published_after_a_number,
    a_revision_of_an_unknown_candle_is_one_message,
    a_candle_that_comes_late_or_again_is_in_no_partial_answer,
    what_was_never_published_is_in_no_answer,
    revisions_keep_when_and_what_was_before,
    numbers_beyond_64_bits_are_refused_alone,
    retention_deletes_what_is_too_old,
    no_clock_deletes_the_last_hour,
    a_clock_that_was_wrong_for_a_while_deletes_nothing_later,
    one_absurd_candle_deletes_nothing,
    the_last_candle_of_a_series_always_stays,
]
