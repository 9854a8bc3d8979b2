"""What can happen to the simulated market: halts, quiet, new ids, late trades, grids."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import pytest

from trio_feed.model import Interval, Kline
from trio_feed.simulator import Market
from trio_feed.simulator.market.grid import Grid, Shift, month_open, next_month

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOW = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp() * 1000)
BTC = "BTCUSDT"


def ms(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type]


def summed(market: Market, start: int, end: int) -> tuple[object, ...]:
    trades = [*market.trades(BTC, start, end)]
    prices = [trade.price for trade in trades]
    return (
        prices[0], max(prices), min(prices), prices[-1],
        sum(trade.quantity for trade in trades), len(trades),
    )  # fmt: skip


def values(kline: Kline) -> tuple[object, ...]:
    return kline.open, kline.high, kline.low, kline.close, kline.volume, kline.trades


def test_three_day_candles_count_from_the_first_trading_day() -> None:
    """BTCUSDT of spot opens one on 2024-01-01: it began on 2017-08-17, two phases on."""
    bitcoin = Grid(ms(2017, 8, 17, 4))
    assert bitcoin.open_of(Interval.D3, ms(2024, 1, 2)) == ms(2024, 1, 1)
    others = [Grid(ms(2017, 8, day)) for day in (18, 19)]
    assert len({grid.open_of(Interval.D3, NOW) for grid in (bitcoin, *others)}) == 3
    assert bitcoin.next_open(Interval.D3, ms(2024, 1, 1)) == ms(2024, 1, 4)
    assert bitcoin.previous_open(Interval.D3, ms(2024, 1, 1)) == ms(2023, 12, 29)


def test_weeks_open_on_monday_and_months_on_the_first() -> None:
    grid = Grid(ms(2020, 8, 11))
    assert grid.open_of(Interval.W1, ms(2020, 8, 11)) == ms(2020, 8, 10)
    assert grid.open_of(Interval.MO1, ms(2024, 2, 29, 23)) == ms(2024, 2, 1)
    assert grid.next_open(Interval.MO1, ms(2024, 2, 1)) == ms(2024, 3, 1)
    assert grid.next_open(Interval.MO1, ms(2024, 1, 1)) == ms(2024, 2, 1)
    assert grid.previous_open(Interval.MO1, ms(2024, 1, 1)) == ms(2023, 12, 1)
    assert [next_month(0, n) for n in (-1, 12)] == [ms(1969, 12, 1), ms(1971, 1, 1)]
    assert month_open(ms(2026, 11, 30, 23, 59)) == ms(2026, 11, 1)


def test_candles_may_open_off_the_minute_until_the_next_hour() -> None:
    start = NOW + 14_000
    grid = Grid(0, [Shift(start, NOW + HOUR)])
    opens = [NOW - MINUTE]
    while opens[-1] < NOW + HOUR + MINUTE:
        opens.append(grid.next_open(Interval.M1, opens[-1]))
    assert opens[:4] == [NOW - MINUTE, NOW, start, start + MINUTE]
    assert opens[-3:] == [start + 59 * MINUTE, NOW + HOUR, NOW + HOUR + MINUTE]
    assert [grid.previous_open(Interval.M1, at) for at in opens[1:]] == opens[:-1]
    assert all(grid.open_of(Interval.M1, b - 1) == a for a, b in pairwise(opens))
    assert grid.open_of(Interval.H1, start) == NOW


def test_a_quiet_market_has_flat_candles_and_its_ids_go_on() -> None:
    market = Market(7, [BTC], 24)
    before, start, end = market.first_id(BTC, NOW), NOW + 90_500, NOW + 6 * MINUTE + 1_000
    last = [*market.trades(BTC, NOW, start)][-1]
    market.quiet(BTC, start, end)
    assert [*market.trades(BTC, start, end)] == []
    flat = market.candle(BTC, Interval.M1, NOW + 2 * MINUTE)
    assert values(flat) == (*[last.price] * 4, 0, 0)
    assert market.partial(BTC, Interval.M1, flat.open_ms, flat.open_ms + 30_000) is None
    assert market.ids(BTC, Interval.M1, flat.open_ms, NOW + HOUR) == (-1, -1)
    assert values(market.candle(BTC, Interval.M1, NOW + MINUTE))[-1] > 0
    assert values(market.candle(BTC, Interval.H1, NOW)) == summed(market, NOW, NOW + HOUR)
    trades = [*market.trades(BTC, NOW, NOW + HOUR)]
    assert [trade.trade_id for trade in trades] == [*range(before, before + len(trades))]
    assert next(iter(market.trades_from(BTC, last.trade_id, 9))) == last
    assert trades == [*market.trades_from(BTC, before, len(trades))]
    assert market.trade_time(BTC, last.trade_id + 1) >= end


@pytest.mark.parametrize("interval", [Interval.M1, Interval.M5, Interval.H1, Interval.D1])
def test_halts_and_quiet_hours_add_up(interval: Interval) -> None:
    market = Market(7, [BTC], 24)
    market.quiet(BTC, NOW + 100_300, NOW + 130_700)
    market.halt(BTC, NOW + 3 * MINUTE + 5, NOW + 9 * MINUTE + 20_000)
    market.quiet(BTC, NOW + 20 * MINUTE, NOW + 22 * MINUTE)
    at = market.open_of(BTC, interval, NOW)
    while at < NOW + 25 * MINUTE:
        end = market.next_open(BTC, interval, at)
        if market.exists(BTC, interval, at) and [*market.trades(BTC, at, end)]:
            assert values(market.candle(BTC, interval, at)) == summed(market, at, end)
        at = end


def test_a_halt_has_no_candles_and_may_end_off_the_grid() -> None:
    market = Market(7, [BTC], 24)
    start, end = NOW + 3 * MINUTE, NOW + 9 * MINUTE + 14_000
    market.halt(BTC, start, end, off_grid=True)
    assert market.exists(BTC, Interval.M1, NOW + 2 * MINUTE)
    assert not market.exists(BTC, Interval.M1, start)
    assert market.exists(BTC, Interval.H1, NOW)
    with pytest.raises(ValueError, match="in a halt"):
        market.candle(BTC, Interval.M1, start)
    assert [market.is_trading(BTC, at) for at in (start - 1, start, end - 1, end)] == [1, 0, 0, 1]
    assert market.open_of(BTC, Interval.M1, end + 5) == end
    assert values(market.candle(BTC, Interval.M1, end)) == summed(market, end, end + MINUTE)


def test_ids_begin_anew() -> None:
    market = Market(7, [BTC], 24)
    at = NOW + 90_000
    old = market.first_id(BTC, at)
    market.restart_ids(BTC, at)
    trades = [*market.trades(BTC, NOW, NOW + 3 * MINUTE)]
    new = [trade.trade_id for trade in trades if trade.time_ms >= at]
    assert new == [*range(1, len(new) + 1)]
    last = [trade for trade in trades if trade.time_ms < at][-1]
    assert last.trade_id == old - 1
    assert market.index_of(BTC, 1) == old
    assert market.index_of(BTC, old - 1, last.time_ms) == old - 1
    assert (
        market.ids(BTC, Interval.M1, NOW + MINUTE, at + MINUTE)[0]
        > market.ids(BTC, Interval.M1, NOW + 2 * MINUTE, at + 5 * MINUTE)[0]
    )


def test_a_late_trade_is_in_every_candle_and_in_no_stream() -> None:
    market = Market(7, [BTC], 24)
    before = {i: market.candle(BTC, i, market.open_of(BTC, i, NOW)) for i in Interval}
    trades = [*market.trades(BTC, NOW, NOW + MINUTE)]
    market.reveal(BTC, NOW + 500)
    assert [*market.trades(BTC, NOW, NOW + MINUTE)] == trades
    for interval, old in before.items():
        new = market.candle(BTC, interval, old.open_ms)
        assert (new.trades, new.open, new.close) == (old.trades + 1, old.open, old.close)
        assert new.volume == old.volume + before[Interval.M1].volume
        assert new.high >= old.high
    assert market.candle(BTC, Interval.M1, NOW).high > before[Interval.M1].high
    assert market.span(BTC, NOW, NOW + MINUTE, ghosts=False).trades == 24


def test_a_new_listing_begins_inside_its_first_candles() -> None:
    market = Market(7, [], 24)
    market.list_symbol("SOLUSDT", NOW + 30_000)
    for interval in (Interval.M1, Interval.D1, Interval.D3, Interval.W1, Interval.MO1):
        first = market.open_of("SOLUSDT", interval, NOW + 30_000)
        assert first <= NOW
        assert market.exists("SOLUSDT", interval, first)
        assert not market.exists(
            "SOLUSDT", interval, market.previous_open("SOLUSDT", interval, first)
        )
        running = market.partial("SOLUSDT", interval, first, NOW + MINUTE - 1)
        assert running is not None
        assert running.trades == len([*market.trades("SOLUSDT", 0, NOW + MINUTE)])
    assert next(iter(market.trades_from("SOLUSDT", 0, 1))).trade_id == 1
    assert market.grids["SOLUSDT"].open_of(Interval.D3, NOW) == NOW - NOW % DAY


def test_prices_stay_decimals_of_the_listing() -> None:
    market = Market(7, [BTC], 24)
    market.quiet(BTC, NOW, NOW + HOUR)
    flat = market.candle(BTC, Interval.M1, NOW + MINUTE)
    assert flat.close.as_tuple().exponent == Decimal("0.1").as_tuple().exponent
