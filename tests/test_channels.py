"""Channels beside candles: their table, what is written of them, and two of them all the way."""

import json
from decimal import Decimal
from typing import Any

import pytest
import trio
from attrs import evolve
from support.engine import CANDLES, Engine
from support.make import T0
from support.stack import open_stack, settings_for_tests

from trio_feed.client import (
    BboUpdate,
    ConnectionChange,
    LiquidationUpdate,
    MarkPriceUpdate,
    StreamStatus,
    TickerUpdate,
    open_client,
)
from trio_feed.core.channels import BY_EVENT, BY_KIND, CHANNELS, body, event_ms, kinds_of
from trio_feed.core.effects import ChannelNews, Report
from trio_feed.core.streams import Kind, Stream
from trio_feed.errors import SettingsError
from trio_feed.model import (
    BookTop,
    BookView,
    Channel,
    ChannelKey,
    Liquidation,
    MarkPrice,
    Price,
    StatusMessage,
    StreamState,
    Ticker,
    Trade,
)
from trio_feed.simulator.binance.statistics import Statistics
from trio_feed.simulator.okx.mark_sources import FUNDING_MS, funding_rate
from trio_feed.validate import check

D = Decimal
MARK = MarkPrice("BTCUSDT", D("100.50"), D("100.40"), D("0.00010000"), T0 + 3_600_000, T0)
FORCED = Liquidation("BTCUSDT", True, D("99.0"), D("99.10"), D("0.010"), T0)
MARKS = Stream("/market", "btcusdt@markPrice@1s", "BTCUSDT", Kind.MARK_PRICE)
FORCES = Stream("/market", "btcusdt@forceOrder", "BTCUSDT", Kind.LIQUIDATION)
MARK_KEY = ChannelKey("binance_usdm", "BTCUSDT", Channel.MARK_PRICE)
FORCE_LINE = ChannelKey("binance_usdm", "BTCUSDT", Channel.LIQUIDATION)


def test_the_table_is_whole() -> None:
    assert [*CHANNELS] == [
        Channel.KLINE, Channel.TRADE, Channel.TICKER, Channel.BOOK, Channel.BBO,
        Channel.MARK_PRICE, Channel.LIQUIDATION, Channel.OPEN_INTEREST,
    ]  # fmt: skip
    assert set(CHANNELS) == set(Channel)
    assert [c for c, row in CHANNELS.items() if row.conflated] == [
        Channel.TICKER, Channel.BOOK, Channel.BBO, Channel.MARK_PRICE,
        Channel.OPEN_INTEREST,
    ]  # fmt: skip
    assert BY_KIND[Kind.TOP] == (Channel.TICKER, Channel.BBO)
    assert BY_EVENT[BookTop] == (Channel.TICKER, Channel.BBO)
    assert BY_EVENT[Ticker] == (Channel.TICKER,)
    assert Kind.AGG_TRADE not in BY_KIND


@pytest.mark.parametrize(
    ("channel", "has", "kinds"),
    [
        (Channel.TRADE, [], (Kind.AGG_TRADE,)),
        (Channel.TICKER, [Kind.TOP, Kind.TICKER], (Kind.TICKER, Kind.TOP)),
        (Channel.TICKER, [Kind.TICKER], (Kind.TICKER,)),
        (Channel.TICKER, [Kind.TOP], ()),
        (Channel.BBO, [Kind.TOP], (Kind.TOP,)),
        (Channel.BBO, [Kind.TICKER], ()),
        (Channel.MARK_PRICE, [Kind.TICKER], ()),
    ],
)
def test_the_streams_of_a_venue_that_make_a_channel(
    channel: Channel, has: list[Kind], kinds: tuple[Kind, ...]
) -> None:
    assert kinds_of(channel, has, Kind.AGG_TRADE) == kinds


@pytest.mark.parametrize(
    ("data", "text", "time_ms"),
    [
        (
            MARK,
            '{"mark_price":100.50,"index_price":100.40,"funding_rate":0.00010000,'
            f'"next_funding_time":{T0 + 3_600_000}}}',
            T0,
        ),
        (
            evolve(MARK, index=None, funding_rate=None, next_funding_ms=0),
            '{"mark_price":100.50,"index_price":null,"funding_rate":null,"next_funding_time":null}',
            T0,
        ),
        (
            FORCED,
            f'{{"side":"sell","price":99.0,"average_price":99.10,"quantity":0.010,"time":{T0}}}',
            T0,
        ),
        (
            Trade("BTCUSDT", 3, 7, 9, D("1E-8"), D(2), T0, False),
            '{"trade_id":3,"first_id":7,"last_id":9,"price":0.00000001,"quantity":2,"side":"buy",'
            f'"time":{T0}}}',
            T0,
        ),
        (
            Trade("BTCUSDT", 3, 7, 9, D(1), D(2), T0, True, T0 + 5),
            '{"trade_id":3,"first_id":7,"last_id":9,"price":1,"quantity":2,"side":"sell",'
            f'"time":{T0}}}',
            T0 + 5,
        ),
        (Price("X", D(1), 'a"b', T0), f'{{"price":1,"key":"a\\"b","time":{T0}}}', T0),
        (Price("X", D(1), "k"), '{"price":1,"key":"k","time":0}', 0),
        (
            BookView("X", ((D(1), D("2.0")),), (), True, 4, T0),
            '{"bids":[[1,2.0]],"asks":[],"stale":true,"update_id":4}',
            T0,
        ),
        (
            BookTop("X", D("1.10"), D(2), None, None, 7, T0),
            '{"bid":1.10,"bid_size":2,"ask":null,"ask_size":null,"update_id":7}',
            T0,
        ),
        (
            Ticker("X", D(1), None, None, None, None, None, D("0.10"), event_ms=T0),
            '{"last":1,"open":null,"high":null,"low":null,"volume":null,"quote_volume":null,'
            '"bid":0.10,"bid_size":null,"ask":null,"ask_size":null}',
            T0,
        ),
    ],
)
def test_what_is_written_of_each(data: Any, text: str, time_ms: int) -> None:
    assert body(data) == text
    json.loads(text)
    assert event_ms(data) == time_ms


def engine(*streams: Stream) -> Engine:
    channels = (Channel.KLINE, Channel.MARK_PRICE, Channel.LIQUIDATION)
    return Engine(channels=channels, streams=streams)


def told(effects: list[Any]) -> list[Any]:
    return [effect.data for effect in effects if isinstance(effect, ChannelNews)]


def test_a_second_copy_is_no_news_and_another_event_of_the_millisecond_is() -> None:
    scene = engine(MARKS, FORCES)
    other = evolve(FORCED, quantity=D("0.020"))
    assert told(scene.take(FORCED, FORCED, other, FORCED)) == [FORCED, other]
    later = evolve(MARK, mark=D(101), event_ms=T0 + 1_000)
    assert told(scene.take(MARK, later, MARK, later)) == [MARK, later]
    (news,) = scene.take(evolve(MARK, event_ms=T0 + 2_000))
    assert isinstance(news, ChannelNews)
    assert news.key == MARK_KEY


def test_what_nobody_wants_is_counted() -> None:
    ignored = [
        Report("", "", {}, "ignored_messages", (name,)) for name in ("MarkPrice", "Liquidation")
    ]
    assert Engine().take(MARK, FORCED) == ignored


def test_hours_without_a_liquidation_are_no_reason_to_doubt() -> None:
    """Its connection decides alone; clients know it as live as soon as it is subscribed."""
    scene = engine(FORCES)
    assert StatusMessage(FORCE_LINE, StreamState.LIVE) in scene.up(FORCES)
    scene.take(FORCED)
    for second in range(0, 36_000, 60):
        out = scene.go(float(second)).wake()
        assert not [e for e in out if isinstance(e, StatusMessage)]
    assert scene.core.upstream.liveness.is_quiet(FORCES, scene.now.mono)
    (stale,) = (e for e in scene.down(FORCES) if isinstance(e, StatusMessage))
    assert stale.state is StreamState.STALE
    (live,) = (e for e in scene.up(FORCES) if isinstance(e, StatusMessage))
    assert live.state is StreamState.LIVE


def test_a_mark_price_that_stops_while_the_market_moves_is_stale() -> None:
    scene = engine(MARKS, CANDLES)
    scene.up(MARKS, CANDLES)
    found: list[int] = []
    for n in range(120):
        scene.go(float(n))
        scene.candle(n // 60, closed=n % 60 == 59, volume=str(n % 60 + 1), event_ms=T0 + n * 1_000)
        if n < 60:
            scene.take(evolve(MARK, event_ms=T0 + n * 1_000))
        out = scene.wake()
        states = [e.state for e in out if isinstance(e, StatusMessage) and e.stream_key == MARK_KEY]
        found += [n for state in states if state is StreamState.STALE]
    assert len(found) == 1
    assert 60 < found[0] < 110


@pytest.mark.parametrize(
    ("venue", "channel", "problem"),
    [
        ("okx", "liquidation", "okx has no liquidations"),
        ("binance", "liquidation", "no liquidations"),
    ],
)
def test_a_venue_without_a_channel_says_so(venue: str, channel: str, problem: str) -> None:
    settings = settings_for_tests(f".channels=['kline','{channel}']", venue=venue)
    with pytest.raises(SettingsError, match=problem):
        check(settings)


@pytest.mark.parametrize("venue", ["binance_usdm", "binance", "okx"])
@pytest.mark.parametrize("beside", [(), ("ticker",)])
async def test_the_best_bid_and_offer_reach_a_client(
    venue: str, beside: tuple[str, ...], autojump_clock: trio.abc.Clock
) -> None:
    """As they come, beside a ticker that they complete and without one."""
    channels = ["kline", "bbo", *beside]
    settings = settings_for_tests(f".channels={channels}", venue=venue)
    tops: list[BboUpdate] = []
    tickers: list[TickerUpdate] = []
    with trio.fail_after(3_600):
        async with (
            open_stack(settings, trades_per_minute=60) as stack,
            open_client("ws://push:80/ws", environment=stack.environment) as client,
        ):
            for channel in ("bbo", *beside):
                await client.subscribe("BTCUSDT", channel=channel)
            async for message in client:
                if isinstance(message, BboUpdate):
                    tops.append(message)
                elif isinstance(message, TickerUpdate):
                    tickers.append(message)
                if len(tops) >= 50 and (len(tickers) >= 50 or not beside):
                    break
    ids = [update.bbo.update_id or update.bbo.event_ms for update in tops]
    assert ids == sorted(set(ids))
    for update in tops:
        assert update.bbo.bid is not None
        assert update.bbo.ask is not None
        assert update.bbo.bid < update.bbo.ask
    seen = {(u.bbo.bid, u.bbo.ask) for u in tops}
    assert not beside or any((u.ticker.bid, u.ticker.ask) in seen for u in tickers)


async def test_mark_prices_of_okx_are_completed_by_the_funding(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Two streams of the exchange are one channel, and spot pairs have neither."""
    more = (".symbols=['BTCUSDT','BTCUSDTSWAP']", ".channels=['kline','mark_price']")
    settings = settings_for_tests(*more, venue="okx")
    marks: list[MarkPriceUpdate] = []
    with trio.fail_after(3_600):
        async with (
            open_stack(settings, trades_per_minute=60) as stack,
            open_client("ws://push:80/ws", environment=stack.environment) as client,
        ):
            await client.subscribe("BTCUSDTSWAP", channel="mark_price")
            async for message in client:
                if isinstance(message, MarkPriceUpdate):
                    marks.append(message)
                if len(marks) >= 100:
                    break
            connections = stack.exchange.connections
            names = {
                (channel.name, channel.inst_id)
                for connection in connections
                for channel in connection.control.subscribed
            }
            wanted = {("mark-price", "BTC-USDT-SWAP"), ("funding-rate", "BTC-USDT-SWAP")}
            assert {name for name in names if not name[0].startswith("candle")} == wanted
    for update in marks:
        found, period = update.mark_price, update.origin.event_ms // FUNDING_MS
        rate = funding_rate(stack.market, "BTCUSDT", period)
        assert found.mark > 0
        assert found.funding_rate == rate
        assert found.next_funding_ms == (period + 1) * FUNDING_MS


async def test_mark_prices_and_liquidations_reach_a_client(
    autojump_clock: trio.abc.Clock,
) -> None:
    """All the way, with values of the simulated exchange's own statistics."""
    settings = settings_for_tests(".channels=['kline','mark_price','liquidation']")
    marks: list[MarkPriceUpdate] = []
    forced: list[LiquidationUpdate] = []
    with trio.fail_after(3_600):
        async with (
            open_stack(settings, trades_per_minute=60) as stack,
            open_client("ws://push:80/ws", environment=stack.environment) as client,
        ):
            for channel in ("mark_price", "liquidation"):
                await client.subscribe("BTCUSDT", channel=channel)
            async for message in client:
                match message:
                    case MarkPriceUpdate():
                        marks.append(message)
                    case LiquidationUpdate():
                        forced.append(message)
                    case StreamStatus(state=state):
                        assert state is StreamState.LIVE
                    case ConnectionChange():
                        pass
                if len(forced) >= 3 and len(marks) >= 300:
                    break
            truth = Statistics(stack.market)
    for update in marks:
        mark = truth.mark("BTCUSDT", update.origin.event_ms)
        found = update.mark_price
        assert (found.mark, found.index, found.funding_rate) == (
            mark.mark,
            mark.index,
            mark.funding_rate,
        )
        assert found.next_funding_ms == mark.funding_ms
    real = truth.liquidations("BTCUSDT", forced[0].liquidation.time_ms - 1)
    for update in forced:
        trade = next(real)
        found = update.liquidation
        assert (found.price, found.quantity, found.sold, found.time_ms) == (
            trade.price, trade.quantity, trade.buyer_is_maker, trade.time_ms
        )  # fmt: skip
