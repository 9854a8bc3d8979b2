"""The memory twin of a database that several processes share: for nodes in virtual time.

Each opening is a backend as one of a real database is, behind the same store; so what is pending,
fenced or tried again is the real thing.  Nothing is kept beyond the object.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from secrets import token_hex

import trio
from attrs import define, evolve, field

from ..errors import ServerAway, StartError
from ..model import Interval, Kline, KlineMessage, Series
from .backend import StoreFault
from .base import (
    CursorEntry,
    End,
    Entry,
    HoleEntry,
    Keep,
    LostEntry,
    Revision,
    Sizes,
    boundaries,
)
from .claims import Claims
from .memory_rows import Rows

_PLACE = ":memory:"


@define(eq=False)
class MemoryDatabase:
    """What is in it, and what is wrong with it now.

    ``away``: every question and write fails; ``refuses``: every write, with that problem.
    ``lag_s``: a write waits so long before it begins, so a claim may come first; ``commit_s``: and
    so long in its middle, where a claim waits for it.  ``unanswered``: so many of the next writes
    land, and are said to have failed."""

    identity: str = field(factory=lambda: token_hex(8))
    away: bool = False
    refuses: str = ""
    lag_s: float = 0.0
    commit_s: float = 0.0
    unanswered: int = 0
    rows: dict[Series, Rows] = field(factory=dict)
    cursors: dict[str, str] = field(factory=dict)
    epochs: dict[int, bool] = field(factory=dict)
    """Of each whether it was written to its end."""
    shards: dict[str, int] = field(factory=dict)
    """The epoch of each one's last claim."""
    writers: list["MemoryBackend"] = field(factory=list)
    _kind: str = ""
    _locked: list[str] = field(factory=list)
    """Shards of which a write is under way, so that no claim passes it."""
    _unlocked: trio.Event = field(factory=trio.Event)

    def open_sole(self, *, simulated: bool, now_ms: float) -> "MemoryBackend":
        """For the only process that writes.  Raises StartError; ServerAway while another does."""
        self._be(simulated)
        if self.writers:
            raise _busy()
        return self._opened(self.begin_epoch(now_ms), Claims(_nothing), sole=True)

    def open_shared(self, claims: Claims, *, simulated: bool) -> "MemoryBackend":
        """For one of several that write.  Raises StartError; ServerAway while one does alone."""
        self._be(simulated)
        if any(other.sole for other in self.writers):
            raise _busy()
        return self._opened(0, claims, sole=False)

    def open_reader(self, *, simulated: bool) -> "MemoryBackend":
        """Raises StartError."""
        self._be(simulated)
        return MemoryBackend(self, 0, Claims(_nothing), sole=False)

    def _be(self, simulated: bool) -> None:
        if self.away:
            raise ServerAway(f"store.url: {_PLACE}: nothing listens there")
        kind = "simulated" if simulated else "real"
        if self._kind not in ("", kind):
            raise StartError(
                f"{_PLACE}: it holds {self._kind} candles and this run has {kind} ones"
            )
        self._kind = kind

    def _opened(self, epoch: int, claims: Claims, *, sole: bool) -> "MemoryBackend":
        backend = MemoryBackend(self, epoch, claims, sole=sole)
        self.writers.append(backend)
        return backend

    @contextmanager
    def locked(self, shards: Sequence[str]) -> Iterator[None]:
        """No claim of them passes meanwhile."""
        self._locked += shards
        try:
            yield
        finally:
            for shard in shards:
                self._locked.remove(shard)
            self._unlocked.set()
            self._unlocked = trio.Event()

    async def until_free(self, shard: str) -> None:
        while shard in self._locked:
            await self._unlocked.wait()

    def begin_epoch(self, now_ms: float) -> int:
        epoch = max(max(self.epochs, default=0) + 1, int(now_ms))
        self.epochs[epoch] = False
        return epoch

    def keep(self, entry: Entry) -> None:
        if isinstance(entry, CursorEntry):
            self.cursors[entry.name] = entry.text
            return
        rows = self.rows.setdefault(entry.series, Rows())
        if isinstance(entry, KlineMessage):
            rows.put(entry)
        elif isinstance(entry, HoleEntry):
            rows.end.add_hole(entry.hole)
        elif isinstance(entry, LostEntry):
            rows.forget((entry.epoch, entry.offset))


def _busy() -> ServerAway:
    return ServerAway(
        f"{_PLACE}: it is being written by another trio_feed; end it, or give each its own database"
    )


def _nothing(venue: str, symbol: str) -> str:
    return ""


class MemoryBackend:
    """See :class:`.shards.SharedBackend`; as sole writer :class:`.backend.Backend`.  Made by
    :meth:`MemoryDatabase.open`."""

    place = _PLACE

    def __init__(self, database: MemoryDatabase, epoch: int, claims: Claims, *, sole: bool) -> None:
        self.epoch, self.claims, self.sole = epoch, claims, sole
        self.identity = database.identity
        self.is_cut = False
        """Whether the way of this one to the database is."""
        self._database = database
        self._killed = False

    def kill(self) -> None:
        """As kill -9 of its process does: from here on nothing lands, and its locks are free."""
        self._killed = True
        if self in self._database.writers:
            self._database.writers.remove(self)

    async def write(self, batch: Sequence[Entry]) -> None:
        database = self._database
        await trio.sleep(database.lag_s)
        self._reach(writes=True)
        if not self.sole:
            batch = self.claims.still_ours(batch, database.shards)
        with database.locked([] if self.sole else self.claims.shards(batch)):
            await trio.sleep(database.commit_s)
            self._reach()
            for entry in batch:
                database.keep(entry)
        if database.unanswered:
            database.unanswered -= 1
            raise StoreFault("it landed, and nobody said so", "it is tried again")

    async def claim(self, shard: str, now_ms: float) -> int:
        await self._ask()
        if self not in self._database.writers:
            raise StoreFault("it was opened for reading", "report it")
        await self._database.until_free(shard)
        self._reach(writes=True)
        epoch = self._database.shards[shard] = self._database.begin_epoch(now_ms)
        return epoch

    async def read_identity(self) -> str:
        await self._ask()
        return self._database.identity

    async def release(self, shard: str, epoch: int) -> bool:
        await self._ask()
        if ours := self._database.shards.get(shard) == epoch:
            self._database.epochs[epoch] = True
        return ours

    async def history(
        self, series: Series, *, limit: int, start_ms: int | None, end_ms: int | None
    ) -> list[Kline]:
        return (await self._rows(series)).history(limit, start_ms, end_ms)

    async def ends(self, venue: str | None, symbols: Collection[str] | None) -> dict[Series, End]:
        await self._ask()
        return {
            series: evolve(rows.end)
            for series, rows in self._database.rows.items()
            if venue in (None, series.venue) and (symbols is None or series.symbol in symbols)
        }

    async def first_open(self, series: Series) -> int | None:
        return (await self._rows(series)).end.first_open_ms

    async def cursor(self, name: str) -> str | None:
        await self._ask()
        return self._database.cursors.get(name)

    async def after(
        self,
        series: Series,
        epoch: int,
        offset: int,
        *,
        closed_ms: int | None,
        limit: int,
        exact: bool,
    ) -> list[KlineMessage] | None:
        rows = await self._rows(series)
        ended = self._database.epochs.get(epoch, False)
        return rows.after((epoch, offset), limit, exact=exact, ended=ended, closed_ms=closed_ms)

    async def revisions(
        self, series: Series, *, start_ms: int, end_ms: int | None, limit: int
    ) -> list[Revision]:
        return (await self._rows(series)).revised(start_ms, end_ms, limit)

    async def prune(self, keep: Keep, wall_ms: float, limit: int) -> int:
        """All at once, whatever the limit."""
        await self._ask()
        database = self._database
        newest = [rows.opens[-1] for rows in database.rows.values() if rows.opens]
        before = boundaries(keep, max(newest), wall_ms) if newest else {}
        return sum(
            rows.prune(before[series.interval])
            for series, rows in database.rows.items()
            if series.interval in before
            and rows.opens
            and (self.sole or self.claims.writes(series.venue, series.symbol, database.shards))
        )

    async def shrink(self) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    async def sizes(self) -> Sizes:
        await self._ask()
        counts: dict[Interval, int] = {}
        for series, rows in self._database.rows.items():
            if rows.opens:
                counts[series.interval] = counts.get(series.interval, 0) + len(rows.opens)
        return Sizes(counts)

    async def close(self, *, complete: bool) -> None:
        await trio.lowlevel.checkpoint()
        if self.sole and complete and not self._killed:
            self._database.epochs[self.epoch] = True
        self.kill()

    async def _rows(self, series: Series) -> Rows:
        await self._ask()
        return self._database.rows.get(series) or Rows()

    async def _ask(self) -> None:
        await trio.lowlevel.checkpoint()
        self._reach()

    def _reach(self, *, writes: bool = False) -> None:
        """Raises StoreFault."""
        if self._killed or self.is_cut or self._database.away:
            raise StoreFault("nothing listens there", "it is tried again")
        if writes and self._database.refuses:
            raise StoreFault(self._database.refuses, "make room, or let it be written")
