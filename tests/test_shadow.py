"""What a node in hot standby keeps of shards that others own."""

import pytest
from support.make import MINUTE, SERIES, T0, kline, trade

from trio_feed.bus.engine.shadow import Shadow
from trio_feed.bus.local import LocalBus
from trio_feed.bus.outgoing import Outgoing
from trio_feed.core.effects import CandleNews, TradeNews
from trio_feed.model import Channel, ChannelKey, Source, StatusMessage, StreamState

TRADES = ChannelKey(SERIES.venue, SERIES.symbol, Channel.TRADE)


def test_corrections_are_those_of_the_last_minute_and_of_nobody_that_says_them() -> None:
    now, owned = 0.0, False
    bus = LocalBus(epoch=4, history_rows=5, resume_messages=9, now_ms=lambda: 0.0)
    shadow = Shadow(lambda _venue, _symbol: owned, lambda: now)
    bus.listen(shadow)
    bus.open(SERIES)

    def publish(minute: int, close: str, *, revision: bool = False) -> None:
        bus.publish(CandleNews(SERIES, kline(T0 + minute * MINUTE, close), 1, 0.0, revision))

    publish(0, "1")
    assert not shadow.corrections(SERIES)
    publish(0, "2", revision=True)
    now = 60.0
    assert [str(each.kline.close) for each in shadow.corrections(SERIES)] == ["2"]
    now = 60.1
    assert not shadow.corrections(SERIES)
    publish(0, "3", revision=True)
    assert [str(each.kline.close) for each in shadow.corrections(SERIES)] == ["3"]
    owned = True
    publish(1, "4")
    assert not shadow.corrections(SERIES)


def test_where_the_trades_begin_that_are_kept() -> None:
    """Behind one that was told before it followed, or by itself; else with the first that came."""
    now, owned, told = 0.0, False, trade(5, T0)
    bus = LocalBus(epoch=4, history_rows=5, resume_messages=9, now_ms=lambda: 0.0)
    bus.listen(Outgoing(lambda _item: None))
    shadow = Shadow(lambda _venue, _symbol: owned, lambda: now, lambda _venue, _symbol: told)
    bus.listen(shadow)
    bus.open(TRADES)

    def publish(*numbers: int) -> None:
        rows = [trade(number, T0 + number) for number in numbers]
        bus.publish(TradeNews(TRADES, rows, Source.EXCHANGE, 0.0))

    def after(number: int) -> list[int] | None:
        found = shadow.trades_after(TRADES, trade(number, T0 + number))
        return None if found is None else [each.data.trade_id for each in found]  # type: ignore[union-attr]

    assert (after(5), after(4)) == ([], None)
    publish(7, 8)  # the exchange has no 6
    assert (after(5), after(6), after(4)) == ([7, 8], [7, 8], None)
    now = 61.0
    publish(9)
    assert (after(7), after(8)) == (None, [9])
    owned = True
    publish(10)
    owned = False
    assert (after(9), after(10)) == (None, [])
    publish(*range(12, 5_013))
    assert after(12) == list(range(13, 5_013))
    assert after(11) is None
    bus.publish(StatusMessage(TRADES, StreamState.UNREPAIRABLE, "why", T0, T0 + 5_000))
    assert after(5_012) is None


@pytest.mark.parametrize(
    ("last", "behind", "found"),
    [
        (3, (6, 7, 8), None),  # a hole that nobody could fill
        (6, (6, 7, 8), [7, 8]),  # who owned it was behind that already
        (3, (1, 2, 3), None),  # its ids began anew
    ],
)
def test_trades_behind_a_gap_are_not_all_that_followed(
    last: int, behind: tuple[int, ...], found: list[int] | None
) -> None:
    bus = LocalBus(epoch=4, history_rows=5, resume_messages=9, now_ms=lambda: 0.0)
    bus.listen(Outgoing(lambda _item: None))  # which wants every trade
    shadow = Shadow(lambda _venue, _symbol: False, lambda: 0.0)
    bus.listen(shadow)
    bus.open(TRADES)
    before = [trade(number, T0 + number) for number in (1, 2, 3, 4)]
    after = [trade(number, T0 + 5_000 + number) for number in behind]
    bus.publish(TradeNews(TRADES, before[:3], Source.EXCHANGE, 0.0))
    told = shadow.trades_after(TRADES, before[1])
    assert told is not None
    assert [each.data for each in told] == [before[2]]
    bus.publish(StatusMessage(TRADES, StreamState.UNREPAIRABLE, "why", T0, T0 + 5_000))
    bus.publish(TradeNews(TRADES, after, Source.EXCHANGE, 0.0))
    before_it = after[0] if last == 6 else before[2]
    told = shadow.trades_after(TRADES, before_it)
    ids = None if told is None else [each.data.trade_id for each in told]  # type: ignore[union-attr]
    assert ids == found
