"""What a dialect serves from: one venue's topics, candles and instruments, read only."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from attrs import frozen

from ..core import calendar
from ..model import (
    Channel,
    ChannelKey,
    ChannelMessage,
    Instrument,
    Interval,
    Kline,
    KlineMessage,
    Series,
    Source,
)
from ..push.context import SessionContext
from ..push.fanout import history
from ..push.fanout.topics import Topic
from .passing import Passing


class Listing(Protocol):
    """The instruments of a venue that are fed, as far as its list is known."""

    def __iter__(self) -> Iterator[Instrument]:
        """With those that may be asked for."""

    def fed(self) -> Iterator[Instrument]:
        """Without them."""

    def of_native(self, native: str) -> Instrument | None:
        """By the venue's own name."""

    def of_lower(self, lower: str) -> Instrument | None:
        """The same in lower case."""

    def of_symbol(self, symbol: str) -> Instrument | None:
        """By the unified name."""


@frozen
class MarketData:
    """One venue as its dialect sees it.  ``simulated``: what it says is made up.

    ``simulated_ok``: such data is served all the same.  ``passing``: the way to the exchange
    for what is not served from here; None: there is none."""

    venue: str
    context: SessionContext
    listing: Callable[[str], Listing]
    simulated: bool = False
    simulated_ok: bool = False
    passing: Passing | None = None

    @property
    def withheld(self) -> bool:
        """Nothing is served: all of it is made up, and the forms cannot say so."""
        return self.simulated and not self.simulated_ok

    def hides(self, source: Source) -> bool:
        """Whether what has this source is left out, such as a fallback's."""
        return source is Source.SIMULATED and not self.simulated_ok

    def instruments(self) -> list[Instrument]:
        """Those that are fed, and those that may be asked for, by symbol."""
        self.context.desk.wait_for_list(self.venue, lambda: any(self.listing(self.venue)))
        return sorted(self.listing(self.venue), key=lambda found: found.symbol)

    def fed(self) -> list[Instrument]:
        """Those that are fed now, by symbol."""
        return sorted(self.listing(self.venue).fed(), key=lambda found: found.symbol)

    def of_native(self, native: str) -> Instrument | None:
        """The fed instrument with the venue's own name ``native``; where that is on demand it is
        fed from now on.  This and what follows is for within :meth:`.Desk.serve`."""
        self.context.desk.look_up(self.venue, native)
        return self.listing(self.venue).of_native(native)

    def of_lower(self, lower: str) -> Instrument | None:
        """The same by its name in lower case."""
        self.context.desk.look_up(self.venue, lower)
        return self.listing(self.venue).of_lower(lower)

    def of_symbol(self, symbol: str) -> Instrument | None:
        """The same by the unified name."""
        self.context.desk.look_up(self.venue, symbol)
        return self.listing(self.venue).of_symbol(symbol)

    def expect(self, names: Sequence[str]) -> None:
        """These are going to be looked up, so that all are asked for at once."""
        self.context.desk.expect(self.venue, names)

    def why_not(self, name: str) -> str:
        """Why the symbol that was looked up by this name is not fed on demand; empty: it is not
        for a refusal."""
        return self.context.desk.refusal(self.venue, name)

    def topic(self, symbol: str, what: Channel | Interval) -> Topic | None:
        """The topic of a channel or of candles, with what a single answer needs of it; None: it is
        not fed."""
        topic = self._topic(symbol, what)
        if topic is not None and isinstance(what, Interval):
            self.context.desk.wait_for(self.venue, symbol, what)
        elif topic is not None:
            self.context.desk.wait_for_news(topic)
        return topic

    def _topic(self, symbol: str, what: Channel | Interval) -> Topic | None:
        if isinstance(what, Interval):
            return self.context.hub.topic(Series(self.venue, symbol, what))
        return self.context.hub.topic(ChannelKey(self.venue, symbol, what))

    def latest(self, symbol: str, channel: Channel) -> ChannelMessage | None:
        """The last message of a channel; None: nothing came yet, or it is not fed."""
        topic = self._topic(symbol, channel)
        if topic is not None and self.context.desk.is_named(self.venue, symbol):
            self.context.desk.wait_for_news(topic)
        last = None if topic is None else topic.stream.latest
        message = None if last is None else last.message
        if not isinstance(message, ChannelMessage) or self.hides(message.source):
            return None
        return message

    def kept(self, topic: Topic) -> list[ChannelMessage]:
        """The last messages of a channel, oldest first; from the first call on they are kept, up
        to a bound (``kline.resume_messages``)."""
        stream = topic.stream
        stream.keep()
        found = [published.message for published in stream.after(0, 0)]
        if not found and stream.latest is not None:
            found = [stream.latest.message]
        return [message for message in found if isinstance(message, ChannelMessage)]

    async def candles(
        self, topic: Topic, *, limit: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> list[Kline]:
        """The last ``limit`` candles with start_ms <= open < end_ms, ascending, the open one too;
        with ``start_ms`` the first ones from there.  Raises StoreError."""
        store, stream = self.context.store, topic.stream
        if start_ms is None:
            rows = await history.rows(store, stream, limit, None, end_ms)
        else:
            rows = await history.rows(store, stream, limit, start_ms, None)
        found = [kline for kline, _ in rows if end_ms is None or kline.open_ms < end_ms]
        found = [kline for kline in found if not self.hides(kline.source)]
        # Nothing waits from here on, so that the open candle follows what was read.
        ahead = self.running(topic)
        if ahead is not None and (not found or ahead.open_ms > found[-1].open_ms):
            fits = start_ms is None or (ahead.open_ms >= start_ms and len(found) < limit)
            if fits and (end_ms is None or ahead.open_ms < end_ms):
                found.append(ahead)
        return found[-limit:] if start_ms is None else found[:limit]

    def running(self, topic: Topic) -> Kline | None:
        """The open candle, where there is one and nothing before it is missing."""
        last = topic.stream.latest
        message = None if last is None else last.message
        if not isinstance(message, KlineMessage) or self.hides(message.kline.source):
            return None
        return message.kline

    def intervals(self, symbol: str) -> Sequence[Interval]:
        """Of the candles that are fed, shortest first."""
        return [interval for interval in Interval if self._topic(symbol, interval) is not None]


def is_history(topic: Topic, message: KlineMessage) -> bool:
    """Live clients do not get this candle: it had ended when its symbol was asked for, or it is a
    second close of one.  An exchange sends neither, and a bot would act on it as on news; REST has
    both.  After a restart of ours what closed meanwhile is sent to those who come back."""
    kline = message.kline
    if message.revision or not (topic.late and kline.closed):
        return message.revision
    series = message.series
    return calendar.next_open(series.interval, kline.open_ms) <= topic.since_ms
