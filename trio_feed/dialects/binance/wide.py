"""Binance's streams of a whole market, ``!ticker@arr`` and such, over what is fed.

A client has one subscription per symbol under the one name; symbols that are fed later join it, and
none of them is a reason to go on feeding one that is on demand.  Single events pass as they come.
An array holds the newest of each symbol that changed, as at the exchange, and is sent with the
first event that comes when its time is over: no task waits for it.
"""

from collections.abc import Callable, Mapping

from attrs import define, field, frozen

from ...model import KlineMessage, Source
from ...push.fanout.encoded import EncodedMessage
from ...push.fanout.frames import text_frame
from ...push.fanout.topics import Topic
from ...push.protocol import quote

Encode = Callable[[EncodedMessage], str | None]


@frozen
class Wide:
    """``stream``: what each symbol's own stream is called behind the ``@``.  ``every_ms``: how
    often an array is sent; None: single events."""

    stream: str
    every_ms: int | None
    spot: bool = True
    futures: bool = True


WIDE: Mapping[str, Wide] = {
    "!miniTicker@arr": Wide("miniTicker", 1000),
    "!miniTicker@arr@1000ms": Wide("miniTicker", 1000),
    "!miniTicker@arr@3000ms": Wide("miniTicker", 3000),
    "!ticker@arr": Wide("ticker", 1000),
    "!ticker_1h@arr": Wide("ticker_1h", 1000, futures=False),
    "!ticker_4h@arr": Wide("ticker_4h", 1000, futures=False),
    "!ticker_1d@arr": Wide("ticker_1d", 1000, futures=False),
    "!bookTicker": Wide("bookTicker", None),
    "!markPrice@arr": Wide("markPrice", 3000, spot=False),
    "!markPrice@arr@1s": Wide("markPrice@1s", 1000, spot=False),
    "!forceOrder@arr": Wide("forceOrder", None, spot=False),
}
"""By name.  ``!bookTicker`` and ``!ticker@arr`` of spot are retired at the exchange (2022 and
2026-03-26); here they work, for bots that still ask for them.  python-binance's
``miniticker_socket`` names a speed, which no page has."""


@define(eq=False)
class WideForm:
    """A :class:`trio_feed.push.fanout.encoded.StreamForm`; ``encoders`` by symbol, of which there
    may be more later."""

    head: bytes
    name: str
    every_ms: int | None
    wrapped: bool
    hides: Callable[[Source], bool]
    encoders: dict[str, Encode] = field(factory=dict)
    topics: dict[str, Topic] = field(factory=dict)
    """Of the encoders."""
    _waiting: dict[str, str] = field(factory=dict)
    _sent_ms: float = 0.0
    _number: tuple[object, ...] = ()
    _frame: bytes | None = None

    def join(self, symbol: str, topic: Topic, encode: Encode) -> None:
        """It is fed from now on, or once more."""
        self.topics[symbol], self.encoders[symbol] = topic, encode

    @property
    def conflates(self) -> bool:
        """An array left out would take other symbols with it."""
        return self.every_ms is None

    def frame(
        self, message: EncodedMessage, left_out: int = 0, *, snapshot: bool = False
    ) -> bytes | None:
        """See :meth:`.StreamForm.frame`."""
        news = message.message
        symbol = news.series.symbol if isinstance(news, KlineMessage) else news.key.symbol
        number = symbol, message.epoch, message.offset
        if number != self._number:
            self._number, self._frame = number, self._made(message, symbol)
        return self._frame

    def _made(self, message: EncodedMessage, symbol: str) -> bytes | None:
        news = message.message
        source = news.kline.source if isinstance(news, KlineMessage) else news.source
        encode = self.encoders.get(symbol)
        text = None if encode is None or self.hides(source) else encode(message)
        if text is None:
            return None
        if self.every_ms is not None:
            self._waiting[symbol] = text
            if message.sent_ms - self._sent_ms < self.every_ms:
                return None
            self._sent_ms = message.sent_ms
            text = "[" + ",".join(self._waiting.values()) + "]"
            self._waiting.clear()
        if self.wrapped:
            text = f'{{"stream":{quote(self.name)},"data":{text}}}'
        return text_frame(text.encode())
