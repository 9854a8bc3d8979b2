"""Messages of the bus as MessagePack.  Pure.

An item is an array whose first element says what it is.  Its head has what every node needs of
every stream: number, times, how a candle stands.  The values are in ``body``, MessagePack inside of
bytes, which is read only where somebody subscribed; decimals in it are strings, digit by digit.
``stream`` is a number that the sender gave the stream key in :class:`Opened`.

A reader takes messages of its own ``VERSION`` only.  It changes with the arrays here and with the
fields of the models in a body, which are written in the order of the class.
"""

from collections.abc import Sequence

import msgspec

from ..model import (
    Channel,
    ChannelKey,
    ChannelMessage,
    Interval,
    Kline,
    KlineMessage,
    Series,
    Source,
    StatusMessage,
    StreamKey,
    StreamState,
)
from .forms import KLINE, LINES, PLACES, BadItem, candle_bytes, candle_of

VERSION = 1
_VERSIONED = bytes([VERSION])
_LATEST = 32
"""Versions of a future that can be told from what is none of ours."""


class OtherVersion(BadItem):
    """A node of another version of the program wrote it."""


class Flags:
    """How a message stands, beside its values: bits of an int (an IntFlag costs a microsecond with
    each look)."""

    CLOSED = 1
    REVISION = 2
    PROVISIONAL = 4
    EPHEMERAL = 8
    BACKFILL = 16
    REMEMBERED = 32
    """A provisional candle that new subscribers get, too."""


class Candle(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A :class:`~trio_feed.model.KlineMessage`; ``body`` is its candle."""

    stream: int
    epoch: int
    offset: int
    open_ms: int
    after_ms: int | None
    flags: int
    update_count: int
    received_ms: float
    sent_ms: float
    body: bytes


class Line(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """A :class:`~trio_feed.model.ChannelMessage`; ``form`` says what is in its ``body``."""

    stream: int
    epoch: int
    offset: int
    flags: int
    source: Source
    received_ms: float
    sent_ms: float
    form: int
    body: bytes


class Status(msgspec.Struct, array_like=True, frozen=True, tag=3):
    stream: int
    state: StreamState
    reason: str
    first_ms: int | None
    last_ms: int | None


Sent = Candle | Line


class Opened(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """A stream as it stands, for a node that knows nothing of it.  ``recent``: (candle,
    update_count), ascending; ``ring`` None: nobody has subscribed yet; ``revised``: the number of
    the last revision, (0, 0): none is known, or a node of an earlier version wrote it."""

    stream: int
    venue: str
    symbol: str
    what: str
    is_series: bool
    epoch: int
    offset: int
    first_ms: int | None
    sparse: bool
    revisions: int
    connected: bool
    waiting: str
    recent: list[tuple[bytes, int]]
    latest: Sent | None
    provisional: Sent | None
    status: Status | None
    ring: list[Sent] | None
    revised: tuple[int, int] = (0, 0)

    @property
    def stream_key(self) -> StreamKey:
        if self.is_series:
            return Series(self.venue, self.symbol, Interval(self.what))
        return ChannelKey(self.venue, self.symbol, Channel(self.what))


class Closed(msgspec.Struct, array_like=True, frozen=True, tag=5):
    stream: int


class Aliased(msgspec.Struct, array_like=True, frozen=True, tag=6):
    native: str
    symbol: str


class Described(msgspec.Struct, array_like=True, frozen=True, tag=7):
    stream: int
    first_ms: int | None
    waiting: str


class Kept(msgspec.Struct, array_like=True, frozen=True, tag=8):
    """Somebody subscribed somewhere: all nodes keep the stream's messages from now on."""

    stream: int


class Checkpoint(msgspec.Struct, array_like=True, frozen=True, tag=9):
    """How all streams of a shard stand at this place of its log.

    ``opening``: the first entry of an epoch; streams that are not here are not there any more, and
    numbers of streams count from here on.  Then ``before`` has, by stream, the last number that its
    new owner found in the log, and ``lost`` the streams of events of which some may have come
    between and are nowhere.  ``unsaved``: closed candles that the store may not have yet."""

    opening: bool
    streams: list[Opened]
    aliases: list[Aliased]
    before: dict[int, tuple[int, int]]
    lost: list[int]
    unsaved: list[Candle]


Item = Candle | Line | Status | Opened | Closed | Aliased | Described | Kept | Checkpoint


_items = msgspec.msgpack.Decoder(list[Item])


def written(items: Sequence[Item]) -> bytes:
    """Items in order.  Raises OverflowError for an epoch, offset or time beyond 64 bits."""
    return msgspec.msgpack.encode(items)


def entry(items: Sequence[Item]) -> bytes:
    """The same for readers that may be of another version."""
    return _VERSIONED + msgspec.msgpack.encode(items)


def read_entry(data: bytes) -> list[Item]:
    """The items of :func:`entry`.  Raises OtherVersion, BadItem."""
    if not 0 < (data[0] if data else 0) < _LATEST:
        raise BadItem("it is no entry of a log of ours")
    if data[:1] != _VERSIONED:
        theirs = data[0] if data else 0
        raise OtherVersion(
            f"another version of the program wrote it (wire {theirs}, this one reads {VERSION});"
            " update the node that is older"
        )
    return read(data[1:])


def read(data: bytes) -> list[Item]:
    """The items of :func:`written`; bodies stay as they are.  Raises BadItem."""
    try:
        return _items.decode(data)
    except msgspec.MsgspecError as error:
        raise BadItem(str(error)) from None


def sent(
    stream: int,
    message: KlineMessage | ChannelMessage,
    sent_ms: float,
    *,
    ephemeral: bool = False,
    provisional: bool = False,
    remembered: bool = False,
) -> Sent:
    """A message of the bus as an item."""
    flags = Flags.EPHEMERAL if ephemeral else 0
    if isinstance(message, ChannelMessage):
        place = PLACES[type(message.data)]
        return Line(
            stream,
            message.epoch,
            message.offset,
            flags,
            message.source,
            message.received_ms,
            sent_ms,
            place,
            LINES[place].write(message.data),
        )
    kline = message.kline
    flags |= (
        (Flags.CLOSED if kline.closed else 0)
        | (Flags.REVISION if message.revision else 0)
        | (Flags.PROVISIONAL if provisional else 0)
        | (Flags.BACKFILL if kline.source is Source.BACKFILL else 0)
        | (Flags.REMEMBERED if remembered else 0)
    )
    return Candle(
        stream,
        message.epoch,
        message.offset,
        kline.open_ms,
        message.after_ms,
        flags,
        message.update_count,
        message.received_ms,
        sent_ms,
        KLINE.write(kline),
    )


def message_of(stream_key: StreamKey, item: Sent) -> KlineMessage | ChannelMessage:
    """The message of :func:`sent`.  Raises BadItem."""
    if isinstance(item, Line):
        assert isinstance(stream_key, ChannelKey), "the sender opened it so"
        if not 0 <= item.form < len(LINES):
            raise BadItem(f"form {item.form} is not known")
        data = LINES[item.form].read(item.body)
        return ChannelMessage(
            stream_key, data, item.source, item.epoch, item.offset, item.received_ms
        )
    assert isinstance(stream_key, Series), "the sender opened it so"
    return KlineMessage(
        stream_key,
        KLINE.read(item.body),
        item.epoch,
        item.offset,
        item.update_count,
        item.received_ms,
        bool(item.flags & Flags.REVISION),
        item.after_ms,
        bool(item.flags & Flags.PROVISIONAL),
    )


def status_item(stream: int, status: StatusMessage) -> Status:
    return Status(stream, status.state, status.reason, status.first_ms, status.last_ms)


def status_of(stream_key: StreamKey, item: Status) -> StatusMessage:
    return StatusMessage(stream_key, item.state, item.reason, item.first_ms, item.last_ms)


def opened(
    stream: int,
    stream_key: StreamKey,
    *,
    epoch: int,
    offset: int,
    first_ms: int | None,
    sparse: bool,
    revisions: int,
    connected: bool,
    waiting: str,
    recent: Sequence[tuple[Kline, int]],
    latest: Sent | None,
    provisional: Sent | None,
    status: Status | None,
    ring: Sequence[Sent] | None,
    revised: tuple[int, int] = (0, 0),
) -> Opened:
    is_series = isinstance(stream_key, Series)
    what = stream_key.interval if isinstance(stream_key, Series) else stream_key.channel
    return Opened(
        stream,
        stream_key.venue,
        stream_key.symbol,
        what.value,
        is_series,
        epoch,
        offset,
        first_ms,
        sparse,
        revisions,
        connected,
        waiting,
        [(candle_bytes(kline), count) for kline, count in recent],
        latest,
        provisional,
        status,
        None if ring is None else list(ring),
        revised,
    )


__all__ = [
    "VERSION",
    "Aliased",
    "BadItem",
    "Candle",
    "Checkpoint",
    "Closed",
    "Described",
    "Flags",
    "Item",
    "Kept",
    "Line",
    "Opened",
    "OtherVersion",
    "Sent",
    "Status",
    "candle_bytes",
    "candle_of",
    "entry",
    "message_of",
    "opened",
    "read",
    "read_entry",
    "sent",
    "status_item",
    "status_of",
    "written",
]
