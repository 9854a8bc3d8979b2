"""Candle series of one symbol: live, history, holes, second looks, grids, roll-ups, restarts."""

import math
from decimal import Decimal
from typing import Any

import pytest
from attrs import evolve
from support.engine import (
    CANDLES,
    TRADES,
    USDM,
    Engine,
    at,
    backfilled,
    candles,
    closes,
    end_at,
    fetches,
    loads,
    minute,
    reports,
    statuses,
)
from support.make import MINUTE, T0, kline, trade

from trio_feed.core.calendar import Grid, grid_of
from trio_feed.core.effects import CandleNews, Effect, Fetch, Load, Report, StoreHole, StoreRows
from trio_feed.core.history import History
from trio_feed.core.opening import End
from trio_feed.core.questions import CandleQuestion, Need
from trio_feed.core.rollup import roll
from trio_feed.core.streams import KlineUpdate
from trio_feed.instants import NEVER
from trio_feed.model import Hole, Interval, Kline, Series, Source, StreamState

S1, M1, M3, M5, M15 = Interval.S1, Interval.M1, Interval.M3, Interval.M5, Interval.M15
SERIES = Series("binance_usdm", "BTCUSDT", M1)


def finals(effects: list[Effect], interval: Interval = M1) -> list[Kline]:
    return [n.kline for n in candles(effects, interval) if n.kline.closed]


def test_a_closed_candle_is_published_once_with_its_log_line() -> None:
    engine = Engine()
    (update,) = engine.go(1).candle(0, closed=False)
    assert isinstance(update, CandleNews)
    news, line = engine.go(60).candle(0)
    assert news == CandleNews(SERIES, minute(0), 2, T0 + 67_000.0, after_ms=T0 - MINUTE)
    fields = {
        "stream": "binance_usdm:BTCUSDT:1m", "time": T0, "close": "100.50", "source": "exchange",
    }  # fmt: skip
    assert line == Report("candle.closed", "debug", fields, "candles_closed", ("exchange",))
    assert engine.candle(0) == []
    assert closes(engine.out) == [0]


def test_a_reconnect_asks_and_its_answer_comes_before_live_ones() -> None:
    engine = Engine()
    engine.go(0).up(CANDLES)
    engine.go(1).candle(0, closed=False)
    engine.go(180.5).down(CANDLES)
    engine.up(CANDLES)
    assert engine.wakes_s <= 180.5
    (ahead,) = candles(engine.candle(3, closed=False))
    assert ahead.provisional
    assert fetches(engine.wake()) == [(Need.CANDLES, M1)]
    assert fetches(engine.wake()) == []  # it is asked for
    assert engine.core.candles.holding() == 1
    question = engine.ask(Need.CANDLES, M1)
    assert question == CandleQuestion(M1, T0 - MINUTE + 1, 4)
    out = engine.answer(Need.CANDLES, [backfilled(n) for n in range(4) if n < 3], M1)
    assert closes(out) == [0, MINUTE, 2 * MINUTE]
    assert candles(out)[-1].kline.open_ms == T0 + 3 * MINUTE
    assert not candles(out)[-1].provisional
    assert engine.core.candles.holding() == 0
    assert reports(out, "backfill.filled") == [
        Report(
            "backfill.filled", "info",
            {"stream": "binance_usdm:BTCUSDT:1m", "candles": 3, "first_ms": T0,
             "last_ms": T0 + 2 * MINUTE},
        )
    ]  # fmt: skip
    assert engine.core.wake_at <= engine.now.mono  # it plans anew
    engine.wake()
    assert engine.wakes_s == 180.5 + 45  # liveness; the candle itself at 243


def test_the_question_follows_the_gap_and_no_more_than_a_page() -> None:
    engine = Engine(now_s=30)
    assert engine.ask(Need.CANDLES, M1) == CandleQuestion(M1, T0 - MINUTE + 1, 1)
    engine.go(5 * 60)
    assert engine.ask(Need.CANDLES, M1) == CandleQuestion(M1, T0 - MINUTE + 1, 6)
    engine.go(2_000 * 60)
    assert engine.ask(Need.CANDLES, M1) == CandleQuestion(M1, T0 - MINUTE + 1, 1_500)
    engine.go(-3_600)  # our idea of the exchange's time is wrong
    assert engine.ask(Need.CANDLES, M1) == CandleQuestion(M1, T0 - MINUTE + 1, 1)
    engine.candle(2, closed=False)
    assert engine.ask(Need.CANDLES, M1) == CandleQuestion(M1, T0 - MINUTE + 1, 3)


def test_a_question_that_failed_is_asked_again_after_a_while() -> None:
    engine = Engine(now_s=63)
    assert fetches(engine.wake()) == [(Need.CANDLES, M1)]
    engine.failed(Need.CANDLES, M1)
    assert fetches(engine.wake()) == []
    assert engine.wakes_s == 65
    assert fetches(engine.go(65).wake()) == [(Need.CANDLES, M1)]


def test_what_does_not_trade_is_not_asked_for() -> None:
    engine = Engine(trading=False, now_s=300)
    assert engine.wake() == []
    assert engine.core.wake_at == NEVER
    engine.core.use((CANDLES,), engine.now)
    assert fetches(engine.wake()) == [(Need.CANDLES, M1)]


def test_which_series_are_behind() -> None:
    engine = Engine(intervals=(M1, M5), trade_intervals=(S1,), ends={
        M1: end_at(minute(-1)), M5: end_at(kline(T0 - 5 * MINUTE)), S1: end_at(kline(T0 - 1000)),
    })  # fmt: skip
    assert engine.core.candles.behind(at(66)) == 0
    assert engine.core.candles.behind(at(66.1)) == 1
    assert engine.core.candles.behind(at(306.1)) == 2  # what is built cannot be fetched


def test_strangers_are_counted() -> None:
    engine = Engine()
    out = engine.take(KlineUpdate("BTCUSDT", Interval.H1, kline()))
    assert out == [Report("", "", {}, "ignored_messages", ("other series",))]


@pytest.mark.parametrize("off_ms", [60_001, -60_001])
def test_an_absurd_event_time_orders_nothing(off_ms: int) -> None:
    engine = Engine(now_s=10)
    engine.candle(0, closed=False, event_ms=T0 + 10_000 + off_ms)
    (update,) = engine.candle(0, closed=False, event_ms=T0 + 10_000, volume="2")
    assert isinstance(update, CandleNews)
    assert candles(engine.out)[0].kline.event_ms == 0
    near = Engine(now_s=10)
    near.candle(0, closed=False, event_ms=T0 + 10_000 + off_ms // abs(off_ms) * 60_000)
    assert candles(near.out)[0].kline.event_ms != 0


def test_a_candle_of_a_time_that_has_not_come_is_asked_about_and_not_believed() -> None:
    engine = Engine()
    engine.go(1).candle(60)
    assert closes(engine.out) == []
    engine.candle(0, closed=False)
    engine.go(60).candle(0)
    assert closes(engine.out) == [0]


def test_simulated_candles_say_so_whatever_their_way() -> None:
    engine = Engine(simulated=True, trade_intervals=(S1,), audit_after_s=600.0)
    engine.go(60).candle(0)
    engine.go(180).answer(Need.CANDLES, [backfilled(1), backfilled(2)], M1)
    engine.take(trade(1, T0 + 179_000), trade(2, T0 + 180_000))
    engine.take(trade(3, T0 + 181_000))
    assert {n.kline.source for n in candles(engine.out)} == {Source.SIMULATED}
    assert {n.kline.source for n in candles(engine.out, S1)} == {Source.SIMULATED}


# History


def test_a_fresh_series_asks_for_its_latest_page_first() -> None:
    engine = Engine(ends={}, history_bars=10, now_s=30)
    assert fetches(engine.wake()) == [(Need.CANDLES, M1)]
    assert engine.ask(Need.CANDLES, M1) == CandleQuestion(M1, T0 - 10 * MINUTE, 11)
    long = Engine(ends={}, history_bars=1_000, now_s=30)
    assert fetches(long.wake()) == [(Need.CANDLES, M1)]
    assert long.ask(Need.CANDLES, M1) == CandleQuestion(M1, T0 - 99 * MINUTE, 100)


def test_a_month_of_history_begins_no_earlier_than_the_venue() -> None:
    """1000 months before now there was nothing, not even a positive time."""
    engine = Engine(ends={}, intervals=(Interval.MO1,), history_bars=1_000, now_s=0)
    question = engine.ask(Need.CANDLES, Interval.MO1)
    assert isinstance(question, CandleQuestion)
    assert question.bars == 100
    row = kline(grid_of(Interval.MO1).previous(1_698_796_800_000), source=Source.BACKFILL)
    engine.answer(Need.CANDLES, [row], Interval.MO1)
    assert (Need.HISTORY, Interval.MO1) in fetches(engine.wake())
    question = engine.ask(Need.HISTORY, Interval.MO1)
    assert question == CandleQuestion(Interval.MO1, USDM.began_ms, 49)


def history(first: int, end: int) -> list[Kline]:
    return [backfilled(n) for n in range(first, end)]


def test_what_lies_before_is_stored_page_by_page_and_published_never() -> None:
    engine = Engine(ends={}, history_bars=1_000, now_s=30)
    engine.wake()
    out = engine.answer(Need.CANDLES, [*history(-99, 0), minute(0, closed=False)], M1)
    assert closes(out) == [n * MINUTE for n in range(-99, 0)]
    assert fetches(engine.wake()) == [(Need.HISTORY, M1)]
    assert engine.ask(Need.HISTORY, M1) == CandleQuestion(M1, T0 - 597 * MINUTE, 498)
    page = [*history(-597, -99), minute(-600, closed=False), backfilled(-99)]
    rows, line = engine.answer(Need.HISTORY, page, M1)
    assert rows == StoreRows(SERIES, tuple(history(-597, -99)))
    assert isinstance(line, Report)
    assert (line.event, line.level, line.fields) == (
        "history.filled",
        "info",
        {
            "stream": str(SERIES),
            "candles": 498,
            "first_ms": T0 - 597 * MINUTE,
            "last_ms": T0 - 100 * MINUTE,
        },
    )
    assert fetches(engine.wake()) == [(Need.HISTORY, M1)]
    assert engine.ask(Need.HISTORY, M1) == CandleQuestion(M1, T0 - 1_000 * MINUTE, 403)
    engine.answer(Need.HISTORY, history(-1_000, -597), M1)
    assert fetches(engine.wake()) == []
    assert engine.ask(Need.HISTORY, M1) is None


def test_where_the_exchanges_history_begins_there_is_nothing_more_to_ask() -> None:
    engine = Engine(ends={}, history_bars=1_000, now_s=30)
    engine.answer(Need.CANDLES, history(-99, 0), M1)
    assert fetches(engine.wake()) == [(Need.HISTORY, M1)]
    assert engine.answer(Need.HISTORY, [], M1) == []
    assert fetches(engine.wake()) == []


def test_history_that_could_not_be_asked_for_is_asked_again() -> None:
    engine = Engine(ends={}, history_bars=1_000, now_s=30)
    engine.answer(Need.CANDLES, [*history(-99, 0), minute(0, closed=False)], M1)
    engine.wake()
    engine.failed(Need.HISTORY, M1)
    assert fetches(engine.go(59.9).wake()) == []
    assert fetches(engine.go(60).wake()) == [(Need.HISTORY, M1)]


def test_a_stored_series_asks_for_no_history() -> None:
    engine = Engine(history_bars=1_000, now_s=30)
    assert fetches(engine.wake()) == []
    assert engine.ask(Need.HISTORY, M1) is None


def test_a_new_listing_begins_with_what_runs_when_no_history_comes() -> None:
    engine = Engine(ends={}, now_s=0)
    engine.go(1).candle(0, closed=False)
    engine.wake()
    engine.failed(Need.CANDLES, M1)
    assert candles(engine.go(10.9).wake()) == []
    assert engine.wakes_s == 11  # ten seconds after it came, not after it was last thought of
    (update,) = candles(engine.go(11).wake())
    assert (update.kline.open_ms, update.provisional) == (T0, False)
    assert engine.core.candles.holding() == 0


@pytest.mark.parametrize(("bars", "asked"), [(0, 1), (1, 3), (10, 12)])
def test_of_three_day_candles_one_more_is_asked_for(bars: int, asked: int) -> None:
    """Where they open is not known yet."""
    engine = Engine(ends={}, intervals=(Interval.D3,), history_bars=bars)
    question = engine.ask(Need.CANDLES, Interval.D3)
    assert isinstance(question, CandleQuestion)
    assert question.bars == asked


# Holes


def test_a_hole_of_the_exchange_is_stored_and_said() -> None:
    engine = Engine(now_s=300)
    engine.up()
    engine.candle(5, closed=False)
    page = [backfilled(3), backfilled(4)]
    for second in (300, 316):
        assert closes(engine.go(second).answer(Need.CANDLES, page, M1)) == []
    out = engine.go(331).answer(Need.CANDLES, page, M1)
    assert out[0] == StoreHole(SERIES, Hole(T0, T0 + 2 * MINUTE))
    fields = {"stream": "binance_usdm:BTCUSDT:1m", "candles": 3, "first_ms": T0,
              "last_ms": T0 + 2 * MINUTE}  # fmt: skip
    # Before the candles behind it, so that clients hear of it before they get these.
    assert len(statuses(out[:3])) == 1
    assert Report("candle.hole", "warning", fields, "candle_holes", (), 3.0) in out[:3]
    assert closes(out) == [3 * MINUTE, 4 * MINUTE]
    (told,) = statuses(out)
    assert (told.state, told.first_ms, told.last_ms) == (
        StreamState.UNREPAIRABLE, T0, T0 + 2 * MINUTE,
    )  # fmt: skip
    # The next one is told by itself.
    for second in (500, 516, 532):
        out = engine.go(second).answer(Need.CANDLES, [backfilled(7)], M1)
    assert [e.hole for e in out if isinstance(e, StoreHole)] == [
        Hole(T0 + 5 * MINUTE, T0 + 6 * MINUTE)
    ]


def test_what_is_known_not_to_exist_is_not_asked_for_again() -> None:
    """The store ends with a hole that was confirmed before the restart."""
    engine = Engine(ends={M1: end_at(minute(0), T0 + 4 * MINUTE)}, now_s=360)
    assert engine.ask(Need.CANDLES, M1) == CandleQuestion(M1, T0 + 4 * MINUTE + 1, 2)
    (news,) = candles(engine.candle(5))
    assert news.after_ms == T0


def test_a_row_off_the_grid_is_said_once() -> None:
    engine = Engine(now_s=180)
    row = evolve(backfilled(0), open_ms=T0 + 14_000)
    out = engine.answer(Need.CANDLES, [row, evolve(row, open_ms=T0 + 74_000)], M1)
    assert closes(out) == [14_000, 74_000]
    fields = {"stream": "binance_usdm:BTCUSDT:1m", "opens_at_ms": T0 + 14_000}
    assert reports(out, "grid.unusual") == [Report("grid.unusual", "info", fields)]
    out = engine.answer(Need.CANDLES, [evolve(row, open_ms=T0 + 134_000)], M1)
    assert reports(out, "grid.unusual") == []


# The second look


def audited(**more: Any) -> Engine:
    """Two minutes closed by the stream; the second look is 600 s after their ends."""
    engine = Engine(audit_after_s=600.0, **more)
    for n in (0, 1):
        engine.go(60 * (n + 1)).candle(n)
    return engine


def test_every_closed_candle_is_compared_once_more() -> None:
    engine = audited()
    engine.go(500).answer(Need.CANDLES, [backfilled(n) for n in range(2, 8)], M1)
    engine.wake()
    assert engine.wakes_s == 543  # the next close is missed before
    assert fetches(engine.go(959.9).wake()) == [(Need.CANDLES, M1)]
    assert fetches(engine.go(960).wake()) == [(Need.AUDIT, M1)]
    assert engine.ask(Need.AUDIT, M1) == CandleQuestion(M1, T0, 8)
    changed = backfilled(1, close="100.60")
    out = engine.answer(Need.AUDIT, [backfilled(0), changed], M1)
    news, line = out
    assert isinstance(news, CandleNews)
    assert (news.kline, news.revision, news.update_count) == (changed, True, 1)
    fields = {"stream": "binance_usdm:BTCUSDT:1m", "time": T0 + MINUTE}
    assert line == Report("candle.revised", "warning", fields, "revisions")


def test_a_revision_is_looked_at_again() -> None:
    engine = audited()
    engine.go(700).answer(Need.AUDIT, [backfilled(0, close="100.60"), backfilled(1)], M1)
    assert len(engine.core.candles.audits[M1]) == 2  # with the one that is not ripe yet
    assert engine.ask(Need.AUDIT, M1) == CandleQuestion(M1, T0, 2)


def test_rest_rows_of_long_ago_need_no_second_look() -> None:
    engine = Engine(audit_after_s=600.0, now_s=720)
    engine.answer(Need.CANDLES, [backfilled(n) for n in range(11)], M1)
    assert engine.ask(Need.AUDIT, M1) == CandleQuestion(M1, T0 + 2 * MINUTE, 9)
    simulated = Engine(audit_after_s=600.0, now_s=720, simulated=True)
    simulated.answer(Need.CANDLES, [backfilled(n) for n in range(11)], M1)
    assert simulated.ask(Need.AUDIT, M1) == CandleQuestion(M1, T0 + 2 * MINUTE, 9)


def test_a_second_look_that_failed_is_taken_again_and_one_of_nothing_is_not() -> None:
    engine = audited()
    engine.go(660).failed(Need.AUDIT, M1)
    assert (Need.AUDIT, M1) not in fetches(engine.go(689.9).wake())
    assert fetches(engine.go(690).wake()) == [(Need.AUDIT, M1)]
    early = Engine(audit_after_s=0.0)
    early.go(60).candle(0)
    assert early.ask(Need.AUDIT, M1) is None
    assert (Need.AUDIT, M1) not in fetches(early.go(9_000).wake())


# Built candles


def test_a_built_minute_that_lacks_something_is_fetched_whole() -> None:
    engine = Engine(intervals=(Interval.H1,), trade_intervals=(M1,), ends={
        M1: end_at(minute(-1)), Interval.H1: end_at(kline(T0 - T0 % (60 * MINUTE) - 60 * MINUTE)),
    })  # fmt: skip
    engine.go(0.5).take(trade(1, T0 + 500))
    engine.go(60.1).take(trade(2, T0 + 60_100))
    assert closes(engine.out) == []
    engine.go(63).answer(Need.CANDLES, [backfilled(0), minute(1, closed=False)], M1)
    engine.go(120.1).take(trade(3, T0 + 120_100))
    assert closes(engine.out) == [0, MINUTE]
    assert [k.source for k in finals(engine.out)] == [Source.BACKFILL, Source.TRADES]


def test_a_built_candle_that_nobody_else_has_is_published_marked() -> None:
    engine = Engine(trade_intervals=(S1,), ends={S1: end_at(kline(T0 - 1_000))})
    engine.take(trade(1, T0 + 500), trade(2, T0 + 1_000), trade(3, T0 + 2_000))
    assert [(k.open_ms - T0, k.complete) for k in finals(engine.out, S1)] == [
        (0, False), (1_000, True),
    ]  # fmt: skip


def test_built_candles_of_a_fresh_series_begin_with_the_first_whole_one() -> None:
    engine = Engine(trade_intervals=(S1,))
    for number, after in enumerate((500, 1_200, 2_100, 3_300)):
        engine.go(after / 1000).take(trade(number, T0 + after))
    assert closes(engine.out, S1) == [1_000, 2_000]
    assert all(n.kline.complete for n in candles(engine.out, S1))
    assert [e for e in engine.out if isinstance(e, StoreHole)] == []


def test_built_candles_begin_where_the_trades_are_and_not_where_our_clock_is() -> None:
    engine = Engine(trade_intervals=(S1,), now_s=3_600)
    for number, after in enumerate((500, 1_200, 2_100, 3_300)):
        engine.take(trade(number, T0 + after))
    assert closes(engine.out, S1) == [1_000, 2_000]


def test_a_hole_in_built_candles_is_stored() -> None:
    engine = Engine(trade_intervals=(S1,), ends={S1: end_at(kline(T0 - 1_000))})
    engine.go(5).take(trade(1, T0 + 5_000), trade(2, T0 + 6_000))
    assert [e.hole for e in engine.out if isinstance(e, StoreHole)] == [Hole(T0, T0 + 4_000)]


# Roll-ups


def rolling(*intervals: Interval, start_ms: int = T0, **more: Any) -> Engine:
    chosen: dict[str, Any] = {"rollup_intervals": intervals or (M3,)}
    chosen["ends"] = {M1: end_at(kline(start_ms - MINUTE))} | {
        i: end_at(kline(start_ms - {M3: 3, M5: 5, M15: 15}[i] * MINUTE)) for i in intervals or (M3,)
    }
    return Engine(**(chosen | more))


START = T0 - T0 % (15 * MINUTE)
ROWS = [
    evolve(
        kline(START + n * MINUTE, f"{100 + n}", volume=f"{n + 1}"),
        taker_buy_volume=Decimal(n), taker_buy_quote_volume=Decimal(n * 100),
        first_trade_id=n * 10, last_trade_id=n * 10 + 9,
    )
    for n in range(15)
]  # fmt: skip


def live(engine: Engine, rows: list[Kline]) -> list[Effect]:
    out: list[Effect] = []
    for row in rows:
        engine.go((row.open_ms + MINUTE - T0) / 1000)
        out += engine.take(KlineUpdate("BTCUSDT", M1, row))
    return out


def test_minutes_roll_up_closed_and_running() -> None:
    engine = rolling(M5, M15, start_ms=START, now_s=(START - T0) / 1000)
    out = live(engine, ROWS)
    assert [k.open_ms for k in finals(out, M5)] == [START + n * 5 * MINUTE for n in range(3)]
    (whole,) = finals(out, M15)
    assert whole == roll(grid_of(M15), ROWS)
    assert (whole.source, whole.complete, whole.last_trade_id) == (Source.ROLLUP, True, 149)
    running = [n.kline for n in candles(out, M15) if not n.kline.closed]
    assert len(running) == 14
    engine.go((START + 15 * MINUTE + 1_000 - T0) / 1000)
    looked = engine.take(KlineUpdate("BTCUSDT", M1, kline(START + 15 * MINUTE, "77", closed=False)))
    assert [(n.series.interval, n.kline.close, n.kline.closed) for n in looked
            if isinstance(n, CandleNews)] == [
        (i, Decimal(77), False) for i in (M1, M5, M15)
    ]  # fmt: skip


def test_without_roll_ups_an_open_minute_is_itself() -> None:
    engine = Engine()
    assert len(engine.go(1).candle(0, closed=False)) == 1
    assert loads(engine.wake()) == []


def test_a_rolled_up_candle_goes_on_after_a_restart() -> None:
    now_s = (START + 7 * MINUTE - T0) / 1000
    engine = rolling(M15, start_ms=START, now_s=now_s, ends={
        M1: end_at(ROWS[6]), M15: end_at(kline(START - 15 * MINUTE)),
    })  # fmt: skip
    (load,) = loads(engine.wake())
    assert load == Load("BTCUSDT", M15, START, START + 15 * MINUTE + 1)
    assert loads(engine.wake()) == []
    assert engine.loaded(load, ROWS[:7]) == []
    (rolled,) = finals(live(engine, ROWS[7:]), M15)
    assert rolled == roll(grid_of(M15), ROWS)


def test_what_closed_among_the_stored_minutes_is_told() -> None:
    engine = rolling(M5, start_ms=START, now_s=(START + 8 * MINUTE - T0) / 1000, ends={
        M1: end_at(ROWS[7]), M5: end_at(kline(START - 5 * MINUTE)),
    })  # fmt: skip
    (load,) = loads(engine.wake())
    assert load.end_ms == START + 8 * MINUTE + 1
    out = engine.loaded(load, ROWS[:8])
    assert finals(out, M5) == [roll(grid_of(M5), ROWS[:5])]
    assert finals(live(engine, ROWS[8:10]), M5) == [roll(grid_of(M5), ROWS[5:10])]


def test_a_minute_that_is_revised_revises_what_was_made_of_it() -> None:
    engine = rolling(M5, M15, start_ms=START, audit_after_s=600.0, now_s=(START - T0) / 1000)
    live(engine, ROWS[:6])
    changed = evolve(ROWS[2], close=Decimal("500"), high=Decimal("500"), source=Source.BACKFILL)
    rows = [*ROWS[:2], changed, *ROWS[3:6]]
    engine.go((START - T0) / 1000 + 1_000)
    out = engine.answer(Need.AUDIT, rows, M1)
    assert [n.revision for n in candles(out)] == [True]
    assert loads(out) == [
        Load("BTCUSDT", M5, START, START + 5 * MINUTE),
        Load("BTCUSDT", M15, START, START + 15 * MINUTE),
    ]
    five, fifteen = loads(out)
    # Stored minutes of neighbours are left out.
    told = engine.loaded(five, rows)
    assert [(n.revision, n.kline) for n in candles(told, M5)] == [
        (True, roll(grid_of(M5), rows[:5]))
    ]
    assert engine.loaded(fifteen, rows) == []  # it runs: it goes on with the new minute
    (whole,) = finals(live(engine, ROWS[6:]), M15)
    assert whole.high == 500
    assert engine.loaded(five, []) == []


def test_a_minute_is_revised_that_is_in_a_candle_which_came_whole() -> None:
    """It lacks minutes here: of those that are there nothing is said, and then all have the new
    one."""
    engine = rolling(M5, start_ms=START, audit_after_s=600.0, now_s=(START - T0) / 1000)
    live(engine, ROWS[:2])
    engine.go((START - T0) / 1000 + 1_000)
    changed = [evolve(ROWS[0], volume=Decimal(777), source=Source.BACKFILL), *ROWS[1:5]]
    whole = evolve(roll(grid_of(M5), changed), source=Source.BACKFILL)
    assert len(finals(engine.answer(Need.CANDLES, [whole], M5), M5)) == 1
    (load,) = loads(engine.answer(Need.AUDIT, changed[:2], M1))
    assert candles(engine.loaded(load, changed[:2]), M5) == []
    engine.answer(Need.CANDLES, ROWS[2:5], M1)
    told = [kline for kline in finals(engine.out, M5) if kline.open_ms == START]
    assert {kline.volume for kline in told} == {whole.volume}


def disputed(interval: Interval, *rows: Kline) -> Report:
    fields = {"stream": f"binance_usdm:BTCUSDT:{interval}", "candles": len(rows)}
    fields |= {"first_ms": rows[0].open_ms, "last_ms": rows[-1].open_ms}
    return Report("candle.disputed", "warning", fields)


def test_what_another_node_told_otherwise_counts_and_the_exchange_is_asked() -> None:
    """It heard a correction that we did not, or we one that it did not."""
    engine = rolling(M5, start_ms=START, audit_after_s=600.0, now_s=(START - T0) / 1000)
    live(engine, ROWS[:7])
    assert engine.recall(M1=ROWS[:7], M5=[roll(grid_of(M5), ROWS[:5])]) == []
    theirs = evolve(ROWS[6], volume=Decimal(777))
    report, load = engine.recall(M1=[*ROWS[:6], theirs])
    assert report == disputed(M1, theirs)
    assert load == Load("BTCUSDT", M5, START + 5 * MINUTE, START + 10 * MINUTE)
    assert engine.loaded(load, [ROWS[5], theirs]) == []  # it runs
    assert engine.recall(M1=[theirs]) == []
    engine.go((START + 7.5 * MINUTE - T0) / 1000)
    assert (Need.AUDIT, M1) in fetches(engine.wake())
    assert candles(engine.answer(Need.AUDIT, [*ROWS[:6], theirs], M1)) == []  # they are right
    told = finals(live(engine, ROWS[7:10]), M5)
    assert told == [roll(grid_of(M5), [ROWS[5], theirs, *ROWS[7:10]])]


def test_what_another_node_told_wrong_is_revised() -> None:
    engine = rolling(M5, start_ms=START, audit_after_s=600.0, now_s=(START - T0) / 1000)
    live(engine, ROWS[:6])
    right = roll(grid_of(M5), ROWS[:5])
    theirs = evolve(right, volume=Decimal(777))
    assert engine.recall(M5=[theirs]) == [disputed(M5, theirs)]
    assert (Need.AUDIT, M5) in fetches(engine.go(engine.now_s + 30).wake())
    (news,) = candles(engine.answer(Need.AUDIT, [right], M5), M5)
    assert (news.revision, news.kline) == (True, right)
    assert (Need.AUDIT, M1) in fetches(engine.wake())  # with its minutes
    assert engine.recall(M5=[right], M15=[right]) == []


def test_a_candle_that_the_exchange_has_not_is_made_anew_where_another_node_told_it_otherwise() -> (
    None
):
    rules = evolve(USDM, intervals=frozenset({M1}))
    engine = rolling(M5, start_ms=START, rules=rules, now_s=(START - T0) / 1000)
    live(engine, ROWS[:6])
    theirs = evolve(roll(grid_of(M5), ROWS[:5]), volume=Decimal(777))
    report, load = engine.recall(M5=[theirs])
    assert report == disputed(M5, theirs)
    assert load == Load("BTCUSDT", M5, START, START + 5 * MINUTE)
    (news,) = candles(engine.loaded(load, ROWS[:5]), M5)
    assert (news.revision, news.kline) == (True, roll(grid_of(M5), ROWS[:5]))


def test_a_three_day_candle_waits_until_the_exchange_shows_its_grid() -> None:
    d3, day = Interval.D3, 1_440 * MINUTE
    usual = T0 - T0 % (3 * day)
    engine = Engine(rollup_intervals=(d3,), ends={
        M1: end_at(minute(-1)), d3: end_at(kline(usual - 3 * day)),
    })  # fmt: skip
    assert fetches(engine.wake()) == [(Need.GRID, d3)]
    assert loads(engine.out) == []
    assert engine.candle(0, closed=False)[1:] == []
    question = engine.ask(Need.GRID, d3)
    assert question == CandleQuestion(d3, usual - 6 * day, 3)
    engine.failed(Need.GRID, d3)
    assert fetches(engine.go(29.9).wake()) == []
    assert fetches(engine.go(30).wake()) == [(Need.GRID, d3)]
    assert engine.answer(Need.GRID, [], d3) == []
    assert fetches(engine.go(59.9).wake()) == []
    assert fetches(engine.go(60).wake()) == [(Need.GRID, d3)]
    rows = [kline(usual - day - n * 3 * day) for n in (1, 0)]
    (load,) = loads(engine.answer(Need.GRID, rows, d3))
    ledger = engine.core.candles.ledgers[d3]
    assert ledger.grid == Grid(d3, usual - day)
    assert (load.start_ms - usual) % (3 * day) == 2 * day
    assert load.start_ms == ledger.expected
    assert (Need.GRID, d3) not in fetches(engine.wake())


def test_a_grid_that_is_the_usual_one_moves_nothing() -> None:
    d3, day = Interval.D3, 1_440 * MINUTE
    usual = T0 - T0 % (3 * day)
    engine = Engine(rollup_intervals=(d3,), ends={
        M1: end_at(minute(-1)), d3: end_at(kline(usual - 3 * day)),
    })  # fmt: skip
    (load,) = loads(engine.answer(Need.GRID, [kline(usual)], d3))
    assert load == Load("BTCUSDT", d3, usual, usual + 3 * day + 1)


def test_stored_minutes_are_loaded_whatever_a_wrong_clock_says() -> None:
    start = T0 - T0 % (15 * MINUTE)
    ends = {M1: end_at(kline(start + 21 * MINUTE)), M15: end_at(kline(start - 30 * MINUTE))}
    engine = Engine(rollup_intervals=(M15,), ends=ends, now_s=-3 * 3600)
    engine.up()
    (load,) = loads(engine.wake())
    assert load.start_ms == start - 15 * MINUTE
    assert load.end_ms > start + 21 * MINUTE


def test_a_history_that_a_clock_ahead_made_short_is_completed() -> None:
    engine = Engine(ends={}, history_bars=10, now_s=5 * 60)
    engine.up()
    engine.wake()
    engine.answer(Need.CANDLES, [minute(n) for n in range(-5, 0)], M1)  # the present is T0
    engine.go(0.0)
    engine.core.time_moved(engine.now)
    assert (Need.HISTORY, M1) in fetches(engine.wake())
    assert engine.ask(Need.HISTORY, M1) == CandleQuestion(M1, T0 - 10 * MINUTE, 5)
    engine.answer(Need.HISTORY, [minute(n) for n in range(-10, -5)], M1)
    engine.core.time_moved(engine.now)
    engine.wake()
    assert engine.ask(Need.HISTORY, M1) is None


def test_a_history_is_completed_that_was_asked_for_before_the_time_was_known() -> None:
    engine = Engine(ends={}, history_bars=10, now_s=5 * 60)
    engine.up()
    assert (Need.CANDLES, M1) in fetches(engine.wake())
    question = engine.ask(Need.CANDLES, M1)
    assert question is not None
    engine.go(0.0)  # the answer says that the present is T0
    rows = [minute(n) for n in range(-5, 0)]
    engine.core.answer(Fetch(Need.CANDLES, "BTCUSDT", M1), question, rows, engine.now)
    assert (Need.HISTORY, M1) in fetches(engine.wake())
    assert engine.ask(Need.HISTORY, M1) == CandleQuestion(M1, T0 - 10 * MINUTE, 5)


def test_an_end_says_where_it_was_settled() -> None:
    assert end_at(minute(3)) == End(minute(3), T0 + 3 * MINUTE)
    assert str(Fetch(Need.AUDIT, "BTCUSDT", M1)) == "BTCUSDT 1m audit"
    assert str(Fetch(Need.TRADES, "BTCUSDT")) == "BTCUSDT trades"
    assert TRADES.interval is None


def test_a_restart_goes_on_with_the_history_that_is_missing() -> None:
    end = End(minute(-1), T0 - MINUTE, T0 - 300 * MINUTE)
    engine = Engine(ends={M1: end}, history_bars=1_000, now_s=30)
    assert fetches(engine.wake()) == [(Need.HISTORY, M1)]
    assert engine.ask(Need.HISTORY, M1) == CandleQuestion(M1, T0 - 798 * MINUTE, 498)
    whole = End(minute(-1), T0 - MINUTE, T0 - 1_000 * MINUTE)
    assert fetches(Engine(ends={M1: whole}, history_bars=1_000, now_s=30).wake()) == []


def test_a_correction_that_comes_right_after_a_restart_is_a_revision() -> None:
    end = evolve(end_at(minute(-1)), recent=(minute(-2), minute(-1)))
    for number in (-2, -1):
        engine = Engine(ends={M1: end}, now_s=5)
        assert candles(engine.candle(number)) == []
        (news,) = candles(engine.candle(number, volume="9"))
        assert (news.revision, news.kline.open_ms) == (True, T0 + number * MINUTE)
    engine = Engine(now_s=5)  # nobody read more than the last one
    assert [n.revision for n in candles(engine.candle(-1, volume="9"))] == [True]


def test_a_restart_keeps_the_second_looks_that_are_due() -> None:
    end = evolve(end_at(minute(-1)), recent=tuple(minute(n) for n in range(-30, 0)))
    engine = Engine(ends={M1: end}, audit_after_s=600.0, now_s=30)
    assert engine.ask(Need.AUDIT, M1) == CandleQuestion(M1, T0 - 16 * MINUTE, 16)
    rows = [backfilled(n, volume="9" if n == -7 else "1.5") for n in range(-16, 0)]
    (news,) = candles(engine.answer(Need.AUDIT, rows, M1))
    assert (news.revision, news.kline.open_ms) == (True, T0 - 7 * MINUTE)


@pytest.mark.parametrize(("keep_s", "bars"), [(7_200.0, 120), (math.inf, 1_000), (90_000.0, 1_000)])
def test_what_the_store_would_delete_is_not_fetched(keep_s: float, bars: int) -> None:
    """``[store] keep`` shorter than ``history_bars``: fetched and deleted at every start."""
    rules = evolve(USDM, keep={M1: keep_s})
    engine = Engine(ends={}, history_bars=1_000, now_s=30, rules=rules)
    engine.answer(Need.CANDLES, [*history(-99, 0), minute(0, closed=False)], M1)
    engine.wake()
    question = engine.ask(Need.HISTORY, M1)
    assert isinstance(question, CandleQuestion)
    assert question.start_ms == T0 - min(bars, 597) * MINUTE
    end = End(minute(-1), T0 - MINUTE, T0 - bars * MINUTE)
    again = Engine(ends={M1: end}, history_bars=1_000, now_s=30, rules=rules)
    assert fetches(again.wake()) == []


def test_a_series_that_is_kept_for_less_than_a_page_begins_there() -> None:
    engine = Engine(ends={}, history_bars=1_000, now_s=30, rules=evolve(USDM, keep={M1: 600.0}))
    assert engine.ask(Need.CANDLES, M1) == CandleQuestion(M1, T0 - 10 * MINUTE, 11)
    engine.answer(Need.CANDLES, [*history(-10, 0), minute(0, closed=False)], M1)
    assert fetches(engine.wake()) == []


def test_only_minutes_are_rolled_up() -> None:
    """Of candles that the exchange has itself none is made into others, running or closed."""
    engine = rolling(M15, intervals=(M1, M5), start_ms=START, now_s=(START - T0) / 1000, ends={
        M1: end_at(kline(START - MINUTE)), M5: end_at(kline(START - 5 * MINUTE)),
        M15: end_at(kline(START - 15 * MINUTE)),
    })  # fmt: skip
    for now_s, is_closed in ((1, False), (300, True)):
        engine.go((START - T0) / 1000 + now_s)
        out = engine.take(KlineUpdate("BTCUSDT", M5, kline(START, closed=is_closed)))
        assert {news.series.interval for news in out if isinstance(news, CandleNews)} == {M5}


def test_history_that_has_come_another_way_is_not_asked_for() -> None:
    engine = Engine(ends={M1: End(minute(-1), T0 - MINUTE, T0 - 5 * MINUTE)}, now_s=30)
    ledger, history = engine.core.candles.ledgers[M1], History(USDM, 10)
    history.want(M1, ledger, engine.now, known=True)
    assert history.ask(M1, ledger, engine.now) == CandleQuestion(M1, T0 - 10 * MINUTE, 5)
    ledger.first_ms = T0 - 10 * MINUTE
    assert history.ask(M1, ledger, engine.now) is None
    assert [*history.dues()] == []
