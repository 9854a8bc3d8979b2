"""The bus of a node that reads what another process publishes: streams made of items of the wire.

Epoch and offset are the publisher's, so that a client may resume at any node.  What nobody
subscribed to is only numbered here: its values stay bytes until somebody wants them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from attrs import define, field

from ..model import Kline, StatusMessage, StreamKey, StreamState
from . import wire
from .base import Listener, Published, Upstream, upstream_of
from .follower import Follower
from .wire import Flags

_NOTHING_TO_TELL = (StreamState.LIVE, StreamState.REPAIRED)


class OutOfStep(Exception):
    """Something is missing in what came: this node cannot go on."""


@define(eq=False)
class RemoteStream:
    """See :class:`.base.Stream`.  ``tell_kept``: say that somebody subscribed here."""

    number: int
    stream_key: StreamKey
    epoch: int
    offset: int
    first_ms: int | None
    sparse: bool
    revisions: int
    connected: bool
    waiting: str
    history_rows: int
    resume_messages: int
    tell_kept: Callable[[int], None]
    latest: Published | None = None
    provisional: Published | None = None
    status: StatusMessage | None = None
    _ring: deque[tuple[int, Published]] | None = None
    _recent: deque[tuple[Kline, int]] = field(init=False)
    _unread: deque[tuple[bytes, int]] = field(init=False)
    _ahead_ms: int = 0

    def __attrs_post_init__(self) -> None:
        self._recent = deque(maxlen=self.history_rows)
        self._unread = deque(maxlen=self.history_rows)

    @property
    def recent(self) -> Sequence[tuple[Kline, int]]:
        while self._unread:
            body, count = self._unread.popleft()
            self._recent.append((wire.candle_of(body), count))
        return self._recent

    @property
    def upstream(self) -> Upstream:
        return upstream_of(self.status, self.waiting, connected=self.connected)

    def keep(self) -> None:
        if self._ring is None:
            self.start_ring()
            self.tell_kept(self.number)

    def start_ring(self) -> None:
        """Keep the messages from now on."""
        if self._ring is None:
            self._ring = deque(maxlen=self.resume_messages)

    def continues(self, epoch: int, offset: int) -> bool:
        if epoch != self.epoch or offset > self.offset:
            return False
        if offset == self.offset:
            return True
        return bool(self._ring) and self._ring is not None and self._ring[0][0] <= offset + 1

    def after(self, offset: int) -> list[Published]:
        return [published for at, published in self._ring or () if at > offset]

    def restore(self, item: wire.Opened) -> None:
        """As it stood at the publisher."""
        self._unread.extend(item.recent)
        if item.latest is not None:
            self.latest = self.published(item.latest)
        if item.provisional is not None:
            self._note_provisional(item.provisional, self.published(item.provisional))
        if item.status is not None:
            self.status = wire.status_of(self.stream_key, item.status)
        if item.ring is not None:
            self.start_ring()
            for each in item.ring:
                self._ring.append((each.offset, self.published(each)))  # type: ignore[union-attr]

    def published(self, item: wire.Sent) -> Published:
        """Its values are read when somebody asks for them."""
        return Published(
            partial(wire.message_of, self.stream_key, item),
            item.sent_ms,
            ephemeral=bool(item.flags & Flags.EPHEMERAL),
            provisional=bool(item.flags & Flags.PROVISIONAL),
        )

    def note(self, item: wire.Sent, published: Published) -> None:
        if item.flags & Flags.EPHEMERAL:
            if item.flags & Flags.REMEMBERED and isinstance(item, wire.Candle):
                self._note_provisional(item, published)
            return
        self.epoch, self.offset = item.epoch, item.offset
        if self._ring is not None:
            self._ring.append((item.offset, published))
        if isinstance(item, wire.Candle):
            self._note_candle(item, published)
        else:
            self.latest, self.connected = published, True

    def note_status(self, status: StatusMessage) -> None:
        self.status = None if status.state in _NOTHING_TO_TELL else status
        self.connected |= status.state is not StreamState.STALE
        self.waiting = ""

    def _note_provisional(self, item: wire.Sent, published: Published) -> None:
        self.connected = True
        self.provisional = published
        self._ahead_ms = item.open_ms if isinstance(item, wire.Candle) else 0

    def _note_candle(self, item: wire.Candle, published: Published) -> None:
        if not item.flags & Flags.BACKFILL:
            self.connected = True
        if item.flags & Flags.REVISION:
            self._revise(wire.candle_of(item.body), item.update_count)
            return
        if self.provisional is not None and self._ahead_ms <= item.open_ms:
            self.provisional = None
        if not item.flags & Flags.CLOSED:
            self.latest = published
            return
        self._unread.append((item.body, item.update_count))
        self.latest = None
        if self.first_ms is None:
            self.first_ms = item.open_ms

    def _revise(self, kline: Kline, count: int) -> None:
        self.revisions += 1
        there = self.recent
        assert isinstance(there, deque), "it is ours"
        for at in range(len(there) - 1, -1, -1):
            if there[at][0].open_ms <= kline.open_ms:
                if there[at][0].open_ms == kline.open_ms:
                    there[at] = (kline, count)
                return


class RemoteBus:
    """The :class:`.base.Reader` of such a node.  ``tell_kept(stream)`` asks the publisher that all
    nodes keep a stream's messages from now on."""

    def __init__(
        self,
        *,
        history_rows: int,
        resume_messages: int,
        tell_kept: Callable[[int], None],
        now: Callable[[], float],
    ) -> None:
        self._history_rows, self._resume_messages = history_rows, resume_messages
        self._tell_kept, self._now = tell_kept, now
        self._streams: dict[int, RemoteStream] = {}
        self._aliases: dict[str, str] = {}
        self._listeners: list[Listener] = []
        self._follower = Follower()

    def __repr__(self) -> str:
        return f"<RemoteBus {len(self._streams)} stream keys>"

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)
        for stream in self._streams.values():
            listener.opened(stream)
        for native, symbol in self._aliases.items():
            listener.aliased(native, symbol)

    def take(self, items: Iterable[wire.Item]) -> None:
        """What came, in order.  Raises OutOfStep where something before it is missing, KeyError
        for a stream that was not opened."""
        for item in items:
            match item:
                case wire.Candle():
                    self._take_candle(item)
                case wire.Line():
                    self._hand_out(self._streams[item.stream], item)
                case wire.Status():
                    self._take_status(item)
                case wire.Opened():
                    self._open(item)
                case wire.Closed(stream):
                    self._close(stream)
                case wire.Aliased(native, symbol):
                    self._aliases[native] = symbol
                    for listener in self._listeners:
                        listener.aliased(native, symbol)
                case wire.Described():
                    self._describe(item)
                case wire.Kept(stream):
                    self._streams[stream].start_ring()

    def _open(self, item: wire.Opened) -> None:
        stream = self._streams[item.stream] = RemoteStream(
            item.stream,
            item.stream_key,
            item.epoch,
            item.offset,
            item.first_ms,
            item.sparse,
            item.revisions,
            item.connected,
            item.waiting,
            self._history_rows,
            self._resume_messages,
            self._tell_kept,
        )
        stream.restore(item)
        closed_ms = wire.candle_of(item.recent[-1][0]).open_ms if item.recent else None
        self._follower.open(item.stream, closed_ms, (item.epoch, item.offset))
        for listener in self._listeners:
            listener.opened(stream)

    def _close(self, number: int) -> None:
        stream = self._streams.pop(number)
        self._follower.close(number)
        for listener in self._listeners:
            listener.closed(stream)

    def _describe(self, item: wire.Described) -> None:
        stream = self._streams[item.stream]
        stream.first_ms, stream.waiting = item.first_ms, item.waiting
        for listener in self._listeners:
            listener.described(stream)

    def _take_status(self, item: wire.Status) -> None:
        stream = self._streams[item.stream]
        status = wire.status_of(stream.stream_key, item)
        stream.note_status(status)
        for listener in self._listeners:
            listener.status_changed(stream, status)

    def _take_candle(self, item: wire.Candle) -> None:
        stream = self._streams[item.stream]
        for each in self._follower.take(item, self._now()):
            self._hand_out(stream, each)
        if self._follower.missing:
            raise OutOfStep(f"{stream.stream_key}: a candle before {item.open_ms} is missing")

    def _hand_out(self, stream: RemoteStream, item: wire.Sent) -> None:
        published = stream.published(item)
        stream.note(item, published)
        for listener in self._listeners:
            listener.published(stream, published)
