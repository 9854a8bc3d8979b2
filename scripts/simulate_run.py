"""What one run of ``scripts/simulate`` is: seed, venue, faults, the settings of both sides."""

from collections.abc import Callable, Sequence

from attrs import frozen

from trio_feed.model import Interval, Kline
from trio_feed.settings import Settings, SimulatorSettings, load
from trio_feed.simulator.faults.schedule import KINDS, Fault, write_schedule

START_MS = 1_760_000_000_000
"""2025-10-09T08:53:20Z: not on any boundary."""
MINUTE_MS = 60_000
SYMBOL, NEWCOMER, FRESH = "BTCUSDT", "ETHUSDT", "SOLUSDT"
"""The second one is not traded but while the fault ``listing`` lasts; the third has no history at
all when ``new_listing`` lists it."""
WEBSOCKET, REST, PUSH, PROXY = ("exchange", 80), ("rest", 80), ("push", 80), ("proxy", 3128)
VENUES = ("binance_usdm", "binance", "okx", "spinpet")
SPINPET = VENUES[-1]
CHANNELS = ("kline", "trade", "book", "ticker")
HISTORY_BARS = 20
BUILT = (Interval.S1, Interval.S30)
_TRADES_PER_MINUTE, _TRADES_TO_BUILD = 4, 40
_SMALL_BOOK, _LARGE_BOOK = 120, 1_100

Truth = Callable[[Kline], Kline]


def as_it_was(kline: Kline) -> Kline:
    """What the market says is the truth."""
    return kline


@frozen
class Run:
    """``script`` None: written from the seed.  ``truth`` is for tests of the check itself: what
    it makes of a candle of the market is what the service is held to.

    ``channels`` beside ``kline`` cost time: ``trade`` and ``book`` are checked, ``ticker`` is OKX's
    way to a connection on ``/public``, the only ones that hear of an upgrade (notice 64008).
    ``intervals`` come from the exchange, ``built`` are made of trades, ``rollups`` of minutes.
    ``symbols``: so many are taken; nobody subscribes to those beyond the first three.
    """

    seed: int = 1
    hours: float = 24.0
    kinds: tuple[str, ...] = tuple(KINDS)
    venue: str = "binance_usdm"
    channels: tuple[str, ...] = ("kline",)
    script: Sequence[tuple[float, Fault]] | None = None
    truth: Truth = as_it_was
    intervals: tuple[Interval, ...] = (Interval.M1,)
    built: tuple[Interval, ...] = ()
    rollups: tuple[Interval, ...] = ()
    symbols: int = 2
    trades_per_minute: int = 0
    """0: few, or as many as built candles are worth looking at."""
    chain_s: float = 900.0
    """After the hours: so long what nodes that are out of reach, ten minutes at most, still have to
    say is waited for."""
    settings: tuple[str, ...] = ()
    """More of them, as ``--set`` of the service takes them."""

    def faults(self) -> Sequence[tuple[float, Fault]]:
        if self.script is not None:
            return self.script
        return write_schedule(self.seed, self.hours, self.kinds, start_ms=START_MS)

    @property
    def expected(self) -> range:
        """Open times of the minutes that have to come: history, and what closes in the hours, as
        long as nothing happens to the exchange's clock or its trading."""
        first = START_MS // MINUTE_MS - HISTORY_BARS
        end = int(START_MS + self.hours * 3_600_000) // MINUTE_MS
        return range(first * MINUTE_MS, end * MINUTE_MS, MINUTE_MS)

    @property
    def origins(self) -> dict[Interval, str]:
        """Where the candles of each interval come from, in the judge's words."""
        return {
            **dict.fromkeys(self.intervals, "exchange"),
            **dict.fromkeys(self.built, "built"),
            **dict.fromkeys(self.rollups, "rolled"),
        }

    @property
    def listed(self) -> tuple[str, ...]:
        """Symbols of the exchange, but for the one that is listed later."""
        return (SYMBOL, NEWCOMER, *(f"C{n:03d}USDT" for n in range(self.symbols - 2)))

    @property
    def lists_fresh(self) -> bool:
        """Whether the symbol without history is waited for."""
        return any(fault.kind == "new_listing" for _, fault in self.faults())


def exchange_settings(run: Run) -> SimulatorSettings:
    """The exchange pushes rarely: what matters is the ends of candles, and time costs."""
    few = _TRADES_TO_BUILD if run.built else _TRADES_PER_MINUTE
    return SimulatorSettings(
        venue=run.venue,
        seed=run.seed,
        symbols=run.listed,
        kline_push_ms=30_000,
        book_push_ms=10_000,
        trades_per_minute=run.trades_per_minute or few,
        # A book that is larger than a snapshot is a case of its own, and four times the work.
        book_levels=_LARGE_BOOK if run.seed % 8 == 0 else _SMALL_BOOK,
    )


def service_settings(run: Run) -> Settings:
    """No disk, everything through one proxy, connections rotated every two hours."""
    table = f"exchanges.{run.venue}"
    symbols = [*run.listed, *([FRESH] if run.lists_fresh else [])]
    return load(
        assignments=[
            f"server.host={PUSH[0]}",
            f"server.port={PUSH[1]}",
            "store.path=:memory:",
            "service.same_bug_max=0",  # a bug is to be seen
            "kline.broadcast_buffer_size=100000",
            "kline.connection_timeout=86400",  # the client is not what is tried here
            "websocket.ping_interval=1800000",
            "websocket.send_timeout_s=600",
            "websocket.unused_timeout_s=86400",
            f"{table}.symbols={symbols}",
            f"{table}.intervals={[i.value for i in run.intervals]}",
            f"{table}.trade_intervals={[i.value for i in run.built]}",
            f"{table}.rollup_intervals={[i.value for i in run.rollups]}",
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
            # A 407 is a fault that passes here; in life it needs a person, and ten minutes.
            f"{table}.connection.egress.credentials_cool_down_s=10",
            *run.settings,
        ]
    )
