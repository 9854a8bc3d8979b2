"""Trades that come at once, in one read: they mean what they mean one by one."""

import random
from typing import Any
from unittest.mock import Mock, patch

import pytest
from attrs import evolve
from support.engine import Engine, candles, fetches, news, statuses
from support.make import MINUTE, T0, trade
from support.node import TRADES

from trio_feed.bus.local import LocalBus
from trio_feed.core.effects import TradeNews
from trio_feed.core.trades import SymbolTrades
from trio_feed.model import Channel, Interval, Kline, Source, Trade

S1, S30, M1 = Interval.S1, Interval.S30, Interval.M1
ODD = ("again", "gap", "far", "back", "late", "later", "undated", "ahead")
WHAT = ("on",) * 1_200 + ODD  # candles near something odd are all marked, so it is rare
AWAY_MS = {"late": -250, "later": -2_500, "ahead": 3_000}


def building(*intervals: Interval, **more: Any) -> Engine:
    channels = (Channel.KLINE, Channel.TRADE)
    return Engine(trade_intervals=intervals or (S1,), channels=channels, **more)


def trades_of(words: list[tuple[str, int]]) -> list[Trade]:
    """Trades that go on, with what goes wrong among them; with each word so many ms go by."""
    made = [trade(n, T0 - 108_000 + n * 9_000) for n in range(1, 13)]  # the series have begun
    number, after_ms = len(made), 0
    for word, step_ms in words:
        after_ms += step_ms
        number = max(1, number + {"again": 0, "gap": 3, "far": 50_000, "back": -40}.get(word, 1))
        at_ms = T0 + after_ms + AWAY_MS.get(word, 0)
        event_ms = T0 + 10 * MINUTE if word == "undated" else at_ms + 5
        row = trade(number, at_ms, f"{100 + step_ms % 7}.5", f"0.{1 + step_ms % 9}")
        made.append(evolve(row, event_ms=event_ms, buyer_is_maker=bool(step_ms % 2)))
    made += [trade(number + n, T0 + after_ms + n * 31_000) for n in (1, 2, 3)]  # closes them
    return made


def closed(effects: list[Any], interval: Interval) -> list[tuple[bool, Kline]]:
    found = candles(effects, interval)
    return [(each.revision, each.kline) for each in found if each.kline.closed]


@pytest.mark.parametrize("intervals", [(S1, S30), (S30,)])
@pytest.mark.parametrize("seed", range(4))
def test_trades_that_come_at_once_mean_what_they_mean_one_by_one(
    seed: int, intervals: tuple[Interval, ...]
) -> None:
    chance = random.Random(seed)
    words = [(chance.choice(WHAT), chance.randrange(150)) for _ in range(4_000)]
    several_at_once, one_by_one = building(*intervals), building(*intervals)
    left = trades_of(words)
    while left:
        size = chance.randrange(1, 10)
        batch, left = left[:size], left[size:]
        now_s = max(batch[0].time_ms, batch[-1].time_ms) / 1000 - T0 / 1000
        several_at_once.go(now_s).take(*batch)
        with patch.object(SymbolTrades, "take_plain", lambda *_: ()):  # none is plain
            one_by_one.go(now_s)
            for row in batch:
                one_by_one.take(row)
    several, single = several_at_once.out, one_by_one.out
    assert news(several, Channel.TRADE) == news(single, Channel.TRADE)
    for interval in intervals:
        # A revision of what closed in the same read is published as that candle.
        assert dict(_values(several, interval)) == dict(_values(single, interval))
    assert statuses(several) == statuses(single)
    assert set(fetches(several)) == set(fetches(single))


def _values(effects: list[Any], interval: Interval) -> list[tuple[int, Kline]]:
    return [(kline.open_ms, kline) for _, kline in closed(effects, interval)]


def test_every_trade_is_an_update_where_that_is_wanted_also_of_those_that_come_at_once() -> None:
    for interval_ms, shown in ((0, [2, 3, 4]), (100, [4])):
        engine = building(publish_interval_ms=interval_ms)
        engine.go(0.5).take(trade(1, T0 + 500))
        engine.go(1.0).take(trade(2, T0 + 1_010))
        out = engine.go(1.5).take(*(trade(n, T0 + 1_400 + n) for n in (3, 4, 5)))
        assert [n.kline.trades for n in candles(out, S1)] == shown


def test_what_nobody_has_subscribed_is_numbered_and_only_the_last_is_a_message() -> None:
    bus, heard = LocalBus(epoch=7, history_rows=1, resume_messages=9, now_ms=lambda: 5.0), []
    hub = Mock(published=lambda _stream, published: heard.append(published.message.offset))
    bus.listen(hub)
    bus.open(TRADES)
    rows = [trade(n, T0 + n) for n in range(1, 4)]
    bus.publish(TradeNews(TRADES, rows, Source.EXCHANGE, 1.0))
    (stream,) = (call.args[0] for call in hub.opened.call_args_list)
    assert (heard, stream.offset, stream.latest.message.data) == ([3], 3, rows[-1])
    stream.keep()
    bus.publish(TradeNews(TRADES, rows, Source.EXCHANGE, 1.0))
    assert (heard, stream.offset) == ([3, 4, 5, 6], 6)
    assert [kept.message.data for kept in stream.after(stream.epoch, 3)] == rows
