"""trio_feed as one of the :mod:`.servers`: the real service, with trades put onto its bus."""

import time
from decimal import Decimal

import structlog
import trio

from trio_feed import service
from trio_feed.bus.local import LocalBus
from trio_feed.collector import spare_collector
from trio_feed.core.effects import ChannelNews
from trio_feed.environment import real_environment
from trio_feed.model import Channel, ChannelKey, Source, Trade
from trio_feed.push.app import PushApp
from trio_feed.settings import load

from .servers import RING, STREAMS, Server, answer_on_trio, reply, stream_name

COMMON = ("ALL", "ALL1000", "ALL100")
_SETTINGS = [
    "server.port=0", "store.path=:memory:", "simulator.enabled=true", "logging.level=error",
    "simulator.trades_per_minute=1", "simulator.kline_push_ms=60000",
    "exchanges.binance_usdm.symbols=['BTCUSDT']", "exchanges.binance_usdm.history_bars=10",
    "websocket.max_connections=20000", "websocket.max_connections_per_ip=0",
    "kline.connection_timeout=3600", "websocket.ping_interval=3600000",
    f"kline.resume_messages={RING}",
    # The store in memory keeps each closed candle.
    "exchanges.binance_usdm.trade_intervals=[]",
]  # fmt: skip


class Ours(Server):
    """Trades, which are never conflated."""

    def __init__(self, app: PushApp, bus: LocalBus) -> None:
        super().__init__()
        self._app, self._bus = app, bus
        self._coalescer = app.context.hub.coalescer
        self._keys = {}
        for symbol in (*COMMON, *map(stream_name, range(STREAMS))):
            key = self._keys[symbol] = ChannelKey("bench", symbol, Channel.TRADE)
            bus.open(key)
        topics = {topic.stream_key: topic for topic in app.context.hub.topics}
        self._topics = {symbol: topics[key] for symbol, key in self._keys.items()}

    async def publish(self, symbol: str) -> int:
        now, micros = time.time() * 1000, time.monotonic_ns() // 1000
        data = Trade(
            symbol, micros, micros, micros, Decimal("85000.10"), Decimal("0.125"), int(now), True
        )
        self._bus.publish(ChannelNews(self._keys[symbol], data, Source.SIMULATED, now))
        return len(self._topics[symbol].subscriptions)

    async def settle(self) -> None:
        """A turn of the loop in any case, for a message comes in one of its own."""
        await trio.lowlevel.checkpoint()
        while self._coalescer.busy:
            await trio.lowlevel.checkpoint()

    async def pause(self, seconds: float) -> None:
        await trio.sleep(seconds)


async def _main() -> None:
    settings = load(assignments=_SETTINGS)
    async with trio.open_nursery() as nursery:
        ready = await nursery.start(service.run, settings, real_environment())
        spare_collector()
        server = Ours(ready.app, ready.bus)
        await trio.sleep(1)  # the simulated market's history comes in
        reply({"port": int(ready.address.rpartition(":")[2])})
        await answer_on_trio(server)
        nursery.cancel_scope.cancel()


def run() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    trio.run(_main)
