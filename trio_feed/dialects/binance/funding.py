"""The funding history of USD-M, as far as it was seen happening.

The mark price stream says the rate that is going to be paid and when.  The last word before that
time is the rate that was paid; it counts only where it came right before the time and the stream
went on behind it, so that a funding that passed while nothing came is left out, not guessed.  Kept
in memory, from the start of the process on.
"""

from collections import deque
from collections.abc import Iterable
from decimal import Decimal

from attrs import define, field, frozen

from ...model import Channel, ChannelKey, ChannelMessage, MarkPrice, plain
from ...push.fanout.topics import Topic
from ...push.protocol import quote
from ..market import MarketData

_LATEST_MS = 10_000
"""The stream speaks every second; an older word may not have been the last."""
_MOST = 1000
"""Of one symbol: most of a year, at three a day."""


@frozen
class Paid:
    """``mark``: the last mark price before it."""

    time_ms: int
    rate: Decimal
    mark: Decimal

    def row(self, native: str) -> str:
        """One of ``fundingRate``."""
        return (
            f'{{"symbol":{quote(native)},"fundingTime":{self.time_ms},'
            f'"fundingRate":"{plain(self.rate)}","markPrice":"{plain(self.mark)}"}}'
        )


@define(eq=False)
class SeenFundings:
    """Of one symbol.  Pure."""

    paid: deque[Paid] = field(factory=lambda: deque(maxlen=_MOST))
    _last: MarkPrice | None = None

    def take(self, mark: MarkPrice) -> None:
        """The next word of the stream."""
        before, self._last = self._last, mark
        if before is None or before.funding_rate is None or not before.next_funding_ms:
            return
        due_ms = before.next_funding_ms
        passed = mark.next_funding_ms > due_ms and mark.event_ms >= due_ms
        if passed and due_ms - _LATEST_MS <= before.event_ms <= due_ms:
            self.paid.append(Paid(due_ms, before.funding_rate, before.mark))


class FundingHistory:
    """Of one market: it reads every mark price that is published."""

    def __init__(self, market: MarketData) -> None:
        self._market = market
        self._seen: dict[str, SeenFundings] = {}
        hub = market.context.hub
        for topic in hub.topics:
            self._read(topic)
        hub.watch(self._joined)

    def of(self, symbols: Iterable[str]) -> list[tuple[str, Paid]]:
        """Of these symbols, by time."""
        found = [
            (symbol, paid)
            for symbol in symbols
            if (seen := self._seen.get(symbol)) is not None
            for paid in seen.paid
        ]
        return sorted(found, key=lambda each: (each[1].time_ms, each[0]))

    def _joined(self, symbol: str) -> None:
        key = ChannelKey(self._market.venue, symbol, Channel.MARK_PRICE)
        topic = self._market.context.hub.topic(key)
        if topic is not None:
            self._read(topic)

    def _read(self, topic: Topic) -> None:
        key = topic.stream_key
        ours = isinstance(key, ChannelKey) and key.channel is Channel.MARK_PRICE
        if ours and key.venue == self._market.venue and self._take not in topic.readers:
            topic.readers.append(self._take)

    def _take(self, message: object) -> None:
        if not isinstance(message, ChannelMessage) or self._market.hides(message.source):
            return
        if isinstance(message.data, MarkPrice):
            self._seen.setdefault(message.key.symbol, SeenFundings()).take(message.data)
