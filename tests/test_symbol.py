"""One symbol's engine: trades, tickers, books, prices, liveness, status, minutes compared."""

from decimal import Decimal
from typing import Any

import pytest
from attrs import evolve
from support.engine import (
    BOOKS,
    CANDLES,
    TICKERS,
    TRADES,
    USDM,
    Engine,
    candles,
    closes,
    end_at,
    fetches,
    minute,
    news,
    reports,
    rotations,
    statuses,
)
from support.make import MINUTE, T0, kline, trade

from trio_feed.core.calendar import grid_of
from trio_feed.core.effects import Report, TradeNews
from trio_feed.core.questions import (
    BookQuestion,
    LatestQuestion,
    Need,
    Rules,
    TradeQuestion,
)
from trio_feed.core.rollup import roll
from trio_feed.core.streams import Kind, KlineUpdate, Stream
from trio_feed.instants import NEVER
from trio_feed.model import (
    BookTop,
    BookUpdate,
    BookView,
    Channel,
    ChannelKey,
    Interval,
    Kline,
    Liquidation,
    Price,
    Series,
    Source,
    StatusMessage,
    StreamState,
    Ticker,
    Trade,
    plain,
)
from trio_feed.simulator import Market

S1, S30, M1 = Interval.S1, Interval.S30, Interval.M1
NAME = "binance_usdm"
TRADE_KEY = ChannelKey(NAME, "BTCUSDT", Channel.TRADE)
M1_SERIES = Series(NAME, "BTCUSDT", M1)
S1_SERIES = Series(NAME, "BTCUSDT", S1)


def building(**more: Any) -> Engine:
    """1s candles of trades, 1m of the exchange."""
    chosen: dict[str, Any] = {
        "trade_intervals": (S1,),
        "channels": (Channel.KLINE, Channel.TRADE),
    }
    return Engine(**(chosen | more))


def at_ms(engine: Engine, number: int, after_ms: int, **more: Any) -> list[Any]:
    """A live trade comes in when it happens."""
    engine.go(max(engine.now_s, after_ms / 1000))
    return engine.take(trade(number, T0 + after_ms, **more))


def open_trades(effects: list[Any]) -> list[int]:
    """So many trades has each state of a running 1s candle that is shown."""
    return [n.kline.trades for n in candles(effects, S1) if not n.kline.closed]


def running(**more: Any) -> Engine:
    """The candle from second 1 on runs."""
    engine = building(**more)
    at_ms(engine, 1, 500)
    at_ms(engine, 2, 1_010)
    engine.wake()
    return engine


def test_running_candles_are_shown_at_most_every_so_often_and_the_latest_state_is() -> None:
    engine = running(publish_interval_ms=100)
    assert open_trades(at_ms(engine, 3, 1_500)) == [2]
    assert open_trades(at_ms(engine, 4, 1_530)) == open_trades(at_ms(engine, 5, 1_560)) == []
    assert engine.wakes_s == pytest.approx(1.6)
    assert open_trades(engine.go(1.6).wake()) == [4]
    assert engine.wakes_s > 1.7, "nothing new is to be shown"
    assert open_trades(at_ms(engine, 6, 1_900)) == [5], "it was quiet, so this is shown at once"
    assert open_trades(at_ms(engine, 7, 1_950)) == []
    out = at_ms(engine, 8, 2_005)
    assert next((n.kline.trades, n.kline.closed) for n in candles(out, S1)) == (6, True)


def test_running_candles_are_shown_with_each_trade_where_that_is_wanted() -> None:
    engine = running(publish_interval_ms=0)
    shown = [open_trades(at_ms(engine, n, 1_500 + n)) for n in (3, 4, 5)]
    assert shown == [[2], [3], [4]]


def counted(effects: list[Any], metric: str) -> list[tuple[tuple[str, ...], float]]:
    return [(r.labels, r.amount) for r in reports(effects, metric)]


# What one can have


def test_its_subjects() -> None:
    engine = building(channels=tuple(Channel), rollup_intervals=(Interval.M3,))
    assert engine.core.stream_keys == [
        M1_SERIES, S1_SERIES, Series(NAME, "BTCUSDT", Interval.M3),
        ChannelKey(NAME, "BTCUSDT", Channel.TICKER), TRADE_KEY,
        *(ChannelKey(NAME, "BTCUSDT", c) for c in (Channel.BOOK, Channel.BBO)),
        ChannelKey(NAME, "BTCUSDT", Channel.MARK_PRICE),
        ChannelKey(NAME, "BTCUSDT", Channel.LIQUIDATION),
        ChannelKey(NAME, "BTCUSDT", Channel.OPEN_INTEREST),
    ]  # fmt: skip
    assert repr(engine.core) == "<SymbolEngine binance_usdm:BTCUSDT>"


def test_what_it_does_not_take_is_counted() -> None:
    engine = Engine()
    price = Decimal(1)
    odd = Liquidation("BTCUSDT", True, price, price, price, T0)
    book = BookUpdate("BTCUSDT", 1, 1, None, (), ())
    assert engine.take(odd, book, trade(1, T0), Price("BTCUSDT", price, "key")) == [
        Report("", "", {}, "ignored_messages", (kind,))
        for kind in ("Liquidation", "other book", "Price")
    ]


# Trades


def test_trades_are_published_in_order_and_labelled() -> None:
    engine = building(simulated=True)
    out = engine.take(trade(1, T0), trade(2, T0 + 1))
    told = [e for e in out if isinstance(e, TradeNews)]
    assert [one for e in told for one in e.trades] == [trade(1, T0), trade(2, T0 + 1)]
    assert {(e.key, e.source, e.received_ms) for e in told} == {
        (TRADE_KEY, Source.SIMULATED, T0 + 7_000.0)
    }
    quiet = building(channels=(Channel.KLINE,))
    assert news(quiet.take(trade(1, T0)), Channel.TRADE) == []


def test_a_trade_with_an_absurd_event_time_counts_without_it() -> None:
    engine = building(now_s=1)
    engine.take(evolve(trade(1, T0 + 500), event_ms=T0 + 61_001))
    engine.take(evolve(trade(2, T0 + 600), event_ms=T0 + 61_000))
    assert [t.event_ms for t in news(engine.out, Channel.TRADE)] == [0, T0 + 61_000]


def test_a_hole_in_the_trades_is_fetched_before_later_ones_count() -> None:
    engine = building()
    engine.up()
    for number, after in ((1, 500), (2, 1_100), (6, 3_100), (7, 4_100)):
        at_ms(engine, number, after)
    assert closes(engine.out, S1) == []
    assert engine.wakes_s <= 4.1
    assert fetches(engine.wake()) == [(Need.TRADES, None)]
    assert engine.ask(Need.TRADES) == TradeQuestion(3)
    rows = [trade(n, T0 + 1_000 + n * 200) for n in (3, 4, 5, 6)]
    out = engine.answer(Need.TRADES, rows)
    assert closes(out, S1) == [1_000, 2_000, 3_000]
    assert all(n.kline.complete for n in candles(engine.out, S1) if n.kline.closed)
    assert [t.trade_id for t in news(engine.out, Channel.TRADE)] == [*range(1, 8)]
    assert counted(out, "repaired") == [(("trade",), 3.0)]
    assert engine.ask(Need.TRADES) is None


@pytest.mark.parametrize("dated_ms", [4_100, 7_200_000])
def test_a_line_is_repaired_when_its_trades_are_there_and_not_before(dated_ms: int) -> None:
    """However the first trade behind the hole is dated."""
    engine = building()
    engine.up()
    for number, after in ((1, 500), (2, 1_100), (3, 1_200)):
        at_ms(engine, number, after)
    (stream,) = [s for s in engine.streams if s.interval is None]
    engine.down(stream)
    engine.go(4.1).up(stream)
    engine.take(trade(6, T0 + dated_ms))

    def told(out: list[Any]) -> list[StreamState]:
        return [m.state for m in statuses(out) if m.stream_key == TRADE_KEY]

    assert told(engine.out) == [StreamState.LIVE, StreamState.STALE, StreamState.REPAIRING]
    engine.wake()
    assert told(engine.failed(Need.TRADES)) == []  # it could not be asked
    engine.go(engine.wakes_s).wake()
    assert told(engine.answer(Need.TRADES, [trade(4, T0 + 1_500)])) == []  # and this is not all
    engine.go(engine.wakes_s).wake()
    assert told(engine.answer(Need.TRADES, [trade(5, T0 + 1_600)])) == [StreamState.REPAIRED]


def test_a_hole_that_nobody_fills_is_marked_and_said() -> None:
    engine = building()
    engine.up()
    for number, after in ((1, 500), (2, 1_100), (3, 2_100), (9, 5_100), (10, 6_100), (11, 7_200)):
        at_ms(engine, number, after)
    for _ in range(4):
        engine.wake()
        engine.answer(Need.TRADES, [])
        engine.go(engine.now_s + 8)
    engine.wake()
    out = engine.answer(Need.TRADES, [])
    (line,) = reports(out, "trades.missing")
    assert line == Report(
        "trades.missing", "warning",
        {"symbol": "BTCUSDT", "from_ms": T0 + 2_100, "to_ms": T0 + 5_100,
         "problem": "the exchange does not have them"},
    )  # fmt: skip
    assert [m for m in statuses(out) if m.stream_key == TRADE_KEY] == [
        StatusMessage(TRADE_KEY, StreamState.UNREPAIRABLE, "the exchange does not have it",
                      T0 + 2_100, T0 + 5_100)
    ]  # fmt: skip
    marks = {n.kline.open_ms - T0: n.kline.complete for n in candles(engine.out, S1)
             if n.kline.closed}  # fmt: skip
    assert marks == {1_000: True, 2_000: False, 5_000: False, 6_000: True}


def test_a_hole_that_nobody_can_be_asked_about_holds_up_the_trades_for_a_minute() -> None:
    engine = building(intervals=(), ends={})
    for number, after in ((1, 500), (2, 1_100), (5, 2_100), (9, 5_100)):
        at_ms(engine, number, after)
    times = []
    while engine.core.trades is not None and engine.core.trades.trades.sequence.waiting:
        if fetches(engine.wake()) == [(Need.TRADES, None)]:
            times.append(engine.now_s)
            engine.failed(Need.TRADES)
        engine.go(engine.wakes_s)
    assert times[:3] == [5.1, 7.1, 9.1]
    assert 59.9 < times[-1] - times[0] < 75
    assert len(reports(engine.out, "trades.missing")) == 2


def test_trade_ids_that_begin_anew_are_said_and_gone_on_with() -> None:
    engine = building()
    engine.up()
    at_ms(engine, 1_000, 500)
    for number, after in ((1, 5_000), (2, 5_100), (3, 5_200)):
        at_ms(engine, number, after)
    (line,) = reports(engine.out, "trades.missing")
    assert line.fields["problem"] == "trade ids began anew"
    assert [t.trade_id for t in news(engine.out, Channel.TRADE)] == [1_000, 1, 2, 3]
    at_ms(engine, 4, 6_000)
    at_ms(engine, 5, 7_000)
    assert closes(engine.out, S1) == [6_000]


def test_trades_since_the_stored_end_are_fetched_after_a_restart() -> None:
    row = evolve(kline(T0 - 1_000, source=Source.TRADES), last_stream_id=5)
    engine = building(ends={M1: end_at(minute(-1)), S1: end_at(row)})
    engine.up()
    at_ms(engine, 9, 2_500)
    assert (Need.TRADES, None) in fetches(engine.wake())
    assert engine.ask(Need.TRADES) == TradeQuestion(6)
    out = engine.answer(Need.TRADES, [trade(n, T0 + 100 * n) for n in (6, 7, 8)])
    assert closes(out, S1) == [0, 1_000]
    assert {n.kline.complete for n in candles(out, S1)} == {True}


@pytest.mark.parametrize("intervals", [(), (S1,)])
def test_trades_that_were_missed_between_two_engines_are_fetched(
    intervals: tuple[Interval, ...],
) -> None:
    """Also where no stored candle says which trade was the last."""
    before = building(trade_intervals=intervals)
    before.up()
    at_ms(before, 4, 300)
    at_ms(before, 5, 500)
    engine = building(trade_intervals=intervals, now_s=1)
    engine.core.take_over(before.core)
    engine.up()
    at_ms(engine, 9, 1_500)
    assert news(engine.out, Channel.TRADE) == []
    assert (Need.TRADES, None) in fetches(engine.wake())
    assert engine.ask(Need.TRADES) == TradeQuestion(6)
    engine.answer(Need.TRADES, [trade(n, T0 + 100 * n) for n in (6, 7, 8)])
    assert [t.trade_id for t in news(engine.out, Channel.TRADE)] == [6, 7, 8, 9]


@pytest.mark.parametrize("missed", [True, False])
def test_trades_behind_those_that_another_node_told_are_fetched_and_said(missed: bool) -> None:
    engine = building(intervals=(), ends={}, now_s=1)
    engine.core.go_on(trade(5, T0 + 500))
    engine.up()
    at_ms(engine, 9 if missed else 6, 1_500)
    told = [m for m in statuses(engine.out) if m.stream_key == TRADE_KEY]
    if not missed:
        assert [m.state for m in told] == [StreamState.LIVE]
        assert [t.trade_id for t in news(engine.out, Channel.TRADE)] == [6]
        return
    assert told == [StatusMessage(TRADE_KEY, StreamState.REPAIRING, "", T0 + 500, T0 + 1_500)]
    assert news(engine.out, Channel.TRADE) == []
    assert (Need.TRADES, None) in fetches(engine.wake())
    assert engine.ask(Need.TRADES) == TradeQuestion(6)
    out = engine.answer(Need.TRADES, [trade(n, T0 + 100 * n) for n in (6, 7, 8)])
    assert [t.trade_id for t in news(out, Channel.TRADE)] == [6, 7, 8, 9]
    assert [m.state for m in statuses(out) if m.stream_key == TRADE_KEY] == [StreamState.REPAIRED]


def stored_up_to(number: int, second: int) -> dict[Interval, Any]:
    """A stored 1s candle whose last trade is that one."""
    row = evolve(kline(0), open_ms=T0 + 1000 * second, event_ms=T0 + 1000 * second + 900)
    return {S1: end_at(evolve(row, last_stream_id=number))}


@pytest.mark.parametrize("answered", [True, False])
def test_trades_that_stored_candles_have_and_nobody_was_told_are_told(answered: bool) -> None:
    """The node before this one could store and could not say: its trades are fetched and said, and
    are in no candle twice.  Where nobody has them, the candles go on behind the stored ones."""
    engine = building(intervals=(), ends=stored_up_to(8, 1), now_s=2)
    engine.core.go_on(trade(5, T0 + 500))
    engine.up()
    at_ms(engine, 11, 2_300)
    assert engine.ask(Need.TRADES) == TradeQuestion(6)
    if answered:
        rows = [trade(n, T0 + 1_000 + 100 * n) for n in (6, 7, 8)]
        rows += [trade(n, T0 + 1_100 + 100 * n) for n in (9, 10)]
        out = engine.answer(Need.TRADES, rows)
        assert [t.trade_id for t in news(out, Channel.TRADE)] == [6, 7, 8, 9, 10, 11]
        assert [m.state for m in statuses(out)][-1] == StreamState.REPAIRED
    else:
        for _ in range(5):
            out = engine.answer(Need.TRADES, [])
        assert engine.ask(Need.TRADES) == TradeQuestion(9)
        out = engine.answer(Need.TRADES, [trade(n, T0 + 1_100 + 100 * n) for n in (9, 10)])
        assert [t.trade_id for t in news(out, Channel.TRADE)] == [9, 10, 11]
        assert [m.state for m in statuses(out)][-1] == StreamState.UNREPAIRABLE
    out += at_ms(engine, 12, 3_100)
    made = [each.kline for each in candles(out, S1) if each.kline.closed]
    assert [(row.open_ms - T0, row.trades, row.complete) for row in made] == [(2_000, 3, True)]


def test_trades_that_were_fetched_have_no_event_time_that_their_candle_could_tell() -> None:
    """The told trade is later than any event that the stored candle knows, and is in it."""
    row = evolve(kline(0), open_ms=T0 + 1000, event_ms=T0 + 1_100, last_stream_id=8)
    engine = building(intervals=(), ends={S1: end_at(row)}, now_s=2)
    engine.core.go_on(trade(5, T0 + 1_500))
    engine.up()
    at_ms(engine, 9, 2_300)
    assert engine.ask(Need.TRADES) == TradeQuestion(6)
    out = engine.answer(Need.TRADES, [trade(n, T0 + 1_000 + 100 * n) for n in (6, 7, 8)])
    assert [t.trade_id for t in news(out, Channel.TRADE)] == [6, 7, 8, 9]


@pytest.mark.parametrize("event_ms", [0, T0 + 1_900])
def test_trades_whose_ids_began_anew_behind_the_stored_candles_are_in_candles(
    event_ms: int,
) -> None:
    row = evolve(kline(0), open_ms=T0 + 1000, event_ms=event_ms, last_stream_id=1_000_000)
    engine = building(intervals=(), ends={S1: end_at(row)}, now_s=5)
    engine.core.go_on(trade(5, T0 + 5_000))
    engine.up()
    for number in range(6, 12):
        at_ms(engine, number, 1_000 * number)
    made = [each.kline for each in candles(engine.out, S1) if each.kline.closed]
    assert sum(row.trades for row in made) >= 2


def test_a_trade_before_the_last_of_a_stored_candle_may_be_of_the_next_one() -> None:
    """The times of trades are out of order by some milliseconds."""
    engine = building(intervals=(), ends=stored_up_to(8, 1), now_s=2)
    engine.core.go_on(trade(5, T0 + 1_500))
    engine.up()
    at_ms(engine, 9, 2_300)
    times = {6: 1_800, 7: 2_010, 8: 1_990}
    engine.answer(Need.TRADES, [trade(n, T0 + after) for n, after in times.items()])
    at_ms(engine, 10, 3_100)
    (made,) = [each.kline for each in candles(engine.out, S1) if each.kline.closed]
    assert (made.open_ms - T0, made.trades) == (2_000, 2)


def test_trades_whose_ids_began_anew_inside_of_the_stored_candles_are_told() -> None:
    """The last one that was told has a larger id than they have, and is from before their end."""
    row = evolve(kline(0), open_ms=T0 + 1000, event_ms=T0 + 1_900, last_stream_id=50)
    engine = building(intervals=(), ends={S1: end_at(row)}, now_s=2)
    engine.core.go_on(trade(1_000_000, T0 - 5_000))
    engine.up()
    for number in range(5):
        at_ms(engine, 51 + number, 2_100 + 300 * number)
    ids = [t.trade_id for t in news(engine.out, Channel.TRADE)]
    assert ids == [51, 52, 53, 54, 55]
    told = [m.state for m in statuses(engine.out) if m.stream_key == TRADE_KEY]
    assert StreamState.UNREPAIRABLE in told
    made = [each.kline for each in candles(engine.out, S1) if each.kline.closed]
    assert not any(row.complete for row in made)


def test_the_word_of_a_hole_comes_before_the_candle_behind_it() -> None:
    engine = running()
    engine.up()
    at_ms(engine, 3, 2_010)
    out = [each for number in range(3) for each in at_ms(engine, 50_000 + number, 10_000 + number)]
    out += at_ms(engine, 50_003, 11_500)
    said = [
        each.state if isinstance(each, StatusMessage) else (each.kline.open_ms - T0) // 1000
        for each in out
        if (isinstance(each, StatusMessage) and each.stream_key == S1_SERIES)
        or (hasattr(each, "series") and hasattr(each, "kline") and each.series == S1_SERIES)
    ]
    assert StreamState.UNREPAIRABLE in said
    assert said.index(StreamState.UNREPAIRABLE) < said.index(10), said


def test_a_quiet_market_is_proven_where_the_newest_trade_is_stored_and_not_told() -> None:
    engine = building(intervals=(), ends=stored_up_to(8, 1), now_s=2)
    engine.core.go_on(trade(5, T0 + 500))
    engine.up()
    engine.go(100)
    out = engine.answer(Need.PROOF, [trade(8, T0 + 1_800)], date_ms=T0 + 100_000)
    made = [each.kline for each in candles(out, S1) if each.kline.closed]
    assert made
    assert all(row.complete and not row.trades for row in made)


def test_a_late_trade_revises_its_own_candle() -> None:
    engine = building()
    for number, after in ((1, 0), (2, 1_100), (3, 2_100), (4, 3_000)):
        at_ms(engine, number, after)
    out = at_ms(engine, 5, 1_900, price="90.0")
    found = [n for n in candles(out, S1) if n.kline.closed]
    assert [(n.revision, n.kline.open_ms - T0, n.kline.complete) for n in found] == [
        (True, 1_000, False), (True, 2_000, False),
    ]  # fmt: skip
    assert (found[0].kline.trades, found[0].kline.low) == (2, 90)
    assert [r.fields["time"] for r in reports(out, "candle.revised")] == [T0 + 1_000, T0 + 2_000]


# Proof


def test_a_quiet_market_is_asked_about_and_its_candles_close() -> None:
    engine = building(intervals=(), ends={})
    engine.up(TRADES)
    at_ms(engine, 1, 100)
    at_ms(engine, 2, 1_100)
    engine.go(2).wake()
    assert engine.wakes_s == 35  # the grace after it can be proven that the candle is over
    assert fetches(engine.go(35).wake()) == [(Need.PROOF, None)]
    assert engine.ask(Need.PROOF) == LatestQuestion(None)
    assert closes(engine.out, S1) == []
    # REST may be half a minute behind.
    out = engine.answer(Need.PROOF, [trade(2, T0 + 1_100)], date_ms=T0 + 34_000.0)
    assert closes(out, S1) == [1_000, 2_000, 3_000]
    # Nothing newer than ours, but without a time: nothing is proven.
    engine.go(42).answer(Need.PROOF, [trade(2, T0 + 1_100)])
    assert closes(engine.out, S1) == [1_000, 2_000, 3_000]
    # Something newer: the stream is behind, candles wait.
    engine.go(50).answer(Need.PROOF, [trade(3, T0 + 5_000)], date_ms=T0 + 50_000.0)
    assert closes(engine.out, S1) == [1_000, 2_000, 3_000]


def test_a_proof_that_failed_is_asked_for_again() -> None:
    engine = building(intervals=(), ends={})
    engine.up(TRADES)
    at_ms(engine, 1, 100)
    assert fetches(engine.go(34).wake()) == [(Need.PROOF, None)]
    engine.failed(Need.PROOF)
    assert fetches(engine.go(36.9).wake()) == []
    assert fetches(engine.go(37).wake()) == [(Need.PROOF, None)]


def test_nothing_is_asked_about_a_stream_that_is_down_or_that_cannot_be_asked() -> None:
    engine = building(intervals=(), ends={})
    at_ms(engine, 1, 100)
    assert fetches(engine.go(60).wake()) == []
    engine.up(TRADES)
    assert fetches(engine.wake()) == [(Need.PROOF, None)]
    other = building(intervals=(), ends={}, rules=evolve(USDM, refill=False))
    other.up(TRADES)
    at_ms(other, 1, 100)
    assert fetches(other.go(20).wake()) == []


def test_with_the_exchanges_minutes_at_hand_they_are_the_proof() -> None:
    engine = building()
    engine.up()
    at_ms(engine, 1, -500)
    at_ms(engine, 2, 100)
    engine.candle(0, closed=False)
    assert (Need.PROOF, None) not in fetches(engine.go(40).wake())
    assert (Need.PROOF, None) in fetches(engine.go(66).wake())


def official(n: int, count: int, *, closed: bool = True) -> KlineUpdate:
    """A minute of trades at 100.0 of 1.0 each."""
    hundred = Decimal("100.0")
    row = evolve(
        minute(n, closed=closed, event_ms=T0 + (n + 1) * MINUTE - (0 if closed else 20_000)),
        open=hundred, high=hundred, low=hundred, close=hundred, volume=Decimal(count),
        trades=count,
    )  # fmt: skip
    return KlineUpdate("BTCUSDT", M1, row)


def test_the_exchanges_own_candle_closes_those_built_here() -> None:
    engine = building(trade_intervals=(S30,))
    at_ms(engine, 1, -500)
    at_ms(engine, 2, 1_000)
    out = engine.go(40).take(official(0, 1, closed=False))
    assert closes(out, S30) == [0]
    out = engine.go(60).take(official(0, 1))
    assert closes(out, S30) == [30_000]


# Minutes compared


def trades_of(n: int, ids: range) -> list[Trade]:
    """Trades of minute n, with these ids."""
    step = MINUTE // (len(ids) + 1)
    return [trade(i, T0 + n * MINUTE + (k + 1) * step) for k, i in enumerate(ids)]


def compared(count: int, **more: Any) -> Engine:
    """A minute of six trades, of which the exchange counts so many."""
    engine = building(trade_intervals=(S30,), **more)
    engine.go(0).take(*trades_of(-1, range(1, 3)))
    engine.go(60).take(*trades_of(0, range(3, 9)))
    engine.go(80).take(*trades_of(1, range(9, 12)), official(0, count))
    return engine


def test_a_minute_that_agrees_with_its_trades_is_counted() -> None:
    engine = compared(6)
    assert counted(engine.out, "reconciled") == [(("equal",), 1.0)]
    assert reports(engine.out, "candle.differs") == []


def test_a_minute_that_differs_is_looked_at_soon_and_corrected() -> None:
    engine = compared(7, audit_after_s=600.0)
    (line,) = reports(engine.out, "candle.differs")
    fields = {"stream": "binance_usdm:BTCUSDT:1m", "time": T0, "fields": ["trades", "volume"],
              "missing": 1}  # fmt: skip
    assert line == Report("candle.differs", "warning", fields, "reconciled", ("different",))
    assert (Need.AUDIT, M1) in fetches(engine.go(80).wake())
    row = evolve(official(0, 6).kline, source=Source.BACKFILL)
    engine.answer(Need.AUDIT, [row], M1)
    finals = [n for n in candles(engine.out) if n.kline.closed and n.kline.open_ms == T0]
    assert [(n.revision, n.kline.trades) for n in finals] == [(False, 7), (True, 6)]


def test_comparison_is_off_where_it_is_not_wanted() -> None:
    assert counted(compared(7, reconcile=False).out, "reconciled") == []


def test_a_minute_whose_other_side_never_comes_is_counted() -> None:
    engine = building(trade_intervals=(S30,))
    engine.go(0).take(*trades_of(-1, range(1, 3)))
    engine.go(60).take(official(0, 1))
    engine.go(60 + 121).take(official(1, 1))
    assert counted(engine.out, "reconciled") == [(("one_sided",), 1.0)]


# Early close


def early(**more: Any) -> Engine:
    engine = building(trade_intervals=(S30,), close="proven", **more)
    engine.go(0).take(*trades_of(-1, range(1, 3)))
    engine.go(60).take(*trades_of(0, range(3, 9)))
    return engine


def test_a_minute_closes_as_soon_as_the_trades_prove_it() -> None:
    engine = early()
    out = engine.go(60.4).take(trade(9, T0 + 60_300))
    (final,) = [n for n in candles(out) if n.kline.closed]
    assert (final.kline.open_ms, final.kline.source, final.kline.trades) == (
        T0, Source.TRADES, 6,
    )  # fmt: skip
    out = engine.go(62).take(official(0, 6))
    assert closes(out) == []
    assert candles(out) == []
    (lead,) = counted(out, "early_close_lead_ms")
    assert lead == ((), pytest.approx(1_600))
    assert counted(out, "early_closes") == [((), 1.0)]
    assert counted(out, "early_closes_revised") == []
    assert counted(engine.out, "reconciled") == [(("equal",), 1.0)]


def test_the_exchanges_row_revises_an_early_close() -> None:
    engine = early()
    engine.go(60.4).take(trade(9, T0 + 60_300))
    out = engine.go(62).take(official(0, 7))
    (news_,) = candles(out)
    assert (news_.revision, news_.kline.trades, news_.kline.source) == (
        True, 7, Source.EXCHANGE,
    )  # fmt: skip
    assert counted(out, "early_closes_revised") == [((), 1.0)]


def test_a_minute_with_a_loss_does_not_close_early() -> None:
    engine = building(trade_intervals=(S30,), close="proven")
    engine.go(50).take(*trades_of(0, range(3, 9)))  # the first trade came after unknown ones
    engine.go(60.4).take(trade(9, T0 + 60_300))
    assert closes(engine.out) == []


def test_by_default_the_exchange_closes_its_minutes() -> None:
    engine = compared(6)
    (final,) = [n for n in candles(engine.out) if n.kline.closed]
    assert final.kline.source is Source.EXCHANGE


# Tickers and books


def lines(**more: Any) -> Engine:
    return Engine(
        channels=tuple(Channel), streams=(CANDLES, TRADES, TICKERS, BOOKS), reconcile=False, **more
    )


def test_a_ticker_is_completed_by_the_best_bid_and_ask() -> None:
    engine = lines()
    top = BookTop("BTCUSDT", Decimal("9.9"), Decimal(1), Decimal("10.1"), Decimal(2), 5, T0)
    assert news(engine.take(top), Channel.TICKER) == []
    full = Ticker("BTCUSDT", Decimal(10), *[Decimal(n) for n in (9, 12, 8, 100, 1000)])
    engine.take(full, evolve(top, update_id=6), evolve(full, last=Decimal(11)))
    first, second, third = news(engine.out, Channel.TICKER)
    assert first == full
    assert (second.last, second.bid, second.bid_size, second.ask, second.ask_size) == (
        10, Decimal("9.9"), 1, Decimal("10.1"), 2,
    )  # fmt: skip
    assert second.event_ms == T0
    assert (third.last, third.bid) == (11, Decimal("9.9"))
    own = evolve(full, bid=Decimal(1), event_ms=T0 + 1)
    assert news(engine.take(own), Channel.TICKER) == [own]
    # The second copy, over another connection.
    assert engine.take(evolve(top, update_id=6), own) == []
    timeless = evolve(top, update_id=7, event_ms=0)
    (last,) = news(engine.take(timeless), Channel.TICKER)
    assert last.event_ms == T0 + 1


def test_a_ticker_that_nobody_wants_is_only_counted() -> None:
    full = Ticker("BTCUSDT", Decimal(10), *[None] * 5)
    assert Engine().take(full) == [Report("", "", {}, "ignored_messages", ("Ticker",))]


def book(
    first: int, last: int, previous: int, *, bid: str = "10.0", size: str = "1.0"
) -> BookUpdate:
    levels = ((Decimal(bid), Decimal(size)),)
    return BookUpdate("BTCUSDT", first, last, previous, levels, (), event_ms=T0)


def snapshot(last_id: int = 100) -> BookUpdate:
    bids, asks = ((Decimal("9.0"), Decimal(2)),), ((Decimal("11.0"), Decimal(3)),)
    return BookUpdate("BTCUSDT", last_id, last_id, None, bids, asks, snapshot=True, event_ms=T0)


def synced() -> Engine:
    engine = lines()
    engine.up()
    assert (Need.BOOK, None) not in fetches(engine.wake())  # before it flows none would fit
    engine.take(book(101, 105, 99))
    assert news(engine.out, Channel.BOOK) == []
    assert engine.core.wake_at <= engine.now.mono
    assert fetches(engine.wake()) == [(Need.BOOK, None)]
    assert engine.ask(Need.BOOK) == BookQuestion()
    engine.answer(Need.BOOK, [snapshot()])
    return engine


def test_a_book_waits_for_its_snapshot_and_then_shows_itself() -> None:
    engine = synced()
    (view,) = news(engine.out, Channel.BOOK)
    assert isinstance(view, BookView)
    assert [plain(price) for price, _ in view.bids] == ["10.0", "9.0"]
    assert (view.stale, view.update_id) == (False, 105)
    assert [r.fields for r in reports(engine.out, "book.synced")] == [{"symbol": "BTCUSDT"}]
    engine.take(book(106, 110, 105, size="0.0"))
    assert [plain(price) for price, _ in news(engine.out, Channel.BOOK)[-1].bids] == ["9.0"]
    assert engine.take(evolve(book(1, 2, 0), partial=True)) == []


def test_a_gap_in_a_book_is_shown_stale_and_resynced() -> None:
    engine = synced()
    out = engine.go(5).take(book(120, 125, 119))
    assert [view.stale for view in news(out, Channel.BOOK)] == [True]
    (gap,) = reports(out, "book.gap")
    assert (gap.level, gap.metric, gap.fields["symbol"]) == ("warning", "book_gaps", "BTCUSDT")
    assert engine.core.channels.book is not None
    assert engine.core.channels.book.book.stale
    assert fetches(engine.go(10).wake()) == [(Need.BOOK, None)]
    out = engine.answer(Need.BOOK, [snapshot(50)])
    assert [r.level for r in reports(out, "book.again")] == ["info"]
    assert (Need.BOOK, None) in fetches(engine.go(30).wake())
    out = engine.answer(Need.BOOK, [snapshot(122)])
    assert [view.stale for view in news(out, Channel.BOOK)] == [False]


def test_a_snapshot_without_a_place_in_the_sequence_renews_the_stream() -> None:
    engine = lines()
    engine.up()
    engine.take(book(101, 105, 99))
    out = engine.answer(Need.BOOK, [snapshot(0)])
    assert rotations(out) == [(BOOKS, "renewed")]
    assert len(reports(out, "book.renewing")) == 1
    assert news(out, Channel.BOOK) == []


def test_a_lost_stream_makes_its_book_stale_and_begins_anew() -> None:
    engine = synced()
    out = engine.down(BOOKS, "gone")
    assert news(out, Channel.BOOK)[-1].stale
    assert statuses(out) == [
        StatusMessage(ChannelKey(NAME, "BTCUSDT", Channel.BOOK), StreamState.STALE, "gone")
    ]
    assert (Need.BOOK, None) not in fetches(engine.go(60).wake())
    assert news(engine.down(TRADES), Channel.BOOK) == []


def test_with_two_connections_a_book_that_is_ahead_waits_half_a_second() -> None:
    engine = lines(connection={"redundancy": 2})
    engine.take(book(101, 105, 100), book(111, 115, 110))
    engine.answer(Need.BOOK, [snapshot(103)])
    assert [view.update_id for view in news(engine.out, Channel.BOOK)] == [105]
    engine.go(0.3).take(book(106, 110, 105))
    assert news(engine.out, Channel.BOOK)[-1].update_id == 115
    assert reports(engine.out, "book.gap") == []


# Status and liveness


LIVE = ("live", None, None)


def states(engine: Engine, stream_key: Any) -> list[tuple[str, int | None, int | None]]:
    return [
        (m.state.value, None if m.first_ms is None else m.first_ms - T0,
         None if m.last_ms is None else m.last_ms - T0)
        for m in statuses(engine.out) if m.stream_key == stream_key
    ]  # fmt: skip


def test_what_was_missed_is_told_with_its_times_and_counted() -> None:
    engine = building()
    engine.up()
    engine.go(1).candle(0, closed=False)
    at_ms(engine, 1, 900)
    begins = states(engine, S1_SERIES)
    assert begins == states(engine, TRADE_KEY) == states(engine, M1_SERIES) == [LIVE]
    engine.go(30).down(CANDLES, "gone")
    engine.go(200).up(CANDLES)
    assert states(engine, M1_SERIES)[1:] == [("stale", None, None), ("repairing", 0, 2 * MINUTE)]
    engine.candle(3, closed=False)
    assert counted(engine.out, "gap_seconds") == [((), 199.0)]
    out = engine.answer(Need.CANDLES, [minute(n, source=Source.BACKFILL) for n in range(3)], M1)
    assert states(engine, M1_SERIES)[3:] == [("repaired", 0, 2 * MINUTE)]
    assert counted(out, "repaired") == [(("candle",), 1.0)] * 3
    assert states(engine, S1_SERIES) == states(engine, TRADE_KEY) == [LIVE]


def test_history_is_not_counted_as_repaired() -> None:
    engine = Engine(ends={}, now_s=30)
    out = engine.answer(Need.CANDLES, [minute(n, source=Source.BACKFILL) for n in (-2, -1)], M1)
    assert counted(out, "repaired") == []


def test_trades_that_were_missed_are_told_when_they_are_there() -> None:
    engine = building()
    engine.up()
    at_ms(engine, 1, 100)
    engine.go(1).down(TRADES, "gone")
    engine.go(20).up(TRADES)
    at_ms(engine, 5, 20_000)
    assert states(engine, TRADE_KEY)[1:] == [("stale", None, None), ("repairing", 100, 20_000)]
    engine.answer(Need.TRADES, [trade(n, T0 + n * 1_000) for n in (2, 3, 4)])
    assert states(engine, TRADE_KEY)[3:] == [("repaired", 100, 20_000)]


def test_a_stream_that_missed_nothing_is_live_again() -> None:
    engine = Engine()
    engine.up(CANDLES)
    engine.go(1).candle(0, closed=False)
    engine.go(2).down(CANDLES, "gone")
    engine.go(3).up(CANDLES)
    assert states(engine, M1_SERIES) == [LIVE, ("stale", None, None)]
    engine.go(4).candle(0, closed=False)
    assert states(engine, M1_SERIES) == [LIVE, ("stale", None, None), LIVE]


def test_a_roll_up_stands_as_its_minutes_do() -> None:
    engine = Engine(rollup_intervals=(Interval.M3,))
    engine.up(CANDLES)
    engine.candle(0, closed=False)
    out = engine.down(CANDLES, "gone")
    assert [m.stream_key.interval for m in statuses(out) if isinstance(m.stream_key, Series)] == [
        M1, Interval.M3,
    ]  # fmt: skip


def ticking() -> Engine:
    """Candles once a second for 20 s."""
    engine = Engine(connection={"stall_min_s": 5.0})
    engine.up(CANDLES)
    for second in range(1, 21):
        engine.go(second).candle(0, closed=False, volume=str(second), event_ms=T0 + second * 1_000)
    engine.wake()
    return engine


def test_a_silence_is_asked_about_and_a_dead_stream_is_replaced() -> None:
    engine = ticking()
    assert engine.wakes_s == 25
    assert fetches(engine.go(25).wake()) == [(Need.PROBE, M1)]
    assert engine.ask(Need.PROBE, M1) == LatestQuestion(M1)
    row = minute(0, closed=False, volume="25")
    engine.answer(Need.PROBE, [row], M1)
    assert engine.wakes_s == 25  # it plans anew
    engine.wake()
    assert engine.wakes_s == 26
    out = engine.go(26).wake()
    assert counted(out, "probes") == [(("news",), 1.0)]
    (line,) = reports(out, "stream.stale")
    assert (line.level, dict(line.fields)) == (
        "warning", {"stream": CANDLES.name, "silent_s": 6.0},
    )  # fmt: skip
    assert rotations(out) == [(CANDLES, "stale")]
    assert statuses(out) == [
        StatusMessage(M1_SERIES, StreamState.STALE, "silent for 6.0 s while the market moves")
    ]
    out = engine.go(30).candle(0, closed=False, volume="30", event_ms=T0 + 30_000)
    assert states(engine, M1_SERIES)[2:] == [LIVE]
    assert counted(out, "gap_seconds") == [((), 10.0)]


def test_a_silence_of_our_own_doing_is_none() -> None:
    engine = ticking()
    assert engine.go(25).wake(held=True) == []
    assert engine.wakes_s == 26


def test_a_quiet_market_is_left_alone_and_one_that_cannot_be_asked_as_well() -> None:
    engine = ticking()
    engine.go(25).wake()
    out = engine.answer(Need.PROBE, [minute(0, closed=False, volume="20")], M1)
    assert counted(out, "probes") == [(("quiet",), 1.0)]
    assert engine.core.upstream.liveness.is_quiet(CANDLES, engine.now.mono)
    assert (Need.PROBE, M1) in fetches(engine.go(30).wake())
    assert counted(engine.failed(Need.PROBE, M1), "probes") == [(("failed",), 1.0)]
    assert states(engine, M1_SERIES) == [LIVE]
    assert (Need.PROBE, M1) not in fetches(engine.go(31).wake())


def test_an_answer_about_a_stream_that_is_gone_says_nothing() -> None:
    engine = ticking()
    engine.go(25).wake()
    engine.core.use((TRADES,), engine.now)
    assert engine.answer(Need.PROBE, [minute(0, closed=False, volume="25")], M1) == []


def test_a_probe_of_trades_proves_as_well() -> None:
    """Trades only, a quiet market: its candles close with the answer."""
    engine = building(intervals=(), ends={}, streams=(TRADES,))
    engine.up(TRADES)
    for n in range(21):
        at_ms(engine, n, n * 1_000)
    out = engine.go(56).answer(Need.PROBE, [trade(20, T0 + 20_000)], date_ms=T0 + 55_000.0)
    assert closes(out, S1)[-1] == 24_000


# Prices


MINT = "So11111111111111111111111111111111111111112"
SPINPET = Rules("spinpet", frozenset(), Kind.PRICE, refill=False)
PRICES = Stream("", "logs", "*", Kind.PRICE)


def priced(**more: Any) -> Engine:
    chosen: dict[str, Any] = {
        "rules": SPINPET, "symbol": MINT, "streams": (PRICES,), "intervals": (), "ends": {},
        "trade_intervals": (S1, S30), "channels": (Channel.KLINE, Channel.TRADE),
        "trading": False,
    }  # fmt: skip
    engine = Engine(**(chosen | more))
    engine.up(PRICES)
    return engine


def price(number: int, value: str) -> Price:
    return Price(MINT, Decimal(value), f"signature{number}:0")


def test_prices_become_candles_and_news() -> None:
    engine = priced()
    for number, (after, value) in enumerate(
        [(0, "1.0"), (300, "3.0"), (1_200, "2.0"), (5_100, "5.0")]
    ):
        engine.go(after / 1000).take(price(number, value))
    assert [str(s) for s in engine.core.stream_keys] == [
        f"spinpet:{MINT}:1s", f"spinpet:{MINT}:30s", f"spinpet:{MINT}:trade",
    ]  # fmt: skip
    rows = [n.kline for n in candles(engine.out, S1) if n.kline.closed]
    assert [(plain(k.open), plain(k.close), k.volume) for k in rows][:2] == [
        ("1.0", "3.0", 0), ("3.0", "2.0", 0),
    ]  # fmt: skip
    assert [k.open_ms - T0 for k in rows] == [0, 1_000]  # silence has no candles
    assert candles(engine.out, S1)[-1].kline.open == Decimal("2.0")
    assert len(news(engine.out, Channel.TRADE)) == 4


def test_the_same_event_twice_counts_once() -> None:
    engine = priced()
    engine.take(price(1, "1.0"), price(1, "1.0"))
    assert len(news(engine.out, Channel.TRADE)) == 1


def test_a_price_that_has_a_time_counts_there() -> None:
    engine = priced()
    engine.go(10).take(evolve(price(1, "1.0"), time_ms=T0 + 7_000))
    (running,) = candles(engine.out, S1)
    assert running.kline.open_ms == T0 + 7_000


def test_a_price_that_is_too_late_is_said_and_its_candle_stays() -> None:
    engine = priced()
    engine.take(evolve(price(1, "1.0"), time_ms=T0))
    engine.go(2_000).take(evolve(price(2, "2.0"), time_ms=T0 + 2_000_000))
    out = engine.take(evolve(price(3, "9.0"), time_ms=T0 + 500))
    assert reports(out, "price.too_late") == [
        Report("price.too_late", "warning", {"symbol": MINT, "time": T0 + 500})
    ]
    assert [(n.kline.close, n.kline.trades) for n in candles(out, S1)
            if n.kline.open_ms == T0] == [(Decimal("1.0"), 1)]  # fmt: skip
    assert len(news(out, Channel.TRADE)) == 1  # it is news all the same


def test_time_closes_candles_of_prices_while_their_stream_is_up() -> None:
    engine = priced()
    engine.go(0.1).take(price(1, "1.0"))
    engine.go(1.1).take(price(2, "2.0"))
    engine.wake()
    assert engine.wakes_s == 3  # a second after its end
    assert closes(engine.go(2.9).wake(), S1) == []
    assert closes(engine.go(3.5).wake(), S1) == [1_000]
    assert engine.wakes_s == 31
    engine.down(PRICES)
    told = len(engine.out)
    engine.go(60).wake()
    assert len(engine.out) == told
    assert engine.core.wake_at == NEVER
    engine.up(PRICES)
    engine.go(61).take(price(3, "3.0"))
    out = engine.go(63).wake()
    marks = [n.kline.complete for n in candles(out, S1) if n.kline.closed]
    assert set(marks) == {False}


def test_with_a_chain_only_the_chain_closes_candles_of_prices() -> None:
    engine = priced(rules=evolve(SPINPET, chain=True))
    engine.go(0.1).take(evolve(price(1, "1.0"), time_ms=T0 + 100))
    assert closes(engine.go(3_600).wake(), S1) == []
    now = engine.now
    assert closes(engine.core.priced.passed(T0 + 999, now), S1) == []
    assert closes(engine.core.priced.passed(T0 + 1_000, now), S1) == [0]
    assert engine.core.priced.passed(T0 + 1_000, now) == []


@pytest.mark.parametrize("known", [True, False])
def test_the_first_candle_of_a_chain_is_whole_where_nothing_was_missed(known: bool) -> None:
    engine = priced(rules=evolve(SPINPET, chain=True))
    if known:
        engine.core.priced.known_since(T0 - 1)
    engine.go(1).take(evolve(price(1, "1.0"), time_ms=T0 + 500))
    out = engine.core.priced.passed(T0 + 1_000, engine.now)
    assert [n.kline.complete for n in candles(out, S1) if n.kline.closed] == [known]


# Roll-ups against an exchange of one's own


def test_minutes_roll_up_and_equal_the_exchanges_own_candles() -> None:
    """Where both exist: the simulator's market is the exchange here."""
    market = Market(3, ["BTCUSDT"], 10)
    start = T0 - T0 % (4 * 60 * MINUTE)
    targets = (Interval.M3, Interval.M15, Interval.H1, Interval.H4)
    engine = Engine(
        rollup_intervals=targets, history_bars=0, now_s=(start - T0) / 1000,
        ends={M1: end_at(kline(start - MINUTE))},
    )  # fmt: skip
    minutes: list[Kline] = []
    for n in range(4 * 60):
        row = market.candle("BTCUSDT", M1, start + n * MINUTE)
        minutes.append(row)
        engine.go((row.open_ms + MINUTE - T0) / 1000).take(KlineUpdate("BTCUSDT", M1, row))
    for interval, number in zip(targets, (80, 16, 4, 1), strict=True):
        rolled = [n.kline for n in candles(engine.out, interval) if n.kline.closed]
        assert len(rolled) == number
        for row in rolled:
            own = market.candle("BTCUSDT", interval, row.open_ms)
            assert row.same_values(own)
            assert row.quote_volume == own.quote_volume
            assert (row.source, row.complete) == (Source.SIMULATED, True)
    (whole,) = [n.kline for n in candles(engine.out, Interval.H4) if n.kline.closed]
    assert whole == roll(grid_of(Interval.H4), minutes)


def test_an_answer_without_a_book_subscribes_to_nothing() -> None:
    engine = Engine(streams=(CANDLES, BOOKS), channels=(Channel.KLINE, Channel.BOOK))
    assert engine.core.channels.snapshot([], (BOOKS,), engine.now) == []
