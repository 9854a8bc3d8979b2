"""Order books that are a pure function of (market, symbol, step): no clock, no trio, no state.

A book changes in steps of 100 ms.  Any two steps can be compared without anything having run in
between, and the changes between them lead from one to the other exactly.

How: the last trade at a step's time is the best bid when it was a sale, the best ask when it was
a purchase; the other side stands one to three ticks away.  From there every tick of some 1,500
(1,100 levels) has a size out of a table, a quarter of them none.  Which one depends on the tick
and on a beat that comes 128 steps apart for each tick and at another step for its neighbour: so
one tick in 128 changes per step, and which ones is arithmetic.  Every fifth step changes no size:
where there is no trade either, nothing changes.  Best sizes change with each trade and only then.
"""

from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from attrs import define, field

from . import prices
from .market import Market

STEP_MS = 100
Level = tuple[Decimal, Decimal]
"""Price, quantity in base currency; quantity 0: removed."""
Levels = tuple[Level, ...]

_BEAT = 128
_STRIDE = 37
_INVERSE = pow(_STRIDE, -1, _BEAT)
_BLOCK = 64
"""The far end of a side moves in blocks of so many ticks."""
_LEVELS_PER_BLOCK = 48
_SIZES = 1024


class _State(NamedTuple):
    """A book at a step.  Prices in ticks; bids are in [low, bid], asks in [ask, high]."""

    beat: int
    trade: int
    bid: int
    ask: int
    low: int
    high: int

    def side(self, is_bid: bool) -> tuple[int, int, int]:
        """First tick, last tick, best tick."""
        return (self.low, self.bid, self.bid) if is_bid else (self.ask, self.high, self.ask)


_EMPTY = _State(beat=0, trade=0, bid=0, ask=1, low=1, high=0)


class BookPath:
    """One symbol's book.

    About ``market.book_levels`` levels a side (fewer where the price has fewer ticks).
    ``levels`` takes some 1.5 us a level, ``changes`` of one step 20 to 150 us.  The class raises
    KeyError for a symbol that was never listed.  Before its first trade the book is empty, as on a
    real exchange before anybody has made an offer.
    """

    def __init__(self, market: Market, symbol: str) -> None:
        listing = market.listings[symbol]
        self._market, self._symbol = market, symbol
        self._decimals, self._parts = listing.price_decimals, listing.quantity_decimals
        self._key = fingerprint(market, symbol)
        self._blocks = max(1, round(market.book_levels / _LEVELS_PER_BLOCK))
        most = max(16, listing.units * prices.MEAN_LOTS_PER_UNIT // 40)
        noise = prices.noise(2 * _SIZES, self._key, "sizes")
        self._sizes = [
            0 if kind < 64 else 1 + most * size * size // 65536
            for kind, size in zip(noise[::2], noise[1::2], strict=True)
        ]
        self._state = lru_cache(maxsize=64)(self._make_state)
        self._price = lru_cache(maxsize=8192)(self._make_price)
        self._quantity = lru_cache(maxsize=4096)(self._make_quantity)

    def step(self, time_ms: float) -> int:
        """The step whose book stands at ``time_ms``."""
        return int(time_ms // STEP_MS)

    def levels(self, step: int, n: int) -> tuple[Levels, Levels]:
        """The best ``n`` bids and asks, or as many as there are, best first."""
        state = self._state(step)
        return self._best(state, n, is_bid=True), self._best(state, n, is_bid=False)

    def changes(self, step: int, since: int | None = None) -> tuple[Levels, Levels]:
        """What differs at ``step`` from ``since`` (the step before it): quantities, best first."""
        old, new = self._state(step - 1 if since is None else since), self._state(step)
        return self._changed(old, new, is_bid=True), self._changed(old, new, is_bid=False)

    def _best(self, state: _State, n: int, *, is_bid: bool) -> Levels:
        ticks = range(state.bid, state.low - 1, -1) if is_bid else range(state.ask, state.high + 1)
        found: list[Level] = []
        for tick in ticks:
            if len(found) >= n:
                break
            if lots := self._lots(state, tick, is_bid=is_bid):
                found.append((self._price(tick), self._quantity(lots)))
        return tuple(found)

    def _changed(self, old: _State, new: _State, *, is_bid: bool) -> Levels:
        changed: list[Level] = []
        for tick in sorted(_candidates(old, new, is_bid=is_bid), reverse=is_bid):
            lots = self._lots(new, tick, is_bid=is_bid)
            if lots != self._lots(old, tick, is_bid=is_bid):
                changed.append((self._price(tick), self._quantity(lots)))
        return tuple(changed)

    def _lots(self, state: _State, tick: int, *, is_bid: bool) -> int:
        """The size at a tick, 0 where there is none."""
        first, last, best = state.side(is_bid)
        if not first <= tick <= last:
            return 0
        if tick == best:
            number = _mix(state.trade, 2 + is_bid)
            return self._sizes[number % _SIZES] or 1 + number % 7
        return self._sizes[_mix(tick, (state.beat + _STRIDE * tick) // _BEAT) % _SIZES]

    def _make_state(self, step: int) -> _State:
        time_ms = step * STEP_MS
        trade_id = (
            self._market.first_id(
                self._symbol, max(time_ms + 1, self._market.listed_of(self._symbol))
            )
            - 1
        )
        trade = next(self._market.trades_from(self._symbol, trade_id, 1))
        if trade.time_ms > time_ms:
            return _EMPTY
        at = int(trade.price.scaleb(self._decimals))
        spread = 1 + _mix(trade.trade_id, self._key) % 3
        bid = at if trade.buyer_is_maker else max(1, at - spread)
        ask = at + spread if trade.buyer_is_maker else max(at, bid + 1)
        low = max(1, (bid // _BLOCK - self._blocks) * _BLOCK)
        high = (ask // _BLOCK + 1 + self._blocks) * _BLOCK
        return _State(step - (step + 2) // 5, trade.trade_id, bid, ask, low, high)

    def _make_price(self, tick: int) -> Decimal:
        return Decimal(tick).scaleb(-self._decimals)

    def _make_quantity(self, lots: int) -> Decimal:
        return Decimal(lots).scaleb(-self._parts)


def _candidates(old: _State, new: _State, *, is_bid: bool) -> set[int]:
    """Every tick whose size may differ."""
    (first, last, best), (first2, last2, best2) = old.side(is_bid), new.side(is_bid)
    start, end = max(first, first2), min(last, last2)
    beats = range(min(old.beat, new.beat) + 1, max(old.beat, new.beat) + 1)
    if start > end or len(beats) >= _BEAT:
        return {*range(first, last + 1), *range(first2, last2 + 1)}
    ticks = {best, best2}
    ticks.update(range(min(first, first2), start), range(end + 1, max(last, last2) + 1))
    for beat in beats:
        ticks.update(range(start + (-beat * _INVERSE - start) % _BEAT, end + 1, _BEAT))
    return ticks


def _mix(a: int, b: int) -> int:
    """A cheap hash of two numbers, 17 bits."""
    number = (a * 0x9E3779B1 ^ b * 0x85EBCA6B) & 0xFFFFFFFF
    return ((number ^ number >> 16) * 0x45D9F3B & 0xFFFFFFFF) >> 15


def fingerprint(market: Market, symbol: str) -> int:
    """A number that depends on the market's seed and the symbol: from its very first trades."""
    first = market.trades_from(symbol, 0, 8)
    return prices.number(symbol, *((trade.price, trade.quantity) for trade in first))


def best_of(side: Levels) -> Level:
    """The best level, zeros where there is none."""
    return side[0] if side else (Decimal(0), Decimal(0))


@define
class Books:
    """The books of a market, by symbol."""

    market: Market
    _paths: dict[str, BookPath] = field(factory=dict)

    def __getitem__(self, symbol: str) -> BookPath:
        """Raises KeyError for a symbol that was never listed."""
        if symbol not in self._paths:
            self._paths[symbol] = BookPath(self.market, symbol)
        return self._paths[symbol]
