"""The send queue of one client, in the order of writing.  Pure, nothing waits.

Pushes are bounded in bytes and number; replies are not, because the session reads the next request
only when the queue is not ``full``.  While an update that is whole in itself waits, a newer one of
its stream takes its place: a slow client gets fewer messages instead of older ones.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

from attrs import define, frozen

from .encoded import EncodedMessage, Prefix
from .waiting import Account

BURST_MS = 2_000


@define(eq=False)
class QueuedFrame:
    """One frame that waits.  ``key`` is the subscription that it belongs to, if any; ``message``
    what is in it, where that is a numbered message; ``left_out`` messages before it are not sent.
    """

    frame: bytes
    at_ms: float
    push: bool = False
    key: Any = None
    message: EncodedMessage | None = None
    left_out: int = 0


@frozen
class QueueStatistics:
    """``at_ms`` is the time of the oldest message, None where nothing waits."""

    messages: int
    bytes: int
    at_ms: float | None


class SendQueue:
    """``max_bytes`` and ``max_messages`` bound what pushes may queue.  ``account`` is where the
    client's waiting bytes are counted, with those that were taken out and are not sent yet.

    A burst, such as trades that were missed and fetched, does not make a client slow: while
    the oldest message has waited for less than ``BURST_MS``, ``burst`` times as much is allowed.
    """

    def __init__(
        self, max_messages: int, max_bytes: int, burst: int = 1, account: Account | None = None
    ) -> None:
        self._max_messages, self._max_bytes, self._burst = max_messages, max_bytes, burst
        self._account = account
        self._taken = 0
        self._queue: deque[QueuedFrame] = deque()
        self.waiting = self._queue
        """What waits, for a look at whether anything does."""
        self._newest: dict[Any, QueuedFrame] = {}
        self._bytes = self._pushes = self._push_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._queue)

    def __iter__(self) -> Iterator[QueuedFrame]:
        return iter(self._queue)

    @property
    def full(self) -> bool:
        waiting = self._bytes + self._taken
        return waiting >= self._max_bytes or len(self._queue) >= self._max_messages

    @property
    def size(self) -> int:
        """Bytes: those that wait, and those that were taken out and are not sent yet."""
        return self._bytes + self._taken

    def statistics(self) -> QueueStatistics:
        at_ms = self._queue[0].at_ms if self._queue else None
        return QueueStatistics(len(self._queue), self.size, at_ms)

    def put(self, entry: QueuedFrame) -> bool:
        """Queue at the end.  False: it is a push, and there is no room for it."""
        if entry.push and self._pushes:
            fresh = entry.at_ms - self._queue[0].at_ms < BURST_MS
            most = self._burst if fresh else 1
            if (
                self._pushes >= self._max_messages * most
                or self._push_bytes + len(entry.frame) > self._max_bytes * most
            ):
                return False
        self._queue.append(entry)
        if entry.key is not None:
            self._newest[entry.key] = entry
        self._count(entry, 1)
        return True

    def conflate(self, key: object, message: EncodedMessage, prefix: Prefix) -> bool:
        """Let ``message`` go instead of the last that waits for the same subscription.  False: what
        waits there, if anything, must go too."""
        entry = self._newest.get(key)
        if entry is None or entry.message is None or not message.replaces(entry.message):
            return False
        self._count(entry, -1)
        if not message.ephemeral:  # which has no number that could be left out
            entry.left_out += message.offset - entry.message.offset
        entry.message = message
        entry.frame = prefix.frame(message, entry.left_out)
        self._count(entry, 1)
        return True

    def first(self, max_messages: int, max_bytes: int) -> list[bytes]:
        """The frames that are to be written next, at least one if any waits."""
        frames: list[bytes] = []
        size = 0
        for entry in islice(self._queue, max_messages):
            size += len(entry.frame)
            if frames and size > max_bytes:
                break
            frames.append(entry.frame)
        return frames

    def remove(self, number: int) -> None:
        """The first ``number`` of them have gone."""
        size = pushes = push_bytes = 0  # counted together: there are many at a time
        for _ in range(number):
            entry = self._queue.popleft()
            length = len(entry.frame)
            size += length
            if entry.push:
                pushes += 1
                push_bytes += length
            if self._newest.get(entry.key) is entry:
                del self._newest[entry.key]
        self._pushes -= pushes
        self._push_bytes -= push_bytes
        self._count_bytes(-size)

    def taken(self, size: int) -> None:
        """So many bytes have left the queue and are being sent; 0: all of them are."""
        change, self._taken = size - self._taken, size
        if self._account is not None and change:
            self._account.add(change)

    def clear(self) -> None:
        self.remove(len(self._queue))

    def _count(self, entry: QueuedFrame, sign: int) -> None:
        size = sign * len(entry.frame)
        if entry.push:
            self._pushes += sign
            self._push_bytes += size
        self._count_bytes(size)

    def _count_bytes(self, size: int) -> None:
        self._bytes += size
        if self._account is not None:
            self._account.add(size)
