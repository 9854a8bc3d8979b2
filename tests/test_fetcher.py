"""Workers that ask the exchange: what is asked, what its answers and refusals become."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing
from support.bench import Bench, Rest
from support.engine import BOOKS, CANDLES, TRADES, end_at, minute
from support.make import MINUTE, T0, trade

from trio_feed.core.effects import Fetch
from trio_feed.core.questions import (
    BookQuestion,
    CandleQuestion,
    LatestQuestion,
    Need,
    TradeQuestion,
)
from trio_feed.environment import mono
from trio_feed.errors import NetworkError, NoProxyAvailable, RateLimited
from trio_feed.ingest.fetcher import Fetcher, to_request
from trio_feed.model import BookUpdate, Channel, Instrument, Interval, Kline, Trade, plain
from trio_feed.venues import Instruments
from trio_feed.venues.binance import usdm as binance_usdm

M1 = Interval.M1
BTC = Instrument("binance_usdm", "BTCUSDT", "BTCUSDT", "perpetual", "BTC", "USDT")
CANDLES_WANTED = Fetch(Need.CANDLES, "BTCUSDT", M1)


def klines(*rows: Kline) -> bytes:
    return json.dumps(
        [
            [r.open_ms, *(plain(v) for v in (r.open, r.high, r.low, r.close, r.volume)),
             r.open_ms + MINUTE - 1, plain(r.quote_volume), r.trades, "0", "0", "0"]
            for r in rows
        ]
    ).encode()  # fmt: skip


def trades(*rows: Trade) -> bytes:
    return json.dumps(
        [
            {"a": t.trade_id, "p": plain(t.price), "q": plain(t.quantity), "f": t.first_id,
             "l": t.last_id, "T": t.time_ms, "m": t.buyer_is_maker}
            for t in rows
        ]
    ).encode()  # fmt: skip


@asynccontextmanager
async def working(
    rest: Rest, *, workers: int = 1, known: bool = True, **more: Any
) -> AsyncIterator[Bench]:
    """A driver whose candle at T0 and T0 + 1 min have not come, after two minutes and some."""
    bench = Bench(**more)
    engine = bench.driver.open("BTCUSDT", {M1: end_at(minute(-1))})
    bench.driver.use("BTCUSDT", [CANDLES, TRADES, BOOKS])
    await trio.sleep(130)
    fetcher = Fetcher(binance_usdm, bench.driver, rest, bench.store, bench.metrics)  # type: ignore[arg-type]
    if known:
        fetcher.instruments = Instruments([BTC])
    async with trio.open_nursery() as nursery:
        for _ in range(workers):
            nursery.start_soon(fetcher.work)
        bench.driver.perform(engine, engine.wake(bench.driver.now()))
        await trio.testing.wait_all_tasks_blocked()
        yield bench
        nursery.cancel_scope.cancel()


def closed(bench: Bench) -> list[int]:
    return [n.kline.open_ms - T0 for n in bench.bus.candles if n.kline.closed and not n.revision]


async def test_candles_are_asked_for_and_come_in_order(autojump_clock: trio.abc.Clock) -> None:
    rest = Rest(klines(minute(0), minute(1), minute(2)))
    async with working(rest) as bench:
        ((path, params, weight, _),) = rest.asked
        assert path == "/fapi/v1/continuousKlines"
        assert (params["startTime"], params["limit"], weight) == (T0 - MINUTE + 1, 4, 1)
        assert closed(bench) == [0, MINUTE]
        assert bench.count("rest_calls", "ok") == 1
        assert bench.driver.queues.next_fetch() is None


async def test_a_failure_is_asked_again_later(autojump_clock: trio.abc.Clock) -> None:
    rest = Rest(NetworkError("gone"), b"nonsense", klines(minute(0), minute(1), minute(2)))
    async with working(rest) as bench:
        for _ in range(2):
            assert len(rest.answers) > 0
            await trio.sleep_until(float(bench.driver.wake_due()))
            bench.driver.wake_due()
            await trio.testing.wait_all_tasks_blocked()
        assert [round(at - 130, 3) for *_, at in rest.asked] == [0, 2, 6]
        assert bench.count("rest_calls", "NetworkError") == 1
        assert bench.count("rest_calls", "BadMessage") == 1
        assert closed(bench) == [0, MINUTE]


@pytest.mark.parametrize("kind", [RateLimited, NoProxyAvailable])
async def test_while_nothing_may_be_asked_the_question_stands_and_all_workers_wait(
    kind: Any, autojump_clock: trio.abc.Clock
) -> None:
    rest = Rest(klines(minute(0), minute(1), minute(2)))
    async with working(rest, workers=0) as bench:
        error = kind("banned", mono() + 60)
        rest.answers.insert(0, error)
        fetcher = Fetcher(binance_usdm, bench.driver, rest, bench.store, bench.metrics)  # type: ignore[arg-type]
        fetcher.instruments = Instruments([BTC])
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(fetcher.work)
            await trio.sleep(59.9)
            assert len(rest.asked) == 1
            # Nothing has failed: no backoff is planned.
            assert bench.count("rest_calls", kind.__name__) == 1
            await trio.sleep(0.2)
            assert [round(at - 130, 3) for *_, at in rest.asked] == [0, 60]
            assert closed(bench) == [0, MINUTE]
            nursery.cancel_scope.cancel()


async def test_a_ban_that_is_over_already_does_not_spin(autojump_clock: trio.abc.Clock) -> None:
    """Whatever the time of its end says."""
    rest = Rest(*[RateLimited("banned", mono() - 9) for _ in range(20)])
    async with working(rest) as bench:
        await trio.sleep(2.1)
        assert bench.count("rest_calls", "RateLimited") == 5
    times = [at for *_, at in rest.asked]
    assert [round(b - a, 3) for a, b in pairwise(times)] == [0.5] * 4


async def test_rows_that_cannot_be_read_are_counted_and_prove_no_hole(
    autojump_clock: trio.abc.Clock,
) -> None:
    good = json.loads(klines(minute(1), minute(2)))
    bad = [["x", 1]]
    rest = Rest(json.dumps(bad + good).encode())
    async with working(rest) as bench:
        assert bench.count("bad_messages") == 1
        assert closed(bench) == []
        assert bench.store.holes == {}


async def test_the_date_of_an_answer_moves_the_clock(autojump_clock: trio.abc.Clock) -> None:
    rest = Rest(klines(minute(0), minute(1), minute(2)))
    rest.date_ms = T0 + 131_000.0  # the exchange is a second ahead at least
    async with working(rest) as bench:
        assert bench.driver.clock.known
        assert float(bench.driver.now().exchange) == T0 + 131_000


async def test_what_is_not_listed_cannot_be_asked_about(autojump_clock: trio.abc.Clock) -> None:
    rest = Rest()
    async with working(rest, known=False) as bench:
        assert rest.asked == []
        assert bench.driver.wake_due() == 132  # as after a failure


async def test_what_has_settled_itself_is_not_asked(autojump_clock: trio.abc.Clock) -> None:
    rest = Rest()
    async with working(rest, workers=0) as bench:
        engine = bench.driver.engines["BTCUSDT"]
        assert bench.driver.queues.next_fetch() == (CANDLES_WANTED, engine)
        fetcher = Fetcher(binance_usdm, bench.driver, rest, bench.store, bench.metrics)  # type: ignore[arg-type]
        fetcher.instruments = Instruments([BTC])
        bench.driver.perform(engine, [Fetch(Need.TRADES, "BTCUSDT")])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetcher.work)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert rest.asked == []


async def test_an_answer_about_a_symbol_that_was_closed_is_dropped(
    autojump_clock: trio.abc.Clock,
) -> None:
    rest = Rest(klines(minute(0)))
    async with working(rest, workers=0) as bench:
        fetcher = Fetcher(binance_usdm, bench.driver, rest, bench.store, bench.metrics)  # type: ignore[arg-type]
        fetcher.instruments = Instruments([BTC])
        bench.driver.close("BTCUSDT")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetcher.work)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert rest.asked == []
        assert closed(bench) == []


async def test_missing_trades_come_before_everything_else(autojump_clock: trio.abc.Clock) -> None:
    rest = Rest()
    async with working(rest, workers=0, trade_intervals=(Interval.S1,)) as bench:
        engine = bench.driver.engines["BTCUSDT"]
        now = T0 + 130_000
        bench.take(trade(1, now), trade(5, now + 500))
        bench.driver.wake_due()
        rest.answers += [
            trades(*(trade(n, now + n) for n in range(2, 6))),
            klines(minute(0), minute(1), minute(2)),
        ]
        fetcher = Fetcher(binance_usdm, bench.driver, rest, bench.store, bench.metrics)  # type: ignore[arg-type]
        fetcher.instruments = Instruments([BTC])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetcher.work)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert [path for path, *_ in rest.asked] == [
            "/fapi/v1/aggTrades", "/fapi/v1/continuousKlines",
        ]  # fmt: skip
        assert rest.asked[0][1]["fromId"] == 2
        assert engine.trades is not None
        assert engine.trades.trades.sequence.last_id == 5


async def test_a_book_is_asked_for_and_synced(autojump_clock: trio.abc.Clock) -> None:
    body = {"lastUpdateId": 100, "bids": [["9.0", "2"]], "asks": [["11.0", "3"]], "E": T0, "T": T0}
    rest = Rest(klines(minute(0), minute(1), minute(2)), json.dumps(body).encode())
    async with working(rest, channels=(Channel.KLINE, Channel.BOOK)) as bench:
        levels = ((Decimal(10), Decimal(1)),)
        bench.take(BookUpdate("BTCUSDT", 101, 105, 99, levels, ()))
        bench.driver.wake_due()
        await trio.testing.wait_all_tasks_blocked()
        assert rest.asked[-1][0] == "/fapi/v1/depth"
        assert bench.driver.stale_books() == 0
        assert [type(news.data).__name__ for news in bench.bus.published if hasattr(news, "data")]


def test_questions_in_the_venues_words() -> None:
    now_ms = float(T0 + 10 * MINUTE)
    ask = [
        to_request(binance_usdm, BTC, question, now_ms)
        for question in (
            CandleQuestion(M1, T0, 5), TradeQuestion(7), LatestQuestion(M1), LatestQuestion(None),
            BookQuestion(),
        )
    ]  # fmt: skip
    assert [each.path if each else None for each in ask] == [
        "/fapi/v1/continuousKlines", "/fapi/v1/aggTrades", "/fapi/v1/continuousKlines",
        "/fapi/v1/aggTrades", "/fapi/v1/depth",
    ]  # fmt: skip
    assert ask[1] is not None
    assert ask[1].params["fromId"] == 7


async def test_without_a_proxy_it_is_tried_again_within_a_minute(
    autojump_clock: trio.abc.Clock,
) -> None:
    rest = Rest(NoProxyAvailable("none", mono() + 9_000), RateLimited("banned", mono() + 9_000))
    async with working(rest):
        await trio.sleep(9_000)
        assert [round(at - 130, 3) for *_, at in rest.asked] == [0, 60, 8_870]


async def test_a_host_that_is_out_of_reach_is_not_asked_by_each_series_in_its_own_time(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Twenty series fail: all workers pause, longer and longer, and an answer ends that."""
    intervals = tuple(i for i in Interval if i in binance_usdm.INTERVALS)
    rest = Rest(*[NetworkError("out of reach")] * 60, klines())
    async with working(rest, workers=4, intervals=intervals, history_bars=5):
        await trio.sleep(60)
    assert len(rest.asked) <= 40
