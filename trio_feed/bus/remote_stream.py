"""A stream of a node that reads what another process publishes."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
from attrs import define, field

from ..model import Kline, StatusMessage, StreamKey, StreamState
from . import wire
from .base import Published, Upstream, is_torn, upstream_of
from .follower import Guard
from .wire import Flags

_NOTHING_TO_TELL = (StreamState.LIVE, StreamState.REPAIRED)

Number = tuple[int, int]
"""Epoch and offset."""


@define(eq=False)
class Hearing:
    """Of one publisher, for all its streams; see :attr:`.base.Stream.heard_at`."""

    at: float | None = None


@define(eq=False)
class RemoteStream:
    """See :class:`.base.Stream`.  ``tell_kept``: say that somebody subscribed here."""

    stream_key: StreamKey
    epoch: int
    offset: int
    history_rows: int
    resume_messages: int
    tell_kept: "Callable[[RemoteStream], None]"
    hearing: Hearing = field(factory=Hearing)
    first_ms: int | None = None
    sparse: bool = False
    revisions: int = 0
    connected: bool = False
    waiting: str = ""
    latest: Published | None = None
    provisional: Published | None = None
    status: StatusMessage | None = None
    guard: Guard = field(init=False)
    revised: Number = (0, 0)
    """Of the last revision."""
    _ring: deque[tuple[Number, Published]] | None = None
    _floor: Number = (0, 0)
    """The ring has every message after this one."""
    _torn_at: Number = (0, 0)
    """Behind this one something is missing: nothing is resumed from it, nor from before."""
    _told: Number = field(init=False)
    """Of the last message that was handed out; a checkpoint moves ``number`` on without one."""
    _recent: deque[tuple[Kline, int]] = field(init=False)
    _unread: deque[tuple[bytes, int]] = field(init=False)
    _ahead_ms: int = 0

    def __attrs_post_init__(self) -> None:
        self._recent = deque(maxlen=self.history_rows)
        self._unread = deque(maxlen=self.history_rows)
        self.guard = Guard(None, self.number)
        self._told = self.number

    @property
    def number(self) -> Number:
        return self.epoch, self.offset

    @property
    def heard_at(self) -> float | None:
        return self.hearing.at

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
            self.tell_kept(self)

    def start_ring(self) -> None:
        """Keep the messages from now on."""
        if self._ring is None:
            self._ring, self._floor = deque(maxlen=self.resume_messages), self.number

    def forget_ring(self) -> None:
        """What is kept is not all that was published before now."""
        if self._ring is not None:
            self._ring.clear()
            self._floor = self.number

    def continues(self, epoch: int, offset: int) -> bool:
        """Numbers go up by one inside of an epoch, so one that was never given, or was given and
        is not known here, is neither in the ring nor before one that is."""
        number = epoch, offset
        if number <= self._torn_at:
            return False
        if number == self.number:
            return True
        if self._ring is None:
            return False
        return number == self._floor or any(
            at == number or at == (epoch, offset + 1) for at, _ in self._ring
        )

    def after(self, epoch: int, offset: int) -> list[Published]:
        return [published for at, published in self._ring or () if at > (epoch, offset)]

    def restore(self, item: wire.Opened) -> None:
        """As it stood at the publisher."""
        self._unread.extend(item.recent)
        closed_ms = wire.candle_of(item.recent[-1][0]).open_ms if item.recent else None
        self.guard = Guard(closed_ms, self.number)
        self._describe(item)
        self.revisions, self.revised = item.revisions, item.revised
        self.note_latest(item)
        if item.status is not None:
            self.status = wire.status_of(self.stream_key, item.status)
        if item.ring is not None:
            self._ring = deque(maxlen=self.resume_messages)
            for each in item.ring:
                self._ring.append(((each.epoch, each.offset), self.published(each)))
            self._floor = self.number
            if item.ring:
                self._floor = item.ring[0].epoch, item.ring[0].offset - 1

    def note_latest(self, item: wire.Opened) -> None:
        """What new subscribers get at once."""
        if item.latest is not None:
            self.latest = self.published(item.latest)
        if item.provisional is not None:
            self._note_provisional(item.provisional, self.published(item.provisional))

    def describe_again(self, item: wire.Opened) -> bool:
        """Whether something of it has changed."""
        before = self.first_ms, self.waiting, self.connected
        self._describe(item)
        return before != (self.first_ms, self.waiting, self.connected)

    def _describe(self, item: wire.Opened) -> None:
        self.first_ms, self.sparse = item.first_ms, item.sparse
        self.connected, self.waiting = item.connected, item.waiting

    def published(self, item: wire.Sent) -> Published:
        """Its values are read when somebody asks for them."""
        ephemeral = bool(item.flags & Flags.EPHEMERAL)
        if ephemeral and (item.epoch, item.offset) > self._told:
            # The publisher's last message was not handed out here, or not yet.
            item = msgspec.structs.replace(item, epoch=self._told[0], offset=self._told[1])
        return Published(
            partial(wire.message_of, self.stream_key, item),
            item.sent_ms,
            ephemeral=ephemeral,
            provisional=bool(item.flags & Flags.PROVISIONAL),
        )

    def note(self, item: wire.Sent, published: Published) -> None:
        """``published``, made of ``item``, is handed out next."""
        if item.flags & Flags.EPHEMERAL:
            if item.flags & Flags.REMEMBERED and isinstance(item, wire.Candle):
                self._note_provisional(item, published)
            return
        self.epoch, self.offset = item.epoch, item.offset
        before = self._told[1] if self._told[0] == item.epoch else 0
        published.left_out = max(0, item.offset - before - 1)
        self._told = self.number
        if self._ring is not None:
            if len(self._ring) == self._ring.maxlen:
                self._floor = self._ring[0][0]
            self._ring.append((self.number, published))
        if isinstance(item, wire.Candle):
            self._note_candle(item, published)
        else:
            self.latest, self.connected = published, True

    def pass_over(self, item: wire.Sent) -> None:
        """It was handed out already, under a number of another owner.  Who came after that one
        waits for it all the same, so it counts as left out."""
        self.epoch, self.offset = item.epoch, item.offset

    def tear(self) -> None:
        """Something behind the last message is missing, and is nowhere that this node knows."""
        self._torn_at = self.number

    def note_status(self, status: StatusMessage) -> None:
        if is_torn(status):
            self.tear()
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
            self.revised = self.number
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
