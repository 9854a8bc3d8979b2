"""Questions and their answers as bytes.  Pure.

Candles are written as in a feed; everything else is MessagePack of the values themselves.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from attrs import field, frozen

from ..bus import wire
from ..bus.engine.base import Entry, EntryId
from ..dialects.outside import Signed
from ..model import Interval, Kline, KlineMessage, PrivateMessage, Series, Settlement
from ..model.demand import Granted, Refused, Wish
from ..store import AppendResult

HISTORY, AFTER = "history", "after"
APPEND, HEAD, HEADS, READ = "append", "head", "heads", "read"
TAKE, METRICS, STATUS = "take", "metrics", "status"
DEMAND = "demand"
LOG, CHECKPOINT = "log", "checkpoint"
"""Of the engine, where the parent is one of several nodes."""
PASS, DIAL, RECEIVE, SEND = "pass", "dial", "receive", "send"
CLIENTS, REPORT = "clients", "report"
"""From the parent: the lines of the status page, and a report before its time."""

encode = msgspec.msgpack.encode


@frozen
class HistoryQuestion:
    venue: str
    symbol: str
    interval: Interval
    limit: int
    start_ms: int | None = None
    end_ms: int | None = None

    @property
    def series(self) -> Series:
        return Series(self.venue, self.symbol, self.interval)


@frozen
class AfterQuestion:
    venue: str
    symbol: str
    interval: Interval
    epoch: int
    offset: int
    closed_ms: int | None
    limit: int

    @property
    def series(self) -> Series:
        return Series(self.venue, self.symbol, self.interval)


@frozen
class LogQuestion:
    """By shard the last entry that was read."""

    after: Mapping[str, EntryId]
    wait_s: float
    limit: int


@frozen
class PassQuestion:
    """What a client signed for the exchange of a venue."""

    venue: str
    weight: int
    signed: Signed


@frozen
class PassAnswer:
    """``kind``: no_room (ask again in ``after_s``) and not_sent: nothing was sent; unknown: it may
    have been."""

    kind: Literal["answered", "no_room", "not_sent", "unknown"]
    problem: str = ""
    after_s: float = 0.0
    status: int = 0
    fields: Sequence[tuple[bytes, bytes]] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)


@frozen
class DialQuestion:
    """A WebSocket, which is called ``number`` from then on."""

    number: int
    venue: str
    url: str
    target: str = field(repr=False)


@frozen
class Lost:
    """It is not, or no more, open.  ``code`` 0: it never was."""

    problem: str
    code: int = 0
    reason: str = ""


def _reader(kind: Any) -> Any:
    return msgspec.msgpack.Decoder(kind).decode


history_of = _reader(HistoryQuestion)
after_of = _reader(AfterQuestion)
settlements_of = _reader(list[Settlement])
results_of = _reader(list[AppendResult])
messages_of = _reader(list[PrivateMessage])
user_of = _reader(int)
users_of = _reader(list[int])
heads_of = _reader(dict[int, int])
place_of = _reader(tuple[str, str])
page_of = _reader(tuple[int, int, int, int])
wish_of = _reader(Wish)
_granted_of = _reader(tuple[Granted | None, Refused | None])
pass_of = _reader(PassQuestion)
passed_of = _reader(PassAnswer)
dial_of = _reader(DialQuestion)
lost_of = _reader(Lost | None)
received_of = _reader(tuple[list[Any], Lost | None])  # texts and bytes
log_of = _reader(LogQuestion)
shard_of = _reader(str)
logs_of = _reader(dict[str, list[Entry]])
entries_of = _reader(list[Entry])
number_of = _reader(int)
sent_of = _reader(tuple[int, str, int])
texts_of = _reader(list[str])
_bodies_of = _reader(list[bytes])
_sent_of = _reader(list[wire.Candle] | None)


def write_candles(rows: Sequence[Kline]) -> bytes:
    return encode([wire.candle_bytes(row) for row in rows])


def candles_of(data: bytes) -> list[Kline]:
    return [wire.candle_of(body) for body in _bodies_of(data)]


def write_granted(answer: Granted | Refused) -> bytes:
    return encode((answer, None) if isinstance(answer, Granted) else (None, answer))


def granted_of(data: bytes) -> Granted | Refused:
    granted, refused = _granted_of(data)
    found: Granted | Refused = granted or refused
    return found


def write_messages(found: Sequence[KlineMessage] | None) -> bytes:
    if found is None:
        return encode(None)
    return encode([wire.sent(0, message, 0.0) for message in found])


def kline_messages_of(series: Series, data: bytes) -> list[KlineMessage] | None:
    items = _sent_of(data)
    if items is None:
        return None
    found = [wire.message_of(series, item) for item in items]
    return [message for message in found if isinstance(message, KlineMessage)]
