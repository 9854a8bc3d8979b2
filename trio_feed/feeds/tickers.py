"""Tickers: a venue's statistics, completed by its best bid and ask where those come apart."""

from attrs import evolve

from ..model import BookTop, Channel, Line, Ticker
from .outlet import Outlet


class Tickers:
    """The last ticker of each symbol."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._last: dict[str, Ticker] = {}

    def close(self, symbol: str) -> None:
        """Forget the symbol."""
        self._last.pop(symbol, None)

    def take(self, news: Ticker | BookTop, received: float) -> None:
        """A ticker, or a best bid and ask; before the first ticker that goes nowhere."""
        last = self._last.get(news.symbol)
        if isinstance(news, Ticker):
            ticker = news if news.bid is not None or last is None else _with_top(news, last)
        elif last is None:
            return
        else:
            ticker = evolve(_with_top(last, news), event_ms=news.event_ms or last.event_ms)
        self._last[news.symbol] = ticker
        self._outlet.line(Line(self._outlet.venue, news.symbol, Channel.TICKER), ticker, received)


def _with_top(ticker: Ticker, top: Ticker | BookTop) -> Ticker:
    return evolve(ticker, bid=top.bid, bid_size=top.bid_size, ask=top.ask, ask_size=top.ask_size)
