"""Binance's stream names.

A name is looked up once per subscription (:meth:`Streams.find`) and gives the topic and a form.
Clients with the same stream in the same wrapping share the form, so that each message is written
once for all of them.
"""

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

from attrs import evolve, frozen

from ...model import Channel, Interval, KlineMessage
from ...push.fanout.encoded import EncodedMessage, StreamForm
from ...push.fanout.topics import Topic
from ...push.protocol import Target
from ..market import MarketData, is_history
from . import encoders, windows, zones
from .depth import DepthChanges, Shown
from .kinds import KINDS, SPEEDS, BinanceForm, Encode, plainly
from .profile import Profile
from .wide import WIDE, Wide, WideForm

_INTERVALS = {interval.value: interval for interval in Interval if interval is not Interval.S30}
_NAME = re.compile(
    r"(?P<symbol>[^@\s]{1,64})@(?P<kind>[A-Za-z]+)(?P<rest>[_0-9]?[A-Za-z0-9@]*)"
    r"(?P<zone>@\+08:00)?"
)
_CONTRACT = "_perpetual"
_NONE = "no stream of this market"


@frozen
class Found:
    """A stream that is fed."""

    name: str
    topic: Topic
    target: Target
    make: Callable[[], Encode]
    conflates: bool = True


@frozen
class Whole:
    """A stream of the whole market; ``parts``: each symbol's own, perhaps none yet."""

    name: str
    parts: tuple[Found, ...] = ()


class Follower(Protocol):
    """Who has streams of the whole market."""

    def joined(self, symbol: str) -> None:
        """A symbol is fed from now on, or known by its name."""


class Streams:
    """Of one market.  ``find`` and ``form`` at any time; forms live as long as somebody has one."""

    def __init__(self, profile: Profile, market: MarketData) -> None:
        self.profile, self.market = profile, market
        self._forms: WeakValueDictionary[tuple[str, bool], StreamForm] = WeakValueDictionary()
        self.shown = Shown()
        self.followers: dict[Follower, None] = {}
        """They take themselves out."""
        market.context.hub.watch(self._joined)

    def find(self, name: str) -> Found | Whole | str:
        """The stream with this name; in words why there is none."""
        wide = WIDE.get(name)
        if wide is not None and (wide.spot if self.profile.spot else wide.futures):
            return self._wide(name, wide)
        match = _NAME.fullmatch(name)
        if match is None or not self._exists(match):
            return _NONE
        lower, kind, rest = match["symbol"], match["kind"], match["rest"]
        if kind in ("kline", "continuousKline"):
            return self._candles(name, lower, kind, rest, match["zone"] or "")
        if kind == "depth" and (not rest or rest.startswith("@")):
            return self._changes(name, lower)
        spot = self.profile.spot
        if spot and (kind == "avgPrice" or (kind == "ticker" and rest)):
            return self._minutes(name, lower, kind, rest)
        row = KINDS[kind]
        made = row.make(self._native(lower), rest, spot)
        assert made is not None, "it exists"
        symbol = self._symbol(lower)
        topic = self.market.topic(symbol, row.channel)
        if topic is None:
            return self._not_fed(lower, symbol, row.channel.value, "channels")
        target = Target(symbol, row.channel, None, "", self.profile.venue)
        return Found(name, topic, target, made, row.conflates)

    def _exists(self, match: re.Match[str]) -> bool:
        """Whether the market has such streams at all; the symbol, which may begin to be fed where
        it is looked up, is not looked up."""
        lower, kind, rest = match["symbol"], match["kind"], match["rest"]
        spot = self.profile.spot
        if lower != lower.lower() or (match["zone"] and not (spot and kind == "kline")):
            return False
        if kind in ("kline", "continuousKline"):
            known = rest.startswith("_") and rest.removeprefix("_") in _INTERVALS
            return known and (kind == "kline" or (not spot and _CONTRACT in lower))
        if kind == "depth" and (not rest or rest.startswith("@")):
            return rest in SPEEDS
        if spot and kind == "avgPrice":
            return not rest
        if spot and kind == "ticker" and rest:
            return rest.removeprefix("_") in windows.STREAMED
        row = KINDS.get(kind)
        if row is None or not (row.spot if spot else row.futures):
            return False
        return row.make("", rest, spot) is not None

    def expect(self, names: Iterable[str]) -> None:
        """These are going to be found; see :meth:`.MarketData.expect`."""
        matches = map(_NAME.fullmatch, names)
        there = [match for match in matches if match and self._exists(match)]
        lowers = [match["symbol"].removesuffix(_CONTRACT) for match in there]
        self.market.expect(lowers)

    def form(self, found: Found | Whole, *, wrapped: bool) -> StreamForm:
        """The form that all clients of this stream share."""
        if isinstance(found, Whole):
            return self.wide_form(found.name, found.parts, wrapped=wrapped)
        key = found.name, wrapped
        form = self._forms.get(key)
        if form is None:
            head = f"{self.profile.venue} {found.name} {wrapped:d}".encode()
            hides = self.market.hides
            form = BinanceForm(head, found.name, found.make(), wrapped, hides, found.conflates)
            self._forms[key] = form
        return form

    def missed(self, found: Found, form: StreamForm) -> list[str]:
        """What comes first for who subscribes to a diff stream now: see :class:`.Shown`."""
        if not isinstance(form, BinanceForm) or not isinstance(form.encode, DepthChanges):
            return []
        lately = self.shown.lately(found.target.symbol, self.market.context.now_ms())
        missed = next(filter(None, map(form.encode.since, lately)), [])
        return [form.said(text) for text in missed]

    def part(self, name: str, symbol: str) -> Found | None:
        """What this symbol adds to a stream of the whole market, by its name; None: nothing."""
        wide = WIDE[name]
        instrument = self.market.listing(self.market.venue).of_symbol(symbol)
        if instrument is None:
            return None
        found = self.find(f"{instrument.native.lower()}@{wide.stream}")
        if not isinstance(found, Found):
            return None
        if wide.stream == "forceOrder":  # with two fields more than the symbol's own
            return evolve(found, make=_forced(self, symbol))
        return found

    def wide_form(self, name: str, parts: Iterable[Found], *, wrapped: bool) -> StreamForm:
        """The form that all clients of a stream of the whole market share, with these parts."""
        form = self._forms.get((name, wrapped))
        if not isinstance(form, WideForm):
            head = f"{self.profile.venue} {name} {wrapped:d}".encode()
            form = WideForm(head, name, WIDE[name].every_ms, wrapped, self.market.hides)
            self._forms[name, wrapped] = form
        for part in parts:
            if form.topics.get(part.target.symbol) is not part.topic:
                form.join(part.target.symbol, part.topic, part.make())
        return form

    def _joined(self, symbol: str) -> None:
        for follower in list(self.followers):
            follower.joined(symbol)

    def _wide(self, name: str, wide: Wide) -> Whole | str:
        """Of the symbols that are fed now.  Where there are none yet it is silent, as at the
        exchange; where there are, and none has it, nothing will ever come."""
        if problem := self._too_long(wide.stream.removeprefix("ticker_")):
            return problem
        fed = self.market.fed()
        found = [self.part(name, instrument.symbol) for instrument in fed]
        parts = tuple(each for each in found if each is not None)
        if fed and not parts:
            venue = self.profile.venue
            return f"no symbol has {wide.stream}: see exchanges.{venue}.symbols and .channels"
        return Whole(name, parts)

    def _minutes(self, name: str, lower: str, kind: str, rest: str) -> Found | str:
        """What is made of our minutes: the average price, and windows as long as the minutes that
        are at hand."""
        length = rest.removeprefix("_")
        symbol, native = self._symbol(lower), self._native(lower)
        topic = self.market.topic(symbol, Interval.M1)
        if topic is None:
            return self._not_fed(lower, symbol, "1m candles", "intervals")
        if problem := self._too_long(length):
            return problem

        def encode(encoded: EncodedMessage) -> str | None:
            message = encoded.message
            assert isinstance(message, KlineMessage), "the topic has candles"
            if is_history(topic, message):
                return None
            recent = [each for each, _ in topic.stream.recent]
            sent_ms = int(encoded.sent_ms)
            if kind == "avgPrice":
                return windows.streamed_average(native, recent, message.kline, sent_ms)
            return windows.streamed(native, length, recent, message.kline, sent_ms)

        target = Target(symbol, Channel.KLINE, Interval.M1, "1m", self.profile.venue)
        return Found(name, topic, target, lambda: encode)

    def _too_long(self, length: str) -> str:
        """Why no window of this name can be summed up; empty: it can, or it is none."""
        minutes = windows.STREAMED.get(length, windows.AVERAGE_MINUTES)
        if minutes <= self.market.context.limits.history_rows:
            return ""
        return f"a window of {length} needs kline.history_data_limit = {minutes} or more"

    def _candles(self, name: str, lower: str, kind: str, rest: str, zone: str) -> Found | str:
        """``zone``: that of the bars, which is not UTC's."""
        interval, continuous = _INTERVALS[rest.removeprefix("_")], kind == "continuousKline"
        if zone and not zones.has_same_bars(interval, zones.offset_of(zone[1:]) or 0):
            return zones.other_bars(interval, zone[1:])
        if continuous:
            lower = lower.removesuffix(_CONTRACT)
        symbol, native = self._symbol(lower), self._native(lower)
        topic = self.market.topic(symbol, interval)
        if topic is None:
            return self._not_fed(lower, symbol, f"{interval.value} candles", "intervals")
        write = encoders.continuous_kline if continuous else encoders.kline

        def encode(encoded: EncodedMessage) -> str | None:
            message = encoded.message
            assert isinstance(message, KlineMessage), "the topic has candles"
            if is_history(topic, message):
                return None
            return write(native, interval, message.kline, int(encoded.sent_ms))

        target = Target(symbol, Channel.KLINE, interval, interval.value, self.profile.venue)
        return Found(name, topic, target, lambda: encode)

    def _changes(self, name: str, lower: str) -> Found | str:
        """Diff depth, which is useless with one of its messages left out."""
        symbol, native = self._symbol(lower), self._native(lower)
        topic = self.market.topic(symbol, Channel.BOOK)
        if topic is None:
            return self._not_fed(lower, symbol, "books", "channels")
        target = Target(symbol, Channel.BOOK, None, "", self.profile.venue)
        spot, hides = self.profile.spot, self.market.hides
        return Found(name, topic, target, lambda: DepthChanges(native, topic, spot, hides), False)

    def native_of(self, symbol: str) -> str:
        """The venue's own name of a symbol that is fed."""
        found = self.market.listing(self.market.venue).of_symbol(symbol)
        return symbol if found is None else found.native

    def _symbol(self, lower: str) -> str:
        found = self.market.of_lower(lower)
        return lower.upper() if found is None else found.symbol

    def _native(self, lower: str) -> str:
        found = self.market.of_lower(lower)
        return lower.upper() if found is None else found.native

    def _not_fed(self, lower: str, symbol: str, what: str, key: str) -> str:
        venue = self.profile.venue
        if refused := self.market.why_not(lower):
            return refused
        return f"{what} of {symbol} are not fed: see exchanges.{venue}.symbols and .{key}"


def _forced(streams: Streams, symbol: str) -> Callable[[], Encode]:
    write = partial(encoders.force_order, wide=True)
    made = plainly(write)(streams.native_of(symbol), "", False)
    assert made is not None, "there is nothing behind its name"
    return made
