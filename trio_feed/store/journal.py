"""The journal of private events: what was reported, for whom, and in which order.

An event is on the disk before it is published or the reporter is answered, so nothing that
was acknowledged or delivered is ever forgotten.  Requests that arrive while a batch is being
written wait for the next one together (group commit): one thread hop and one sync for all.

A *backend* (SQLite, PostgreSQL, or memory) keeps the rows and is blocking; :class:`Journal` is the
queue before it; ``journal_plan`` decides, without any I/O, what becomes of an event.  A *shared*
backend is written by other processes as well; its listener says whose events they wrote.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Never, Protocol, TypeVar

import structlog
import trio
from attrs import define, field

from ..errors import JournalError
from ..metrics import Metrics
from ..model import PrivateMessage, Settlement
from ..settings import SettlementSettings
from .journal_plan import AppendResult, Settled
from .pending import Complaint

log = structlog.get_logger()
T = TypeVar("T")

_BATCH_EVENTS = 2000
_PUBLISH_AT_ONCE = 50
"""Messages handed out before others have their turn."""
_PRUNE_EVERY_S = 60.0
_PRUNE_ROWS = 250
_PRUNE_PAUSE_S = 0.05

Publish = Callable[[Sequence[PrivateMessage]], None]


class OtherWriters(Protocol):
    """What the other processes that write a shared journal have written; see :class:`Journal`,
    which is one."""

    async def news(self) -> Collection[int] | None: ...

    def look_again(self, user_id: int) -> None: ...

    async def heads(self, users: Collection[int]) -> Mapping[int, int]: ...


class EventJournal(Protocol):
    """What the push side uses of a :class:`Journal`, which is one.  ``others``: who else writes
    it; None: nobody."""

    epoch: int
    shared_epoch: int | None

    @property
    def others(self) -> OtherWriters | None: ...

    async def append(self, events: Sequence[Settlement]) -> Sequence[AppendResult]: ...

    def meet(self, user_id: int) -> None: ...

    async def head(self, user_id: int) -> int: ...

    async def read(
        self, user_id: int, after: int, until: int, limit: int = 500
    ) -> list[PrivateMessage]: ...


class JournalBackend(Protocol):
    """Rows of a journal.  Every call blocks and may raise JournalError.  ``meet``, ``settle``
    and ``prune`` are made by one thread at a time, ``head`` and ``read`` by another."""

    epoch: int
    """Of all offsets here; another file has another."""
    shared_epoch: int | None
    """What clients of an older version, which told one epoch to all users, know in its place."""

    def meet(self, users: Collection[int]) -> None:
        """There are such users, also if nothing ever came for them."""

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


class Listener(Protocol):
    """Says whose events other processes wrote; it may say too much, and nothing for a second."""

    async def run(self) -> Never:
        """Listen until cancelled."""

    def look_again(self, user_id: int) -> None:
        """Say this user, too."""

    async def news(self) -> Collection[int] | None:
        """Wait for what is new.  Returns whose events; None: look at everybody's."""


class SharedJournalBackend(JournalBackend, Protocol):
    """One that other processes write, too."""

    listener: Listener

    def heads(self, users: Collection[int]) -> Mapping[int, int]:
        """The offsets of their last events; who has none may be missing."""


@define
class _Append:
    events: Sequence[Settlement]
    done: trio.Event = field(factory=trio.Event)
    outcomes: list[AppendResult] | None = None
    """None after ``done``: it failed."""
    problem: JournalError | None = None


class Journal:
    """The one writer's queue, and readers beside it.  Made by ``store.open_journal``, which
    closes the backend.  ``in_threads`` False: the backend never blocks.  ``shared``: the same
    backend, where other processes write it, too."""

    def __init__(
        self,
        backend: JournalBackend,
        settings: SettlementSettings,
        *,
        in_threads: bool,
        now_ms: Callable[[], float],
        metrics: Metrics,
        shared: SharedJournalBackend | None = None,
    ) -> None:
        self.epoch, self.shared_epoch = backend.epoch, backend.shared_epoch
        self._backend, self._settings = backend, settings
        self._now_ms, self._metrics = now_ms, metrics
        self._shared, self._complaint = shared, Complaint()
        self._write_turn = trio.CapacityLimiter(1) if in_threads else None
        self._read_turn = trio.CapacityLimiter(1) if in_threads else None
        self._appends: deque[_Append] = deque()
        self._met: set[int] = set()
        self._work = trio.Event()
        self._complaint = Complaint()

    async def append(self, events: Sequence[Settlement]) -> list[AppendResult]:
        """Keep events; returns when they are on the disk and published.  Raises JournalError,
        and then none of them was kept."""
        append = _Append(events)
        self._appends.append(append)
        self._work.set()
        await append.done.wait()
        if append.outcomes is None:
            raise JournalError(str(append.problem))
        return append.outcomes

    def meet(self, user_id: int) -> None:
        """There is such a user, whom broadcasts from now on are for.  Written down soon; if that
        fails, with what is written next."""
        self._met.add(user_id)
        self._work.set()

    @property
    def shared(self) -> bool:
        """Whether other processes write it, too."""
        return self._shared is not None

    @property
    def others(self) -> OtherWriters | None:
        """See :class:`EventJournal`."""
        return self if self.shared else None

    async def news(self) -> Collection[int] | None:
        """Of a shared journal: wait, for a second at most, until others may have written; whose
        events, None: anybody's."""
        assert self._shared is not None, "nobody else writes it"
        return await self._shared.listener.news()

    def look_again(self, user_id: int) -> None:
        """Of a shared journal: let :meth:`news` name this user."""
        assert self._shared is not None, "nobody else writes it"
        self._shared.listener.look_again(user_id)

    async def heads(self, users: Collection[int]) -> Mapping[int, int]:
        """Of a shared journal: the offsets of their last events, in one question.  Raises
        JournalError."""
        shared = self._shared
        assert shared is not None, "nobody else writes it"
        return await self._hop(self._read_turn, lambda: shared.heads(users))

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
            if self._shared is not None:
                nursery.start_soon(self._shared.listener.run, name="journal listener")
            while True:
                await self._work.wait()
                self._work = trio.Event()
                await self._note_users()
                while self._appends:
                    await self._write(self._next_batch(), publish)
        raise AssertionError("unreachable")

    async def _note_users(self) -> None:
        met, self._met = self._met, set()
        try:
            if met:
                await self._hop(self._write_turn, lambda: self._backend.meet(met))
        except JournalError:  # whose reason the next event tells
            self._met |= met

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
            with self._metrics.journal_commit.timed():
                settled = await self._hop(self._write_turn, lambda: self._backend.settle(events))
        except JournalError as error:
            self._metrics.journal_errors.inc()
            if self._complaint.is_news(str(error), trio.current_time()):  # publishers try again
                log.error(
                    "journal.write_failed",
                    problem=str(error),
                    events=len(events),
                    advice=error.advice,
                )
            for append in batch:
                append.problem = error
                append.done.set()
            return
        self._complaint.over()
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
