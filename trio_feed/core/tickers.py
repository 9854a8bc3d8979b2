"""A symbol's ticker: the venue's statistics, completed by its best bid and ask where those come
apart.  Pure."""

from attrs import define, evolve

from ..instants import Now
from ..model import BookTop, ChannelKey, Source, Ticker
from .effects import ChannelNews, Effect


@define(eq=False)
class TickerChannel:
    """The last ticker."""

    key: ChannelKey
    source: Source
    _last: Ticker | None = None

    def take(self, news: Ticker | BookTop, now: Now) -> list[Effect]:
        """A ticker, or a best bid and ask; before the first ticker that says nothing."""
        last = self._last
        if isinstance(news, Ticker):
            ticker = news if news.bid is not None or last is None else _with_top(news, last)
        elif last is None:
            return []
        else:
            ticker = evolve(_with_top(last, news), event_ms=news.event_ms or last.event_ms)
        self._last = ticker
        return [ChannelNews(self.key, ticker, self.source, float(now.wall))]


def _with_top(ticker: Ticker, top: Ticker | BookTop) -> Ticker:
    return evolve(ticker, bid=top.bid, bid_size=top.bid_size, ask=top.ask, ask_size=top.ask_size)
