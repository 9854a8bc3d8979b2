"""The engine in memory, for virtual time: one :class:`EngineServer`, and a :class:`MemoryEngine`
for each node of the process.

What a real server does to its clients is done on purpose here: a request or an answer is lost or
late (:class:`Fault`, asked for at each call), writes are lost at a failover, everything is.
"""

import heapq
import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Literal, TypeVar

import trio
from attrs import define, field, frozen

from .base import EMPTY, Append, EngineFault, Entry, EntryId

_T = TypeVar("_T")
_Key = tuple[Literal["lease", "node", "value", "cluster"], str]
_UNDONE_AT_MOST = 10_000
_OVERHEAD = 64
"""Bytes that an entry takes beside its body, about as in Redis."""
UNREACHABLE = "engine: the connection was lost"
SILENT = "engine: no answer in {:g} s"


@frozen
class Fault:
    """What becomes of one call.  A request that is under way for longer than the client waits takes
    effect all the same, when it arrives."""

    request_s: float = 0.0
    arrives: bool = True
    answer_s: float = 0.0
    answered: bool = True


NO_FAULT = Fault()
LOST_REQUEST = Fault(arrives=False)
"""The connection is lost before what was asked took effect."""
LOST_ANSWER = Fault(answered=False)
"""It is lost after that."""


def late_answer(seconds: float) -> Fault:
    return Fault(answer_s=seconds)


def late_request(seconds: float) -> Fault:
    return Fault(request_s=seconds)


@define
class _Log:
    entries: list[Entry] = field(factory=list)
    last: EntryId = EMPTY
    top: EntryId = EMPTY
    """The largest id that it has ever had: what is not beyond it is not taken."""


@frozen
class _Kept:
    body: bytes
    until: float = math.inf


@define(eq=False)
class EngineServer:
    """What all nodes share."""

    lacks: list[str] = field(factory=list)
    """What :meth:`MemoryEngine.problems` says."""
    _logs: dict[str, _Log] = field(factory=dict)
    _keys: dict[_Key, _Kept] = field(factory=dict)
    _undo: deque[Callable[[], object]] = field(factory=lambda: deque(maxlen=_UNDONE_AT_MOST))
    """How each write is taken back, the latest last."""
    _late: list[tuple[float, int, Callable[[float], object]]] = field(factory=list)
    _order: "count[int]" = field(factory=count)
    _refusal: str = ""
    _changed: trio.Event = field(factory=trio.Event)

    def stop(self, refusal: str = UNREACHABLE) -> None:
        """Every call fails, those that wait for entries too, until :meth:`start`."""
        self._refusal = refusal
        self._wake()

    def start(self) -> None:
        self._refusal = ""

    def fail_over(self, lost: int) -> None:
        """To a replica that lacks the last ``lost`` writes, of all keys together.  What was still
        under way to the old primary is lost too."""
        self._late.clear()
        for _ in range(min(lost, len(self._undo))):
            self._undo.pop()()
        self._wake()

    def empty(self) -> None:
        """It forgets everything."""
        self._late.clear()
        self._undo.clear()
        self._logs.clear()
        self._keys.clear()
        self._wake()

    def cut(self, shard: str, keep: int) -> None:
        """Drop all but the last ``keep`` (1 at least), also what a reader still needs."""
        self._drop_first(shard, len(self._logs[shard].entries) - max(keep, 1))

    def delete_last(self, shard: str, number: int) -> None:
        """The last entries are deleted, as somebody does by hand (XDEL)."""
        log = self._logs[shard]
        del log.entries[len(log.entries) - number :]
        log.last = log.entries[-1].entry_id if log.entries else EMPTY
        self._undo.clear()

    def forget(self, shard: str) -> None:
        """Its log is deleted."""
        self._logs.pop(shard, None)
        self._undo.clear()

    # What clients ask.  Each is done in one step, at ``now`` of trio's clock.

    def do(self, act: Callable[[float], _T]) -> _T:
        """Raises EngineFault while it is stopped."""
        now = trio.current_time()
        self._do_late(now)
        if self._refusal:
            raise EngineFault(self._refusal)
        return act(now)

    def do_later(self, at: float, act: Callable[[float], object]) -> None:
        """A request that arrives ``at`` a time at which nobody waits for its answer any more."""
        heapq.heappush(self._late, (at, next(self._order), act))
        self._wake()

    async def changed(self, until: float) -> None:
        """Wait until something may be new, but not beyond a time."""
        event, first = self._changed, self._late[0][0] if self._late else math.inf
        with trio.move_on_at(min(first, until)):
            await event.wait()

    def _do_late(self, now: float) -> None:
        while self._late and self._late[0][0] <= now:
            at, _, act = heapq.heappop(self._late)
            if not self._refusal:
                act(at)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def append(self, append: Append) -> EntryId | None:
        log = self._logs.setdefault(append.shard, _Log())
        if log.last == append.previous:
            if append.entry_id <= log.top:
                return None
            entry, before = Entry(append.entry_id, append.body, append.checkpoint), log.last
            log.entries.append(entry)
            log.last = log.top = entry.entry_id

            def undo() -> None:
                log.entries.pop()
                log.last = log.top = before

            self._undo.append(undo)
            self._wake()
        return log.last

    def entries(self, shard: str, after: EntryId = EMPTY, limit: int | None = None) -> list[Entry]:
        entries = self._logs[shard].entries if shard in self._logs else []
        first = bisect_right(entries, after, key=lambda entry: entry.entry_id)
        return entries[first : None if limit is None else first + limit]

    def tail(self, shard: str) -> EntryId:
        return self._logs[shard].last if shard in self._logs else EMPTY

    def trim(self, shard: str, before: EntryId) -> None:
        if shard in self._logs:
            entries = self._logs[shard].entries[:-1]  # the last one stays: the tail is known by it
            self._drop_first(shard, bisect_left(entries, before, key=lambda e: e.entry_id))

    def _drop_first(self, shard: str, number: int) -> None:
        log = self._logs[shard]
        gone = log.entries[: max(number, 0)]
        if gone:
            del log.entries[: len(gone)]
            self._undo.append(lambda: log.entries.__setitem__(slice(0, 0), gone))

    def get(self, key: _Key, now: float) -> bytes | None:
        kept = self._keys.get(key)
        return kept.body if kept is not None and now < kept.until else None

    def put(self, key: _Key, body: bytes | None, until: float = math.inf) -> None:
        """None: delete it."""
        before = self._keys.get(key)
        self._place(key, None if body is None else _Kept(body, until))
        self._undo.append(lambda: self._place(key, before))

    def _place(self, key: _Key, kept: _Kept | None) -> None:
        if kept is None:
            self._keys.pop(key, None)
        else:
            self._keys[key] = kept

    def nodes(self, now: float) -> dict[str, bytes]:
        names = sorted(name for kind, name in self._keys if kind == "node")
        found = {name: self.get(("node", name), now) for name in names}
        return {name: body for name, body in found.items() if body is not None}


@define(eq=False)
class MemoryEngine:
    """A node's way to the server: an :class:`~trio_feed.bus.engine.base.Engine`."""

    _server: EngineServer
    timeout_s: float = 1.0
    faults: Callable[[str], Fault] = lambda call: NO_FAULT
    """By the name of a method what becomes of this call of it."""

    async def append(self, appends: Sequence[Append]) -> list[EntryId | None]:
        server = self._server
        return await self._ask("append", lambda now: [server.append(each) for each in appends])

    async def read(
        self, after: Mapping[str, EntryId], *, wait_s: float, limit: int
    ) -> dict[str, list[Entry]]:
        server = self._server

        def news(now: float) -> dict[str, list[Entry]]:
            found = {shard: server.entries(shard, place, limit) for shard, place in after.items()}
            return {shard: entries for shard, entries in found.items() if entries}

        end = trio.current_time() + wait_s
        found = await self._ask("read", news)
        while not found and trio.current_time() < end:
            await server.changed(end)
            found = server.do(news)
        return found

    async def since_checkpoint(self, shard: str) -> list[Entry]:
        def since(now: float) -> list[Entry]:
            entries = self._server.entries(shard)
            places = [place for place, entry in enumerate(entries) if entry.checkpoint]
            return entries[places[-1] :] if places else []

        return await self._ask("since_checkpoint", since)

    async def tail(self, shard: str) -> EntryId:
        return await self._ask("tail", lambda now: self._server.tail(shard))

    async def take_lease(self, shard: str, holder: str, ttl_s: float) -> bool:
        def take(now: float) -> bool:
            free = self._server.get(("lease", shard), now) is None
            if free:
                self._server.put(("lease", shard), holder.encode(), now + ttl_s)
            return free

        return await self._ask("take_lease", take)

    async def renew_leases(self, holders: Mapping[str, str], ttl_s: float) -> dict[str, bool]:
        def renew(now: float) -> dict[str, bool]:
            kept = {shard: self._is_held(shard, holder, now) for shard, holder in holders.items()}
            for shard in [shard for shard, held in kept.items() if held]:
                self._server.put(("lease", shard), holders[shard].encode(), now + ttl_s)
            return kept

        return await self._ask("renew_leases", renew)

    async def drop_lease(self, shard: str, holder: str) -> None:
        def drop(now: float) -> None:
            if self._is_held(shard, holder, now):
                self._server.put(("lease", shard), None)

        await self._ask("drop_lease", drop)

    async def holders(self, shards: Sequence[str]) -> dict[str, str]:
        server = self._server
        return await self._ask(
            "holders",
            lambda now: {s: (server.get(("lease", s), now) or b"").decode() for s in shards},
        )

    async def trim(self, shard: str, before: EntryId) -> None:
        await self._ask("trim", lambda now: self._server.trim(shard, before))

    async def bytes_of(self, shards: Sequence[str]) -> dict[str, int]:
        def weigh(now: float) -> dict[str, int]:
            entries = {shard: self._server.entries(shard) for shard in shards}
            return {s: sum(len(e.body) + _OVERHEAD for e in of) for s, of in entries.items()}

        return await self._ask("bytes_of", weigh)

    async def put_node(self, name: str, body: bytes, ttl_s: float) -> None:
        await self._ask("put_node", lambda now: self._server.put(("node", name), body, now + ttl_s))

    async def nodes(self) -> dict[str, bytes]:
        return await self._ask("nodes", self._server.nodes)

    async def put_value(self, name: str, body: bytes) -> None:
        await self._ask("put_value", lambda now: self._server.put(("value", name), body))

    async def value(self, name: str) -> bytes | None:
        return await self._ask("value", lambda now: self._server.get(("value", name), now))

    async def join(self, cluster: bytes) -> bytes:
        def join(now: float) -> bytes:
            first = self._server.get(("cluster", ""), now)
            if first is None:
                self._server.put(("cluster", ""), cluster)
            return cluster if first is None else first

        return await self._ask("join", join)

    async def cluster(self) -> bytes | None:
        return await self._ask("cluster", lambda now: self._server.get(("cluster", ""), now))

    async def try_anew(self) -> None:
        await self._ask("try_anew", lambda now: None)

    async def problems(self) -> list[str]:
        return await self._ask("problems", lambda now: list(self._server.lacks))

    def _is_held(self, shard: str, holder: str, now: float) -> bool:
        return self._server.get(("lease", shard), now) == holder.encode()

    async def _ask(self, call: str, act: Callable[[float], _T]) -> _T:
        fault, began = self.faults(call), trio.current_time()
        if fault.request_s > self.timeout_s:
            if fault.arrives:
                self._server.do_later(began + fault.request_s, act)
            await trio.sleep(self.timeout_s)
            raise EngineFault(SILENT.format(self.timeout_s))
        await trio.sleep(fault.request_s)
        if not fault.arrives:
            raise EngineFault(UNREACHABLE)
        found = self._server.do(act)
        if fault.request_s + fault.answer_s > self.timeout_s:
            await trio.sleep_until(began + self.timeout_s)
            raise EngineFault(SILENT.format(self.timeout_s))
        if fault.answer_s:
            await trio.sleep(fault.answer_s)
        if not fault.answered:
            raise EngineFault(UNREACHABLE)
        return found
