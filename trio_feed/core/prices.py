"""One symbol's prices without quantities, each event once, become candles.  Pure.

For venues that give a price per event.  An interval without a price has no
candle (:mod:`.price_bars`).  What says that a candle is over depends on the venue:

- ``chain``: what was missed can be fetched (:mod:`.chain`).  Prices come with the time of their
  block and once each (:mod:`.chain_placing`), and a candle closes at :meth:`SymbolPrices.proven`:
  a later price of the chain, or a reading of the program's list.  No clock closes anything.  Late
  and retracted prices are revisions.
- else nothing can be fetched, and a candle closes by our clock a second after its end; it is kept
  open while the stream is down.  The same event may come twice, from two connections: its key
  decides.

After a gap nobody knows at what price the next candle opens, so that one is not complete either.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice

from attrs import define, evolve, field

from ..instants import NEVER, Mono, Now
from ..model import Interval, Kline, Price
from . import calendar
from .bars import Built
from .price_bars import PriceBars, with_price
from .spans import Span, joined

GRACE_MS = 1_000
"""Without a chain a candle is closed only this long after its end."""
_REMEMBERED = 20_000
"""Keys; an event that comes again after that many others counts twice."""
_MOST_IMPLIED = 1_000
"""Silent candles inside of one gap that are kept as incomplete ones."""


@define(eq=False)
class SymbolPrices:
    """``last``: where the stored candles end.  ``heard_at``: when its last price came.
    ``lost_ms``: since when the stream is down; None: it is up, or was not yet."""

    intervals: tuple[Interval, ...]
    last: Mapping[Interval, Kline]
    chain: bool
    heard_at: Mono
    lost_ms: int | None = None
    _bars: PriceBars = field(init=False)
    _seen: set[str] = field(factory=set)
    _order: deque[str] = field(factory=deque)
    _up: bool = False
    _unsure_ms: int | None = None
    """End of a gap after which no price has come yet."""
    _open_gaps: list[Span] = field(factory=list)
    _final: list[Span] = field(factory=list)
    _heard: dict[str, Price] = field(factory=dict)
    """Prices that are not taken yet, with estimated times."""
    _kept: dict[tuple[Interval, int], Kline] = field(factory=dict)
    """Candles that an earlier run had stored and that are made anew, until they are."""

    def __attrs_post_init__(self) -> None:
        self._bars = PriceBars(self.intervals, self.last)

    @property
    def late(self) -> int:
        """Prices that came too late to change their candle."""
        return self._bars.late

    @property
    def next_end_ms(self) -> int | None:
        """When the next candle with a price ends; None: there is none that is open."""
        return self._bars.next_end_ms

    def due(self, now: Now) -> Mono:
        """When :meth:`advance` closes something, while the stream is up."""
        end = self.next_end_ms
        if end is None or not self._up or self.chain:
            return NEVER
        return now.mono + (end + GRACE_MS - float(now.exchange)) / 1000

    def resume(
        self,
        before: Mapping[Interval, Kline],
        opens: Mapping[Interval, int],
        kept: Iterable[Built],
        known_ms: int,
    ) -> None:
        """Make the candles from ``opens`` on anew, out of prices that come again.

        ``before``: the last stored candle that opens earlier.  ``kept``: the stored ones that do
        not; one that comes out as it is stored is no news.  ``known_ms``: no price after it is
        missing.
        """
        self.last = dict(before)
        self._bars = PriceBars(self.intervals, self.last)
        self._bars.begin_at(opens)
        self._kept = {(interval, kline.open_ms): kline for interval, kline in kept}
        if all(interval in before for interval in self.intervals):
            self._bars.watch(known_ms)
        # Else it is young: its first price is among those that come, and nobody knows what it
        # cost before.

    def known_since(self, time_ms: int) -> None:
        """No price after ``time_ms`` was missed, though none has come yet."""
        self._bars.watch(time_ms)

    def hear(self, price: Price) -> list[Built]:
        """A price that will be taken later, with an estimated time.  Returns the running candles
        with it."""
        if not self.intervals:
            return []
        self._heard[price.key] = price
        if len(self._heard) > _REMEMBERED:
            del self._heard[next(iter(self._heard))]
        found = ((i, self._bars.running(i, price)) for i in self.intervals)
        return [(i, self._shown(i, bar)) for i, bar in found if bar is not None]

    def take(self, price: Price, now: Now) -> list[Built] | None:
        """A price, at its own time, or at the exchange's of ``now`` where it has none.  Returns
        what changed; None: it was here before."""
        if not self.chain:
            if price.key in self._seen:
                return None
            self._remember(price.key)
        self.heard_at = now.mono
        self._heard.pop(price.key, None)
        if not self.intervals:
            return []
        price = evolve(price, time_ms=price.time_ms or int(now.exchange))
        out: list[Built] = []
        if self._unsure_ms is not None and price.time_ms >= self._unsure_ms:
            span = self._unsure_ms, price.time_ms + 1
            if any(gap[1] == self._unsure_ms for gap in self._open_gaps):
                self._open_gaps = joined(self._open_gaps, span)  # what proves it whole ends both
            self._unsure_ms = None
            out = self._mark(span)
        return self._news(out + self._bars.take(price))

    def retract(self, keys: Iterable[str]) -> list[Built]:
        """These prices are not in the chain."""
        keys = [*keys]
        for key in keys:
            self._heard.pop(key, None)
        return self._news(self._bars.retract(keys)) if self.intervals else []

    def proven(self, until_ms: int) -> list[Built]:
        """Nothing before ``until_ms`` is to come any more, but for what comes late."""
        out = self._news(self._bars.advance(until_ms))
        for interval, open_ms in [*self._kept]:
            if calendar.next_open(interval, open_ms) <= until_ms:  # its prices are not in the chain
                row = self._bars.implied(interval, open_ms)
                out += self._news([(interval, row)] if row is not None else [])
        return out

    def missed(self, first_ms: int, until_ms: int, *, final: bool) -> list[Built]:
        """Prices between may be missing.  ``final``: they cannot be had."""
        after_ms = self._bars.first_after(until_ms)
        if after_ms is None:
            self._unsure_ms = max(until_ms, self._unsure_ms or 0)
        else:
            until_ms = after_ms + 1
        span = first_ms, until_ms
        if final:
            self._final = joined(self._final, span)
        else:
            self._open_gaps = joined(self._open_gaps, span)
            self._hold()
        return self._mark(span)

    def whole(self, until_ms: int) -> list[Built]:
        """What was missed before ``until_ms`` and could be had has come."""
        found = [gap for gap in self._open_gaps if gap[1] <= until_ms]
        if not found:
            return []
        self._open_gaps = [gap for gap in self._open_gaps if gap[1] > until_ms]
        self._hold()
        if not self._open_gaps and not self._final:
            self._unsure_ms = None
        out: list[Built] = []
        for first_ms, last_ms in found:
            out += self._bars.whole(first_ms, last_ms)
        for gap in self._final:  # they may lie inside of it
            out += self._bars.missed(*gap)
        return [*{(interval, k.open_ms): (interval, k) for interval, k in out}.values()]

    def silent_in(self, interval: Interval, first_ms: int, until_ms: int) -> list[Kline]:
        """The silent candles of a gap, not complete, for the store: none of them is certain."""
        opens = calendar.opens(interval, calendar.open_of(interval, first_ms), until_ms)
        rows = (self._bars.implied(interval, at) for at in islice(opens, _MOST_IMPLIED))
        return [row for row in rows if row is not None]

    def resumed(self, now: Now) -> list[Built]:
        """The stream is up (again).  Without a chain what happened meanwhile is never known."""
        self._up = True
        lost_ms, self.lost_ms = self.lost_ms, None
        if self.chain or lost_ms is None:
            return []
        return self.missed(lost_ms, int(now.exchange), final=True)

    def lost(self, now: Now) -> None:
        """The stream is down: no candle closes until it is back."""
        if self._up:
            self.lost_ms = int(now.exchange)
        self._up = False

    def advance(self, now: Now) -> list[Built]:
        """Without a chain: close what ended a while ago."""
        if not self._up or self.chain:
            return []
        return self._bars.advance(int(now.exchange) - GRACE_MS)

    def _hold(self) -> None:
        self._bars.hold_ms = min((first_ms for first_ms, _ in self._open_gaps), default=None)

    def _news(self, built: list[Built]) -> list[Built]:
        """Without what is stored just so; running ones with what was heard."""
        if self._heard:
            built = [(i, bar if bar.closed else self._shown(i, bar)) for i, bar in built]
        if not self._kept:
            return built
        out = []
        for interval, kline in built:
            stored = self._kept.pop((interval, kline.open_ms), None) if kline.closed else None
            if stored is None or _values(stored) != _values(kline):
                out.append((interval, kline))
        return out

    def _shown(self, interval: Interval, bar: Kline) -> Kline:
        """A running candle with what was heard and not taken yet."""
        for price in self._heard.values():
            if calendar.open_of(interval, price.time_ms) == bar.open_ms:
                bar = with_price(bar, price.price, price.time_ms)
        return bar

    def _mark(self, span: Span) -> list[Built]:
        self._final = self._final[-10:]
        return self._bars.missed(*span)

    def _remember(self, key: str) -> None:
        self._seen.add(key)
        self._order.append(key)
        if len(self._order) > _REMEMBERED:
            self._seen.discard(self._order.popleft())


def _values(kline: Kline) -> tuple[object, ...]:
    prices = kline.open, kline.high, kline.low, kline.close
    return (*prices, kline.trades, kline.complete)
