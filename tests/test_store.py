"""The memory store and the SQLite store give the same answers (SQLite's threads: tests/live)."""

import trio
from attrs import evolve
from support.make import MINUTE, SERIES, T0, kline, message

from trio_feed.model import Hole, Interval, Series
from trio_feed.store import MemoryStore


async def test_history_by_range_and_limit() -> None:
    store = MemoryStore(1)
    for n in (3, 1, 0, 2, 4):
        store.put(message(kline(T0 + n * MINUTE)))

    async def opens(**where: int | None) -> list[int]:
        found = await store.history(SERIES, **where)  # type: ignore[arg-type]
        return [(k.open_ms - T0) // MINUTE for k in found]

    assert await opens(limit=2) == [3, 4]
    assert await opens(limit=9, end_ms=T0 + 2 * MINUTE) == [0, 1]
    assert await opens(limit=2, start_ms=T0 + MINUTE) == [1, 2]
    assert await opens(limit=2, start_ms=T0, end_ms=T0 + 4 * MINUTE) == [2, 3]
    assert await store.first_open(SERIES) == T0


async def test_the_same_candle_twice_is_one_row_with_the_later_values() -> None:
    store = MemoryStore(1)
    store.put(message(kline(close="1.5")))
    store.put(message(kline(close="1.6")))
    (row,) = await store.history(SERIES, limit=10)
    assert str(row.close) == "1.6"


async def test_tails_and_strangers() -> None:
    store = MemoryStore(1)
    store.put(message(kline(T0), offset=4))
    store.put(message(kline(T0 + MINUTE), offset=9))
    tails = await store.tails()
    assert tails[SERIES].kline.open_ms == T0 + MINUTE
    stranger = Series("binance_usdm", "ETHUSDT", Interval.M1)
    assert await store.history(stranger, limit=5) == []
    assert await store.first_open(stranger) is None
    store.put_hole(SERIES, Hole(T0, T0))
    assert store.holes == {SERIES: [Hole(T0, T0)]}


async def test_writing_for_ever_is_cancellable() -> None:
    with trio.move_on_after(0) as scope:
        await MemoryStore(1).run()
    assert scope.cancelled_caught


async def test_what_went_out_after_a_number(autojump_clock: trio.abc.Clock) -> None:
    store = MemoryStore(1)
    for n, offset in ((0, 3), (1, 7), (2, 9)):
        store.put(message(kline(T0 + n * MINUTE), offset=offset))
    changed = kline(T0 + MINUTE, "100.75")
    store.put(evolve(message(changed, offset=12), revision=True))

    async def told(epoch: int, offset: int, limit: int = 9) -> list[tuple[int, str, bool]] | None:
        found = await store.after(SERIES, epoch, offset, limit=limit)
        return found and [(m.offset, str(m.kline.close), m.revision) for m in found]

    rest = [(7, "100.75", False), (9, "100.50", False), (12, "100.75", True)]
    assert await told(1, 5) == rest
    assert await told(1, 9) == rest[2:]
    assert await told(1, 5, limit=2) is None
    assert await told(2, 0) is None
    (tail,) = (await store.tails()).values()
    assert (tail.kline.open_ms, tail.settled_ms) == (T0 + 2 * MINUTE, T0 + 2 * MINUTE)
    store.put_hole(SERIES, Hole(T0 + 3 * MINUTE, T0 + 5 * MINUTE))
    (tail,) = (await store.tails()).values()
    assert tail.settled_ms == T0 + 5 * MINUTE
