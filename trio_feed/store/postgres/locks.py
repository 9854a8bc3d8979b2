"""Who may write: one process alone, or several that claim shards.  Blocking.

Session locks keep the two kinds of writers apart.  A claim makes a shard's epoch grow, and every
transaction that writes reads it; a lock for the time of the transaction keeps a claim from passing
a write that is under way.  Those locks can be seen from outside, which locks on rows cannot: a
claim ends the session of who stands in its way, a process that is paused say.
"""

from collections.abc import Sequence
from zlib import crc32

import structlog
from psycopg import errors

from ...errors import StoreError
from .connection import Connection, Link
from .schema import LOCKS, WRITING

log = structlog.get_logger()

_SHARD_LOCKS = LOCKS + 1
"""First half of the keys of shards' locks; the second is made of the name."""
_PATIENCE = "500ms"
"""How long a claim waits for a write under way."""
_HOLDERS = (
    "FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.locktype = 'advisory'"
    " AND l.classid = %s AND l.objid = %s AND l.granted AND l.pid <> pg_backend_pid()"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
# One statement, so that a process which is paused in the middle holds nothing.
_CLAIM = (
    "WITH patience AS MATERIALIZED (SELECT set_config('lock_timeout', %s, true)),"
    " held AS MATERIALIZED (SELECT pg_advisory_xact_lock(%s, %s) FROM patience),"
    " claimed AS (INSERT INTO meta AS m SELECT 'epoch', %s FROM held ON CONFLICT (key) DO UPDATE"
    " SET value = greatest(m.value::bigint + 1, excluded.value::bigint)::text"
    " RETURNING value::bigint AS epoch),"
    " begun AS (INSERT INTO epochs SELECT epoch, false FROM claimed)"
    " INSERT INTO shards SELECT %s, epoch FROM claimed"
    " ON CONFLICT (shard) DO UPDATE SET epoch = excluded.epoch RETURNING epoch"
)
_RELEASE = (
    "UPDATE epochs SET written_to_the_end = true WHERE epoch = %(epoch)s"
    " AND EXISTS (SELECT 1 FROM shards WHERE shard = %(shard)s AND epoch = %(epoch)s)"
)


class WrittenByAnother(StoreError):
    """Another process writes there, or the server has not noticed its end yet: of one whose machine
    is gone half a minute later."""


def be_sole_writer(db: Connection) -> None:
    """Take the lock that this session keeps until it ends.  Raises WrittenByAnother, naming the
    other one."""
    _be_writer(db, "SELECT pg_try_advisory_lock(%s, %s)")


def be_one_of_the_writers(db: Connection) -> None:
    """As one that claims shards.  Raises WrittenByAnother where a process writes alone."""
    _be_writer(db, "SELECT pg_try_advisory_lock_shared(%s, %s)")


def _be_writer(db: Connection, question: str) -> None:
    ((mine,),) = db.execute(question, (LOCKS, WRITING))
    if mine:
        return
    row = db.execute(
        f"SELECT coalesce(a.application_name, ''), host(a.client_addr) {_HOLDERS}", (LOCKS, WRITING)
    ).fetchone()
    other = "" if row is None else " ".join(f"{row[0]} {row[1] or ''}".split())
    raise WrittenByAnother(
        f"it is being written by another trio_feed ({other.removeprefix('trio_feed ')}); end it,"
        " or give each its own database"
    )


def hold_shards(db: Connection, shards: Sequence[str]) -> dict[str, int]:
    """The epochs of shards, which no claim changes before the end of this transaction."""
    keys = sorted({_key(shard) for shard in shards})
    db.execute(
        "SELECT pg_advisory_xact_lock_shared(%s, key)"
        " FROM (SELECT key FROM unnest(%s::integer[]) AS k (key) ORDER BY key) AS keys",
        (_SHARD_LOCKS, keys),
    )
    # A statement of its own: what it reads is not older than the locks.
    return dict(
        db.execute("SELECT shard, epoch FROM shards WHERE shard = ANY(%s)", (list(shards),))
    )


def claim_shard(link: Link, shard: str, now_ms: float) -> int:
    """The new epoch of a shard.  Raises psycopg.Error; then it may have grown all the same."""
    with link.use() as db:
        try:
            return _claim(db, shard, now_ms, patience=_PATIENCE)
        except errors.LockNotAvailable:
            _end_holders(db, shard)
        return _claim(db, shard, now_ms, patience="0")


def _claim(db: Connection, shard: str, now_ms: float, *, patience: str) -> int:
    values = patience, _SHARD_LOCKS, _key(shard), str(int(now_ms)), shard
    ((epoch,),) = db.execute(_CLAIM, values)
    return int(epoch)


def _end_holders(db: Connection, shard: str) -> None:
    unsigned = _key(shard) % 2**32
    holders = db.execute(
        f"SELECT l.pid, coalesce(a.application_name, '') {_HOLDERS}", (_SHARD_LOCKS, unsigned)
    ).fetchall()
    for pid, name in holders:
        log.warning("store.writer_ended", shard=shard, writer=name)
        try:
            db.execute("SELECT pg_terminate_backend(%s)", (pid,))
        except errors.InsufficientPrivilege:  # it has another user: then it is waited for
            continue


def release_shard(link: Link, shard: str, epoch: int) -> bool:
    """Keep that every row of a claim's epoch was written; whether it is the shard's last."""
    with link.use() as db:
        return db.execute(_RELEASE, {"shard": shard, "epoch": epoch}).rowcount == 1


def _key(shard: str) -> int:
    return crc32(shard.encode()) - 2**31
