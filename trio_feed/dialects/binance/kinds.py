"""What Binance's streams are made of, by the kind in their names."""

from collections.abc import Callable
from typing import Any

from attrs import define, frozen

from ...model import BookView, Channel, ChannelMessage, KlineMessage, Source, Ticker
from ...push.fanout.encoded import EncodedMessage
from ...push.fanout.frames import text_frame
from ...push.protocol import quote
from . import encoders
from .depth import number_of

SPEEDS = {"", "@100ms", "@250ms", "@500ms", "@0ms", "@1000ms"}
"""Of books.  The last one is what ``""`` is at spot; binance-connector says it."""
_LEVELS = (5, 10, 20)

Encode = Callable[[EncodedMessage], str | None]


@define(eq=False)
class BinanceForm:
    """A :class:`.StreamForm`.  ``head`` names it; ``wrapped``: events of ``/stream``."""

    head: bytes
    name: str
    encode: Encode
    wrapped: bool
    hides: Callable[[Source], bool]
    conflates: bool = True

    def frame(
        self, message: EncodedMessage, left_out: int = 0, *, snapshot: bool = False
    ) -> bytes | None:
        """See :meth:`.StreamForm.frame`; Binance counts nothing that is left out."""
        news = message.message
        source = news.kline.source if isinstance(news, KlineMessage) else news.source
        text = None if self.hides(source) else self.encode(message)
        return None if text is None else text_frame(self.said(text).encode())

    def said(self, text: str) -> str:
        """An event as it is sent."""
        return f'{{"stream":{quote(self.name)},"data":{text}}}' if self.wrapped else text


@frozen
class Kind:
    """A kind of stream: what it is made of.  ``make`` gets the symbol's native name, what
    stands behind the kind's name, and whether the market is spot; None: there is no such stream."""

    channel: Channel
    make: Callable[[str, str, bool], Callable[[], Encode] | None]
    conflates: bool = True
    spot: bool = True
    futures: bool = True


def plainly(
    write: Callable[[str, Any, int], str],
) -> Callable[[str, str, bool], Callable[[], Encode] | None]:
    """A stream without anything behind its name, one message for each of ours."""

    def make(native: str, rest: str, spot: bool) -> Callable[[], Encode] | None:
        def encode(encoded: EncodedMessage) -> str | None:
            return write(native, _data(encoded), int(encoded.sent_ms))

        return None if rest else lambda: encode

    return make


def _by_market(
    write: Callable[..., str],
) -> Callable[[str, str, bool], Callable[[], Encode] | None]:
    """The same with a form for each market."""

    def make(native: str, rest: str, spot: bool) -> Callable[[], Encode] | None:
        def encode(encoded: EncodedMessage) -> str | None:
            return write(native, _data(encoded), int(encoded.sent_ms), spot=spot)

        return None if rest else lambda: encode

    return make


def _tickers(
    write: Callable[..., str],
) -> Callable[[str, str, bool], Callable[[], Encode] | None]:
    """Our tickers also come with each best bid and ask; these want the statistics only."""

    def make(native: str, rest: str, spot: bool) -> Callable[[], Encode] | None:
        return None if rest else lambda: _Statistics(native, write, spot)

    return make


@define(eq=False)
class _Statistics:
    """Leaves out messages with the statistics of the one before."""

    native: str
    write: Callable[..., str]
    spot: bool
    _number: tuple[int, int] = (0, 0)
    _last: tuple[Any, ...] = ()
    _text: str | None = None

    def __call__(self, encoded: EncodedMessage) -> str | None:
        number = encoded.epoch, encoded.offset
        if number == self._number and self._text is not None:
            return self._text
        ticker: Ticker = _data(encoded)
        said = (
            ticker.last, ticker.open, ticker.high, ticker.low, ticker.volume, ticker.quote_volume,
            ticker.details,
        )  # fmt: skip
        fresh = said != self._last
        text = self.write(self.native, ticker, int(encoded.sent_ms), spot=self.spot)
        self._number, self._last, self._text = number, said, text if fresh else None
        return self._text


def _mark(native: str, rest: str, spot: bool) -> Callable[[], Encode] | None:
    """``@1s`` and the 3 s form are as fast as what we take."""

    def encode(encoded: EncodedMessage) -> str | None:
        return encoders.mark_price(native, _data(encoded))

    return None if rest not in ("", "@1s") else lambda: encode


def _depth(native: str, rest: str, spot: bool) -> Callable[[], Encode] | None:
    """``depth5``, ``depth@100ms`` and so on; every speed is that of our book."""
    count, _, speed = rest.partition("@")
    if (f"@{speed}" if speed else "") not in SPEEDS:
        return None
    if count not in map(str, _LEVELS):
        return None
    most = int(count)

    def encode(encoded: EncodedMessage) -> str | None:
        view: BookView = _data(encoded)
        if view.stale:
            return None
        last = number_of(encoded.epoch, encoded.offset)
        if spot:
            return encoders.partial_depth(view, most, last)
        at_ms = view.event_ms or int(encoded.sent_ms)
        bids, asks = view.bids[:most], view.asks[:most]
        return encoders.depth_update(native, bids, asks, last - 1, last, at_ms, last - 1)

    return lambda: encode


def _data(encoded: EncodedMessage) -> Any:
    message = encoded.message
    assert isinstance(message, ChannelMessage), "the topic is a channel"
    return message.data


KINDS: dict[str, Kind] = {
    "aggTrade": Kind(Channel.TRADE, _by_market(encoders.agg_trade)),
    "trade": Kind(Channel.TRADE, _by_market(encoders.trade)),
    "miniTicker": Kind(Channel.TICKER, _tickers(encoders.mini_ticker)),
    "ticker": Kind(Channel.TICKER, _tickers(encoders.ticker)),
    "bookTicker": Kind(Channel.BBO, _by_market(encoders.book_ticker)),
    "depth": Kind(Channel.BOOK, _depth),
    "markPrice": Kind(Channel.MARK_PRICE, _mark, spot=False),
    "forceOrder": Kind(Channel.LIQUIDATION, plainly(encoders.force_order), spot=False),
}
"""By what stands behind the ``@``, besides candles, which have an interval."""
