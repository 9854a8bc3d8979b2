"""Private events in PostgreSQL, which several processes write at once.

A transaction locks the rows of its users in their order before it gives numbers, so that a user's
offsets become visible in their order, and with them the ids of events: pruning, which goes by id,
leaves no hole.  What two transactions want at once (the same event, the same new user or order)
fails in one of them by a key; that one starts again and then sees what the other wrote.

One connection writes, one reads.  A COMMIT is on the server's disk (and on its synchronous standby,
where there is one) before it is answered; it also notifies the :mod:`.listener` of other processes.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors

from ...errors import JournalError
from ...model import PrivateMessage, Settlement
from ...settings import DatabaseUrl
from ..journal_plan import ANY_PUBLISHER, BatchPlan, EventKey, Settled, Stored
from .connection import Connection, Link, Server
from .faults import explain
from .listener import CHANNEL, EVERYBODY, PostgresListener
from .opening import open_part, refused
from .schema import JOURNAL, LOCKS, PRUNING

_DEADLINE_S = 8.0
_TRIES = 8
_LONGEST_PAYLOAD = 7_000
"""Bytes; a NOTIFY holds 8,000."""

_OWNERS = "SELECT order_id, user_id FROM orders WHERE order_id = ANY(%s)"
_LOCK = 'SELECT user_id, "offset" FROM users {}ORDER BY user_id FOR UPDATE'
_LOCK_ALL, _LOCK_SOME = _LOCK.format(""), _LOCK.format("WHERE user_id = ANY(%s) ")
_KNOWN = "SELECT id, publisher, event_id FROM events WHERE event_id = ANY(%s)"
_DELIVERED = "SELECT event, user_id, body FROM deliveries WHERE event = ANY(%s)"
_NEXT_IDS = "SELECT nextval('event_ids') FROM generate_series(1, %s)"
_PUT_EVENTS = (
    "INSERT INTO events (id, publisher, event_id, at_ms)"
    " SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[])"
)
_PUT_DELIVERIES = (
    'INSERT INTO deliveries (event, user_id, "offset", body)'
    " SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[])"
)
_PUT_ORDERS = (
    "INSERT INTO orders AS o (order_id, user_id, at_ms)"
    " SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[])"
    " ON CONFLICT (order_id) DO UPDATE SET at_ms = excluded.at_ms"
    " WHERE o.user_id = excluded.user_id RETURNING 1"
)
_NEW_USERS = (
    'INSERT INTO users (user_id, "offset") SELECT * FROM unnest(%s::bigint[], %s::bigint[])'
)
_MOVE_USERS = (
    'UPDATE users u SET "offset" = w.last FROM unnest(%s::bigint[], %s::bigint[])'
    " AS w (user_id, last) WHERE u.user_id = w.user_id"
)
_MEET = "INSERT INTO users SELECT user_id, 0 FROM unnest(%s::bigint[]) AS w (user_id)"
_HEADS = 'SELECT user_id, "offset" FROM users WHERE user_id = ANY(%s)'
_READ = (
    'SELECT d."offset", d.body, e.at_ms FROM deliveries d JOIN events e ON e.id = d.event'
    ' WHERE d.user_id = %s AND d."offset" > %s AND d."offset" <= %s ORDER BY d."offset" LIMIT %s'
)


class _Again(Exception):
    """Another process was faster; what it wrote has to be looked at."""


class PostgresJournalBackend:
    """See :class:`trio_feed.store.journal.SharedJournalBackend`; made by
    :func:`open_postgres_journal`."""

    def __init__(self, server: Server, writer: Link, epoch: int, shared_epoch: int | None) -> None:
        self.epoch, self.shared_epoch = epoch, shared_epoch
        self._writer, self._reader = writer, Link(server, _DEADLINE_S)
        self.listener = PostgresListener(server)

    def meet(self, users: Collection[int]) -> None:
        with _translated(), self._writer.use() as db:
            db.execute(f"{_MEET} ON CONFLICT DO NOTHING", (sorted(users),))

    def settle(self, events: Sequence[Settlement]) -> Settled:
        with _translated():
            for _ in range(_TRIES):
                try:
                    return self._settle(events)
                except (
                    _Again,
                    errors.UniqueViolation,
                    errors.DeadlockDetected,
                    errors.SerializationFailure,
                ):
                    continue
        raise JournalError("other processes wrote the same again and again", "try again")

    def head(self, user_id: int) -> int:
        return self.heads((user_id,)).get(user_id, 0)

    def heads(self, users: Collection[int]) -> Mapping[int, int]:
        with _translated(), self._reader.use() as db:
            return dict(db.execute(_HEADS, (list(users),)).fetchall())

    def read(self, user_id: int, after: int, until: int, limit: int) -> list[PrivateMessage]:
        with _translated(), self._reader.use() as db:
            rows = db.execute(_READ, (user_id, after, until, limit)).fetchall()
        return [PrivateMessage(user_id, offset, body, at_ms) for offset, body, at_ms in rows]

    def prune(self, before_ms: float, orders_before_ms: float, limit: int) -> int:
        last, count = None, 0
        with _translated(), self._writer.transaction() as db:
            ((mine,),) = db.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", (LOCKS, PRUNING))
            if not mine:  # another process is at it
                return 0
            oldest = db.execute("SELECT id, at_ms FROM events ORDER BY id LIMIT %s", (limit,))
            for number, at_ms in oldest.fetchall():
                if at_ms >= before_ms:
                    break
                last, count = number, count + 1
            if last is not None:
                db.execute("DELETE FROM deliveries WHERE event <= %s", (last,))
                db.execute("DELETE FROM events WHERE id <= %s", (last,))
            gone = db.execute(
                "DELETE FROM orders WHERE order_id IN (SELECT order_id FROM orders"
                " WHERE at_ms < %s ORDER BY at_ms LIMIT %s FOR UPDATE SKIP LOCKED)",
                (orders_before_ms, limit),
            ).rowcount
        return count + gone

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def _settle(self, events: Sequence[Settlement]) -> Settled:
        with self._writer.transaction() as db:
            self.listener.own_pid = db.info.backend_pid
            orders = sorted({d.order_id for e in events for d in e.deliveries if d.order_id})
            users = {d.user_id for e in events for d in e.deliveries if d.user_id is not None}
            users |= set(_owners(db, orders).values())
            everybody = any(event.everybody for event in events)
            heads = _locked(db, users, everybody=everybody)
            # From here on what is read stays so: who else numbers events of these users waits.
            known, owners = _known(db, events), _owners(db, orders)
            if not set(owners.values()) <= users:
                raise _Again
            plan = BatchPlan(
                lambda key: _stored(known, key),
                owners.get,
                lambda user_id: heads.get(user_id, 0),
                heads.items,
            )
            for event in events:
                plan.add(event)
            _write(db, plan, heads)
        return plan.settled()


def _locked(db: Connection, users: Collection[int], *, everybody: bool) -> dict[int, int]:
    """The last offsets of those that there are, whose rows are ours until the end."""
    if everybody:
        return dict(db.execute(_LOCK_ALL).fetchall())
    return dict(db.execute(_LOCK_SOME, (sorted(users),)).fetchall())


def _owners(db: Connection, orders: Sequence[int]) -> dict[int, int]:
    return dict(db.execute(_OWNERS, (orders,)).fetchall()) if orders else {}


def _known(db: Connection, events: Sequence[Settlement]) -> dict[EventKey, Stored]:
    """What became of those of the events that were kept before."""
    rows = db.execute(_KNOWN, (sorted({kept_id(event.event_id) for event in events}),)).fetchall()
    if not rows:
        return {}
    delivered: dict[int, list[tuple[int, str]]] = {row[0]: [] for row in rows}
    for number, user_id, body in db.execute(_DELIVERED, (list(delivered),)):
        delivered[number].append((user_id, body))
    return {(publisher, event_id): delivered[number] for number, publisher, event_id in rows}


def _stored(known: Mapping[EventKey, Stored], key: EventKey) -> Stored | None:
    publisher, event_id = key
    found = known.get((publisher, kept_id(event_id)))
    return known.get((ANY_PUBLISHER, kept_id(event_id))) if found is None else found


def kept_id(event_id: str) -> str:
    """As it is kept: text here has no NUL, so one with it (or one that looks so) is in hex."""
    if "\0" in event_id or event_id.startswith("\\x"):
        return "\\x" + event_id.encode().hex()
    return event_id


def _write(db: Connection, plan: BatchPlan, heads: Mapping[int, int]) -> None:
    if not plan.events:
        return
    numbers = [row[0] for row in db.execute(_NEXT_IDS, (len(plan.events),))]
    rows, deliveries = [], []
    for number, (key, (at_ms, messages)) in zip(numbers, plan.events.items(), strict=True):
        rows.append((kept_id(key[1]), key[0], number, int(at_ms)))
        deliveries += [(number, m.user_id, m.offset, m.body) for m in messages]
    # By their keys, as every process does: so that two with the same events never wait for each
    # other.
    rows.sort()
    _put(db, _PUT_EVENTS, [(number, publisher, kept, at) for kept, publisher, number, at in rows])
    new = [(user, last) for user, last in sorted(plan.heads.items()) if user not in heads]
    _put(db, _NEW_USERS, new)
    _put(db, _MOVE_USERS, [item for item in plan.heads.items() if item[0] in heads])
    orders = [(order, user, int(at)) for order, (user, at) in sorted(plan.owners.items())]
    if _put(db, _PUT_ORDERS, orders) != len(orders):
        raise _Again  # it has become another user's
    _put(db, _PUT_DELIVERIES, deliveries)
    if plan.heads:
        payload = ",".join(map(str, plan.heads))
        payload = EVERYBODY if len(payload) > _LONGEST_PAYLOAD else payload
        db.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))


def _put(db: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> int:
    if not rows:
        return 0
    return db.execute(statement, [list(column) for column in zip(*rows, strict=True)]).rowcount


def open_postgres_journal(url: DatabaseUrl, key: str, *, now_ms: float) -> PostgresJournalBackend:
    """The journal in that database (blocking); its tables are made or migrated.  Raises StartError
    with what is wrong with it, naming the setting ``key``.

    The epoch is the database's for life, as that of a file; ``now_ms`` seeds it."""
    server = Server(url)
    link = open_part(server, key, JOURNAL, _DEADLINE_S)
    try:
        with link.use() as db:
            db.execute(
                "INSERT INTO meta VALUES ('journal.epoch', %s) ON CONFLICT DO NOTHING",
                (str(int(now_ms)),),
            )
            meta = dict(
                db.execute("SELECT key, value FROM meta WHERE key LIKE 'journal.%%'", ()).fetchall()
            )
    except psycopg.Error as error:
        link.close()
        raise refused(key, url, error) from None
    shared = meta.get("journal.shared_epoch")
    return PostgresJournalBackend(
        server, link, int(meta["journal.epoch"]), None if shared is None else int(shared)
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise JournalError(*explain(error)) from None
