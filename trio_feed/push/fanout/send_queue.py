"""The send queue of one client, in the order of writing.  Pure, nothing waits.

Pushes are bounded in bytes and number; replies are not, because the session reads the next request
only when the queue is not ``full``.  While an update that is whole in itself waits, a newer one of
its stream takes its place: a slow client gets fewer messages instead of older ones.
"""

from collections.abc import Iterator
from itertools import islice
from operator import attrgetter
from typing import Any

from attrs import define, frozen

from .encoded import EncodedMessage, StreamForm
from .waiting import Account, unbounded

_FRAME = attrgetter("frame")


@define(eq=False)
class QueuedFrame:
    """One frame that waits, the same for all clients that get it; nothing of what is here is
    changed.

    ``key`` is what it belongs to, if anything: the form of a published message's stream, else the
    subscription.  ``message`` is what is in it, where that is a numbered message; ``left_out``
    messages before it are not sent.
    """

    frame: bytes
    at_ms: float
    push: bool = False
    key: Any = None
    message: EncodedMessage | None = None
    left_out: int = 0
    _instead: "dict[QueuedFrame, QueuedFrame] | None" = None

    def instead_of(self, queued: "QueuedFrame", form: StreamForm) -> "QueuedFrame | None":
        """What goes in place of ``queued``, an older one, and of this one; None: both must go.
        Under load most clients wait with the same one, so it is made once for all of them."""
        known = self._instead
        if known is None:
            known = self._instead = {}
        made = known.get(queued)
        if made is None:
            old, new = queued.message, self.message
            if old is None or new is None or not new.replaces(old):
                return None
            left_out = queued.left_out
            if not new.ephemeral:  # which has no number that could be left out
                left_out += new.offset - old.offset
            frame = form.frame(new, left_out) or b""
            made = QueuedFrame(frame, queued.at_ms, queued.push, self.key, new, left_out)
            known[queued] = made
        return made


@frozen
class QueueStatistics:
    """``at_ms`` is the time of the oldest message, None where nothing waits."""

    messages: int
    bytes: int
    at_ms: float | None


class SendQueue:
    """``max_bytes`` and ``max_messages`` bound what pushes may queue.  ``account`` is where the
    client's waiting bytes are counted, with those that were taken out and are not sent yet.

    Neither a burst, such as trades that were missed and fetched, nor a client that is busy for a
    moment makes it slow: while the oldest message has waited for less than ``behind_ms``, ``burst``
    times as much is allowed.  A client that is dropped for less loses what waits, or what it
    cannot resume, and is no faster afterwards.
    """

    __slots__ = (
        "_account", "_behind_ms", "_burst", "_gone", "_max_bytes", "_max_messages", "_replies",
        "_reply_bytes", "_taken", "entries", "newest",
    )  # fmt: skip

    def __init__(
        self,
        max_messages: int,
        max_bytes: int,
        burst: int = 1,
        behind_ms: float = 0.0,
        account: Account | None = None,
    ) -> None:
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._burst, self._behind_ms = burst, behind_ms
        self._account = unbounded() if account is None else account
        self._taken = 0
        self.entries: list[QueuedFrame] = []
        """What waits; changed only here."""
        self.newest: dict[Any, int] = {}
        """Where the last message of a stream waits that may give way to a newer one, counted from
        the first that ever waited."""
        self._gone = 0  # of those, with nothing more in ``entries``
        # What waits is in the account already; of it only the replies are counted, which are few.
        self._replies = self._reply_bytes = 0

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __iter__(self) -> Iterator[QueuedFrame]:
        return iter(self.entries)

    @property
    def full(self) -> bool:
        return self.size >= self._max_bytes or len(self.entries) >= self._max_messages

    @property
    def pushes(self) -> int:
        """Pushes that wait."""
        return len(self.entries) - self._replies

    @property
    def size(self) -> int:
        """Bytes: those that wait, and those that were taken out and are not sent yet."""
        return self._account.bytes

    def statistics(self) -> QueueStatistics:
        at_ms = self.entries[0].at_ms if self.entries else None
        return QueueStatistics(len(self.entries), self.size, at_ms)

    def put(self, entry: QueuedFrame) -> bool:
        """Queue at the end.  False: it is a push, and there is no room for it.

        Every message that cannot be written at once passes here once per subscriber; its calls
        are counted (tests/test_cost.py), and so the accounts are kept in place.
        """
        entries, account, size = self.entries, self._account, len(entry.frame)
        waiting = account.bytes + size
        if not entry.push:
            self._replies += 1
            self._reply_bytes += size
        elif (
            len(entries) >= self._max_messages or waiting > self._max_bytes
        ) and not self._has_room(entry):
            return False
        if entry.key is not None:
            if entry.message is None:
                self.newest.clear()  # behind a reply that belongs to a stream, nothing goes back
            elif entry.message.whole:
                self.newest[entry.key] = self._gone + len(entries)
            elif self.newest:
                self.newest.pop(entry.key, None)
        entries.append(entry)
        account.bytes = waiting
        everything = account.everything
        everything.total += size
        if everything.total > everything.most:
            everything.drop()
        return True

    def conflate(self, entry: QueuedFrame, form: StreamForm) -> bool:
        """Let ``entry`` go instead of the last that waits for the same key.  False: what waits
        there, if anything, must go too."""
        at = self.newest.get(entry.key, -1) - self._gone
        if at < 0 or not form.conflates:
            return False
        queued = self.entries[at]
        made = entry.instead_of(queued, form)
        if made is None:
            return False
        self.entries[at] = made
        if made.message is not None and not made.message.whole:
            del self.newest[entry.key]
        more = len(made.frame) - len(queued.frame)
        if more:
            self._account.add(more)
            if not queued.push:
                self._reply_bytes += more
        return True

    def first(self, max_messages: int, max_bytes: int) -> list[bytes]:
        """The frames that are to be written next, at least one if any waits."""
        if len(self.entries) <= max_messages and self._account.bytes <= max_bytes:
            return list(map(_FRAME, self.entries))
        frames: list[bytes] = []
        size = 0
        for entry in islice(self.entries, max_messages):
            size += len(entry.frame)
            if frames and size > max_bytes:
                break
            frames.append(entry.frame)
        return frames

    def remove(self, number: int) -> None:
        """The first ``number`` of them have gone."""
        entries = self.entries
        self._gone += number
        if number == len(entries):
            account = self._account
            size, self._replies, self._reply_bytes = account.bytes - self._taken, 0, 0
            entries.clear()
            self.newest.clear()
            account.bytes = self._taken
            account.everything.total -= size
        elif number:
            gone = entries[:number]
            del entries[:number]
            size = sum(len(entry.frame) for entry in gone)
            self._replies -= sum(not entry.push for entry in gone)
            self._reply_bytes -= sum(len(entry.frame) for entry in gone if not entry.push)
            self._account.add(-size)

    def taken(self, size: int) -> None:
        """So many bytes have left the queue and are being sent; 0: all of them are."""
        change, self._taken = size - self._taken, size
        if change:
            self._account.add(change)

    def clear(self) -> None:
        self.remove(len(self.entries))

    def _has_room(self, entry: QueuedFrame) -> bool:
        """For a push, next to others that wait; replies take no room from it."""
        pushes = self.pushes
        if not pushes:
            return True
        most = self._burst if entry.at_ms - self.entries[0].at_ms < self._behind_ms else 1
        size = self.size - self._taken - self._reply_bytes + len(entry.frame)
        return pushes < self._max_messages * most and size <= self._max_bytes * most
