"""The metrics of a node of a cluster, read of its parts when the metrics page is asked for."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import define

from ..bus.engine.feeding import Feeding
from ..bus.engine.following import Following
from ..metrics import Figures, Instrument
from .registry import Said

_NONE: tuple[str, ...] = ()


def _of(name: str, kind: str, text: str, *labels: str) -> Instrument:
    return Instrument(f"trio_feed_{name}", kind, labels, text)


ENGINE_UP = _of(
    "engine_up", "gauge", "1: the engine answers, 0: it is away; by what is done there", "side"
)
"""Sides: feed, read; a node has those of its roles."""
DATABASE_UP = _of("database_up", "gauge", "1: the nodes' database answers, 0: it is away")
NODES = _of("nodes", "gauge", "Nodes that this one hears of, by role", "role")
OWNED = _of("shard_owned", "gauge", "1: this node feeds the shard, 0: another does", "shard")
SILENT = _of("shard_silent_seconds", "gauge", "Since something of the shard was read here", "shard")
CHANGES = _of("shard_changes", "counter", "What became of shards at this node", "change")
LEASE_AGE = _of(
    "engine_lease_age_seconds", "gauge", "Of this node's leases: since the last confirmation"
)
APPENDS = _of("engine_appends", "counter", "Entries appended to the logs of shards")
APPEND_BYTES = _of("engine_append_bytes", "counter", "Bytes of entries sent to the engine")
APPEND = _of("engine_append_seconds", "histogram", "Round trip with the entries of all shards")
WAITING = _of("engine_waiting_messages", "gauge", "Messages that wait for the engine")
WAITING_BYTES = _of("engine_waiting_bytes", "gauge", "Bytes that wait for the engine")
FORGOT = _of("engine_forgot", "counter", "Times that the engine lacked what it had confirmed")
ENTRIES = _of("engine_read_entries", "counter", "Entries read of the logs of all shards")
READ_BYTES = _of("engine_read_bytes", "counter", "Bytes of the entries read")
READ_LAG = _of(
    "engine_read_lag_seconds",
    "histogram",
    "From a message published to read here, by the calendars of two machines",
)
RESYNCS = _of("engine_resyncs", "counter", "Times that what was next in a log was trimmed already")
REPAIRED = _of("engine_repaired_candles", "counter", "Candles that a reader took from the store")
GAVE_UP = _of("engine_gave_up", "counter", "Series that went on without candles the store lacks")

INSTRUMENTS: Sequence[Instrument] = (
    ENGINE_UP, DATABASE_UP, NODES, OWNED, SILENT, CHANGES, LEASE_AGE, APPENDS, APPEND_BYTES, APPEND,
    WAITING, WAITING_BYTES, FORGOT, ENTRIES, READ_BYTES, READ_LAG, RESYNCS, REPAIRED, GAVE_UP,
)  # fmt: skip
_CHANGES = (
    "taken", "given", "lost", "fenced", "lease_lost", "begun_again", "reopened", "not_changed",
)  # fmt: skip
"""The events shard.* of the log."""


@define(eq=False)
class ClusterFigures:
    """``now``: monotonic seconds; ``nodes()``: what all say; ``database_up()``: whether it gave its
    last answer."""

    _shards: Sequence[str]
    _now: Callable[[], float]
    _nodes: Callable[[], Iterable[Said]]
    _database_up: Callable[[], bool]
    feeding: Feeding | None = None
    following: Following | None = None

    def read(self) -> Figures:
        found: dict[Instrument, dict[tuple[str, ...], float]] = {
            ENGINE_UP: {
                (side,): float(not part.problem)
                for side, part in (("feed", self.feeding), ("read", self.following))
                if part is not None
            },
            DATABASE_UP: {_NONE: float(self._database_up())},
            NODES: {
                (role,): float(sum(role in said.roles for said in self._nodes()))
                for role in ("ingest", "push")
            },
        }
        feeds = {} if self.feeding is None else self._feeds(self.feeding)
        reads = {} if self.following is None else self._reads(self.following)
        return {**found, **feeds, **reads}

    def _feeds(self, feeding: Feeding) -> Figures:
        counts = feeding.counts
        waiting = [owner.waiting for owner in feeding.writing.owners.values()]
        values = {
            LEASE_AGE: feeding.lease_age_s(self._now()),
            APPENDS: counts.appends,
            APPEND_BYTES: counts.append_bytes,
            WAITING: sum(messages for messages, _ in waiting),
            WAITING_BYTES: sum(size for _, size in waiting),
            FORGOT: counts.forgot,
        }
        return {
            **_plain(values),
            OWNED: {(shard,): float(shard in feeding.own) for shard in self._shards},
            CHANGES: {(each,): float(counts.changes[each]) for each in _CHANGES},
            APPEND: counts.append.durations(),
        }

    def _reads(self, following: Following) -> Figures:
        counts, now = following.counts, self._now()
        values = {
            ENTRIES: counts.entries,
            READ_BYTES: counts.read_bytes,
            RESYNCS: counts.resyncs,
            REPAIRED: counts.repaired,
            GAVE_UP: counts.gave_up,
        }
        return {
            **_plain(values),
            SILENT: {(s,): now - reading.heard_at for s, reading in following.readings.items()},
            READ_LAG: counts.lag.durations(),
        }


def _plain(values: Mapping[Instrument, float]) -> dict[Instrument, dict[tuple[str, ...], float]]:
    return {each: {_NONE: float(value)} for each, value in values.items()}
