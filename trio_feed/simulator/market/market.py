"""A seeded market that is a pure function of (seed, symbol, time): no clock, no trio, no state.

Any candle or trade of any moment can be asked for without anything having run before it, the
answer is always the same, and every answer fits every other: trades add up to their minute,
minutes to hours, days, weeks and months, each candle opens where the one before it closed.
What happens to it (halts, quiet hours, ids that begin anew, trades that come to light late) is
added by fault scripts, for times to come.
How, is in :mod:`.prices`; here are symbols, calendar and Decimals.

Quote volume is volume x the day's reference price for every candle and every trade: not what
the prices would give, but it adds up exactly in every roll-up.
"""

import math
from collections.abc import Iterable, Iterator
from decimal import Decimal

from attrs import evolve

from ...model import Interval, Kline, Trade
from .grid import Grid, Shift
from .listing import LISTED_MS, Listing, listing_of
from .prices import HOUR_MS
from .symbol_market import Ghost, SymbolMarket

BOOK_LEVELS = 1_100
"""A side: a little more than a snapshot of 1,000 shows."""
_FEWEST_TRADES = 4
"""A minute needs four trades to have an open, a high, a low and a close of its own."""


class Market:
    """All symbols of the box.

    ``trades_per_minute`` is constant per symbol; fewer than 4 are raised to 4.  Books have about
    ``book_levels`` levels a side.  Methods raise
    KeyError for a symbol that is not listed and ValueError for a time that is not an open time,
    lies before the symbol's listing or within a halt.  Times are unix milliseconds.

    Trades are counted by an *index* that grows by one from each to the next, whatever happens;
    their *id* is the same number unless ids began anew (:meth:`restart_ids`).
    """

    listed_ms = LISTED_MS

    def __init__(
        self,
        seed: int,
        symbols: Iterable[str],
        trades_per_minute: int,
        book_levels: int = BOOK_LEVELS,
        *,
        turning: bool = False,
    ) -> None:
        self._turning = turning
        self.book_levels = book_levels
        self.trades_per_minute = max(_FEWEST_TRADES, trades_per_minute)
        self.listings: dict[str, Listing] = {}
        self.delisted: set[str] = set()
        self.grids: dict[str, Grid] = {}
        self.halts: dict[str, list[tuple[int, int]]] = {}
        """[start, end) in which there is no trading, by symbol."""
        self._corrected: dict[str, dict[int, tuple[int, Kline]]] = {}
        """By symbol and open time: (end, minute)."""
        self._seed = seed
        self._symbols: dict[str, SymbolMarket] = {}
        for symbol in symbols:
            self.list_symbol(symbol)

    def list_symbol(self, symbol: str, listed_ms: int | None = None) -> None:
        """List a new symbol, or one again that was delisted.  ``listed_ms``: nothing was traded
        before, and its ids begin with 1; None: as all the others.  One that comes back has the
        past that it had."""
        if listed_ms is None and symbol in self._symbols:
            self.delisted.discard(symbol)
            return
        listing = self.listings[symbol] = listing_of(symbol)
        first = LISTED_MS if listed_ms is None else listed_ms
        line = self._symbols[symbol] = SymbolMarket(
            self._seed, listing, self.trades_per_minute, first, turning=self._turning
        )
        self.grids[symbol], self.halts[symbol] = Grid(first), []
        if listed_ms is not None:
            line.restart_ids(line.index(first))
        self.delisted.discard(symbol)

    def delist(self, symbol: str) -> None:
        """It stays known, does not trade any more, and nothing of it is pushed."""
        self.delisted.add(symbol)

    def quiet(self, symbol: str, start_ms: int, end_ms: int) -> None:
        """Nobody trades in [start, end), which must not have begun: candles are flat."""
        self._symbols[symbol].silence(start_ms, end_ms)

    def halt(self, symbol: str, start_ms: int, end_ms: int, *, off_grid: bool = False) -> None:
        """No trading in [start, end), which must not have begun, and no candles either.

        ``off_grid``: candles of up to 30 minutes then count from ``end_ms``, to the next full hour.
        """
        self._symbols[symbol].silence(start_ms, end_ms)
        self.halts[symbol].append((start_ms, end_ms))
        if off_grid:
            hour = (end_ms // HOUR_MS + 1) * HOUR_MS
            self.grids[symbol].shifts.append(Shift(end_ms, hour))

    def halted(self, symbol: str, time_ms: float) -> bool:
        """Whether there is no trading at this moment (its status is BREAK)."""
        return any(start <= time_ms < end for start, end in self.halts[symbol])

    def is_trading(self, symbol: str, time_ms: float) -> bool:
        """What its status says: neither delisted nor halted."""
        return symbol not in self.delisted and not self.halted(symbol, time_ms)

    def restart_ids(self, symbol: str, time_ms: int) -> None:
        """The first trade at or after ``time_ms`` has id 1, as after a relisting."""
        line = self._symbols[symbol]
        line.restart_ids(line.index(time_ms))

    def reveal(self, symbol: str, time_ms: int) -> Ghost:
        """From now on every candle that holds ``time_ms`` has one trade more: the price is above
        all others of its minute, the quantity as large as theirs together."""
        return self._symbols[symbol].reveal(time_ms)

    def listed_of(self, symbol: str) -> int:
        """When it began to be traded."""
        return self.grids[symbol].listed_ms

    def open_of(self, symbol: str, interval: Interval, time_ms: int) -> int:
        """The open time of the candle that holds ``time_ms``."""
        return self.grids[symbol].open_of(interval, time_ms)

    def next_open(self, symbol: str, interval: Interval, open_ms: int) -> int:
        """The end of the candle that opens at ``open_ms``, exclusive."""
        return self.grids[symbol].next_open(interval, open_ms)

    def previous_open(self, symbol: str, interval: Interval, open_ms: int) -> int:
        """The open time before ``open_ms``, whether there is such a candle or not."""
        return self.grids[symbol].previous_open(interval, open_ms)

    def candle(self, symbol: str, interval: Interval, open_ms: int) -> Kline:
        """The closed candle that opens at ``open_ms``.

        A candle without a trade is flat at the last price.  The candle that is open at the
        listing holds what was traded from then on.
        """
        _, start, end = self._bounds(symbol, interval, open_ms)
        return evolve(self.row(symbol, start, end), open_ms=open_ms)

    def span(self, symbol: str, start_ms: int, end_ms: int, *, ghosts: bool = True) -> Kline:
        """The trades of any [start, end) as a candle, on a grid or not; ``ghosts`` False: only
        those that streams show.  No correction is looked at (:meth:`row`)."""
        line = self._symbols[symbol]
        bar = line.bar(max(start_ms, line.listed_ms), end_ms, ghosts=ghosts)
        return line.kline(bar, start_ms, closed=True)

    def row(self, symbol: str, start_ms: int, end_ms: int) -> Kline:
        """The same as a candle of the exchange, closed: minutes inside that were corrected are
        what they were corrected to."""
        pieces, at = list[Kline](), max(start_ms, self.listed_of(symbol))
        for open_ms, (end, minute) in sorted(self._corrected.get(symbol, {}).items()):
            if start_ms <= open_ms and end <= end_ms:
                pieces += [self.span(symbol, at, open_ms)] if at < open_ms else []
                pieces.append(minute)
                at = end
        if at < end_ms:
            pieces.append(self.span(symbol, at, end_ms))
        return _merged(pieces, start_ms)

    def correct(self, symbol: str, minute: Kline) -> None:
        """From now on this is what the closed minute was, alone and in every longer candle.  Its
        trades stay as they are."""
        end = self.next_open(symbol, Interval.M1, minute.open_ms)
        self._corrected.setdefault(symbol, {})[minute.open_ms] = end, minute

    def partial(self, symbol: str, interval: Interval, open_ms: int, now_ms: float) -> Kline | None:
        """The candle from its open to ``now_ms``, a trade at ``now_ms`` included.

        None before its first trade; its last state, still not ``closed``, after its end.
        """
        _, start, end = self._bounds(symbol, interval, open_ms)
        stop = min(math.floor(now_ms) + 1, end)
        kline = self.row(symbol, start, stop) if stop > start else None
        if kline is None or kline.trades == 0:
            return None
        return evolve(kline, open_ms=open_ms, closed=False)

    def ids(self, symbol: str, interval: Interval, open_ms: int, now_ms: float) -> tuple[int, int]:
        """Ids of the first and the last trade of a candle up to ``now_ms``; -1 where there is
        none."""
        line, start, end = self._bounds(symbol, interval, open_ms)
        first, stop = line.index(start), line.index(min(math.floor(now_ms) + 1, end))
        return (line.id_of(first), line.id_of(stop - 1)) if first < stop else (-1, -1)

    def trades(self, symbol: str, from_ms: float, to_ms: float) -> Iterator[Trade]:
        """The trades of [from_ms, to_ms), in order."""
        line = self._symbols[symbol]
        first = line.index(max(math.ceil(from_ms), line.listed_ms))
        return line.trades(first, line.index(math.ceil(to_ms)))

    def trades_from(self, symbol: str, index: int, limit: int) -> Iterator[Trade]:
        """``limit`` trades from this index on (or from the very first there was)."""
        line = self._symbols[symbol]
        first = max(index, line.index(line.listed_ms))
        return line.trades(first, first + limit)

    def first_id(self, symbol: str, time_ms: float) -> int:
        """The index of the first trade at or after ``time_ms``; its id, too, unless ids began
        anew."""
        return self._symbols[symbol].index(math.ceil(time_ms))

    def trade_time(self, symbol: str, index: int) -> int:
        """When the trade happens."""
        return self._symbols[symbol].trade_time(index)

    def index_of(self, symbol: str, trade_id: int, time_ms: float | None = None) -> int:
        """Of the trade with this id, of those that count as they did at ``time_ms`` (None: as they
        do now)."""
        return self._symbols[symbol].index_of(trade_id, time_ms)

    def indexes_of(self, symbol: str, trade_id: int) -> list[int]:
        """Of every trade that has this id: several where ids began anew."""
        return self._symbols[symbol].indexes_of(trade_id)

    def exists(self, symbol: str, interval: Interval, open_ms: int) -> bool:
        """Whether the candle that opens at ``open_ms`` holds a moment of trading, past or
        future."""
        return self.trades_within(symbol, open_ms, self.next_open(symbol, interval, open_ms))

    def trades_within(self, symbol: str, start: int, end: int) -> bool:
        """Whether any moment of [start, end) is neither before the listing nor in a halt."""
        start = max(start, self.listed_of(symbol))
        for since, until in sorted(self.halts[symbol]):
            if since <= start < until:
                start = until
        return start < end

    def _bounds(
        self, symbol: str, interval: Interval, open_ms: int
    ) -> tuple[SymbolMarket, int, int]:
        line = self._symbols[symbol]
        if self.open_of(symbol, interval, open_ms) != open_ms:
            raise ValueError(f"{open_ms} is not an open time of {interval.value}")
        if not self.exists(symbol, interval, open_ms):
            raise ValueError(f"{open_ms} is before the listing of {symbol}, or in a halt")
        return line, max(open_ms, line.listed_ms), self.next_open(symbol, interval, open_ms)


def _merged(pieces: Iterable[Kline], open_ms: int) -> Kline:
    """Pieces of one candle, in order; those without a trade have no say in the prices."""
    every = [*pieces]
    loud = [piece for piece in every if piece.trades] or every[-1:]
    return evolve(
        loud[0],
        open_ms=open_ms,
        high=max(piece.high for piece in loud),
        low=min(piece.low for piece in loud),
        close=loud[-1].close,
        volume=sum((piece.volume for piece in every), Decimal(0)),
        quote_volume=sum((piece.quote_volume for piece in every), Decimal(0)),
        trades=sum(piece.trades for piece in every),
    )
