"""What every venue file offers, and the values that go in and out of it.

A venue is a module with the members of :class:`Venue`, in that order, without I/O: it says which
URLs to open, what to send, what came in, and what to ask by REST.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen

from ..model import Interval, Kline, Trade


@frozen(order=True)
class Stream:
    """One subscription at the exchange.  ``path`` groups what may share a connection;
    ``interval`` is None for trades."""

    path: str
    name: str
    symbol: str
    interval: Interval | None


@frozen
class Plan:
    """One connection: the URL, its streams, and the frames to send once it is open, by the id
    that their acknowledgement carries."""

    url: str
    streams: tuple[Stream, ...]
    subscribe: Mapping[int, str]


@frozen
class KlineUpdate:
    """A candle state of ``symbol`` from the exchange's candle stream."""

    symbol: str
    interval: Interval
    kline: Kline


@frozen
class Ack:
    """The exchange's answer to a control frame; ``error`` is empty when it agreed."""

    request_id: int | None
    error: str = ""


@frozen
class Ignored:
    """A message of a known kind that nothing here uses (yet)."""

    kind: str


@frozen
class GoingAway:
    """The exchange will close this connection soon."""


Event = KlineUpdate | Trade | Ack | Ignored | GoingAway


@frozen
class RestQuestion:
    """A GET: path, query parameters, request weight."""

    path: str
    params: Mapping[str, str | int]
    weight: int


class Venue(Protocol):
    """A venue module.  ``KLINE_PAGE`` and ``TRADE_PAGE`` are rows per REST answer."""

    NAME: str
    INTERVALS: frozenset[Interval]
    WEBSOCKET_URL: str
    REST_URL: str
    KLINE_PAGE: int
    TRADE_PAGE: int

    def kline_stream(self, symbol: str, interval: Interval) -> Stream: ...

    def trade_stream(self, symbol: str) -> Stream: ...

    def plan(self, base_url: str, streams: Sequence[Stream], limit: int) -> list[Plan]: ...

    def parse(self, raw: str | bytes) -> Event: ...

    def klines_question(self, symbol: str, interval: Interval, start_ms: int) -> RestQuestion: ...

    def parse_klines(self, body: bytes) -> list[Kline]: ...

    def trades_question(self, symbol: str, from_id: int) -> RestQuestion: ...

    def parse_trades(self, symbol: str, body: bytes) -> list[Trade]: ...
