"""OKX's channels and what their messages are made of.

A subscription is looked up once (:meth:`Channels.find`) and gives the topic and a form.  Clients of
the same channel share the form, so that each message is written once for all of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol
from weakref import WeakValueDictionary

from attrs import define, frozen

from ...model import (
    BookTop,
    BookView,
    Channel,
    ChannelMessage,
    Instrument,
    Interval,
    KlineMessage,
    MarkPrice,
    Source,
    Ticker,
    Trade,
)
from ...push.fanout.encoded import EncodedMessage, StreamForm, encoded_once
from ...push.fanout.frames import text_frame
from ...push.fanout.topics import Topic
from ...push.protocol import Target
from ..market import MarketData, is_history
from . import encoders
from .books import BookForm, number_of
from .units import BARS, other_days

Write = Callable[[Instrument, EncodedMessage], str | None]
"""One row; None: such clients do not get this message."""


class Form(StreamForm, Protocol):
    """A form that can say how things stand, for who comes."""

    topic: Topic

    def present(self) -> str | None: ...


@define(eq=False)
class RowForm:
    """Each of our messages is one of OKX's, with one row.

    ``fresh``: what of a message is new, where our channel is of more than this one; a message
    with the same as the one before is left out."""

    head: bytes
    channel: str
    instrument: Instrument
    topic: Topic
    write: Write
    hides: Callable[[Source], bool]
    conflates: bool = True
    fresh: Callable[[Any], object] | None = None
    silent: bool = False
    """Who comes hears nothing before the first message."""
    _number: tuple[int, int] = (-1, -1)
    _frame: bytes | None = None
    _said: object = None

    def present(self) -> str | None:
        latest = self.topic.stream.latest
        return None if latest is None or self.silent else self._text(encoded_once(latest))

    def frame(
        self, message: EncodedMessage, left_out: int = 0, *, snapshot: bool = False
    ) -> bytes | None:
        """See :meth:`.StreamForm.frame`; OKX counts nothing that is left out."""
        if self.fresh is None:
            return self._made(message)
        number = message.epoch, message.offset
        if number != self._number:
            news = message.message
            assert isinstance(news, ChannelMessage), "the topic is a channel"
            said = self.fresh(news.data)
            self._frame = self._made(message) if said != self._said else None
            self._number, self._said = number, said
        return self._frame

    def _made(self, message: EncodedMessage) -> bytes | None:
        text = self._text(message)
        return None if text is None else text_frame(text.encode())

    def _text(self, message: EncodedMessage) -> str | None:
        news = message.message
        source = news.kline.source if isinstance(news, KlineMessage) else news.source
        row = None if self.hides(source) else self.write(self.instrument, message)
        return None if row is None else encoders.push(self.channel, self.instrument.native, row)


@frozen
class Found:
    """A channel that is fed.  ``name`` is what the client's subscription is called here."""

    name: str
    topic: Topic
    target: Target
    make: Callable[[bytes], Form]


@frozen
class Kind:
    """A channel of OKX beside candles and ``books``: whose messages, and how they are written."""

    channel: Channel
    write: Write
    fresh: Callable[[Any], object] | None = None
    conflates: bool = True
    silent: bool = False
    swaps_only: bool = False


class Channels:
    """Of one venue.  ``find`` and ``form`` at any time; forms live as long as somebody has one."""

    def __init__(self, market: MarketData) -> None:
        self.market = market
        self._forms: WeakValueDictionary[str, Form] = WeakValueDictionary()

    def find(self, channel: str, inst_id: str) -> Found | str:
        """The channel of this instrument; in words why there is none, empty: OKX has none."""
        kind, interval = KINDS.get(channel), BARS.get(channel.removeprefix("candle"))
        if channel.startswith("candle") and interval is not None:
            what: Channel | Interval = interval
        elif channel == "books":
            what = Channel.BOOK
        elif kind is not None:
            what = kind.channel
        else:
            is_bar = channel.startswith("candle")
            return other_days(channel.removeprefix("candle")) if is_bar else ""
        if not inst_id:
            return "instId is missing"
        # From here on the look-up may begin to feed it; no instrument has small letters.
        instrument = self.market.of_native(inst_id) if inst_id == inst_id.upper() else None
        if instrument is None:
            return f"{inst_id} is not fed: see exchanges.{self.market.venue}.symbols"
        if kind is not None and kind.swaps_only and instrument.kind == "spot":
            return ""
        topic = self.market.topic(instrument.symbol, what)
        if topic is None:
            return not_fed(self.market.venue, instrument, what)
        name = f"{channel}:{inst_id}"
        is_candle = isinstance(what, Interval)
        target = Target(
            instrument.symbol,
            Channel.KLINE if isinstance(what, Interval) else what,
            what if isinstance(what, Interval) else None,
            what.value if is_candle else "",
            self.market.venue,
        )

        def make(head: bytes) -> Form:
            hides = self.market.hides
            if channel == "books":
                return BookForm(head, instrument, topic, hides)
            if kind is None:
                return RowForm(head, channel, instrument, topic, partial(_candle, topic), hides)
            return RowForm(
                head, channel, instrument, topic, kind.write, hides, kind.conflates, kind.fresh,
                kind.silent,
            )  # fmt: skip

        return Found(name, topic, target, make)

    def form(self, found: Found) -> Form:
        """The form that all clients of this channel share."""
        form = self._forms.get(found.name)
        if form is None or form.topic is not found.topic:
            form = found.make(f"{self.market.venue} {found.name}".encode())
            self._forms[found.name] = form
        return form


def not_fed(venue: str, instrument: Instrument, what: Channel | Interval) -> str:
    """In words, with the setting that would feed it."""
    candles = isinstance(what, Interval)
    shown, key = (f"{what.value} candles", "intervals") if candles else (what.value, "channels")
    return f"{shown} of {instrument.native} are not fed: see exchanges.{venue}.{key}"


def _candle(topic: Topic, instrument: Instrument, message: EncodedMessage) -> str | None:
    news = message.message
    assert isinstance(news, KlineMessage), "the topic has candles"
    if is_history(topic, news):
        return None
    return encoders.candle(instrument, news.kline)


def _trade(instrument: Instrument, message: EncodedMessage) -> str | None:
    """A price without a quantity is no trade."""
    found = _data(message)
    return encoders.trade(instrument, found, counted=True) if isinstance(found, Trade) else None


def _single(instrument: Instrument, message: EncodedMessage) -> str | None:
    found = _data(message)
    return encoders.trade(instrument, found, counted=False) if isinstance(found, Trade) else None


def _ticker(instrument: Instrument, message: EncodedMessage) -> str:
    found: Ticker = _data(message)
    return encoders.ticker(instrument, found, int(message.sent_ms))


def _books5(instrument: Instrument, message: EncodedMessage) -> str | None:
    view: BookView = _data(message)
    if view.stale:
        return None
    sides = encoders.sides(instrument, view.bids[:5], view.asks[:5])
    name, ts = f'"instId":"{instrument.native}"', view.event_ms or int(message.sent_ms)
    number = number_of(message.epoch, message.offset)
    return f'{{{sides},{name},"ts":"{ts}","seqId":{number}}}'


def _top(instrument: Instrument, message: EncodedMessage) -> str:
    top: BookTop = _data(message)
    sides = encoders.top_sides(instrument, top)
    ts, number = top.event_ms or int(message.sent_ms), number_of(message.epoch, message.offset)
    return f'{{{sides},"ts":"{ts}","seqId":{number}}}'


def _mark(instrument: Instrument, message: EncodedMessage) -> str:
    return encoders.mark_price(instrument, _data(message), int(message.sent_ms))


def _funding(instrument: Instrument, message: EncodedMessage) -> str | None:
    found: MarkPrice = _data(message)
    if found.funding_rate is None:
        return None
    return encoders.funding_rate(instrument, found, int(message.sent_ms))


def _interest(instrument: Instrument, message: EncodedMessage) -> str:
    return encoders.open_interest(instrument, _data(message))


def _data(message: EncodedMessage) -> Any:
    news = message.message
    assert isinstance(news, ChannelMessage), "the topic is a channel"
    return news.data


def _five(view: BookView) -> object:
    return view.bids[:5], view.asks[:5]


def _marked(mark: MarkPrice) -> object:
    return mark.mark, mark.event_ms


def _funded(mark: MarkPrice) -> object:
    return mark.funding_rate, mark.next_funding_ms, mark.funding


KINDS: dict[str, Kind] = {
    "tickers": Kind(Channel.TICKER, _ticker),
    "trades": Kind(Channel.TRADE, _trade, conflates=False),
    "trades-all": Kind(Channel.TRADE, _single, conflates=False, silent=True),
    "books5": Kind(Channel.BOOK, _books5, _five),
    "bbo-tbt": Kind(Channel.BBO, _top),
    "mark-price": Kind(Channel.MARK_PRICE, _mark, _marked, swaps_only=True),
    "funding-rate": Kind(Channel.MARK_PRICE, _funding, _funded, swaps_only=True),
    "open-interest": Kind(Channel.OPEN_INTEREST, _interest, swaps_only=True),
}
"""By OKX's name, besides ``candle<bar>`` and ``books``."""
PRIVATE = frozenset(
    {
        "account", "account-greeks", "adl-warning", "algo-advance", "algo-recurring-buy",
        "balance_and_position", "books-l2-tbt", "books50-l2-tbt", "copytrading-notification",
        "deposit-info", "fills", "grid-orders-contract", "grid-orders-spot", "grid-positions",
        "grid-sub-orders", "liquidation-warning", "orders", "orders-algo", "positions", "rfqs",
        "sprd-orders", "sprd-trades", "withdrawal-info",
    }
)  # fmt: skip
"""Channels behind a login."""
