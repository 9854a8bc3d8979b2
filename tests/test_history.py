"""A history's answer: store and bus together, without a hole, from the right end."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
from support.make import MINUTE, SERIES, T0, kline

from trio_feed.bus.local import LocalBus, LocalStream
from trio_feed.core.effects import CandleNews
from trio_feed.errors import StoreError
from trio_feed.model import Channel, Interval, Kline
from trio_feed.push import messages
from trio_feed.push.fanout import history
from trio_feed.push.portions import PORTION
from trio_feed.push.protocol import History, Target

TARGET = Target("BTCUSDT", Channel.KLINE, Interval.M1, "1m", None)


class Store:
    """Answers with the rows it has; ``before`` each answer something may happen elsewhere."""

    def __init__(self, minutes: Sequence[int]) -> None:
        self.minutes = list(minutes)
        self.asked: list[dict[str, Any]] = []
        self.before: Callable[[int], None] = lambda _: None

    async def history(self, series: Any, **range_: Any) -> list[Kline]:
        assert series == SERIES
        self.asked.append(range_)
        await trio.lowlevel.checkpoint()
        start, end = range_.get("start_ms"), range_.get("end_ms")
        times = [T0 + n * MINUTE for n in self.minutes]
        fit = [t for t in times if (start is None or t >= start) and (end is None or t < end)]
        limit = range_["limit"]
        fit = fit[:limit] if start is not None and end is None else fit[-limit:]
        self.before(len(self.asked))
        return [kline(t) for t in fit]


class Bus:
    """The stream of one series whose store holds ``first`` and later."""

    def __init__(
        self, recent: Sequence[int], *, first: int | None, keep: int = 5, sparse: bool = False
    ) -> None:
        self.bus = LocalBus(epoch=4, history_rows=keep, resume_messages=9, now_ms=lambda: 0.0)
        first_ms = None if first is None else T0 + first * MINUTE
        rows = [kline(T0 + n * MINUTE) for n in recent]
        self.bus.open(SERIES, rows, first_ms, sparse=sparse)

    @property
    def stream(self) -> LocalStream:
        return self.bus._streams[SERIES]

    def publish(self, n: int, close: str = "100.50", *, revision: bool = False) -> None:
        row = kline(T0 + n * MINUTE, close)
        self.bus.publish(CandleNews(SERIES, row, 3, 0.0, revision=revision))


def minutes(body: str) -> list[int]:
    return [(row["time"] * 1000 - T0) // MINUTE for row in read(body)["data"]]


def read(body: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads("{" + body + "}") if body[0] != "{" else json.loads(body)
    return found


async def ask(
    store: Store, bus: Bus, limit: int, start: int | None = None, end: int | None = None
) -> str:
    start_ms = None if start is None else T0 + start * MINUTE
    end_ms = None if end is None else T0 + end * MINUTE
    request = History(TARGET, limit, start_ms, end_ms)
    own = TARGET.splice()
    return await history.answer(store, bus.stream, own, request, limit)  # type: ignore[arg-type]


# from, to, limit -> rows, and whether the store was asked.  Store: -6..4, bus: 0..4.
@pytest.mark.parametrize(
    ("start", "end", "limit", "expected", "asks"),
    [
        (None, None, 3, [2, 3, 4], 0),
        (None, None, 5, [0, 1, 2, 3, 4], 0),
        (None, None, 6, [-1, 0, 1, 2, 3, 4], 1),
        (None, None, 50, [*range(-6, 5)], 1),
        (None, 3, 3, [0, 1, 2], 0),
        (None, 3, 4, [-1, 0, 1, 2], 1),
        (None, 0, 2, [-2, -1], 1),
        (None, -6, 2, [], 1),
        (0, None, 2, [0, 1], 0),
        (0, None, 50, [0, 1, 2, 3, 4], 0),
        (1, None, 2, [1, 2], 0),
        (-1, None, 2, [-1, 0], 1),
        (-1, None, 3, [-1, 0, 1], 1),
        (-1, None, 50, [*range(-1, 5)], 1),
        (4, None, 2, [4], 0),
        (5, None, 2, [], 0),
        (1, 4, 9, [1, 2, 3], 0),
        (1, 4, 2, [2, 3], 0),
        (0, 1, 9, [0], 0),
        (-2, 1, 9, [-2, -1, 0], 1),
        (-2, 1, 2, [-1, 0], 1),
        (-50, 50, 99, [*range(-6, 5)], 1),
    ],
)
async def test_the_rows_of_a_range_and_who_is_asked_for_them(
    start: int | None, end: int | None, limit: int, expected: list[int], asks: int
) -> None:
    store, bus = Store(range(-6, 5)), Bus(range(5), first=-6)
    assert minutes(await ask(store, bus, limit, start, end)) == expected
    assert len(store.asked) == asks
    if asks:
        start_ms = None if start is None else T0 + start * MINUTE
        end_ms = None if end is None else T0 + end * MINUTE
        if start is None and end is None:  # one elsewhere may have more than this node was told
            end_ms = T0 + 4 * MINUTE + 1
        assert store.asked == [{"limit": limit, "start_ms": start_ms, "end_ms": end_ms}]


async def test_the_last_candles_end_with_what_this_node_was_told() -> None:
    """What follows comes as messages: nobody gets it twice."""
    store, bus = Store(range(-6, 7)), Bus(range(5), first=-6)
    assert minutes(await ask(store, bus, 50)) == [*range(-6, 5)]
    assert minutes(await ask(store, bus, 7)) == [*range(-2, 5)]
    assert minutes(await ask(store, bus, 50, start=3)) == [3, 4]
    assert minutes(await ask(Store(range(7)), Bus((), first=0), 50)) == [*range(7)]


@pytest.mark.parametrize(
    ("first", "limit", "start", "more"),
    [(-6, 11, None, False), (-6, 10, None, True), (0, 5, None, False), (0, 4, None, True),
     (-6, 5, -6, False), (-6, 5, -5, True)],
)  # fmt: skip
async def test_has_more_says_whether_there_are_older_ones(
    first: int, limit: int, start: int | None, more: bool
) -> None:
    store, bus = Store(range(first, 5)), Bus(range(5), first=first)
    body = await ask(store, bus, limit, start)
    assert f'"has_more":{str(more).lower()}' in body


@pytest.mark.parametrize("known", [True, False])
async def test_nothing_at_all_is_no_more(known: bool) -> None:
    """Where nothing was ever stored nobody is asked; a known series without recent rows asks."""
    store, bus = Store([]), Bus([], first=0 if known else None)
    body = await ask(store, bus, 5)
    assert (minutes(body), '"has_more":false' in body) == ([], True)
    assert len(store.asked) == known


async def test_the_number_of_the_stream_goes_with_it() -> None:
    bus = Bus(range(5), first=0)
    bus.publish(5)
    bus.publish(6)
    body = await history.latest(Store([]), bus.stream, TARGET.splice(), 2)  # type: ignore[arg-type]
    assert ('"epoch":4' in body, '"offset":2' in body) == (True, True)
    assert minutes(body) == [5, 6]
    counts = [row["update_count"] for row in read(body)["data"] if "update_count" in row]
    assert counts == [3, 3]


async def test_of_a_candle_that_both_have_the_bus_is_right() -> None:
    store, bus = Store(range(-2, 5)), Bus(range(5), first=-2)
    bus.publish(2, "77.00", revision=True)
    rows = read(await ask(store, bus, 7))["data"]
    assert [row["close"] for row in rows] == [100.5] * 4 + [77.0] + [100.5] * 2


async def test_a_revision_during_the_reading_reads_again_at_once(
    autojump_clock: trio.abc.Clock,
) -> None:
    store, bus = Store(range(-6, 5)), Bus(range(5), first=-6)
    store.before = lambda turn: bus.publish(-3, revision=True) if turn == 1 else None
    assert minutes(await ask(store, bus, 8)) == [*range(-3, 5)]
    assert (len(store.asked), trio.current_time()) == (2, 0.0)


async def test_revisions_without_end_are_a_store_error_after_two_seconds(
    autojump_clock: trio.abc.Clock,
) -> None:
    store, bus = Store(range(-6, 5)), Bus(range(5), first=-6)
    quick = store.history

    async def slow(*args: Any, **more: Any) -> list[Kline]:
        await trio.sleep(0.3)
        return await quick(*args, **more)

    store.history = slow  # type: ignore[method-assign]
    store.before = lambda _: bus.publish(-3, revision=True)
    with pytest.raises(StoreError, match="ask again"):
        await ask(store, bus, 8)
    # The first answer, at 0.3 s, begins the two seconds.
    assert trio.current_time() == pytest.approx(2.4)


@pytest.mark.parametrize(
    ("start", "limit", "expected", "waits"),
    [
        (None, 9, None, True),  # counted from the end
        (-3, 9, None, True),  # counted from the beginning
        (-3, 2, [-3, -2], False),  # the store has all that was asked for
    ],
)
async def test_a_store_that_stays_behind_is_waited_for_and_gives_no_answer(
    start: int | None,
    limit: int,
    expected: list[int] | None,
    waits: bool,
    autojump_clock: trio.abc.Clock,
) -> None:
    store, bus = Store(range(-6, 0)), Bus(range(2, 7), first=-6)
    if expected is None:
        with pytest.raises(StoreError, match="ask again"):
            await ask(store, bus, limit, start)
    else:
        assert minutes(await ask(store, bus, limit, start)) == expected
    assert trio.current_time() == pytest.approx(2.0 if waits else 0.0)
    assert len(store.asked) == (41 if waits else 1)  # every 50 ms, and no busier


async def test_a_store_that_catches_up_is_waited_for_no_longer(
    autojump_clock: trio.abc.Clock,
) -> None:
    store, bus = Store(range(-6, 0)), Bus(range(2, 7), first=-6)
    store.before = lambda turn: store.minutes.extend([0, 1, 2]) if turn == 3 else None
    assert minutes(await ask(store, bus, 9)) == [*range(-2, 7)]
    assert trio.current_time() == pytest.approx(0.15)


async def test_candles_that_close_faster_than_the_store_answers_cost_no_pause(
    autojump_clock: trio.abc.Clock,
) -> None:
    """The store was not behind: its last row was in the ring when it was asked."""
    store, bus = Store(range(-6, 5)), Bus(range(5), first=-6)

    def close_many(turn: int) -> None:
        if turn == 1:
            for n in range(5, 12):
                bus.publish(n)
            store.minutes.extend(range(5, 12))

    store.before = close_many
    assert minutes(await ask(store, bus, 9)) == [*range(3, 12)]
    assert (len(store.asked), trio.current_time()) == (2, 0.0)


# ---------------------------------------------------------------- sparse series


@pytest.mark.parametrize(
    ("start", "end", "limit", "expected"),
    [
        (None, None, 9, [0, 1, 2, 3, 4]),
        (None, None, 3, [2, 3, 4]),
        (0, None, 3, [0, 1, 2]),
        (1, None, 9, [1, 2, 3, 4]),  # flat from the candle before the range
        (1, 3, 9, [1, 2]),
        (1, 4, 2, [2, 3]),
        (0, 4, 1, [3]),
        (None, 3, 9, [0, 1, 2]),
        (5, None, 9, []),  # behind the last known candle nothing is known
        (4, 9, 9, [4]),
        (-9, 0, 9, []),
    ],
)
async def test_silent_minutes_are_flat_up_to_the_last_known_candle(
    start: int | None, end: int | None, limit: int, expected: list[int]
) -> None:
    store, bus = Store([0, 4]), Bus([0, 4], first=0, sparse=True)
    body = await ask(store, bus, limit, start, end)
    assert minutes(body) == expected
    volumes = {
        minute: row["volume"] for minute, row in zip(expected, read(body)["data"], strict=True)
    }
    assert all((volume == 1.5) == (minute in (0, 4)) for minute, volume in volumes.items())


async def test_a_candle_before_the_range_is_asked_for_once() -> None:
    store, bus = Store([0, 4]), Bus([0, 4], first=0, sparse=True)
    await ask(store, bus, 9, 2)
    assert store.asked[0] == {"limit": 1, "end_ms": T0 + 2 * MINUTE}
    assert len(store.asked) == 2


async def test_a_sparse_candle_of_the_bus_keeps_its_count() -> None:
    store, bus = Store([0]), Bus([0], first=0, sparse=True)
    bus.publish(2)
    body = await ask(store, bus, 9)
    assert minutes(body) == [0, 1, 2]
    assert [row.get("update_count") for row in read(body)["data"]] == [1, 1, 3]


async def test_a_long_answer_leaves_everybody_their_turn_and_is_up_to_date(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Candles close and one is revised while it is written; nothing of that is missing at return,
    and between two turns of a bystander few candles are written."""
    store, bus = Store(range(-900, 5)), Bus(range(5), first=-900)
    written = 0
    candle = messages.candle

    def counted(row: Kline, count: int, **more: Any) -> str:
        nonlocal written
        written += 1
        return candle(row, count, **more)

    monkeypatch.setattr(messages, "candle", counted)
    steps = []
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            seen, closed = 0, 4
            while True:
                await trio.lowlevel.checkpoint()
                steps.append(written - seen)
                seen = written
                if len(steps) in (4, 8, 9):
                    closed += 1
                    store.minutes.append(closed)
                    bus.publish(closed)
                if len(steps) == 9:
                    bus.publish(-700, "100.75", revision=True)
                    revised.append(T0 - 700 * MINUTE)

        revised: list[int] = []
        answers = store.history

        async def history_with_revision(series: Any, **range_: Any) -> list[Kline]:
            rows = await answers(series, **range_)
            return [kline(r.open_ms, "100.75") if r.open_ms in revised else r for r in rows]

        store.history = history_with_revision  # type: ignore[method-assign]
        nursery.start_soon(watch)
        body = await ask(store, bus, 800)
        newest = bus.stream.recent[-1][0].open_ms
        nursery.cancel_scope.cancel()
    assert minutes(body) == list(range(-792, 8))
    assert read(body)["data"][-1]["time"] * 1000 == newest
    (changed,) = [row for row in read(body)["data"] if row["time"] * 1000 == T0 - 700 * MINUTE]
    assert changed["close"] == 100.75
    assert max(steps) <= 2 * PORTION
    assert written < 900  # and nothing is written twice but what changed
