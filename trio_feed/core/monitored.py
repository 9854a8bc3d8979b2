"""One monitored stream, a suspicion about it, and what can be done: the values of :mod:`.liveness`.
Pure."""

from attrs import define, field, frozen

from ..model import (
    BookTop,
    BookUpdate,
    Funding,
    Interval,
    Kline,
    Liquidation,
    MarkPrice,
    OpenInterest,
    Price,
    StreamState,
    Ticker,
    Trade,
)
from . import calendar
from .cadence import Cadence
from .streams import Data, Kind, KlineUpdate, Stream

ROTATE_AGAIN_S, ROTATE_LATEST_S = 15.0, 60.0
"""A connection that was rotated for a stream is not again before this; doubles while it does not
help: a stream that then lives for longer has been helped."""
SAME_MOMENT_S = 1.0
"""Streams of a symbol that fell silent within this time fell silent together."""
_TYPES: dict[Kind, type] = {
    Kind.TICKER: Ticker,
    Kind.TOP: BookTop,
    Kind.BOOK: BookUpdate,
    Kind.PRICE: Price,
    Kind.MARK_PRICE: MarkPrice,
    Kind.FUNDING: Funding,
    Kind.LIQUIDATION: Liquidation,
    Kind.OPEN_INTEREST: OpenInterest,
}
Told = Kline | Trade
Key = type | Interval


@frozen
class Probe:
    """Ask the exchange for the newest candle or trade of this stream."""

    stream: Stream


@frozen
class Stale:
    """The stream is dead.  ``rotate``: replace the connection that carries it."""

    stream: Stream
    silent_s: float


@frozen
class Rotate:
    """Replace the connection that carries the stream, make before break."""

    stream: Stream


@frozen
class Flows:
    """The stream delivered for the first time (again).  ``missed_s``: how long it had not."""

    stream: Stream
    missed_s: float


@frozen
class Settled:
    """A question was settled: news (dead), told (it spoke meanwhile), quiet or failed."""

    result: str


Action = Probe | Stale | Rotate | Flows | Settled


@define(eq=False)
class MonitoredStream:
    """One stream; :meth:`.Liveness.up` begins it.  ``waiting``: nothing came yet since it is up, or
    since it was proven dead."""

    stream: Stream
    cadence: Cadence
    sporadic: bool
    """It delivers by being subscribed: see :data:`.streams.SPORADIC`."""
    up: bool = field(init=False)
    waiting: bool = field(init=False)
    stale: bool = field(init=False)
    last: Data | None = None
    baseline: Told | None = None
    """What the exchange had when it was asked first, for a stream that never said anything."""
    gap_from: float | None = None
    trickles: bool = False
    alive_from: float = 0.0
    rotate_from: float = float("-inf")
    rotate_wait_s: float = ROTATE_AGAIN_S

    @property
    def told(self) -> Told | None:
        last = self.last
        if isinstance(last, KlineUpdate):
            return last.kline
        return last if isinstance(last, Trade) else self.baseline

    @property
    def state(self) -> str:
        if self.stale or not self.up:
            return StreamState.STALE
        return "new" if self.waiting else StreamState.LIVE

    def silent_as_long_as(self, other: "MonitoredStream") -> bool:
        return self.cadence.last <= other.cadence.last + SAME_MOMENT_S

    def suspected(self, now: float) -> bool:
        return self.up and not self.stale and now >= self.cadence.suspect_at


@define(eq=False)
class Check:
    """A doubt that is being settled.  ``step``: ask (an answer is awaited), grace (the exchange
    has news, the stream may still tell them), move (does the reference move?), moved (it did)."""

    asked: MonitoredStream
    monitor: MonitoredStream
    step: str
    began: float
    until: float = float("inf")
    latest: Told | None = None
    told: Told | None = None


def key_of(stream: Stream) -> Key:
    """Under what a stream's events are found: the interval of candles, or else their type."""
    return stream.interval or _TYPES.get(stream.kind, Trade)


def cost_of(monitor: MonitoredStream) -> float:
    """Orders by how cheaply the exchange can be asked: candles before trades."""
    interval = monitor.stream.interval
    return float("inf") if interval is None else calendar.length_ms(interval)


def newer(told: Told | None, latest: Told, interval: Interval | None) -> bool:
    """Does the exchange have something that was not told?  A candle without a trade is nothing to
    tell; the close of the one before it is."""
    if isinstance(told, Trade) and isinstance(latest, Trade):
        return latest.trade_id > told.trade_id
    if not (isinstance(told, Kline) and isinstance(latest, Kline)):
        return False
    if latest.open_ms == told.open_ms:
        return latest.volume > told.volume and not told.closed
    if latest.open_ms < told.open_ms or interval is None:
        return False
    follows = calendar.next_open(interval, told.open_ms) == latest.open_ms
    return latest.volume > 0 or not told.closed or not follows
