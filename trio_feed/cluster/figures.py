"""The metrics of a node of a cluster, read of its parts when the metrics page is asked for."""

from collections.abc import Iterable, Mapping, Sequence

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
ENGINE_FIT = _of(
    "engine_fit", "gauge", "1: the engine is configured as it has to be, 0: it lacks something"
)
DATABASE_UP = _of("database_up", "gauge", "1: the nodes' database answers, 0: it is away")
NODES = _of("nodes", "gauge", "Nodes that this one hears of, by role", "role")
DIFFERING = _of("nodes_differing", "gauge", "Nodes that feed by other [exchanges] than this one")
UNFED = _of("symbols_unfed", "gauge", "Symbols of this node's settings that no node feeds")
OWNED = _of(
    "shard_owned", "gauge", "1: this node feeds the shard, 0: it does not", "venue", "shard"
)
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
    ENGINE_UP, ENGINE_FIT, DATABASE_UP, NODES, DIFFERING, UNFED, OWNED, SILENT, CHANGES, LEASE_AGE,
    APPENDS, APPEND_BYTES, APPEND, WAITING, WAITING_BYTES, FORGOT, ENTRIES, READ_BYTES, READ_LAG,
    RESYNCS, REPAIRED, GAVE_UP,
)  # fmt: skip
_ROLES = ("ingest", "push")
_CHANGES = (
    "taken", "given", "lost", "fenced", "lease_lost", "begun_again", "reopened", "not_changed",
)  # fmt: skip
"""The events shard.* of the log."""


def read(
    shards: Sequence[str],
    nodes: Iterable[Said],
    feeding: Feeding | None,
    following: Following | None,
    now: float,
    *,
    engine_fit: bool,
    database_up: bool,
    differing: int,
    unfed: int,
) -> Figures:
    """``nodes``: what all say; ``now``: monotonic seconds; None: not of this node's roles."""
    said = list(nodes)
    sides = (("feed", feeding), ("read", following))
    found: dict[Instrument, dict[tuple[str, ...], float]] = {
        ENGINE_UP: {(side,): float(not part.problem) for side, part in sides if part is not None},
        ENGINE_FIT: {_NONE: float(engine_fit)},
        DATABASE_UP: {_NONE: float(database_up)},
        DIFFERING: {_NONE: float(differing)},
        UNFED: {_NONE: float(unfed)},
        NODES: {(role,): float(sum(role in each.roles for each in said)) for role in _ROLES},
    }
    feeds = {} if feeding is None else _of_feeding(feeding, shards, now)
    reads = {} if following is None else _of_following(following, now)
    return {**found, **feeds, **reads}


def _of_feeding(feeding: Feeding, shards: Sequence[str], now: float) -> Figures:
    counts = feeding.counts
    waiting = [owner.waiting for owner in feeding.writing.owners.values()]
    values = {
        LEASE_AGE: feeding.lease_age_s(now),
        APPENDS: counts.appends,
        APPEND_BYTES: counts.append_bytes,
        WAITING: sum(messages for messages, _ in waiting),
        WAITING_BYTES: sum(size for _, size in waiting),
        FORGOT: counts.forgot,
    }
    return {
        **_plain(values),
        OWNED: {(shard.rpartition(".")[0], shard): float(shard in feeding.own) for shard in shards},
        CHANGES: {(each,): float(counts.changes[each]) for each in _CHANGES},
        APPEND: counts.append.durations(),
    }


def _of_following(following: Following, now: float) -> Figures:
    counts = following.counts
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
