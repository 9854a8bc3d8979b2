"""What one run of ``scripts/simulate`` is: seed, venue, faults, the settings of both sides."""

from collections.abc import Callable, Sequence

from attrs import frozen

from trio_feed.model import Kline
from trio_feed.settings import Settings, SimulatorSettings, load
from trio_feed.simulator.faultscript import KINDS, Fault, write_script

START_MS = 1_760_000_000_000
"""2025-10-09T08:53:20Z: not on any boundary."""
MINUTE_MS = 60_000
SYMBOL, NEWCOMER = "BTCUSDT", "ETHUSDT"
"""The second one is not traded but while the fault ``listing`` lasts."""
WEBSOCKET, REST, PUSH, PROXY = ("exchange", 80), ("rest", 80), ("push", 80), ("proxy", 3128)
VENUES = ("binance_usdm", "binance", "okx")
CHANNELS = ("kline", "trade", "book", "ticker")
HISTORY_BARS = 20

Truth = Callable[[Kline], Kline]


def as_it_was(kline: Kline) -> Kline:
    """What the market says is the truth."""
    return kline


@frozen
class Run:
    """``script`` None: written from the seed.  ``truth`` is for tests of the check itself: what
    it makes of a candle of the market is what the service is held to.

    ``channels`` beside ``kline`` cost time: ``trade`` and ``book`` are checked, ``ticker`` is OKX's
    way to a connection on ``/public``, the only ones that are told of an upgrade (notice 64008).
    """

    seed: int = 1
    hours: float = 24.0
    kinds: tuple[str, ...] = tuple(KINDS)
    venue: str = "binance_usdm"
    channels: tuple[str, ...] = ("kline",)
    script: Sequence[tuple[float, Fault]] | None = None
    truth: Truth = as_it_was

    def faults(self) -> Sequence[tuple[float, Fault]]:
        if self.script is not None:
            return self.script
        return write_script(self.seed, self.hours, self.kinds, start_ms=START_MS)

    @property
    def expected(self) -> range:
        """Open times of the candles that have to come: history, and what closes in the hours."""
        first = START_MS // MINUTE_MS - HISTORY_BARS
        end = int(START_MS + self.hours * 3_600_000) // MINUTE_MS
        return range(first * MINUTE_MS, end * MINUTE_MS, MINUTE_MS)


def box_settings(run: Run) -> SimulatorSettings:
    """The exchange pushes rarely: what matters is the ends of minutes, and time costs."""
    return SimulatorSettings(
        venue=run.venue,
        seed=run.seed,
        symbols=(SYMBOL, NEWCOMER),
        kline_push_ms=30_000,
        book_push_ms=10_000,
        trades_per_minute=4,
    )


def service_settings(run: Run) -> Settings:
    """Minutes only, no disk, everything through one proxy, connections rotated every two hours."""
    table = f"exchanges.{run.venue}"
    return load(
        assignments=[
            f"server.host={PUSH[0]}",
            f"server.port={PUSH[1]}",
            "store.path=:memory:",
            "kline.broadcast_buffer_size=100000",
            "kline.connection_timeout=86400",  # the client is not what is tried here
            "websocket.ping_interval=1800000",
            "websocket.send_timeout_s=600",
            "websocket.unused_timeout_s=86400",
            f"{table}.symbols=['{SYMBOL}', '{NEWCOMER}']",
            f"{table}.intervals=['1m']",
            f"{table}.trade_intervals=[]",
            f"{table}.channels={list(run.channels)}",
            f"{table}.history_bars={HISTORY_BARS}",
            f"{table}.backfill_workers=1",
            f"{table}.instruments_refresh_s=1800",
            f"{table}.connection.ping_after_s=45",  # candles come every 30 s
            f"{table}.connection.max_age_s=7200",
            f"{table}.connection.websocket_url=ws://{WEBSOCKET[0]}:{WEBSOCKET[1]}",
            f"{table}.connection.rest_url=http://{REST[0]}:{REST[1]}",
            f"{table}.connection.proxy.enabled=true",
            f"{table}.connection.proxy.address={PROXY[0]}:{PROXY[1]}",
        ]
    )
