"""What is new on a stream of Binance, and when there will be more.  Pure.

A source knows up to when it has told everything.  ``due_ms`` is the next time at which something
may be new, on the stream's grid of push times.  The market can tell when the next trade comes, so
nothing is polled but books, which change ten times a second.
"""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator

from attrs import define, field

from ...model import Interval, Trade
from ..machinery.publisher import Source
from ..market.books import BookPath, Levels
from .dialect import MarketData, Payload, Span, Stream, Update, book_id
from .payloads import encode

_MOST_MISSED = 100
"""Candles of a stream that are closed late after the machine slept; older ones are REST's."""


@define
class _StreamSource(Source):
    """One stream, told from ``told_ms`` on."""

    data: MarketData
    stream: Stream
    told_ms: int

    @property
    def symbol(self) -> str:
        return self.stream.symbol

    def news(self, now_ms: int) -> Iterator[bytes]:
        return map(encode, self.payloads(now_ms))

    @abstractmethod
    def payloads(self, now_ms: int) -> Iterator[Payload | list[Payload]]:
        """The news, not encoded yet."""

    def next_trade(self, after_ms: int) -> int:
        """The time of the first trade after ``after_ms``."""
        market = self.data.market
        return market.trade_time(self.symbol, market.first_id(self.symbol, after_ms + 1))

    def update(self, since: int, step: int, bids: Levels, asks: Levels) -> Update:
        """What differs between two steps of the book."""
        before = book_id(since)
        first = before + self.data.dialect.first_id_gap
        return Update(self.symbol, before, first, book_id(step), bids, asks)


@define
class TradeSource(_StreamSource):
    """Every trade, at the first grid point after it."""

    form: Callable[[Trade, int], Payload]

    @property
    def due_ms(self) -> int:
        return _grid(self.next_trade(self.told_ms), self.stream.every_ms)

    def payloads(self, now_ms: int) -> Iterator[Payload]:
        trades = self.data.market.trades(self.symbol, self.told_ms + 1, now_ms + 1)
        self.told_ms = now_ms
        for trade in trades:
            yield self.form(trade, now_ms)


@define
class CandleSource(_StreamSource):
    """The open candle at the first grid point after a trade; the closed one right at its end."""

    length: Interval
    open_ms: int
    """Of the candle whose closing event comes next."""

    @property
    def interval(self) -> Interval:
        return self.length

    @property
    def due_ms(self) -> int:
        every_ms = max(self.stream.every_ms, self.data.kline_push_ms)
        end = self.data.market.next_open(self.symbol, self.length, self.open_ms)
        return min(end, _grid(self.next_trade(self.told_ms), every_ms))

    def payloads(self, now_ms: int) -> Iterator[Payload]:
        symbol, interval, market = self.symbol, self.length, self.data.market
        told_ms, self.told_ms = self.told_ms, now_ms
        ended: deque[int] = deque(maxlen=_MOST_MISSED)
        while (end := market.next_open(symbol, interval, self.open_ms)) <= now_ms:
            if market.exists(symbol, interval, self.open_ms):  # not in a halt
                ended.append(self.open_ms)
            self.open_ms = end
        states = [market.candle(symbol, interval, open_ms) for open_ms in ended]
        if self.next_trade(max(told_ms, self.open_ms - 1)) <= now_ms:
            running = market.partial(symbol, interval, self.open_ms, now_ms)
            states += [running] if running is not None else []
        for state in states:
            span = self._span(state.open_ms, now_ms)
            yield self.data.dialect.payloads.kline(self.stream, state, span, now_ms)

    def candle(self, open_ms: int, now_ms: int) -> Iterator[bytes]:
        kline = self.data.market.candle(self.symbol, self.length, open_ms)
        span = self._span(open_ms, now_ms)
        yield encode(self.data.dialect.payloads.kline(self.stream, kline, span, now_ms))

    def _span(self, open_ms: int, now_ms: int) -> Span:
        market = self.data.market
        end_ms = market.next_open(self.symbol, self.length, open_ms)
        return Span(end_ms, *market.ids(self.symbol, self.length, open_ms, now_ms))


@define
class BookSource(_StreamSource):
    """Changes since the event before; nothing where nothing changed."""

    book: BookPath
    step: int
    """Of the last event."""

    @property
    def due_ms(self) -> int:
        return _grid(self.told_ms + 1, max(self.stream.every_ms, self.data.book_push_ms))

    def payloads(self, now_ms: int) -> Iterator[Payload]:
        self.told_ms, step = now_ms, self.book.step(now_ms)
        if step > self.step and not self.data.market.halted(self.symbol, now_ms):
            bids, asks = self.book.changes(step, self.step)
            if bids or asks:
                update = self.update(self.step, step, bids, asks)
                self.step = step
                yield self.data.dialect.payloads.book(update, now_ms)


@define
class BestLevelsSource(_StreamSource):
    """The best levels, whole, when they are not what they were."""

    book: BookPath
    form: Callable[[Update, int], Payload]
    step: int
    last: tuple[Levels, Levels] = ((), ())

    @property
    def due_ms(self) -> int:
        if self.stream.kind == "top":  # best sizes and prices change with trades only
            return _grid(self.next_trade(self.told_ms), self.stream.every_ms)
        return _grid(self.told_ms + 1, self.stream.every_ms)

    def payloads(self, now_ms: int) -> Iterator[Payload]:
        self.told_ms, step = now_ms, self.book.step(now_ms)
        levels = self.book.levels(step, self.stream.depth or 1)
        halted = self.data.market.halted(self.symbol, now_ms)
        if step > self.step and levels != self.last and not halted:
            update = self.update(self.step, step, *levels)
            self.last, self.step = levels, step
            yield self.form(update, now_ms)


@define
class PeriodicSource(_StreamSource):
    """The state of one symbol, or of all that are traded in a list, at every grid point."""

    state: Callable[[MarketData, str, int], Payload]

    @property
    def due_ms(self) -> int:
        return _grid(self.told_ms + 1, self.stream.every_ms)

    def payloads(self, now_ms: int) -> Iterator[Payload | list[Payload]]:
        self.told_ms, market = now_ms, self.data.market
        if self.symbol:
            yield self.state(self.data, self.symbol, now_ms)
            return
        symbols = [symbol for symbol in market.listings if market.is_trading(symbol, now_ms)]
        if symbols:
            yield [self.state(self.data, symbol, now_ms) for symbol in symbols]


@define
class LiquidationSource(_StreamSource):
    """At most one per second of a symbol, the latest."""

    coming: Iterator[Trade] = field(init=False)
    next: Trade = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.coming = self.data.statistics.liquidations(self.symbol, self.told_ms)
        self.next = next(self.coming)

    @property
    def due_ms(self) -> int:
        return _grid(self.next.time_ms, self.stream.every_ms)

    def payloads(self, now_ms: int) -> Iterator[Payload]:
        form = self.data.dialect.payloads.liquidation
        while self.next.time_ms <= now_ms:
            trade, self.next = self.next, next(self.coming)
            too_soon = self.next.time_ms <= min(now_ms, trade.time_ms + 999)
            if form is not None and not too_soon:
                yield form(trade, now_ms)


def source_of(data: MarketData, stream: Stream, now_ms: int) -> Source:
    """What tells this stream from ``now_ms`` on."""
    symbol, payloads = stream.symbol, data.dialect.payloads
    if stream.interval is not None:
        open_ms = data.market.open_of(symbol, stream.interval, now_ms)
        return CandleSource(data, stream, now_ms, stream.interval, open_ms)
    match stream.kind:
        case "agg_trade":
            return TradeSource(data, stream, now_ms, payloads.agg_trade)
        case "trade":
            return TradeSource(data, stream, now_ms, payloads.trade)
        case "liquidation":
            return LiquidationSource(data, stream, now_ms)
        case "book" | "book_levels" | "top":
            book = data.books[symbol]
            step = book.step(now_ms)
            if stream.kind == "book":
                return BookSource(data, stream, now_ms, book, step)
            form = payloads.top if stream.kind == "top" else payloads.book_levels
            return BestLevelsSource(data, stream, now_ms, book, form, step)
    return PeriodicSource(data, stream, now_ms, _STATES[stream.kind])


def _ticker(data: MarketData, symbol: str, now_ms: int) -> Payload:
    book, day = data.books[symbol], data.statistics.day(symbol, now_ms)
    return data.dialect.payloads.ticker(day, *book.levels(book.step(now_ms), 1), now_ms)


def _mini_ticker(data: MarketData, symbol: str, now_ms: int) -> Payload:
    return data.dialect.payloads.mini_ticker(data.statistics.day(symbol, now_ms), now_ms)


def _mark_price(data: MarketData, symbol: str, now_ms: int) -> Payload:
    form = data.dialect.payloads.mark_price
    assert form is not None
    return form(data.statistics.mark(symbol, now_ms), now_ms)


_STATES: dict[str, Callable[[MarketData, str, int], Payload]] = {
    "ticker": _ticker,
    "mini_ticker": _mini_ticker,
    "mark_price": _mark_price,
}


def _grid(time_ms: int, step_ms: int) -> int:
    return -(-time_ms // step_ms) * step_ms
