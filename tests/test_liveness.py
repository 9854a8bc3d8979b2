"""Has the exchange something that the stream did not tell?"""

import pytest
from support.make import MINUTE, T0, kline, trade
from trio_feed.ingest.watched import Told, Watched, cost, key_of, newer

from trio_feed.core.cadence import Cadence
from trio_feed.model import Instrument, Interval
from trio_feed.venues import Kind, binance_usdm


def running(minute: int, volume: str = "1.0") -> Told:
    return kline(T0 + minute * MINUTE, closed=False, volume=volume)


def closed(minute: int, volume: str = "1.0") -> Told:
    return kline(T0 + minute * MINUTE, volume=volume)


@pytest.mark.parametrize(
    ("told", "latest", "expected"),
    [
        (running(0), running(0), False),
        (running(0), running(0, "1.1"), True),
        (running(0, "1.1"), running(0), False),  # an older page
        (running(0), closed(0, "1.1"), True),
        (closed(0), running(0), False),  # the exchange corrects, or marks rows by other rules
        (closed(0), running(1), True),
        (closed(0), running(1, "0"), False),  # nothing was traded yet
        (closed(0), running(2, "0"), True),  # but the close in between is owed
        (running(0), running(1, "0"), True),
        (closed(1), running(0), False),
        (trade(7, T0), trade(8, T0), True),
        (trade(7, T0), trade(7, T0), False),
        (trade(7, T0), trade(6, T0), False),
        (None, trade(6, T0), False),
        (None, running(0), False),
    ],
)
def test_what_is_newer(told: Told | None, latest: Told, expected: bool) -> None:
    interval = None if isinstance(latest, type(trade(1, 1))) else Interval.M1
    assert newer(told, latest, interval) is expected


def test_the_shortest_candle_is_the_cheapest_to_ask_about() -> None:
    btc = Instrument("binance_usdm", "BTCUSDT", "BTCUSDT", "perpetual")
    streams = [
        binance_usdm.stream(Kind.AGG_TRADE, btc),
        binance_usdm.stream(Kind.KLINE, btc, Interval.H1),
        binance_usdm.stream(Kind.KLINE, btc, Interval.M1),
    ]
    found = min((Watched(s, Cadence(3, 5, 60)) for s in streams), key=cost)
    assert found.stream.interval is Interval.M1
    assert len({key_of(stream) for stream in streams}) == 3
