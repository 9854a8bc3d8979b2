"""One symbol's prices without quantities, each event once, become candles.  Pure.

For venues that tell a price per event (Spin Pet on Solana).  The same event may come twice, from
two connections or after a reconnect: its key decides.  A price without a time of its own counts at
the moment at which it came in, so there the end of a candle is a matter of our clock by definition;
it is kept open while the stream is down.
"""

from collections import deque
from collections.abc import Mapping
from decimal import Decimal

from attrs import define, field

from ..instants import NEVER, Mono, Now
from ..model import Interval, Price
from .bars import Built
from .price_candles import PriceCandles

GRACE_MS = 1_000
"""A candle is closed only this long after its end."""
_REMEMBERED = 20_000
"""Keys; an event that comes again after that many others counts twice."""
_PAGE = 1_000


@define(eq=False)
class SymbolPrices:
    """``last_close`` is where the stored candles end, per interval: open time and close."""

    intervals: tuple[Interval, ...]
    last_close: Mapping[Interval, tuple[int, Decimal]]
    _candles: PriceCandles = field(init=False)
    _seen: set[str] = field(factory=set)
    _order: deque[str] = field(factory=deque)
    _up: bool = False

    def __attrs_post_init__(self) -> None:
        self._candles = PriceCandles(self.intervals, self.last_close)

    def due(self, now: Now) -> Mono:
        """When :meth:`advance` closes something, while the stream is up."""
        end = self._candles.next_end_ms
        if end is None or not self._up:
            return NEVER
        return now.mono + (end + GRACE_MS - float(now.exchange)) / 1000

    def take(self, price: Price, now: Now) -> list[Built] | None:
        """A live price; at the venue's time, or at ours where it gives none.  None: it was here
        before."""
        if price.key in self._seen:
            return None
        self._remember(price.key)
        time_ms = price.time_ms or int(now.exchange)
        built: list[Built] = []
        while page := self._candles.advance(time_ms, _PAGE):
            built += page
        return [*built, *self._candles.add(price.price, time_ms)]

    def resumed(self, now: Now) -> None:
        """The stream is up (again): what happened meanwhile is not known."""
        self._up = True
        self._candles.missed(int(now.exchange))

    def lost(self) -> None:
        """The stream is down: no candle closes until it is back."""
        self._up = False

    def advance(self, now: Now) -> list[Built]:
        """Close what ended a while ago, at most a page of it."""
        if not self._up:
            return []
        return self._candles.advance(int(now.exchange) - GRACE_MS, _PAGE)

    def _remember(self, key: str) -> None:
        self._seen.add(key)
        self._order.append(key)
        if len(self._order) > _REMEMBERED:
            self._seen.discard(self._order.popleft())
