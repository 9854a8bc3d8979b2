"""Events in, candles out of one venue, without any I/O."""

import json
from typing import Any

import pytest
from attrs import evolve
from support.make import MINUTE, T0, kline, tail, trade
from support.recorder import Recorder

from trio_feed.errors import BadMessage
from trio_feed.feeds.pipeline import Pipeline
from trio_feed.metrics import Metrics
from trio_feed.model import (
    Channel,
    Instrument,
    Interval,
    Kline,
    KlineMessage,
    Series,
    Source,
    Trade,
    plain,
)
from trio_feed.settings import ExchangeSettings
from trio_feed.store import MemoryStore
from trio_feed.store.base import Tail
from trio_feed.venues import Instruments, Kind, KlineUpdate, binance_usdm

M1 = Series("binance_usdm", "BTCUSDT", Interval.M1)
S1 = Series("binance_usdm", "BTCUSDT", Interval.S1)


BTC = Instrument("binance_usdm", "BTCUSDT", "BTCUSDT", "perpetual")
CANDLES = binance_usdm.stream(Kind.KLINE, BTC, Interval.M1)
TRADES = binance_usdm.stream(Kind.AGG_TRADE, BTC)


class Line:
    """A pipeline with a hand-turned clock, and what it let out."""

    def __init__(
        self,
        *,
        known: bool = True,
        tails: dict[Series, Tail] | None = None,
        simulated: bool = False,
        **more: Any,
    ) -> None:
        self.now = float(T0)
        self.out: list[KlineMessage] = []
        self.store = MemoryStore(7)
        chosen: dict[str, Any] = {
            "symbols": ("BTCUSDT",),
            "intervals": (Interval.M1,),
            "trade_intervals": (Interval.S1,),
            "history_bars": 10,
            "channels": (Channel.KLINE,),
        }
        if tails is None:
            tails = {M1: tail(kline(T0 - MINUTE))} if known else {}
        self.pipe = Pipeline(
            binance_usdm,
            ExchangeSettings(**(chosen | more)),
            tails=tails,
            store=self.store,
            publish=Recorder(self.out, 7).publish,
            announce=lambda subject: None,
            renew=lambda symbol: None,
            now_ms=lambda: self.now,
            simulated=simulated,
            metrics=Metrics(),
        )
        self.pipe.use(Instruments([BTC]))

    def candle(self, n: int, *, closed: bool) -> None:
        self.now = max(self.now, T0 + n * MINUTE + (MINUTE if closed else 1))
        row = kline(T0 + n * MINUTE, closed=closed)
        self.pipe.handle([KlineUpdate("BTCUSDT", Interval.M1, row)], self.now)

    def trade(self, number: int, after_ms: int) -> None:
        self.now = max(self.now, float(T0 + after_ms))
        self.pipe.handle([trade(number, T0 + after_ms)], self.now)

    def due(self) -> tuple[float, Any]:
        found = self.pipe.most_due()
        assert found is not None
        return found

    def answer_klines(self, rows: list[Kline], key: Series = M1) -> None:
        """Do a series' job with these candles as the exchange's answer."""
        job = self.pipe.begin(key)
        body = [
            [r.open_ms, *(plain(v) for v in (r.open, r.high, r.low, r.close, r.volume)), 0,
             plain(r.quote_volume), r.trades, "0", "0", "0"]
            for r in rows
        ]  # fmt: skip
        job.take(json.dumps(body).encode())
        self.pipe.done(key)

    def answer_trades(self, trades: list[Trade]) -> None:
        _, key = self.due()
        job = self.pipe.begin(key)
        body = [
            {"a": t.trade_id, "p": plain(t.price), "q": plain(t.quantity), "f": t.first_id,
             "l": t.last_id, "T": t.time_ms, "m": t.buyer_is_maker}
            for t in trades
        ]  # fmt: skip
        job.take(json.dumps(body).encode())
        self.pipe.done(key)

    def closed(self, series: Series = M1) -> list[int]:
        found = [m for m in self.out if m.series == series and m.kline.closed]
        return [m.kline.open_ms - T0 for m in found]


async def test_a_closed_candle_is_stored_and_published_once() -> None:
    line = Line()
    line.candle(0, closed=False)
    line.candle(0, closed=True)
    line.candle(0, closed=True)
    assert line.closed() == [0]
    assert [k.open_ms for k in await line.store.history(M1, limit=9)] == [T0]
    assert {m.epoch for m in line.out} == {7}


def test_a_reconnect_makes_a_job_and_its_answer_comes_before_live_ones() -> None:
    line = Line()
    line.candle(0, closed=False)
    line.now = T0 + 3 * MINUTE + 500
    line.pipe.resumed([CANDLES])
    line.candle(3, closed=False)
    assert line.due() == (line.now, M1)
    job = line.pipe.begin(M1)
    assert job.question.params["startTime"] == T0
    assert line.pipe.most_due() is None
    line.pipe.done(M1)
    line.answer_klines([kline(T0 + n * MINUTE) for n in range(4)])
    assert line.closed() == [0, MINUTE, 2 * MINUTE]
    assert line.out[-1].kline.open_ms == T0 + 3 * MINUTE
    assert line.pipe.held() == 0


def test_a_new_series_asks_for_its_history() -> None:
    line = Line(known=False)
    assert line.due()[0] < line.now
    assert line.pipe.ledgers[M1].expected == T0 - 10 * MINUTE


def test_what_does_not_trade_is_not_missed() -> None:
    line = Line(known=False)
    line.pipe.use(Instruments([evolve(BTC, trading=False)]))
    assert line.pipe.most_due() is None
    assert line.pipe.behind() == 0
    line.pipe.use(Instruments([BTC]))
    assert line.pipe.behind() == 1


@pytest.mark.parametrize("open_ms", [T0 + 1, T0 + 60 * MINUTE])
def test_an_impossible_candle_is_refused(open_ms: int) -> None:
    line = Line()
    with pytest.raises(BadMessage):
        line.pipe.handle([KlineUpdate("BTCUSDT", Interval.M1, kline(open_ms))], line.now)


def test_strangers_are_ignored() -> None:
    line = Line()
    line.pipe.handle([KlineUpdate("NOBODY", Interval.M1, kline())], line.now)
    line.pipe.handle([KlineUpdate("BTCUSDT", Interval.H1, kline())], line.now)
    assert line.out == []


def test_simulated_candles_say_so_whatever_their_way() -> None:
    line = Line(simulated=True)
    line.candle(0, closed=True)
    line.now += 2 * MINUTE
    line.answer_klines([kline(T0 + MINUTE), kline(T0 + 2 * MINUTE)])
    assert {m.kline.source for m in line.out} == {Source.SIMULATED}


def test_trade_candles_begin_with_the_first_complete_one() -> None:
    line = Line()
    for number, after in enumerate((500, 1200, 2100, 3300)):
        line.trade(number, after)
    assert line.closed(S1) == [1000, 2000]
    assert all(m.kline.complete for m in line.out)


def test_a_hole_in_the_trades_is_fetched_before_later_ones_count() -> None:
    line = Line()
    line.trade(1, 500)
    line.trade(2, 1100)
    line.trade(6, 3100)
    line.trade(7, 4100)
    assert line.closed(S1) == []
    _, key = line.due()
    assert line.pipe.begin(key).question.params["fromId"] == 3
    line.pipe.done(key)
    line.answer_trades([trade(n, T0 + 1000 + n * 200) for n in (3, 4, 5, 6)])
    assert line.closed(S1) == [1000, 2000, 3000]
    assert all(m.kline.complete for m in line.out)
    assert line.due()[1] == M1


def test_a_hole_that_nobody_fills_is_marked_not_papered_over() -> None:
    line = Line()
    for number, after in ((1, 500), (2, 1100), (3, 2100), (9, 5100), (10, 6100), (11, 7200)):
        line.trade(number, after)
    for _ in range(5):
        due_ms, _ = line.due()
        line.now = max(line.now, due_ms)
        line.answer_trades([])
    marks = {m.kline.open_ms - T0: m.kline.complete for m in line.out if m.kline.closed}
    assert marks == {1000: True, 2000: False, 5000: False, 6000: True}
    (hole,) = line.store.holes[S1]
    assert (hole.first_ms - T0, hole.last_ms - T0) == (3000, 4000)


def test_time_closes_trade_candles_only_while_the_stream_is_up() -> None:
    line = Line()
    stream = [TRADES]
    line.pipe.resumed(stream)
    line.trade(1, 500)
    line.trade(2, 1100)
    line.now = T0 + 6_000
    at = line.pipe.next_close_ms()
    assert at is not None
    assert at <= line.now
    line.pipe.advance()
    assert line.closed(S1) == [1000, 2000, 3000]
    line.pipe.lost(stream)
    assert line.pipe.next_close_ms() is None
    line.now = T0 + 60_000
    line.pipe.advance()
    assert line.closed(S1) == [1000, 2000, 3000]


def test_a_minute_from_trades_that_misses_trades_is_fetched_whole() -> None:
    line = Line(intervals=(Interval.H1,), trade_intervals=(Interval.M1,))
    line.trade(1, 500)
    line.trade(2, MINUTE + 100)
    assert line.closed() == []
    line.answer_klines([kline(T0), kline(T0 + MINUTE)])
    line.trade(3, 2 * MINUTE + 100)
    assert line.closed() == [0, MINUTE]
    assert [m.kline.source for m in line.out if m.kline.closed] == [Source.BACKFILL, Source.TRADES]


def test_what_is_known_not_to_exist_is_not_asked_for_again() -> None:
    """The store ends with a hole that was confirmed before the restart."""
    settled = T0 + 4 * MINUTE
    end = evolve(tail(kline(T0)), settled_ms=settled)
    line = Line(tails={M1: end})
    assert line.pipe.ledgers[M1].expected == settled + MINUTE


def test_a_clock_that_is_fast_asks_for_no_candle_too_early() -> None:
    """Our clock is 5 s ahead, the grace is 3 s: closes that come in time need no question."""
    line = Line(trade_intervals=())
    for n in range(3):
        for closed in (False, True):
            at = T0 + n * MINUTE + (MINUTE if closed else 1)
            line.now = at + 5_040.0
            row = kline(T0 + n * MINUTE, closed=closed, event_ms=at)
            line.pipe.handle([KlineUpdate("BTCUSDT", Interval.M1, row)], line.now)
        line.now = T0 + (n + 2) * MINUTE + 5_000.0
        assert line.due()[0] > line.pipe.now_ms()


def test_a_symbol_that_is_closed_goes_quietly_and_may_come_back() -> None:
    line = Line()
    line.candle(0, closed=True)
    line.trade(1, MINUTE + 100)
    line.pipe.resumed([CANDLES])
    line.now += 2 * MINUTE
    _, key = line.pipe.most_due() or (0, None)
    job = line.pipe.begin(key)
    assert job is not None
    closed = line.pipe.close("BTCUSDT")
    assert M1 in closed
    told = len(line.out)
    line.candle(1, closed=True)
    line.trade(2, MINUTE + 200)
    job.take(json.dumps([]).encode())
    job.failed()
    line.pipe.done(key)
    assert (len(line.out), line.pipe.most_due(), line.pipe.ledgers) == (told, None, {})
    line.pipe.open("BTCUSDT", {M1: tail(kline(T0))})
    line.pipe.use(Instruments([BTC]))
    line.candle(1, closed=True)
    before, after = (m.offset for m in line.out if m.series == M1 and m.kline.closed)
    assert after == before + 1


def test_trades_since_the_stored_end_are_fetched_after_a_restart() -> None:
    """Candles built from trades cannot be asked for; the trades that they need can."""
    row = evolve(kline(T0 - 1000, source=Source.TRADES), last_stream_id=5)
    line = Line(tails={M1: tail(kline(T0 - MINUTE)), S1: tail(row)})
    line.pipe.resumed([TRADES])
    line.trade(9, 2_500)
    due, key = line.due()
    assert (due <= line.pipe.now_ms(), str(key)) == (True, "BTCUSDT trades")
    job = line.pipe.begin(key)
    assert job is not None
    assert job.question.params["fromId"] == 6


def test_holes_that_nobody_can_be_asked_about_hold_up_the_trades_for_a_minute_in_all() -> None:
    line = Line(intervals=())
    for number, after in ((1, 500), (2, 1100), (5, 2100), (9, 5100)):
        line.trade(number, after)
    began = line.now
    while line.pipe.most_due() is not None:
        due_ms, key = line.due()
        line.now = max(line.now, due_ms)
        job = line.pipe.begin(key)
        assert job is not None
        job.failed()
        line.pipe.done(key)
        assert line.now < began + 90_000
    assert line.now >= began + 60_000
