"""The journal of private events: what was reported, for whom, and in which order.

An event is on the disk before it is published or the reporter is answered, so nothing that
was acknowledged or delivered is ever forgotten.  Requests that arrive while a batch is being
written wait for the next one together (group commit): one thread hop and one sync for all.

A *backend* (SQLite, or memory) keeps the rows and is blocking; :class:`Journal` is the queue before
it; :class:`BatchPlan` decides, without any I/O, what becomes of an event.
"""

from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Never, Protocol, TypeVar

import msgspec
import structlog
import trio
from attrs import define, field, frozen

from ..errors import JournalError
from ..metrics import Metrics
from ..model import PrivateMessage, Settlement
from ..settings import SettlementSettings

log = structlog.get_logger()
T = TypeVar("T")

_BATCH_EVENTS = 2000
_PUBLISH_AT_ONCE = 50
"""Messages handed out before others have their turn."""
_PRUNE_EVERY_S = 60.0
_PRUNE_ROWS = 250
_PRUNE_PAUSE_S = 0.05

EventKey = tuple[str, str]
"""Publisher and event id."""
Stored = Sequence[tuple[int, str]]
"""What became of an event: (user, body) of its deliveries."""
ANY_PUBLISHER = ""
"""Of events from before publishers had ids of their own; no publisher has this name."""

Publish = Callable[[Sequence[PrivateMessage]], None]


class AppendStatus(StrEnum):
    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"


@frozen
class AppendResult:
    """``reason`` says why an event was rejected."""

    status: AppendStatus
    reason: str = ""


@frozen
class Settled:
    """What a batch came to: an outcome per event, and the messages in order."""

    outcomes: list[AppendResult]
    messages: list[PrivateMessage]


class JournalBackend(Protocol):
    """Rows of a journal.  Every call blocks and may raise JournalError.  ``settle`` and ``prune``
    are made by one thread at a time, ``head`` and ``read`` by another."""

    epoch: int
    """Of all offsets here; another file has another."""
    shared_epoch: int | None
    """What clients of an older version, which told one epoch to all users, know in its place."""

    def settle(self, events: Sequence[Settlement]) -> Settled:
        """Keep what is new, all or nothing, durably."""

    def head(self, user_id: int) -> int:
        """The offset of the user's last event, 0 where there is none."""

    def read(self, user_id: int, after: int, until: int, limit: int) -> list[PrivateMessage]:
        """Events with after < offset <= until, ascending, the first ``limit``; what has been
        pruned is missing."""

    def prune(self, before_ms: float, orders_before_ms: float, limit: int) -> int:
        """Forget at most ``limit`` of the oldest events, and of the orders; returns how many."""

    def close(self) -> None: ...


class BatchPlan:
    """The decisions about one batch, given what the backend knows already.

    ``known`` tells what became of an event, None where it is not there; ``owner`` whose an order
    is, ``head`` a user's last offset.  What is to be written is collected in the public fields.
    """

    def __init__(
        self,
        known: Callable[[EventKey], Stored | None],
        owner: Callable[[int], int | None],
        head: Callable[[int], int],
    ) -> None:
        self._known, self._owner, self._head = known, owner, head
        self.outcomes: list[AppendResult] = []
        self.events: dict[EventKey, tuple[float, list[PrivateMessage]]] = {}
        self.owners: dict[int, tuple[int, float]] = {}
        self.heads: dict[int, int] = {}

    def add(self, event: Settlement) -> None:
        self.outcomes.append(self._decide(event))

    def settled(self) -> Settled:
        messages = [message for _, rows in self.events.values() for message in rows]
        return Settled(self.outcomes, messages)

    def _decide(self, event: Settlement) -> AppendResult:
        stored = self._stored(event)
        if stored is not None:
            if _is_same(event, stored):
                return AppendResult(AppendStatus.DUPLICATE)
            reason = "event_id: used before with other content; a new event needs a new id"
            return AppendResult(AppendStatus.REJECTED, reason)
        users: list[int] = []
        owners: dict[int, int] = {}
        for delivery in event.deliveries:
            user, order = delivery.user_id, delivery.order_id
            if order is not None:
                owner = owners.get(order) or self._owner_of(order)
                user = owner if user is None else user
                if user is None:
                    reason = f"user_id: missing, and nothing is known of order {order}"
                    return AppendResult(AppendStatus.REJECTED, reason)
                if owner not in (None, user):
                    reason = f"user_id: order {order} belongs to another user"
                    return AppendResult(AppendStatus.REJECTED, reason)
                owners[order] = user
            if user is None:
                return AppendResult(AppendStatus.REJECTED, "user_id: missing")
            users.append(user)
        for order, owner in owners.items():
            self.owners[order] = (owner, event.received_ms)
        self.events[event.publisher, event.event_id] = (
            event.received_ms,
            self._number(event, users),
        )
        return AppendResult(AppendStatus.ACCEPTED)

    def _stored(self, event: Settlement) -> Stored | None:
        key = event.publisher, event.event_id
        if key in self.events:
            return [(message.user_id, message.body) for message in self.events[key][1]]
        return self._known(key)

    def _number(self, event: Settlement, users: list[int]) -> list[PrivateMessage]:
        rows = []
        for user, delivery in zip(users, event.deliveries, strict=True):
            last = self.heads.get(user)
            offset = (self._head(user) if last is None else last) + 1
            self.heads[user] = offset
            rows.append(PrivateMessage(user, offset, delivery.body, event.received_ms))
        return rows

    def _owner_of(self, order: int) -> int | None:
        found = self.owners.get(order)
        return self._owner(order) if found is None else found[0]


_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number", order="sorted").encode


def _is_same(event: Settlement, stored: Stored) -> bool:
    """Whether the event says what is kept under its id.  An order's owner need not be named each
    time, and the order of JSON fields means nothing."""
    own = sorted((_canonical(row.body), row.user_id) for row in event.deliveries)
    kept = sorted((_canonical(body), user) for user, body in stored)
    return [body for body, _ in own] == [body for body, _ in kept] and all(
        user in (None, before) for (_, user), (_, before) in zip(own, kept, strict=True)
    )


def _canonical(body: str) -> bytes:
    return _encode(_decode(f"{{{body}}}"))


@define
class _Append:
    events: Sequence[Settlement]
    done: trio.Event = field(factory=trio.Event)
    outcomes: list[AppendResult] | None = None
    """None after ``done``: it failed."""
    problem: str = ""


class Journal:
    """The one writer's queue, and readers beside it.  Made by ``store.open_journal``, which
    closes the backend.  ``in_threads`` False: the backend never blocks."""

    def __init__(
        self,
        backend: JournalBackend,
        settings: SettlementSettings,
        *,
        in_threads: bool,
        now_ms: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self.epoch, self.shared_epoch = backend.epoch, backend.shared_epoch
        self._backend, self._settings = backend, settings
        self._now_ms, self._metrics = now_ms, metrics
        self._write_turn = trio.CapacityLimiter(1) if in_threads else None
        self._read_turn = trio.CapacityLimiter(1) if in_threads else None
        self._appends: deque[_Append] = deque()
        self._work = trio.Event()

    async def append(self, events: Sequence[Settlement]) -> list[AppendResult]:
        """Keep events; returns when they are on the disk and published.  Raises JournalError,
        and then none of them was kept."""
        append = _Append(events)
        self._appends.append(append)
        self._work.set()
        await append.done.wait()
        if append.outcomes is None:
            raise JournalError(append.problem)
        return append.outcomes

    async def head(self, user_id: int) -> int:
        """The offset of a user's last event.  Raises JournalError."""
        return await self._hop(self._read_turn, lambda: self._backend.head(user_id))

    async def read(
        self, user_id: int, after: int, until: int, limit: int = 500
    ) -> list[PrivateMessage]:
        """Events with after < offset <= until, ascending, without a hole from ``after`` on: empty
        where those are not there any more.  Raises JournalError."""
        rows = await self._hop(
            self._read_turn, lambda: self._backend.read(user_id, after, until, limit)
        )
        whole = all(row.offset == after + n for n, row in enumerate(rows, 1))
        return rows if whole else []

    async def run(self, publish: Publish) -> Never:
        """Write until cancelled; ``publish`` gets what is new after it is durable, in order."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._prune, name="journal pruning")
            while True:
                await self._work.wait()
                self._work = trio.Event()
                while self._appends:
                    await self._write(self._next_batch(), publish)
        raise AssertionError("unreachable")

    def _next_batch(self) -> list[_Append]:
        batch = [self._appends.popleft()]
        size = len(batch[0].events)
        while self._appends and size + len(self._appends[0].events) <= _BATCH_EVENTS:
            batch.append(self._appends.popleft())
            size += len(batch[-1].events)
        return batch

    async def _write(self, batch: list[_Append], publish: Publish) -> None:
        events = [event for append in batch for event in append.events]
        try:
            with self._metrics.journal_commit.time():
                settled = await self._hop(self._write_turn, lambda: self._backend.settle(events))
        except JournalError as error:
            self._metrics.journal_errors.inc()
            log.error(
                "journal.write_failed",
                problem=str(error),
                events=len(events),
                advice="check disk space and the file's permissions",
            )
            for append in batch:
                append.problem = str(error)
                append.done.set()
            return
        for first in range(0, len(settled.messages), _PUBLISH_AT_ONCE):
            publish(settled.messages[first : first + _PUBLISH_AT_ONCE])
            await trio.lowlevel.checkpoint()
        outcomes = iter(settled.outcomes)
        for append in batch:
            append.outcomes = [next(outcomes) for _ in append.events]
            append.done.set()

    async def _prune(self) -> Never:
        while True:
            try:
                await self._prune_all()
            except JournalError as error:
                self._metrics.journal_errors.inc()
                log.error("journal.prune_failed", problem=str(error))
            await trio.sleep(_PRUNE_EVERY_S)

    async def _prune_all(self) -> None:
        """Forget what is too old, in small batches, so that writers hardly wait."""
        now = self._now_ms()
        before = now - self._settings.retention_s * 1000
        orders_before = now - self._settings.order_retention_s * 1000

        def prune() -> int:
            return self._backend.prune(before, orders_before, _PRUNE_ROWS)

        while True:
            if not await self._hop(self._write_turn, prune):
                return
            await trio.sleep(_PRUNE_PAUSE_S)

    async def _hop(self, turn: trio.CapacityLimiter | None, call: Callable[[], T]) -> T:
        if turn is None:
            await trio.lowlevel.checkpoint()
            return call()
        return await trio.to_thread.run_sync(call, limiter=turn)
