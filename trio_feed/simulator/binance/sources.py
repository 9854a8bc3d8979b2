"""What is new on a stream of the Binance box, and when there will be more.  Pure.

A source knows up to when it has told everything.  ``due_ms`` is the next time at which something
may be new, on the stream's grid of push times; ``news(now)`` gives the payloads up to ``now`` and
moves on.  The market can tell when the next trade comes, so nothing is polled but books, which
change ten times a second.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from attrs import define, field

from ...model import Interval, Trade
from ..market.books import BookPath, Levels
from ..market.market import Market
from .dialect import Box, Payload, Span, Stream, Update, book_id

_MOST_MISSED = 100
"""Candles of a stream that are closed late after the machine slept; older ones are REST's."""


class Source(Protocol):
    """One stream, told from the time it was made."""

    @property
    def due_ms(self) -> int: ...

    def news(self, now_ms: int) -> Iterable[Payload | list[Payload]]: ...


@define
class Trades:
    """Every trade, at the first grid point after it."""

    box: Box
    stream: Stream
    told_ms: int
    encode: Callable[[Trade, int], Payload]

    @property
    def due_ms(self) -> int:
        return _grid(_next_trade(self.box, self.stream.symbol, self.told_ms), self.stream.every_ms)

    def news(self, now_ms: int) -> Iterator[Payload]:
        trades = self.box.market.trades(self.stream.symbol, self.told_ms + 1, now_ms + 1)
        self.told_ms = now_ms
        for trade in trades:
            yield self.encode(trade, now_ms)


@define
class Candles:
    """The open candle at the first grid point after a trade; the closed one right at its end."""

    box: Box
    stream: Stream
    interval: Interval
    told_ms: int
    every_ms: int
    open_ms: int
    """Of the candle whose closing event comes next."""

    @property
    def due_ms(self) -> int:
        trade_ms = _next_trade(self.box, self.stream.symbol, self.told_ms)
        end = self.box.market.next_open(self.stream.symbol, self.interval, self.open_ms)
        return min(end, _grid(trade_ms, self.every_ms))

    def news(self, now_ms: int) -> Iterator[Payload]:
        symbol, interval, market = self.stream.symbol, self.interval, self.box.market
        told_ms, self.told_ms = self.told_ms, now_ms
        ended: deque[int] = deque(maxlen=_MOST_MISSED)
        while (end := market.next_open(symbol, interval, self.open_ms)) <= now_ms:
            if market.exists(symbol, interval, self.open_ms):  # not in a halt
                ended.append(self.open_ms)
            self.open_ms = end
        states = [market.candle(symbol, interval, open_ms) for open_ms in ended]
        if _next_trade(self.box, symbol, max(told_ms, self.open_ms - 1)) <= now_ms:
            running = market.partial(symbol, interval, self.open_ms, now_ms)
            states += [running] if running is not None else []
        for state in states:
            span = span_of(market, symbol, interval, state.open_ms, now_ms)
            yield self.box.dialect.payloads.kline(self.stream, state, span, now_ms)


@define
class Book:
    """Changes since the event before; nothing where nothing changed."""

    box: Box
    stream: Stream
    told_ms: int
    path: BookPath
    step: int
    """Of the last event."""

    @property
    def due_ms(self) -> int:
        every_ms = max(self.stream.every_ms, self.box.book_push_ms)
        return _grid(self.told_ms + 1, every_ms)

    def news(self, now_ms: int) -> Iterator[Payload]:
        self.told_ms, step = now_ms, self.path.step(now_ms)
        if step > self.step and not self.box.market.halted(self.stream.symbol, now_ms):
            bids, asks = self.path.changes(step, self.step)
            if bids or asks:
                update = _update(self.box, self.stream.symbol, self.step, step, bids, asks)
                self.step = step
                yield self.box.dialect.payloads.book(update, now_ms)


@define
class BookBest:
    """The best levels, whole, when they are not what they were."""

    box: Box
    stream: Stream
    told_ms: int
    path: BookPath
    encode: Callable[[Update, int], Payload]
    step: int
    last: tuple[Levels, Levels] = ((), ())

    @property
    def due_ms(self) -> int:
        if self.stream.kind == "top":  # best sizes and prices change with trades only
            trade_ms = _next_trade(self.box, self.stream.symbol, self.told_ms)
            return _grid(trade_ms, self.stream.every_ms)
        return _grid(self.told_ms + 1, self.stream.every_ms)

    def news(self, now_ms: int) -> Iterator[Payload]:
        self.told_ms, step = now_ms, self.path.step(now_ms)
        levels = self.path.levels(step, self.stream.depth or 1)
        halted = self.box.market.halted(self.stream.symbol, now_ms)
        if step > self.step and levels != self.last and not halted:
            update = _update(self.box, self.stream.symbol, self.step, step, *levels)
            self.last, self.step = levels, step
            yield self.encode(update, now_ms)


@define
class Regular:
    """The state of one symbol, or of all that are traded in a list, at every grid point."""

    box: Box
    stream: Stream
    told_ms: int
    state: Callable[[Box, str, int], Payload]

    @property
    def due_ms(self) -> int:
        return _grid(self.told_ms + 1, self.stream.every_ms)

    def news(self, now_ms: int) -> Iterator[Payload | list[Payload]]:
        self.told_ms, market = now_ms, self.box.market
        if self.stream.symbol:
            yield self.state(self.box, self.stream.symbol, now_ms)
            return
        symbols = [symbol for symbol in market.listings if market.is_trading(symbol, now_ms)]
        if symbols:
            yield [self.state(self.box, symbol, now_ms) for symbol in symbols]


@define
class Liquidations:
    """At most one per second of a symbol, the latest."""

    box: Box
    stream: Stream
    coming: Iterator[Trade]
    next: Trade = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.next = next(self.coming)

    @property
    def due_ms(self) -> int:
        return _grid(self.next.time_ms, self.stream.every_ms)

    def news(self, now_ms: int) -> Iterator[Payload]:
        encode = self.box.dialect.payloads.liquidation
        while self.next.time_ms <= now_ms:
            trade, self.next = self.next, next(self.coming)
            too_soon = self.next.time_ms <= min(now_ms, trade.time_ms + 999)
            if encode is not None and not too_soon:
                yield encode(trade, now_ms)


def span_of(market: Market, symbol: str, interval: Interval, open_ms: int, now_ms: int) -> Span:
    """The bounds of a candle as they are at ``now_ms``."""
    end_ms = market.next_open(symbol, interval, open_ms)
    return Span(end_ms, *market.ids(symbol, interval, open_ms, now_ms))


def source_of(box: Box, stream: Stream, now_ms: int) -> Source:
    """What tells this stream from ``now_ms`` on."""
    symbol, payloads = stream.symbol, box.dialect.payloads
    if stream.kind in ("agg_trade", "trade"):
        encode = payloads.trade if stream.kind == "trade" else payloads.agg_trade
        return Trades(box, stream, now_ms, encode)
    if stream.interval is not None:
        every_ms, open_ms = (
            max(stream.every_ms, box.kline_push_ms),
            box.market.open_of(symbol, stream.interval, now_ms),
        )
        return Candles(box, stream, stream.interval, now_ms, every_ms, open_ms)
    if stream.kind == "liquidation":
        return Liquidations(box, stream, box.statistics.liquidations(symbol, now_ms))
    if stream.kind in ("book", "book_levels", "top"):
        path = box.books[symbol]
        step = path.step(now_ms)
        if stream.kind == "book":
            return Book(box, stream, now_ms, path, step)
        form = payloads.top if stream.kind == "top" else payloads.book_levels
        return BookBest(box, stream, now_ms, path, form, step)
    return Regular(box, stream, now_ms, _STATES[stream.kind])


def _ticker(box: Box, symbol: str, now_ms: int) -> Payload:
    book, day = box.books[symbol], box.statistics.day(symbol, now_ms)
    return box.dialect.payloads.ticker(day, *book.levels(book.step(now_ms), 1), now_ms)


def _mini_ticker(box: Box, symbol: str, now_ms: int) -> Payload:
    return box.dialect.payloads.mini_ticker(box.statistics.day(symbol, now_ms), now_ms)


def _mark_price(box: Box, symbol: str, now_ms: int) -> Payload:
    encode = box.dialect.payloads.mark_price
    assert encode is not None
    return encode(box.statistics.mark(symbol, now_ms), now_ms)


_STATES: dict[str, Callable[[Box, str, int], Payload]] = {
    "ticker": _ticker,
    "mini_ticker": _mini_ticker,
    "mark_price": _mark_price,
}


def _update(box: Box, symbol: str, since: int, step: int, bids: Levels, asks: Levels) -> Update:
    before = book_id(since)
    first = before + box.dialect.first_id_gap
    return Update(symbol, before, first, book_id(step), bids, asks)


def _next_trade(box: Box, symbol: str, after_ms: int) -> int:
    return box.market.trade_time(symbol, box.market.first_id(symbol, after_ms + 1))


def _grid(time_ms: int, step_ms: int) -> int:
    return -(-time_ms // step_ms) * step_ms
