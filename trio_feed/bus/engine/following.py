"""A node that serves: the logs of all shards, into the streams that its hub listens to.

::

    run
    ├─ attempts                  a fault of the engine begins the next
    │  └─ reader                 one read for all shards
    ├─ repairer                  asks the store for candles that are missing
    └─ watchman                  who is silent; who waits too long
"""

from collections.abc import Callable, Sequence
from typing import Never

import structlog
import trio
from attrs import define, field

from ...errors import StoreError
from ...model import KlineMessage, Series
from ...settings import KlineSettings
from ...store import CandleReader
from .. import wire
from ..base import Listener
from ..remote import RemoteBus
from ..remote_stream import RemoteStream
from .attempts import Attempts
from .base import EMPTY, Entry, LogReader
from .counts import FollowingCounts
from .reading import Read, Reading

log = structlog.get_logger()

_READ_WAIT_S = 1.0
_READ_ENTRIES = 500
_LOOK_S = 0.25
_REPAIR_EVERY_S = 0.1
_REPAIR_ROWS = 1500
_AWAY = "the engine cannot be read"
_SILENT = "the node that feeds it is silent"
_NOT_FED = "no node feeds it yet"
_UNREADABLE = "its log has an entry that no node wrote; it goes on with the next checkpoint"


@define(eq=False)
class Following:
    """Of ``shards``, which are all there are; a :class:`..base.Reader` of them together."""

    _attempts: Attempts[LogReader]
    _shards: Sequence[str]
    _store: CandleReader
    _make_bus: Callable[[], RemoteBus]
    _now_ms: Callable[[], float] | None = None
    """Unix ms; None: how late it reads is not measured."""
    counts: FollowingCounts = field(factory=FollowingCounts)
    readings: dict[str, Reading] = field(init=False)
    begun: trio.Event = field(factory=trio.Event)
    """How the streams of all shards stand was read."""

    def __attrs_post_init__(self) -> None:
        now = trio.current_time()
        self.readings = {shard: Reading(shard, self._make_bus(), now) for shard in self._shards}

    @property
    def problem(self) -> str:
        """Why the engine is not read now; empty: it is."""
        return self._attempts.problem

    def listen(self, listener: Listener) -> None:
        for reading in self.readings.values():
            reading.bus.listen(listener)

    def why_not(self) -> str:
        """Why this node's data is not fresh; empty: it is."""
        if self.problem:
            return f"engine: {self.problem}"
        now = trio.current_time()
        for shard, reading in self.readings.items():
            if not reading.is_begun:
                return f"shard {shard}: {_NOT_FED if reading.position == EMPTY else _UNREADABLE}"
            if reading.is_silent(now):
                return f"shard {shard}: {_SILENT}"
        return ""

    def handed_out(self, series: Series) -> tuple[int | None, tuple[int, int]]:
        """Open time of the last closed candle that was handed out, None: not known; the number of
        the last revision, (0, 0): there was none."""
        streams = (s for reading in self.readings.values() for s in reading.bus.streams)
        found = ((s.guard.closed_ms, s.revised) for s in streams if s.stream_key == series)
        return next(found, (None, (0, 0)))

    async def run(self) -> Never:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._repair, name="engine repairer")
            nursery.start_soon(self._watch, name="engine watchman")
            await self._attempts.run(self._use)
        raise AssertionError("unreachable")

    async def _use(self, engine: LogReader) -> None:
        while True:
            await self._read(engine)

    async def _read(self, engine: LogReader) -> None:
        for reading in self.readings.values():
            if not reading.is_begun:
                entries = await engine.since_checkpoint(reading.shard)
                self._resync(reading, entries)
        begun = {s: r.position for s, r in self.readings.items() if r.is_begun}
        wait_s = _LOOK_S
        if len(begun) == len(self.readings):
            wait_s = _READ_WAIT_S
            self.begun.set()
        if not begun:
            await trio.sleep(wait_s)
        else:
            found = await engine.read(begun, wait_s=wait_s, limit=_READ_ENTRIES)
            for shard, entries in found.items():
                reading = self.readings[shard]
                reading.sent_ms = 0.0
                read = self._take(reading, entries)
                self._count(entries, reading.sent_ms)
                if read is Read.JUMPED:
                    log.info("engine.resync", shard=shard, after=reading.position)
                    self.counts.resyncs += 1
                    again = await engine.since_checkpoint(shard)
                    self._resync(reading, again)
                    if not again:
                        await trio.sleep(_LOOK_S)  # its owner says soon how all stands
        if self._attempts.reached():
            log.info("engine.reading", shards=len(self.readings))

    def _take(self, reading: Reading, entries: Sequence[Entry]) -> Read:
        try:
            return reading.take(entries, trio.current_time())
        except wire.OtherVersion:
            raise  # of all shards, and for long
        except wire.BadItem as error:
            self._begin_anew(reading, entries, error)
            return Read.ON

    def _resync(self, reading: Reading, entries: Sequence[Entry]) -> None:
        try:
            reading.resync(entries, trio.current_time())
        except wire.OtherVersion:
            raise
        except wire.BadItem as error:
            self._begin_anew(reading, entries, error)

    def _begin_anew(self, reading: Reading, entries: Sequence[Entry], error: wire.BadItem) -> None:
        """Something that no node wrote is a matter of this shard alone: the next checkpoint says
        how it stands."""
        if reading.is_begun:
            log.error("engine.unreadable", shard=reading.shard, problem=str(error))
        reading.begin_anew(entries[-1].entry_id)

    def _count(self, entries: Sequence[Entry], sent_ms: float) -> None:
        self.counts.entries += len(entries)
        self.counts.read_bytes += sum(len(entry.body) for entry in entries)
        if sent_ms and self._now_ms is not None:
            self.counts.lag.note(max(0.0, self._now_ms() - sent_ms) / 1000)

    async def _watch(self) -> Never:
        while True:
            now = trio.current_time()
            for reading in self.readings.values():
                if reading.is_begun and reading.is_silent(now):
                    reading.bus.fall_silent(_AWAY if self.problem else _SILENT)
                for stream in reading.bus.waiting:
                    if stream.guard.overdue(now):
                        log.warning("engine.gave_up", stream=str(stream.stream_key))
                        self.counts.gave_up += 1
                        reading.bus.give_up(stream)
            await trio.sleep(_LOOK_S)

    async def _repair(self) -> Never:
        while True:
            for reading in self.readings.values():
                for stream in reading.bus.waiting:
                    rows = await self._missing_of(stream)
                    if rows is not None:
                        self.counts.repaired += len(rows)
                        reading.bus.repair(stream, rows)
            await trio.sleep(_REPAIR_EVERY_S)

    async def _missing_of(self, stream: RemoteStream) -> Sequence[KlineMessage] | None:
        """What was published of what is missing; None: the store does not have all of it yet."""
        missing, series = stream.guard.missing, stream.stream_key
        if missing is None:
            return None
        assert isinstance(series, Series), "only series have a guard that misses something"
        number = stream.guard.number
        try:
            newest = await self._store.history(series, limit=1, end_ms=missing.until_ms + 1)
            if not newest or newest[-1].open_ms < missing.until_ms:
                return None
            rows = await self._store.after(
                series, *number, closed_ms=missing.after_ms, limit=_REPAIR_ROWS
            )
        except StoreError:
            return None  # the store says so itself; it is asked again
        missing = stream.guard.missing
        if rows is None or missing is None:
            return None
        found = [r for r in rows if missing.has(r.kline.open_ms, _number(r), revision=r.revision)]
        revised = max((_number(row) for row in found if row.revision), default=number)
        return None if revised < missing.revised else found


def bus_of_log(kline: KlineSettings) -> RemoteBus:
    """Into which a shard's log is read, at a node and at a worker of one."""
    return RemoteBus(
        history_rows=kline.history_data_limit,
        resume_messages=kline.resume_messages,
        tell_kept=lambda _stream: None,  # each keeps what its own clients need
        now=trio.current_time,
        repairs=True,
    )


def _number(row: KlineMessage) -> tuple[int, int]:
    return row.epoch, row.offset
