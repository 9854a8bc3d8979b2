"""One reader of the engine for several who read its logs: this process, and its workers through it.

The engine's work grows with its readers, whoever they are.  So who has read everything waits with
the others for ONE read, and what it gave is kept for a while for those who come a moment later.

**What a reader sees is what one reader alone would have been given, only later.**  A window holds
what followed an id, read by read: each answer is all that the log had after a position, so what of
it is behind the window's end is what a reader at that end would have got.  Who stands at an id of
the window therefore goes on as if it had asked in time; that the log has forgotten it since (an
emptied engine, a failover) it learns as every reader does that was in time: by the numbers of the
entries that follow, and by the checkpoint of the next epoch.  Who stands anywhere else (just
started, too far behind, or behind another past than the window's) asks the engine itself.  And what
is kept is for news alone: where a log begins the engine says, and an engine that fails, or a log
that has less than it had, takes all of it away.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import trio
from attrs import define, field

from .base import EMPTY, EngineFault, Entry, EntryId, LogReader

WINDOWS_BYTES = 16 * 2**20
"""Of all shards together: some ten seconds of 10,000 messages a second."""
_OVERHEAD = 200
"""Bytes that an entry takes beside its body."""


@define(eq=False)
class Window:
    """What followed ``start`` in the log of a shard: at most ``max_bytes``, the newest.  Pure."""

    start: EntryId
    max_bytes: int
    _entries: list[Entry] = field(factory=list, repr=False)
    _ids: list[EntryId] = field(factory=list, repr=False)
    _bytes: int = 0

    @property
    def end(self) -> EntryId:
        return self._ids[-1] if self._ids else self.start

    @property
    def bytes(self) -> int:
        return self._bytes

    def covers(self, after: EntryId) -> bool:
        """Whether a reader at that entry has read what is here up to it."""
        at = bisect_right(self._ids, after)
        return after == (self._ids[at - 1] if at else self.start)

    def since(self, after: EntryId, limit: int) -> Sequence[Entry]:
        """What follows an entry that is covered."""
        first = bisect_right(self._ids, after)
        return self._entries[first : first + limit]

    def put(self, after: EntryId, entries: Sequence[Entry]) -> bool:
        """All that the log had after a position, or the first of it.  Returns whether anything is
        different here now."""
        is_new = after > self.end
        if is_new:  # nobody knows what is between
            self.start, self._bytes = after, 0
            self._entries.clear()
            self._ids.clear()
        first = bisect_right(entries, self.end, key=lambda entry: entry.entry_id)
        new = entries[first:]
        self._entries += new
        self._ids += [entry.entry_id for entry in new]
        self._bytes += sum(map(_size_of, new))
        gone = 0
        while self._bytes > self.max_bytes:
            self._bytes -= _size_of(self._entries[gone])
            gone += 1
        if gone:
            self.start = self._ids[gone - 1]
            del self._entries[:gone], self._ids[:gone]
        return is_new or bool(new)


@define(eq=False)
class _Round:
    """A read of the engine for all who wait.  ``until``: it gives an answer by then."""

    shards: frozenset[str]
    until: float
    over: trio.Event = field(factory=trio.Event)
    answered: bool = False
    fault: str = ""

    def serves(self, after: Mapping[str, EntryId], until: float) -> bool:
        return self.until <= until and self.shards.issuperset(after)


@define(eq=False)
class SharedLog:
    """The reading part of an ``engine`` for several readers; see :class:`.base.LogReader`."""

    _engine: LogReader
    windows_bytes: int
    """Of each shard."""
    windows: dict[str, Window] = field(factory=dict)
    _round: _Round | None = None
    _version: int = 0
    """Of what is in the windows."""
    _last: tuple[int, Mapping[str, EntryId], int, dict[str, Sequence[Entry]]] | None = None

    async def read(
        self, after: Mapping[str, EntryId], *, wait_s: float, limit: int
    ) -> Mapping[str, Sequence[Entry]]:
        """As the engine's; those who ask the same get the same object."""
        until = trio.current_time() + wait_s
        while True:
            found = self._since(after, limit)
            if found:
                await trio.lowlevel.checkpoint()
                return found
            round_ = self._round
            if found is None or (round_ is not None and not round_.serves(after, until)):
                return await self._ask(after, until, limit)
            if round_ is None:
                return await self._lead(after, until, limit)
            await round_.over.wait()
            if round_.fault:
                raise EngineFault(round_.fault)
            if round_.answered and (found := self._since(after, limit)) is not None:
                return found
            # Who asked for all is gone without an answer: one of those who waited asks now, until
            # the time that suited all of them.
            until = round_.until

    async def since_checkpoint(self, shard: str) -> Sequence[Entry]:
        """Raises EngineFault."""
        window = self.windows.get(shard)
        end = EMPTY if window is None else window.end
        try:
            found = await self._engine.since_checkpoint(shard)
        except EngineFault:
            self._drop()
            raise
        if (found[-1].entry_id if found else EMPTY) < end:
            # The log has less than it had.  A reader that found a hole in what is here would come
            # upon it again and again, where one that is alone waits for what follows.
            self.windows.pop(shard, None)
            self._version += 1
        elif found:
            epoch, sequence = found[0].entry_id
            self._put(shard, (epoch, sequence - 1), found)
        return found

    def _since(self, after: Mapping[str, EntryId], limit: int) -> dict[str, Sequence[Entry]] | None:
        """What is here after those entries; None: it is not known whether that is all."""
        if self._last is not None and self._last[:3] == (self._version, after, limit):
            return self._last[3]
        found = dict[str, Sequence[Entry]]()
        for shard, position in after.items():
            window = self.windows.get(shard)
            if window is None or position > window.end:  # others come up to it
                window = self.windows[shard] = Window(position, self.windows_bytes)
                self._version += 1
            elif not window.covers(position):
                return None
            if entries := window.since(position, limit):
                found[shard] = entries
        self._last = self._version, after, limit, found
        return found

    async def _lead(
        self, after: Mapping[str, EntryId], until: float, limit: int
    ) -> Mapping[str, Sequence[Entry]]:
        """Read for all who come meanwhile."""
        round_ = self._round = _Round(frozenset(after), until)
        try:
            found = await self._ask(after, until, limit)
            round_.answered = True
        except EngineFault as fault:
            round_.fault = str(fault)
            raise
        finally:
            self._round = None
            round_.over.set()
        return self._since(after, limit) or found

    async def _ask(
        self, after: Mapping[str, EntryId], until: float, limit: int
    ) -> Mapping[str, Sequence[Entry]]:
        wait_s = max(0.0, until - trio.current_time())
        try:
            found = await self._engine.read(after, wait_s=wait_s, limit=limit)
        except EngineFault:
            self._drop()
            raise
        for shard, entries in found.items():
            self._put(shard, after[shard], entries)
        return found

    def _put(self, shard: str, after: EntryId, entries: Sequence[Entry]) -> None:
        window = self.windows.get(shard)
        if window is None:
            window = self.windows[shard] = Window(after, self.windows_bytes)
        if window.put(after, entries):
            self._version += 1

    def _drop(self) -> None:
        """Nobody is given anything of an engine that fails."""
        self.windows.clear()
        self._version += 1


def shared_log(engine: LogReader, shards: int) -> SharedLog:
    return SharedLog(engine, WINDOWS_BYTES // max(1, shards))


def _size_of(entry: Entry) -> int:
    return len(entry.body) + _OVERHEAD
