"""One stream under watch, and how what it told compares with what the exchange has.  Pure."""

from attrs import define

from ..core import calendar
from ..core.cadence import Cadence
from ..model import BookTop, BookUpdate, Interval, Kline, Price, StreamState, Ticker, Trade
from ..venues import Data, Kind, KlineUpdate, Stream

ROTATE_AGAIN_S, ROTATE_LATEST_S = 15.0, 60.0
"""A connection that was rotated for a stream is not again before this; doubles while it does not
help: a stream that then lives for longer has been helped."""
SAME_MOMENT_S = 1.0
"""Streams of a symbol that fell silent within this time fell silent together."""
NEVER = float("inf")
_TYPES: dict[Kind, type] = {
    Kind.TICKER: Ticker,
    Kind.TOP: BookTop,
    Kind.BOOK: BookUpdate,
}
Told = Kline | Trade


@define(eq=False)
class Watched:
    """One stream.  ``waiting``: nothing came yet since it is up, or since it was proven dead."""

    stream: Stream
    cadence: Cadence
    up: bool = False
    waiting: bool = True
    stale: bool = False
    queued_at: float = NEVER
    """Its entry in the heap."""
    last: Data | None = None
    baseline: Told | None = None
    """What the exchange had when it was asked first, for a stream that never said anything."""
    gap_from: float | None = None
    trickles: bool = False
    alive_from: float = 0.0
    rotate_from: float = 0.0
    rotate_wait_s: float = ROTATE_AGAIN_S

    @property
    def told(self) -> Told | None:
        if isinstance(self.last, KlineUpdate):
            return self.last.kline
        return self.last if isinstance(self.last, Trade) else self.baseline

    @property
    def state(self) -> str:
        if self.stale or not self.up:
            return StreamState.STALE
        return "new" if self.waiting else StreamState.LIVE

    def silent_as_long_as(self, other: "Watched") -> bool:
        return self.cadence.last <= other.cadence.last + SAME_MOMENT_S

    def doubted(self, now: float) -> bool:
        return self.up and not self.stale and now >= self.cadence.doubt_at


def key_of(stream: Stream) -> tuple[str, Interval | type]:
    """Under what a stream's events are found: symbol, and interval or type."""
    if stream.kind is Kind.PRICE:
        return "", Price  # of whatever symbol
    if stream.interval is not None:
        return stream.symbol, stream.interval
    return stream.symbol, _TYPES.get(stream.kind, Trade)


def cost(watched: Watched) -> float:
    """Orders by how cheaply the exchange can be asked: candles before trades."""
    interval = watched.stream.interval
    return NEVER if interval is None else calendar.length_ms(interval)


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
