"""The judge can be unhappy: one thing is wrong, and it says which."""

from decimal import Decimal
from typing import Any

import pytest
from attrs import evolve

from trio_feed.core import calendar as product
from trio_feed.model import Interval, Kline, plain
from trio_feed.simulator import Market
from trio_feed.simulator.faults.context import Correction
from trio_feed.simulator.market.books import BookPath
from trio_feed.testing.calendar import Days
from trio_feed.testing.judge import (
    Case,
    Stored,
    judge_series,
    judge_stored,
    latest_finals_s,
)
from trio_feed.testing.judge_trades import judge_trades
from trio_feed.testing.record import BookCheck, Record
from trio_feed.testing.truth import Sums, days_of, exchange_values

BTC = "BTCUSDT"
START = 1_760_000_000_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
END = START + 10 * MINUTE
M1, M5, S1 = Interval.M1, Interval.M5, Interval.S1


def make_market() -> Market:
    return Market(1, [BTC], 40)


def make_case(
    market: Market, interval: Interval = M1, origin: str = "exchange", **more: Any
) -> Case:
    more = {"history_bars": 3, "corrections": {}, **more}
    return Case(market, BTC, START, END, {interval: origin}, **more)


def message(kline: Kline, interval: Interval = M1, kind: str = "final") -> dict[str, Any]:
    numbers = ("open", "high", "low", "close", "volume", "quote_volume")
    row: dict[str, Any] = {name: float(plain(getattr(kline, name))) for name in numbers}
    row |= {"time": kline.open_ms // 1000, "is_final": kind == "final", "update_type": kind}
    row["complete"] = kline.complete
    data = {"symbol": BTC, "interval": interval.value, "data": row}
    return {"type": "kline_data", "data": data}


def told(market: Market, *messages: dict[str, Any]) -> Record:
    record = Record(BookCheck(BookPath(market, BTC), by_id=True), BTC)
    for number, each in enumerate(messages):
        record.note(each, float(number))
    return record


def right_rows(market: Market, case: Case, interval: Interval = M1) -> list[Kline]:
    days = days_of(market, BTC)
    spans = [*days.last(interval, case.history_bars, START), *days.candles(interval, START, END)]
    return [market.candle(BTC, interval, at) for at, _ in spans]


def verdict(case: Case, rows: list[Kline], words: list[dict[str, Any]]) -> dict[str, int]:
    stored: Stored = {row.open_ms: row for row in rows}
    ((interval, _),) = case.origins.items()
    record = told(case.market, *words).of(BTC, interval)
    counts = judge_series(case, interval, record, {interval: stored})
    return {name: count for name, count in counts.items() if count}


def test_all_is_right() -> None:
    market = make_market()
    case = make_case(market)
    rows = right_rows(market, case)
    assert len(rows) == 13
    fine = {"expected": 13, "in_store": 13, "delivered": 13, "right": 13}
    assert verdict(case, rows, [message(row) for row in rows]) == fine


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume", "quote_volume"])
def test_a_wrong_number_is_found_in_the_store_and_at_the_client(name: str) -> None:
    market = make_market()
    case = make_case(market)
    rows = right_rows(market, case)
    off = [*rows]
    off[7] = evolve(rows[7], **{name: getattr(rows[7], name) + Decimal("0.1")})
    assert verdict(case, off, [message(row) for row in rows])["wrong_values"] == 1
    assert verdict(case, rows, [message(row) for row in off])["wrong_values"] == 1
    marked = [evolve(row, complete=False) if row is off[7] else row for row in off]
    counts = verdict(case, marked, [message(row) for row in marked])
    assert (counts["marked"], "wrong_values" in counts) == (1, False)


def test_the_last_word_counts_and_the_first_as_well() -> None:
    market = make_market()
    case = make_case(market)
    rows = right_rows(market, case)
    off = evolve(rows[5], close=rows[5].close + 1)
    words = [message(off if row is rows[5] else row) for row in rows]
    mended = [*words, message(rows[5], kind="revision")]
    assert verdict(case, rows, words)["wrong_values"] == 1
    assert verdict(case, rows, mended)["wrong_first"] == 1
    spoilt = [*[message(row) for row in rows], message(off, kind="revision")]
    assert verdict(case, rows, spoilt)["wrong_values"] == 1


def test_missing_double_swapped_and_made_up_candles() -> None:
    market = make_market()
    case = make_case(market)
    rows = right_rows(market, case)
    words = [message(row) for row in rows]
    assert verdict(case, rows[:-1], words)["lost"] == 1
    assert verdict(case, rows, words[:4] + words[5:])["lost"] == 1
    assert verdict(case, rows, [*words, words[-1]])["duplicated"] == 1
    assert verdict(case, rows, [words[1], words[0], *words[2:]])["out_of_order"] == 1
    stray = evolve(rows[3], open_ms=rows[3].open_ms + 14_000)
    assert verdict(case, [*rows, stray], words)["invented"] == 1


def test_a_hole_that_was_told_is_marked() -> None:
    market = make_market()
    case = make_case(market)
    rows = right_rows(market, case)
    at = rows[4].open_ms // 1000
    status = {"symbol": BTC, "interval": "1m", "status": "unrepairable", "from": at, "to": at}
    words = [message(row) for row in rows if row is not rows[4]]
    words.append({"type": "stream_status", "data": status})
    counts = verdict(case, [row for row in rows if row is not rows[4]], words)
    assert (counts["marked"], "lost" in counts) == (1, False)


def test_built_candles_are_sums_of_trades_and_may_wait_at_the_end() -> None:
    market = make_market()
    case = make_case(market, S1, "built")
    sums = Sums(market, BTC, START, END)
    rows = []
    for at in range(START, END, 1_000):
        row = market.candle(BTC, S1, at)
        built = sums.built(at, at + 1_000)
        quote = (
            Decimal(0)
            if built is None
            else sum((t.price * t.quantity for t in sums.trades(at, at + 1_000)), Decimal(0))
        )
        rows.append(evolve(row, quote_volume=quote))
    words = [message(row, S1) for row in rows]
    assert verdict(case, rows, words)["right"] == 600
    counts = verdict(case, rows[:-5], words[:-5])
    assert (counts["waiting"], "lost" in counts) == (5, False)
    counts = verdict(case, rows[:100] + rows[105:], words[:100] + words[105:])
    assert (counts["lost"], "waiting" in counts) == (5, False)
    busy = next(n for n, row in enumerate(rows) if row.trades and n > 50)
    flat = evolve(rows[busy], volume=Decimal(0), quote_volume=Decimal(0), trades=0)
    shifted = [*rows[:busy], flat, *rows[busy + 1 :]]
    assert verdict(case, shifted, words)["wrong_values"] == 1


def test_rolled_up_candles_are_held_to_the_minutes_in_the_store() -> None:
    market = make_market()
    case = make_case(market, M5, "rolled")
    minutes = {row.open_ms: row for row in right_rows(market, make_case(market, history_bars=9))}
    days = days_of(market, BTC)
    fives = [market.candle(BTC, M5, at) for at, _ in days.candles(M5, START, END)]
    record = told(market, *[message(row, M5) for row in fives]).of(BTC, M5)
    stored = {M5: {row.open_ms: row for row in fives}, M1: minutes}
    assert judge_series(case, M5, record, stored)["right"] == len(fives) == 2
    at = next(at for at in minutes if at >= fives[-1].open_ms)
    revised = evolve(minutes[at], volume=minutes[at].volume + 5)
    stored[M1] = {**minutes, at: revised}
    assert judge_series(case, M5, record, stored)["wrong_values"] == 1


def test_a_rolled_up_candle_may_know_of_a_correction_before_its_minute() -> None:
    """It was compared with the exchange's own before; but not the other way round."""
    market = make_market()
    minutes = {row.open_ms: row for row in right_rows(market, make_case(market, history_bars=9))}
    at = START - START % 300_000 + 300_000
    end, old = at + 300_000, market.candle(BTC, M5, at)
    for open_ms in (at, end - MINUTE):
        first = market.candle(BTC, M1, open_ms)
        new = evolve(first, volume=first.volume * 2)
        change = Correction((first,), (first,)).then(new, told=False)
        case = make_case(market, M5, "rolled", history_bars=0, corrections={open_ms: change})
        right = evolve(old, volume=old.volume + first.volume)
        record = told(market, message(old, M5), message(right, M5, kind="revision")).of(BTC, M5)
        corrected = {**minutes, open_ms: new}
        for known in (minutes, corrected):
            stored = {M5: {at: right}, M1: known}
            assert "wrong_values" not in judge_series(case, M5, record, stored)
        stale = told(market, message(old, M5)).of(BTC, M5)
        counts = judge_series(case, M5, stale, {M5: {at: old}, M1: corrected})
        assert counts["wrong_values"] == 1


def test_a_rolled_up_candle_opens_at_its_first_trade() -> None:
    market = make_market()
    opened = START - START % 300_000 + 300_000
    market.quiet(BTC, opened - 30_000, opened + 90_000)
    case = make_case(market, M5, "rolled", history_bars=0)
    first = next(iter(market.trades(BTC, opened + 90_000, END)))
    rows = {row.open_ms: row for row in right_rows(market, make_case(market, history_bars=9))}
    row = market.candle(BTC, M5, opened)
    assert row.open == first.price != rows[opened].open
    wrong = evolve(row, open=rows[opened].open, high=max(row.high, rows[opened].high))
    for candle in (row, wrong):
        record = told(market, message(candle, M5)).of(BTC, M5)
        counts = judge_series(case, M5, record, {M5: {opened: candle}, M1: rows})
        assert counts["wrong_values"] == (candle is wrong)


@pytest.mark.parametrize("received", [True, False])
def test_a_corrected_minute_is_in_the_longer_candle(received: bool) -> None:
    market = make_market()
    case = make_case(market, M5, history_bars=0)
    before = right_rows(market, case, M5)
    end = before[0].open_ms + 300_000
    old = market.candle(BTC, M1, end - MINUTE)
    new = evolve(old, volume=old.volume * 2, close=old.high)
    market.correct(BTC, new)
    after = right_rows(market, case, M5)
    assert after[0].close == old.high != before[0].close
    change = Correction((old,), (old,)).then(new, told=True, longer=[M5] if received else [])
    case = make_case(market, M5, history_bars=0, corrections={new.open_ms: change})
    words = [message(row, M5) for row in before]
    revision = message(after[0], M5, kind="revision")
    assert verdict(case, after, [*words, revision])["right"] == len(after)
    assert verdict(case, before, words).get("wrong_values", 0) == received
    off = evolve(before[0], close=before[0].close + 1)
    told_off = [message(off, M5), *words[1:], revision]
    assert verdict(case, after, told_off)["wrong_first"] == 1


def test_what_came_to_light_late_has_to_be_known_in_the_end() -> None:
    market = make_market()
    old = right_rows(market, make_case(market))
    time_ms = old[6].open_ms + 100
    market.reveal(BTC, time_ms)
    case = make_case(market, late_trades=[time_ms])
    new = right_rows(market, case)
    words = [message(row) for row in old]
    assert verdict(case, old, words)["wrong_values"] == 1
    revision = message(new[6], kind="revision")
    assert "wrong_values" not in verdict(case, new, [*words, revision])
    assert verdict(case, new, words)["wrong_values"] == 1


def test_a_correction_that_was_told() -> None:
    market = make_market()
    rows = right_rows(market, make_case(market))
    new = evolve(rows[6], volume=rows[6].volume * 2)
    case = make_case(market, corrections={new.open_ms: Correction((rows[6], new), (new,))})
    words = [message(row) for row in rows]
    assert verdict(case, rows, words)["wrong_values"] == 1
    fresh = [new if row is rows[6] else row for row in rows]
    assert verdict(case, fresh, [*words, message(new, kind="revision")])["right"] == 13


def test_a_correction_of_what_had_come_to_light_late() -> None:
    """Three values were right in turn, the last one is."""
    market = make_market()
    old = right_rows(market, make_case(market))
    time_ms = old[6].open_ms + 100
    market.reveal(BTC, time_ms)
    late = right_rows(market, make_case(market))
    new = evolve(late[6], volume=late[6].volume * 2)
    corrections = {new.open_ms: Correction((late[6], new), (new,))}
    case = make_case(market, corrections=corrections, late_trades=[time_ms])
    rows = [new if row.open_ms == new.open_ms else row for row in late]
    words = [message(row) for row in old]
    revisions = [message(row, kind="revision") for row in (late[6], new)]
    assert verdict(case, rows, [*words, *revisions])["right"] == 13
    assert verdict(case, rows, [*words, revisions[0]])["wrong_values"] == 1
    off = message(evolve(old[6], close=old[6].close + 1))
    assert verdict(case, rows, [*words[:6], off, *words[7:], *revisions])["wrong_first"] == 1


def test_candles_of_a_halt_are_not_expected_and_none_is_to_be_there() -> None:
    market = make_market()
    plenty = right_rows(market, make_case(market))
    market.halt(BTC, START + 2 * MINUTE, START + 5 * MINUTE)
    case = make_case(market)
    rows = right_rows(market, case)
    words = [message(row) for row in rows]
    assert len(rows) == 11
    assert verdict(case, rows, words)["right"] == 11
    halted = next(row for row in plenty if row.open_ms >= START + 2 * MINUTE)
    assert verdict(case, [*rows, halted], words)["invented"] == 1


def test_trades() -> None:
    market = make_market()
    case = make_case(market)
    trades = [*market.trades(BTC, START, END)]

    def judged(*, skip: int = -1, **off: float) -> dict[str, int]:
        record = told(market)
        for n, t in enumerate(trades):
            if n == skip:
                continue
            row = {
                "first_id": t.trade_id, "last_id": t.trade_id, "price": float(t.price),
                "quantity": float(t.quantity), "time": t.time_ms, **(off if n == 5 else {}),
            }  # fmt: skip
            record.note({"type": "trade_data", "data": {"symbol": BTC, "data": row}}, 0.0)
        return {name: count for name, count in judge_trades(case, record.trades).items() if count}

    assert judged() == {}
    assert judged(skip=7) == {"lost": 1}
    assert judged(price=1.0) == {"wrong": 1}
    assert judged(quantity=1e9) == {"wrong": 1}
    assert judged(time=trades[5].time_ms + 1) == {"wrong": 1}
    assert judge_trades(case, [])["lost"] > 0
    market.restart_ids(BTC, trades[-1].time_ms - 60_000)
    trades = [*market.trades(BTC, START, END)]
    assert trades[-1].trade_id < 50
    assert judged() == {}
    # One that the exchange dates into the time after the restart is still the one before it.
    for absurd_ms in (START + 2 * HOUR, trades[0].time_ms - 10**12, START + 10**12):
        assert judged(time=absurd_ms) == {}
        assert judged(time=absurd_ms, price=1.0) == {"wrong": 1}
    assert judged(first_id=-7, last_id=-7) == {"lost": 1, "wrong": 1}


def test_a_symbol_that_comes_and_goes() -> None:
    market = make_market()
    case = make_case(market)
    rows = right_rows(market, case)
    assert judge_stored(case, M1, {row.open_ms: row for row in rows}) == {"right": 13}
    rows[3] = evolve(rows[3], low=rows[3].low - 1)
    assert judge_stored(case, M1, {row.open_ms: row for row in rows})["wrong_values"] == 1


def test_the_latest_final_is_measured_from_the_end_of_its_candle() -> None:
    market = make_market()
    case = make_case(market)
    record = told(market)
    row = right_rows(market, case)[3]
    record.note(message(row), (row.open_ms + MINUTE - START) / 1000 + 7.5)
    assert latest_finals_s(case, record) == {"1m": 7.5}


@pytest.mark.parametrize("interval", [i for i in Interval if i is not Interval.D3])
def test_both_calendars_agree_where_the_product_is_right(interval: Interval) -> None:
    days = Days(START - 3000 * DAY)
    span = 40 * DAY if product.length_ms(interval) >= HOUR else 2 * HOUR
    candles = [*days.candles(interval, START, START + span)]
    first = product.open_of(interval, START)
    assert [at for at, _ in candles] == [
        at
        for at in product.opens(interval, first, START + span)
        if product.next_open(interval, at) <= START + span
    ]
    assert all(product.next_open(interval, at) == end for at, end in candles)
    assert days.last(interval, 5, START) == [
        (product.back(interval, first, n), product.back(interval, first, n - 1))
        for n in (5, 4, 3, 2, 1)
    ]


def test_three_days_are_each_symbol_s_own() -> None:
    listed = 1_502_928_000_000  # 2017-08-17, BTCUSDT's first day
    opened, ended = next(Days(listed).candles(Interval.D3, START, START + 9 * DAY))
    assert (opened - listed) % (3 * DAY) == 0
    assert ended - opened == 3 * DAY


def test_three_days_may_count_from_elsewhere() -> None:
    """OKX's are not said to begin with the listing."""
    opened, _ = next(Days(1_502_928_000_000, threes_ms=DAY).candles(Interval.D3, START, 9**13))
    assert (opened - DAY) % (3 * DAY) == 0


@pytest.mark.parametrize("interval", [M1, M5, Interval.M30, Interval.H1, Interval.D3, Interval.W1])
def test_the_simulator_and_the_judge_have_the_same_candles(interval: Interval) -> None:
    """Two calendars, each written apart: halts, and candles off the grid after one."""
    market = make_market()
    market.halt(BTC, START + 3 * MINUTE, START + 20 * MINUTE + 14_000, off_grid=True)
    span = 3 * HOUR if interval in (M1, M5, Interval.M30) else 30 * DAY
    at, opens = market.open_of(BTC, interval, START), []
    while (end := market.next_open(BTC, interval, at)) <= START + span:
        if market.exists(BTC, interval, at):
            opens.append((at, end))
        at = end
    assert [*days_of(market, BTC).candles(interval, START, START + span)] == opens


@pytest.mark.parametrize("interval", [M1, M5, Interval.M30])
def test_sums_of_trades_are_what_the_market_says(interval: Interval) -> None:
    market = make_market()
    sums = Sums(market, BTC, START, START + 2 * HOUR)
    for at, end in days_of(market, BTC).candles(interval, START + 30 * MINUTE, START + 2 * HOUR):
        summed = exchange_values(market, sums, interval, at, end, late=False)
        spanned = exchange_values(market, sums, interval, at, end, late=True)
        assert summed == spanned
