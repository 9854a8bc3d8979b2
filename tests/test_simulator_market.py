"""The market's arithmetic: everything adds up, nothing depends on what was asked before."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_feed.model import Interval, Kline, Source
from trio_feed.simulator import Market
from trio_feed.simulator.market import prices
from trio_feed.simulator.market.grid import Grid
from trio_feed.simulator.market.prices import Bar

MINUTE = 60_000
DAY = 1440 * MINUTE
NOW = int(datetime(2026, 11, 20, 12, 34, tzinfo=UTC).timestamp() * 1000)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "NEWUSDT")
MARKET = Market(7, SYMBOLS, 24)
GRID = Grid(MARKET.listed_ms)
open_of, next_open = GRID.open_of, GRID.next_open
LONG = [i for i in Interval if i not in (Interval.S1, Interval.S30)]


def opens(interval: Interval, first: int, end: int) -> Iterator[int]:
    while first < end:
        yield first
        first = next_open(interval, first)


symbols = st.sampled_from(SYMBOLS)
times = st.integers(MARKET.listed_ms, NOW)
counts = st.sampled_from([1, 4, 5, 24, 240, 1000])


def rolled(klines: list[Kline]) -> tuple[object, ...]:
    """What a candle of these candles must be, its trades and quote volume included."""
    return (
        klines[0].open,
        max(k.high for k in klines),
        min(k.low for k in klines),
        klines[-1].close,
        sum(k.volume for k in klines),
        sum(k.quote_volume for k in klines),
        sum(k.trades for k in klines),
    )


def values(kline: Kline) -> tuple[object, ...]:
    return rolled([kline])


@given(symbols, times, counts)
@settings(max_examples=150, deadline=None)
def test_trades_add_up_to_their_minute(symbol: str, at: int, count: int) -> None:
    market = Market(7, SYMBOLS, count)
    start = open_of(Interval.M1, at)
    trades = list(market.trades(symbol, start, start + MINUTE))
    candle = market.candle(symbol, Interval.M1, start)
    prices = [t.price for t in trades]
    assert (prices[0], max(prices), min(prices), prices[-1]) == (
        candle.open, candle.high, candle.low, candle.close,
    )  # fmt: skip
    assert sum(t.quantity for t in trades) == candle.volume
    assert sum(t.last_id - t.first_id + 1 for t in trades) == candle.trades == max(4, count)
    assert all(t.quantity > 0 for t in trades)
    moments = [t.time_ms for t in trades]
    assert moments == sorted(set(moments))
    assert start < moments[0] <= moments[-1] < start + MINUTE
    first = start // MINUTE * max(4, count)
    assert [t.trade_id for t in trades] == list(range(first, first + len(trades)))


def test_the_busiest_market_there_can_be() -> None:
    """60,000 trades a minute share 59,999 milliseconds; each still has a lot of its own."""
    market = Market(7, ["SOLUSDT"], 60_000)
    trades = list(market.trades("SOLUSDT", NOW, NOW + MINUTE))
    assert len(trades) == 60_000
    assert min(t.quantity for t in trades) >= 1
    moments = [t.time_ms for t in trades]
    assert moments == sorted(moments)
    assert NOW < moments[0] <= moments[-1] < NOW + MINUTE
    assert sum(t.quantity for t in trades) == market.candle("SOLUSDT", Interval.M1, NOW).volume


@given(symbols, times, st.sampled_from(LONG[1:]))
@settings(max_examples=60, deadline=None)
def test_minutes_roll_up_to_every_interval(symbol: str, at: int, interval: Interval) -> None:
    start = open_of(interval, at)
    end = next_open(interval, start)
    candle = MARKET.candle(symbol, interval, start)
    step = Interval.M1 if interval not in (Interval.W1, Interval.MO1) else Interval.H1
    inside = opens(step, max(start, MARKET.listed_ms), end)
    assert values(candle) == rolled([MARKET.candle(symbol, step, t) for t in inside])
    assert candle.closed
    assert candle.source is Source.SIMULATED


def test_a_week_of_minutes_is_the_week() -> None:
    start = open_of(Interval.W1, NOW)
    minutes = [
        MARKET.candle("BTCUSDT", Interval.M1, t) for t in range(start, start + 7 * DAY, MINUTE)
    ]
    assert len(minutes) == 10_080
    assert rolled(minutes) == values(MARKET.candle("BTCUSDT", Interval.W1, start))


@given(symbols, times, st.sampled_from(LONG))
@settings(max_examples=200, deadline=None)
def test_each_candle_opens_where_the_last_one_closed(
    symbol: str, at: int, interval: Interval
) -> None:
    start = open_of(interval, at)
    candle = MARKET.candle(symbol, interval, start)
    following = MARKET.candle(symbol, interval, next_open(interval, start))
    assert following.open == candle.close
    assert 0 < candle.low <= min(candle.open, candle.close)
    assert candle.high >= max(candle.open, candle.close)
    assert candle.volume > 0


@given(symbols, times, st.sampled_from(list(Interval)), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_an_open_candle_is_its_trades_so_far(
    symbol: str, at: int, interval: Interval, share: float
) -> None:
    """Up to five minutes from the trades themselves; any length against its last state."""
    start = open_of(interval, at)
    end = next_open(interval, start)
    now = start + share * min(end - start, 5 * MINUTE)
    from_ms = max(start, MARKET.listed_ms)
    trades = [t for t in MARKET.trades(symbol, from_ms, now + 1) if t.time_ms <= now]
    trades = [t for t in trades if t.time_ms < end]
    partial = MARKET.partial(symbol, interval, start, now)
    if not trades:
        assert partial is None
        return
    assert partial is not None
    prices = [t.price for t in trades]
    assert (partial.open, partial.high, partial.low, partial.close) == (
        prices[0], max(prices), min(prices), prices[-1],
    )  # fmt: skip
    assert partial.volume == sum(t.quantity for t in trades)
    assert (partial.trades, partial.closed) == (len(trades), False)
    last = MARKET.partial(symbol, interval, start, end + 5)
    assert last is not None
    assert values(last) == values(MARKET.candle(symbol, interval, start))


def test_a_trade_counts_from_its_very_millisecond_on() -> None:
    market = Market(7, ["BTCUSDT"], 1000)
    for count, trade in enumerate(market.trades("BTCUSDT", NOW, NOW + MINUTE), 1):
        for now, expected in ((trade.time_ms - 1, count - 1), (trade.time_ms, count)):
            partial = market.partial("BTCUSDT", Interval.M1, NOW, now)
            assert (partial.trades if partial else 0) == expected


def test_a_late_trade_alone_in_its_minute_opens_the_longer_candle() -> None:
    market = Market(7, SYMBOLS, 24)
    start = open_of(Interval.M3, NOW)
    market.quiet("BTCUSDT", start - 30_000, start + 90_000)
    market.reveal("BTCUSDT", start + 10_000)
    minutes = [market.candle("BTCUSDT", Interval.M1, start + n * MINUTE) for n in range(3)]
    assert [bool(row.volume) for row in minutes] == [True] * 3
    assert values(market.candle("BTCUSDT", Interval.M3, start)) == rolled(minutes)


def test_a_corrected_minute_is_in_every_longer_candle() -> None:
    market = Market(7, SYMBOLS, 24)
    for at in (NOW - NOW % MINUTE - 4 * MINUTE, NOW - NOW % MINUTE - MINUTE):
        old = market.candle("BTCUSDT", Interval.M1, at)
        new = evolve(old, volume=old.volume * 2, close=old.high, trades=old.trades + 1)
        market.correct("BTCUSDT", new)
        for interval in LONG:
            start = open_of(interval, at)
            end = next_open(interval, start)
            step = Interval.D1 if end - start > DAY else Interval.M1
            inside = [market.candle("BTCUSDT", step, t) for t in opens(step, start, end)]
            assert values(market.candle("BTCUSDT", interval, start)) == rolled(inside)
            kline = market.partial("BTCUSDT", interval, start, at + MINUTE - 1)
            assert kline is not None
            assert kline.close == old.high
    assert market.candle("ETHUSDT", Interval.H1, open_of(Interval.H1, NOW)) == MARKET.candle(
        "ETHUSDT", Interval.H1, open_of(Interval.H1, NOW)
    )


@given(st.integers(MARKET.listed_ms + MINUTE, NOW), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_seconds_come_from_trades(at: int, seconds: int) -> None:
    """1s candles without a trade are flat at the last price and have no volume."""
    start = open_of(Interval.M1, at)
    flat = 0
    for open_ms in range(start, start + seconds * 1000, 1000):
        candle = MARKET.candle("BTCUSDT", Interval.S1, open_ms)
        trades = list(MARKET.trades("BTCUSDT", open_ms, open_ms + 1000))
        assert candle.trades == len(trades)
        assert candle.volume == sum(t.quantity for t in trades)
        before = [t.price for t in MARKET.trades("BTCUSDT", start - MINUTE, open_ms)]
        if not trades:
            flat += 1
            assert {candle.open, candle.high, candle.low, candle.close} == {before[-1]}
    halves = [MARKET.candle("BTCUSDT", Interval.S30, start + half) for half in (0, 30_000)]
    assert rolled(halves) == values(MARKET.candle("BTCUSDT", Interval.M1, start))
    assert flat < seconds or seconds < 5


def test_the_seed_decides_every_digit() -> None:
    def digits(seed: int) -> list[str]:
        market = Market(seed, ["BTCUSDT"], 24)
        return [str(t.price) for t in market.trades("BTCUSDT", NOW, NOW + 5 * MINUTE)]

    assert digits(1) == digits(1)
    assert digits(1) != digits(2)
    assert Market(1, ["A", "B"], 24).candle("A", Interval.D1, NOW - NOW % DAY) != Market(
        1, ["A", "B"], 24
    ).candle("B", Interval.D1, NOW - NOW % DAY)


def test_known_digits() -> None:
    """Pinned: recorded runs and users' expectations depend on them.  A change is a decision."""
    market = Market(1, ["BTCUSDT", "ETHUSDT", "SOLUSDT"], 240)
    got = {
        s: (str(k.open), str(k.high), str(k.low), str(k.close), str(k.volume))
        for s in market.listings
        for k in [market.candle(s, Interval.M1, NOW)]
    }
    assert got == PINNED


def test_turning_prices_do_not_stand_still_at_a_bound() -> None:
    """Days are those of the recorded market; what lies between them moves."""

    def longest_rest(*, turning: bool) -> int:
        market, longest, rest = Market(1, ["ETHUSDT"], 240, turning=turning), 0, 0
        start = NOW - NOW % DAY
        closes = [
            market.candle("ETHUSDT", Interval.M1, start + n * MINUTE).close for n in range(1440)
        ]
        for before, after in pairwise(closes):
            rest = rest + 1 if before == after else 0
            longest = max(longest, rest)
        return longest

    assert longest_rest(turning=False) > 5
    assert longest_rest(turning=True) <= 2
    old, new = (Market(1, ["ETHUSDT"], 240, turning=turning) for turning in (False, True))
    day = NOW - NOW % DAY
    assert old.candle("ETHUSDT", Interval.D1, day) == new.candle("ETHUSDT", Interval.D1, day)


def test_nothing_depends_on_what_was_asked_before() -> None:
    fresh, used = Market(7, ["BTCUSDT"], 24), Market(7, ["BTCUSDT"], 24)
    for i in range(300):
        used.candle("BTCUSDT", Interval.M1, NOW - i * 997 * MINUTE)
    start = open_of(Interval.H4, NOW)
    assert used.candle("BTCUSDT", Interval.H4, start) == fresh.candle("BTCUSDT", Interval.H4, start)


@pytest.mark.parametrize(
    ("symbol", "price", "quantity"),
    [("BTCUSDT", 1, 3), ("ETHUSDT", 2, 3), ("SOLUSDT", 3, 0), ("NEWUSDT", 4, 1)],
)
def test_decimals_are_the_listing_s(symbol: str, price: int, quantity: int) -> None:
    """As many digits as the exchange prints, trailing zeros too."""

    def places(value: Decimal) -> int:
        exponent = value.as_tuple().exponent
        assert isinstance(exponent, int)
        return -exponent

    trade = next(iter(MARKET.trades(symbol, NOW, NOW + MINUTE)))
    assert (places(trade.price), places(trade.quantity)) == (price, quantity)
    kline = MARKET.candle(symbol, Interval.MO1, open_of(Interval.MO1, NOW))
    assert {places(v) for v in (kline.open, kline.high, kline.low, kline.close)} == {price}
    assert places(kline.volume) == quantity
    assert "E" not in f"{kline.quote_volume}"


def test_nothing_before_the_listing() -> None:
    listed = MARKET.listed_ms
    week = open_of(Interval.W1, listed)
    assert week < listed
    assert MARKET.candle("BTCUSDT", Interval.W1, week).trades == 1440 * 24
    with pytest.raises(ValueError, match="before the listing"):
        MARKET.candle("BTCUSDT", Interval.M1, listed - MINUTE)
    assert list(MARKET.trades("BTCUSDT", listed - DAY, listed)) == []
    first = next(iter(MARKET.trades_from("BTCUSDT", 0, 1)))
    assert listed < first.time_ms < listed + MINUTE
    with pytest.raises(ValueError, match="not an open time"):
        MARKET.candle("BTCUSDT", Interval.M1, NOW + 1)
    with pytest.raises(KeyError):
        MARKET.candle("NOSUCH", Interval.M1, NOW)


def test_trades_are_found_by_id_and_time() -> None:
    trades = list(MARKET.trades("BTCUSDT", NOW, NOW + 3 * MINUTE))
    ids = [t.trade_id for t in trades]
    assert list(MARKET.trades_from("BTCUSDT", ids[10], 40)) == trades[10:50]
    assert [MARKET.trade_time("BTCUSDT", i) for i in ids] == [t.time_ms for t in trades]
    for trade in trades:
        assert MARKET.first_id("BTCUSDT", trade.time_ms) == trade.trade_id
        assert MARKET.first_id("BTCUSDT", trade.time_ms + 0.5) == trade.trade_id + 1


@pytest.mark.parametrize("interval", LONG)
def test_a_thousand_candles_are_cheap(interval: Interval, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cold, any interval: each day and hour on the way is split once, into trades no minute."""
    made: list[object] = []
    for name in ("hours_of", "minutes_of", "trades_of"):
        split = getattr(prices, name)

        def spy(bar: Bar, key: bytes, *more: int, name: str = name, split: Any = split) -> Any:
            made.append((name, key))
            return split(bar, key, *more)

        monkeypatch.setattr(prices, name, spy)
    market = Market(3, ["BTCUSDT"], 240)
    open_ms = open_of(interval, NOW)
    for _ in range(1000):
        if market.exists("BTCUSDT", interval, open_ms):
            market.candle("BTCUSDT", interval, open_ms)
        open_ms = GRID.previous_open(interval, open_ms)
    assert len(made) == len({*made})
    assert "trades_of" not in [name for name, _ in made]


PINNED = {
    "BTCUSDT": ("82406.2", "82459.3", "82313.5", "82366.6", "58.710"),
    "ETHUSDT": ("3001.36", "3001.36", "2999.14", "2999.81", "3520.890"),
    "SOLUSDT": ("139.853", "139.886", "139.734", "139.767", "12636"),
}


def test_a_symbol_that_comes_back_has_the_past_that_it_had() -> None:
    market = Market(7, SYMBOLS, 24)
    start = NOW - NOW % MINUTE
    market.halt("ETHUSDT", start + 20_000, start + 40_000)
    market.quiet("ETHUSDT", start + 2 * MINUTE, start + 3 * MINUTE)
    minutes = [(start + n * MINUTE, start + (n + 1) * MINUTE) for n in range(3)]
    before = [market.span("ETHUSDT", *minute) for minute in minutes]
    market.delist("ETHUSDT")
    market.list_symbol("ETHUSDT")
    assert [market.span("ETHUSDT", *minute) for minute in minutes] == before
    assert "ETHUSDT" not in market.delisted
    assert market.halted("ETHUSDT", start + 30_000)
