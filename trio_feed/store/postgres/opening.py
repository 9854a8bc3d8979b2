"""Open, create or migrate the tables of candles.  Blocking."""

import time

import psycopg
import structlog

from ...errors import StartError, StoreError
from ...settings import DatabaseUrl
from .backend import WRITE_S, PostgresBackend
from .connection import Connection, Link, Server, dial, pause
from .faults import STARTING, explain
from .schema import STORE, Part, create_or_migrate, why_no_tables, why_unusable
from .writer import be_sole_writer

log = structlog.get_logger()

_START_S = 20.0
"""A server that says that it is starting is waited for."""
_HELD_S = 3.0
"""The lock of a process that was killed is free when the server has seen its end."""
_PAUSE_S = 0.25


def open_postgres(url: DatabaseUrl, key: str, *, simulated: bool, now_ms: float) -> PostgresBackend:
    """The store in that database; its tables are made or migrated.  Raises StartError with what is
    wrong with it, naming the setting ``key``.

    A database remembers whether it holds simulated candles; the two kinds never share one.
    ``now_ms`` seeds the epoch.
    """
    server = Server(url)
    link = open_part(server, key, STORE, WRITE_S)
    try:
        with link.use() as db:
            _be_sole_writer(db)
        with link.transaction() as db:
            epoch = _begin_epoch(db, "simulated" if simulated else "real", now_ms)
    except (psycopg.Error, StoreError) as error:
        link.close()
        raise refused(key, url, error) from None
    except BaseException:
        link.close()
        raise
    writer = Link(server, WRITE_S, be_sole_writer, link.handed_over())
    return PostgresBackend(server, writer, epoch)


def open_part(server: Server, key: str, part: Part, deadline_s: float) -> Link:
    """A link to a database that has the tables of ``part``.  Raises StartError."""
    link = Link(server, deadline_s, connection=first_dial(server.url, key, deadline_s))
    try:
        with link.use() as db:
            if why := why_unusable(db) or why_no_tables(db, part):
                raise StoreError(why)
        with link.transaction() as db:
            before = create_or_migrate(db, part)
    except (psycopg.Error, StoreError, StartError) as error:
        link.close()
        raise refused(key, server.url, error) from None
    if before not in (0, part.version):
        place = server.url.shown
        log.info("store.migrated", path=place, before=before, now=part.version)
    return link


def first_dial(url: DatabaseUrl, key: str, deadline_s: float) -> Connection:
    """A connection at the start.  Raises StartError."""
    end, said = time.monotonic() + _START_S, False
    while True:
        try:
            return dial(url, deadline_s)
        except psycopg.Error as error:
            problem, advice = explain(error)
            if problem not in STARTING or time.monotonic() > end:
                raise refused(key, url, error) from None
            if not said:
                log.warning("store.waiting", path=url.shown, problem=problem, advice=advice)
            said = True
        pause(_PAUSE_S)


def refused(key: str, url: DatabaseUrl, error: Exception) -> StartError:
    """The one line about why the service does not start."""
    text = "; ".join(explain(error)) if isinstance(error, psycopg.Error) else str(error)
    return StartError(f"{key}: {url.shown}: {text}")


def _be_sole_writer(db: Connection) -> None:
    end = time.monotonic() + _HELD_S
    while True:
        try:
            be_sole_writer(db)
        except StoreError:
            if time.monotonic() > end:
                raise
            pause(_PAUSE_S)
        else:
            return


def _begin_epoch(db: Connection, kind: str, now_ms: float) -> int:
    """This opening's epoch.  Raises StoreError where the candles are of another kind."""
    meta = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('kind', 'epoch')").fetchall())
    if meta.get("kind", kind) != kind:
        raise StoreError(
            f"it holds {meta['kind']} candles and this run has {kind} ones; name another database"
        )
    epoch = max(int(meta.get("epoch", "0")) + 1, int(now_ms))
    for row in (("kind", kind), ("epoch", str(epoch))):
        db.execute(
            "INSERT INTO meta VALUES (%s, %s)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            row,
        )
    db.execute("INSERT INTO epochs VALUES (%s, false)", (epoch,))
    return epoch
