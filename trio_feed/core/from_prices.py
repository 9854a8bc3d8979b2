"""One symbol's prices without quantity: the news of them, and the candles made of them.  Pure.

Where the venue is a chain of transactions (``rules.chain``), :mod:`.chain` says what of them is
proven, missing or taken back; the driver of the chain calls the methods of the second part.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from decimal import Decimal

from ..instants import NEVER, Mono, Now
from ..model import Channel, Interval, Kline, Price
from .bars import Built
from .effects import ChannelNews, Effect, Report
from .opening import End
from .prices import SymbolPrices
from .scope import Scope
from .upstream import Upstream

_TOLD = 5_000
"""Keys of prices per symbol."""


class PriceCandles:
    """Of one symbol."""

    __slots__ = ("_key", "_scope", "_told", "_upstream", "prices")

    def __init__(
        self, scope: Scope, upstream: Upstream, ends: Mapping[Interval, End], now: Now
    ) -> None:
        built = scope.settings.trade_intervals
        last = {i: ends[i].kline for i in built if i in ends}
        self._scope, self._upstream = scope, upstream
        self._key = scope.channel_keys.get(Channel.TRADE)
        self.prices = SymbolPrices(built, last, scope.rules.chain, now.mono)
        self._told: OrderedDict[str, Decimal] = OrderedDict()
        """Of a chain: what clients know, by key."""

    def take(self, price: Price, now: Now, out: list[Effect]) -> None:
        """A price; nothing where it was known."""
        late = self.prices.late
        built = self.prices.take(price, now)
        if built is None:
            return
        if self.prices.late > late:
            fields = {"symbol": self._scope.symbol, "time": price.time_ms}
            out.append(Report("price.too_late", "warning", fields))
            out += self.missed(price.time_ms, price.time_ms + 1, now, final=True)
        self._tell(price, now, out)
        self._priced(built, now, out)
        self._scope.alarm.want(self.prices.due(now))

    def up(self, now: Now, out: list[Effect]) -> None:
        """The stream's connection delivers from now on."""
        lost_ms = self.prices.lost_ms
        if lost_ms is not None and not self._scope.rules.chain:
            self._scope.candles.rolled.rollup.unsure(lost_ms, int(now.exchange))
        self._priced(self.prices.resumed(now), now, out)

    def lost(self, now: Now) -> None:
        self.prices.lost(now)

    def due(self, now: Now) -> Mono:
        return self.prices.due(now)

    def wake(self, now: Now, out: list[Effect]) -> None:
        if self.prices.due(now) <= now.mono:
            self._priced(self.prices.advance(now), now, out)

    def _tell(self, price: Price, now: Now, out: list[Effect]) -> None:
        """News for who follows prices; of a chain each once, unless it has another value now."""
        if self._scope.rules.chain:
            if self._told.get(price.key) == price.price:
                return
            self.was_told(price)
        if self._key is not None:
            out.append(ChannelNews(self._key, price, self._scope.source, float(now.wall)))

    # What a chain says.

    def was_told(self, price: Price) -> None:
        """Clients know this one."""
        self._told[price.key] = price.price
        if len(self._told) > _TOLD:
            self._told.popitem(last=False)

    def hear(self, price: Price, now: Now, out: list[Effect]) -> None:
        """A price that will be taken when its time is known: it is published, and shown in candles
        that run."""
        self._tell(price, now, out)
        for interval, kline in self.prices.hear(price):
            out += self._scope.candles.previewed(interval, kline, now)

    @property
    def next_end_ms(self) -> int | None:
        """When the next candle ends; None: none is open."""
        return self.prices.next_end_ms

    @property
    def idle_since(self) -> Mono:
        """When the last price came, or it was opened.  NEVER: a candle is still open."""
        return self.prices.heard_at if self.prices.next_end_ms is None else NEVER

    def known_since(self, time_ms: int) -> None:
        """No price after ``time_ms`` was missed, though none has come yet."""
        self.prices.known_since(time_ms)

    def resume(
        self,
        before: Mapping[Interval, Kline],
        opens: Mapping[Interval, int],
        kept: Iterable[Built],
        known_ms: int,
    ) -> None:
        """Go on where an earlier run ended: see :meth:`.prices.SymbolPrices.resume`."""
        self.prices.resume(before, opens, kept, known_ms)

    def retracted(self, keys: Iterable[str], now: Now) -> list[Effect]:
        """These prices are not in the chain."""
        out: list[Effect] = []
        self._priced(self.prices.retract(keys), now, out)
        return out

    def passed(self, until_ms: int, now: Now) -> list[Effect]:
        """The chain goes on at ``until_ms``: what ended before is closed."""
        out: list[Effect] = []
        self._priced(self.prices.proven(until_ms), now, out)
        rolled = self._scope.candles.passed(until_ms, now)
        self._scope.follow(rolled)
        return out + rolled

    def proven(self, until_ms: int, now: Now) -> list[Effect]:
        """No price before ``until_ms`` is missing, but for those that cannot be had."""
        scope = self._scope
        out = self.passed(until_ms, now)
        self._priced(self.prices.whole(until_ms), now, out)
        for interval in (*self.prices.intervals, *scope.candles.rolled.rollup.intervals):
            scope.candles.silent_until(interval, until_ms)
            out += scope.settled(scope.candles.ledgers[interval].series)
        return out + self._upstream.nothing_missing()

    def missed(self, first_ms: int, until_ms: int, now: Now, *, final: bool) -> list[Effect]:
        """Prices between may be missing.  ``final``: they cannot be had."""
        scope = self._scope
        out: list[Effect] = []
        self._priced(self.prices.missed(first_ms, until_ms, final=final), now, out)
        if not final:
            return out
        scope.candles.rolled.rollup.unsure(first_ms, until_ms)
        for interval in self.prices.intervals:
            ledger = scope.candles.ledgers[interval]
            rows = self.prices.silent_in(interval, first_ms, until_ms)
            out += scope.candles.kept(interval, rows, now)
            span = ledger.grid.open_of(first_ms), ledger.grid.open_of(max(first_ms, until_ms - 1))
            out += scope.status.hole(ledger.series, span)
        return out

    def _priced(self, built: Iterable[Built], now: Now, out: list[Effect]) -> None:
        """Candles made of prices, new ones and others again."""
        made: list[Effect] = []
        for interval, kline in built:
            made += self._scope.candles.priced(interval, kline, now)
        self._scope.follow(made)
        out += made
