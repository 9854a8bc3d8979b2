"""Connections to an exchange: what is subscribed, counted, refused, lost; and real recordings."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio
import trio_websocket
from structlog.testing import capture_logs
from support.engine import USDM
from support.memory import MemoryNetwork
from support.recordings import parse_recording, serve_recording
from support.stack import virtual_now_ms

from trio_feed.core.effects import CandleNews
from trio_feed.core.symbol import SymbolEngine
from trio_feed.errors import ConnectionLost, NetworkError, SubscriptionRefused, UpgradeRefused
from trio_feed.ingest.connection import Connection, ConnectionContext, ConnectionState
from trio_feed.ingest.intake import Incoming
from trio_feed.ingest.read_pace import ReadPace
from trio_feed.instants import Exchange, Mono, Now, Wall
from trio_feed.metrics import Metrics
from trio_feed.model import BookTop, BookUpdate, Channel, Instrument, Interval, Trade
from trio_feed.net.route import Route
from trio_feed.settings import (
    ConnectionSettings,
    ExchangeSettings,
    ProxySettings,
    SimulatorSettings,
    masked_url,
)
from trio_feed.simulator import (
    BinanceExchange,
    Market,
    binance_exchange,
    serve,
)
from trio_feed.simulator.machinery.wire import text_frame
from trio_feed.venues import Frame, Instruments, Kind, KlineUpdate, Plan, Venue
from trio_feed.venues.base import Heartbeat
from trio_feed.venues.binance import usdm as binance_usdm

DANCE = Frame('{"method":"DANCE","id":1}', frozenset({"1"}))
NOBODY = Frame('{"method":"LIST_SUBSCRIPTIONS","id":7}', frozenset({"99"}))
CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "captures" / "cryptofeed"
BTC = Instrument("binance_usdm", "BTCUSDT", "BTCUSDT", "perpetual")
STREAMS = (
    binance_usdm.stream(Kind.KLINE, BTC, Interval.M1),
    binance_usdm.stream(Kind.AGG_TRADE, BTC),
)


class Bench:
    """A connection to whatever listens at exchange:80, and what came through it."""

    def __init__(self, network: MemoryNetwork, plan: Plan, venue: Venue = binance_usdm) -> None:
        self.send_channel, self.receive_channel = trio.open_memory_channel[Incoming](100_000)
        self.metrics = Metrics()
        self.instruments = Instruments([BTC])
        self.state = ConnectionState(1, plan)
        self.changes: list[str] = []
        self.is_up = trio.Event()
        self.quiet: Callable[[], bool] = lambda: False
        self.connection = Connection(
            self.state,
            ConnectionContext(
                venue,
                ConnectionSettings(),
                self.send_channel,
                virtual_now_ms,
                self.metrics,
                ReadPace(0),
            ),
            Route(
                dial=network.dial,
                proxy_settings=ProxySettings(),
                environ=None,
                ca_file="",
                timeout_s=5,
            ),
            self,
        )

    def up(self) -> None:
        self.changes.append("up")
        self.is_up.set()

    def down(self) -> None:
        self.changes.append("down")

    def delivered(self) -> None:
        pass

    def leaving(self) -> None:
        self.changes.append("leaving")

    def is_quiet(self) -> bool:
        return self.quiet()

    async def run(self) -> NetworkError:
        """One attempt, to its end."""
        with trio.fail_after(100_000):
            try:
                await self.connection.run()
            except NetworkError as error:
                return error
        raise AssertionError("an attempt never returns")

    def events(self) -> list[Any]:
        found = []
        while self.receive_channel.statistics().current_buffer_used:
            found += self.receive_channel.receive_nowait().events
        return found


@asynccontextmanager
async def box() -> AsyncIterator[tuple[BinanceExchange, MemoryNetwork]]:
    network = MemoryNetwork()
    settings = SimulatorSettings(symbols=("BTCUSDT",), trades_per_minute=60)
    market = Market(1, settings.symbols, settings.trades_per_minute)
    async with trio.open_nursery() as nursery:
        listeners = await network.listen("exchange", 80)
        exchange = await nursery.start(
            partial(serve, binance_exchange(market, virtual_now_ms, settings), listeners=listeners)
        )
        yield exchange, network
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("port", [80, 81])
async def test_a_key_in_the_url_is_seen_nowhere(port: int, autojump_clock: trio.abc.Clock) -> None:
    """Neither in the log and the status of a connection that is open, nor of one that fails."""
    url = f"ws://AbC:dEf@exchange:{port}/ws/AbC@dEf?AbC"
    async with box() as (_, network), trio.open_nursery() as nursery:
        with capture_logs() as logged:
            bench = Bench(network, Plan(url, (), ()))
            errors: list[NetworkError] = []

            async def attempt() -> None:
                errors.append(await bench.run())

            nursery.start_soon(attempt)
            await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert bench.is_up.is_set() == (port == 80)
    assert (
        bench.state.statistics()["url"]
        == masked_url(url)
        == ("ws://exchange:80/***" if port == 80 else "ws://exchange:81/***")
    )
    shown = f"{logged} {bench.state.statistics()} {errors}"
    assert "AbC" not in shown
    assert "dEf" not in shown


def plan(limit: int = 50) -> Plan:
    return binance_usdm.plan("ws://exchange:80", STREAMS, limit)[0]


@pytest.mark.parametrize("limit", [1, 50])
async def test_single_and_combined_streams_deliver(
    limit: int, autojump_clock: trio.abc.Clock
) -> None:
    async with box() as (exchange, network), trio.open_nursery() as nursery:
        bench = Bench(network, plan(limit))
        nursery.start_soon(bench.run)
        await bench.is_up.wait()
        await trio.sleep(10)
        assert bench.state.status == "live"
        kinds = {type(event) for event in bench.events()}
        assert kinds == ({KlineUpdate} if limit == 1 else {KlineUpdate, Trade})
        shown = bench.state.statistics()
        assert shown["message_count"] == bench.state.message_count > 5
        assert shown["streams"] == [stream.name for stream in plan(limit).streams]
        exchange.connections[0].abort()
        nursery.cancel_scope.deadline = trio.current_time() + 1
    assert bench.changes == ["up", "down"]


async def test_bad_messages_are_counted_and_nothing_falls(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with box() as (exchange, network), trio.open_nursery() as nursery:
        bench = Bench(network, plan())
        nursery.start_soon(bench.run)
        await bench.is_up.wait()
        (peer,) = exchange.connections
        for bad in (b"nonsense", b"[]", b'{"e":5}', b'{"stream":"x@y","data":{"e":"gossip"}}'):
            peer.offer(text_frame(bad))
        peer.offer(text_frame(b'{"stream":"x@y","data":{"e":"compositeIndex"}}'))
        await trio.sleep(5)
        assert bench.state.bad_messages == 4
        assert bench.metrics.bad_messages.labels("binance_usdm")._value.get() == 4
        assert bench.metrics.failed.labels("binance_usdm")._value.get() == 4
        assert bench.state.status == "live"
        assert bench.events()
        nursery.cancel_scope.cancel()


async def test_five_bad_messages_of_an_attempt_are_shown(autojump_clock: trio.abc.Clock) -> None:
    async with box() as (exchange, network), trio.open_nursery() as nursery:
        bench = Bench(network, plan())
        with capture_logs() as logs:
            nursery.start_soon(bench.run)
            await bench.is_up.wait()
            for _ in range(7):
                exchange.connections[0].offer(text_frame(b"nonsense"))
            await trio.sleep(5)
            nursery.cancel_scope.cancel()
    assert bench.state.bad_messages == 7
    assert len([line for line in logs if line["event"] == "message.bad"]) == 5


async def test_the_eleventh_error_among_few_messages_is_one_too_many(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with box() as (exchange, network), trio.open_nursery() as nursery:

        async def poison() -> None:
            await bench.is_up.wait()
            for _ in range(10):
                exchange.connections[0].offer(text_frame(b"nonsense"))
            await trio.sleep(2)
            assert bench.state.status == "live"
            exchange.connections[0].offer(text_frame(b"nonsense"))

        bench = Bench(network, plan())
        nursery.start_soon(poison)
        assert "messages cannot be read" in str(await bench.run())
        assert bench.state.bad_messages == 11


async def test_too_many_errors_are_worse_than_a_reconnect(
    autojump_clock: trio.abc.Clock,
) -> None:
    """More than 10, and more than a tenth of the messages (the user's rule)."""
    async with box() as (exchange, network), trio.open_nursery() as nursery:

        async def poison() -> None:
            await bench.is_up.wait()
            await trio.sleep(60)
            for _ in range(12):
                exchange.connections[0].offer(text_frame(b"nonsense"))
            await trio.sleep(5)
            assert bench.state.status == "live"
            for _ in range(60):
                exchange.connections[0].offer(text_frame(b"nonsense"))

        bench = Bench(network, plan())
        nursery.start_soon(poison)
        error = await bench.run()
        assert "messages cannot be read" in str(error)
        assert bench.state.bad_messages > 12


@pytest.mark.parametrize(
    ("payload", "problem"),
    [(b"\xff\xfe{}", "UTF-8"), (b"x" * 5_000_000, "max_message_bytes")],
    ids=["invalid UTF-8", "5 MB"],
)
async def test_what_breaks_the_protocol_ends_this_connection_only(
    payload: bytes, problem: str, autojump_clock: trio.abc.Clock
) -> None:
    async with box() as (exchange, network), trio.open_nursery() as nursery:

        async def poison() -> None:
            await bench.is_up.wait()
            exchange.connections[0].offer(text_frame(payload))

        bench = Bench(network, plan())
        nursery.start_soon(poison)
        error = await bench.run()
        assert isinstance(error, ConnectionLost)
        assert error.code in (1007, 1009)
        assert bench.state.status == "lost"
        assert problem.lower() in str(error).lower()


async def test_a_refused_upgrade_says_its_status(autojump_clock: trio.abc.Clock) -> None:
    async with box() as (exchange, network):
        exchange.refuse_upgrades(451)
        error = await Bench(network, plan()).run()
        assert isinstance(error, UpgradeRefused)
        assert error.status == 451


async def test_silence_is_noticed_although_pongs_come(autojump_clock: trio.abc.Clock) -> None:
    async with box() as (exchange, network), trio.open_nursery() as nursery:

        async def mute() -> None:
            await bench.is_up.wait()
            exchange.connections[0].mute()

        bench = Bench(network, plan())
        nursery.start_soon(mute)
        error = await bench.run()
        assert "silent" in str(error)
        assert 60 <= trio.current_time() <= 62


async def test_streams_on_the_wrong_path_are_noticed(autojump_clock: trio.abc.Clock) -> None:
    """The trap of 2026-04-23: acknowledged, and silent for ever."""
    async with box() as (_exchange, network):
        wrong = Plan("ws://exchange:80/public/stream", STREAMS, plan().subscribe)
        error = await Bench(network, wrong).run()
        assert "silent" in str(error)


async def test_a_refused_subscription_is_said(autojump_clock: trio.abc.Clock) -> None:
    async with box() as (_exchange, network):
        odd = Plan("ws://exchange:80/market/stream", STREAMS, (DANCE,))
        error = await Bench(network, odd).run()
        assert isinstance(error, SubscriptionRefused)
        assert "DANCE" in str(error)


async def test_a_subscription_that_nobody_acknowledges_is_given_up(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with box() as (_exchange, network):
        waiting = Plan("ws://exchange:80/market/stream", STREAMS, (*plan().subscribe, NOBODY))
        error = await Bench(network, waiting).run()
        assert isinstance(error, SubscriptionRefused)


async def test_binance_futures_recording_parses_without_a_miss(
    autojump_clock: trio.abc.Clock,
) -> None:
    file = CAPTURES / "BINANCE_FUTURES.ws.1.0"
    if not file.exists():
        pytest.skip("the recordings of ../shared/captures are not here")
    recording = parse_recording(file.read_text())
    symbols = ("SUSHIUSDT", "AKROUSDT", "KEEPUSDT", "CTKUSDT")
    network = MemoryNetwork()
    info = (CAPTURES / "BINANCE_FUTURES.0").read_text().splitlines()
    listed = next(line for line in info if "/exchangeInfo -> " in line)
    path = recording.url.split("/", 3)[3]
    bench = Bench(network, Plan(f"ws://exchange:80/{path}", STREAMS))
    bench.instruments = Instruments(
        binance_usdm.parse_instruments(listed.partition(" -> ")[2].partition(": ")[2].encode()).good
    )
    async with trio.open_nursery() as nursery:
        listeners = await network.listen("exchange", 80)
        await nursery.start(partial(serve_recording, recording, listeners=listeners))
        error = await bench.run()
        nursery.cancel_scope.cancel()
    assert isinstance(error, ConnectionLost)
    assert error.code == 1000
    events = bench.events()
    assert bench.state.message_count == 1535
    assert bench.state.bad_messages == 0
    assert sum(isinstance(event, Trade) for event in events) == 91
    assert sum(isinstance(event, KlineUpdate) for event in events) == 67
    assert sum(isinstance(event, BookTop) for event in events) == 613
    assert sum(isinstance(event, BookUpdate) for event in events) == 764
    assert len(events) == 1535
    at_ms = recording.received[0][0] * 1000
    now = Now(Mono(0.0), Wall(at_ms), Exchange(at_ms))
    settings = ExchangeSettings(
        intervals=(Interval.M1,), trade_intervals=(), history_bars=0, channels=(Channel.KLINE,)
    )
    published = []
    for symbol in symbols:
        engine = SymbolEngine(USDM, settings, symbol, {}, now)
        engine.use((), now)
        own = [event for event in events if event.symbol == symbol]
        published += [e for e in engine.take(own, now) if isinstance(e, CandleNews)]
    assert {news.series.symbol for news in published} == set(symbols)
    assert len(published) == 67


class Beating:
    """Binance's protocol with OKX's kind of heartbeat."""

    HEARTBEAT = Heartbeat("ping", 20.0)

    def __getattr__(self, name: str) -> Any:
        return getattr(binance_usdm, name)


async def heartbeat_attempt(
    *, answers: bool, quiet_once: bool = False
) -> tuple[NetworkError, list[float]]:
    """A silent exchange that acknowledges; how the attempt ends, and when it was pinged."""
    network, pings, looks = MemoryNetwork(), list[float](), list[object]()

    def is_quiet() -> bool:
        looks.append(None)
        return quiet_once and len(looks) == 1

    async def serve_one(stream: trio.abc.Stream) -> None:
        peer = await trio_websocket.wrap_server_stream(nursery, stream)
        websocket = await peer.accept()
        with suppress(trio_websocket.ConnectionClosed):
            while True:
                text = await websocket.get_message()
                if text == "ping":
                    pings.append(trio.current_time())
                    if answers:
                        await websocket.send_message("pong")
                else:
                    number = msgspec.json.decode(text)["id"]
                    await websocket.send_message(f'{{"result":null,"id":{number}}}')

    async with trio.open_nursery() as nursery:
        listeners = await network.listen("exchange", 80)
        nursery.start_soon(partial(trio.serve_listeners, serve_one, listeners))
        bench = Bench(network, plan(), cast("Venue", Beating()))
        bench.quiet = is_quiet
        error = await bench.run()
        nursery.cancel_scope.cancel()
    return error, pings


async def test_a_heartbeat_is_asked_for_and_its_absence_ends_the_connection(
    autojump_clock: trio.abc.Clock,
) -> None:
    error, pings = await heartbeat_attempt(answers=False)
    assert isinstance(error, ConnectionLost)
    assert str(error) == "binance_usdm: no answer to 'ping'"
    assert pings == [20.0]
    assert trio.current_time() == 20 + ConnectionSettings().pong_timeout_s


@pytest.mark.parametrize("quiet_once", [False, True])
async def test_pongs_hide_silence_only_while_the_market_is_quiet(
    quiet_once: bool, autojump_clock: trio.abc.Clock
) -> None:
    """A quiet market gets half of the patience once more, then it is asked about again."""
    error, pings = await heartbeat_attempt(answers=True, quiet_once=quiet_once)
    assert str(error) == "binance_usdm: silent for 60 s, but for pongs"
    assert trio.current_time() == (90 if quiet_once else 60)
    assert pings == [20.0, 40.0, 60.0, 80.0, 90.0][: 5 if quiet_once else 3]
