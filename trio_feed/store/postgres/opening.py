"""Open, create or migrate the tables of candles.  Blocking."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import token_hex

import psycopg
import structlog

from ...errors import ServerAway, StartError, StoreError
from ...settings import DatabaseUrl
from ..claims import Claims
from .backend import READ_S, WRITE_S, PostgresBackend, SharedPostgresBackend
from .connection import Connection, Link, Server, dial, pause
from .faults import explain, is_away
from .locks import WrittenByAnother, be_one_of_the_writers, be_sole_writer
from .schema import (
    STORE,
    Part,
    create_or_migrate,
    known_version_of,
    why_no_tables,
    why_not_made,
    why_read_only,
    why_unreadable,
    why_unusable,
)
from .writer import PostgresWriter

log = structlog.get_logger()

_HELD_S = 3.0
"""The lock of a process that ended is free when the server has seen that."""
_PAUSE_S = 0.25


class _NotNow(StoreError):
    """It may go without anybody mending a setting."""


def open_postgres(url: DatabaseUrl, key: str, *, simulated: bool, now_ms: float) -> PostgresBackend:
    """The store in that database; its tables are made or migrated.  Raises StartError with what is
    wrong with it, naming the setting ``key``; ServerAway where that may go by itself.

    A database remembers whether it holds simulated candles; the two kinds never share one.
    ``now_ms`` seeds the epoch.
    """
    server = Server(url)
    with _writing(server, key, be_sole_writer) as link:
        with link.transaction() as db:
            _be_of_kind(db, simulated)
            epoch = _begin_epoch(db, now_ms)
    writer = Link(server, WRITE_S, be_sole_writer, link.handed_over())
    return PostgresBackend(server, PostgresWriter(writer), epoch)


def open_shared(
    url: DatabaseUrl, key: str, claims: Claims, *, simulated: bool
) -> SharedPostgresBackend:
    """As :func:`open_postgres`, for one of several processes that write what they claim."""
    server = Server(url)
    with _writing(server, key, be_one_of_the_writers) as link:
        with link.transaction() as db:
            _be_of_kind(db, simulated)
            _make_identity(db)
            identity = _identity(db)
    writer = Link(server, WRITE_S, be_one_of_the_writers, link.handed_over())
    return SharedPostgresBackend(server, writer, claims, identity)


def open_reader(url: DatabaseUrl, key: str, *, simulated: bool) -> SharedPostgresBackend:
    """As :func:`open_shared`, for a process that only asks.  It makes or migrates tables only where
    there are none of this version, and its user may."""
    server = Server(url)
    link = Link(server, WRITE_S, connection=first_dial(url, key, WRITE_S))
    try:
        with link.use() as db:
            _look_at_server(db, reads=True)
            whole = known_version_of(db, STORE) == STORE.version
            if whole and (why := why_unreadable(db)):
                raise StoreError(why)
            if not whole and (why := why_not_made(db, STORE)):
                raise _NotNow(why)  # which a node that writes is about to make, or migrate
        with link.transaction() as db:
            if not whole:
                create_or_migrate(db, STORE)
                _make_identity(db)
            _check_kind(db, simulated)
            identity = _identity(db)
    except (psycopg.Error, StoreError, StartError) as error:
        raise refused(key, url, error) from None
    finally:
        link.close()
    nothing = Claims(lambda venue, symbol: "")
    return SharedPostgresBackend(server, Link(server, READ_S, _write_nothing), nothing, identity)


def _write_nothing(db: Connection) -> None:
    raise StoreError("it was opened for reading")


@contextmanager
def _writing(server: Server, key: str, be_writer: Callable[[Connection], None]) -> Iterator[Link]:
    """A link that has the lock of a writer.  Raises StartError, also of what is raised inside."""
    link = open_part(server, key, STORE, WRITE_S)
    try:
        with link.use() as db:
            _be_writer(db, be_writer)
        yield link
    except (psycopg.Error, StoreError) as error:
        link.close()
        raise refused(key, server.url, error) from None
    except BaseException:
        link.close()
        raise


def open_part(server: Server, key: str, part: Part, deadline_s: float) -> Link:
    """A link to a database that has the tables of ``part``.  Raises StartError."""
    link = Link(server, deadline_s, connection=first_dial(server.url, key, deadline_s))
    try:
        with link.use() as db:
            _look_at_server(db)
            if why := why_no_tables(db, part):
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


def _look_at_server(db: Connection, *, reads: bool = False) -> None:
    """Raises StoreError: what it is or lacks."""
    if why := why_unusable(db):
        raise StoreError(why)
    if why := why_read_only(db, reads=reads):
        raise _NotNow(why)


def first_dial(url: DatabaseUrl, key: str, deadline_s: float) -> Connection:
    """A connection at the start.  Raises StartError."""
    try:
        return dial(url, deadline_s)
    except psycopg.Error as error:
        raise refused(key, url, error) from None


def refused(key: str, url: DatabaseUrl, error: Exception) -> StartError:
    """The one line about why the service does not start."""
    if isinstance(error, psycopg.Error):
        text, may_go = "; ".join(explain(error)), is_away(error)
    else:
        text, may_go = str(error), isinstance(error, _NotNow | WrittenByAnother)
    text = f"{key}: {url.shown}: {text}"
    return ServerAway(text) if may_go else StartError(text)


def _be_writer(db: Connection, be_writer: Callable[[Connection], None]) -> None:
    end = time.monotonic() + _HELD_S
    while True:
        try:
            be_writer(db)
        except WrittenByAnother:
            if time.monotonic() > end:
                raise
            pause(_PAUSE_S)
        else:
            return


def _be_of_kind(db: Connection, simulated: bool) -> None:
    """What is written from now on is of this kind.  Raises StoreError where it is of another."""
    db.execute(
        "INSERT INTO meta VALUES ('kind', %s) ON CONFLICT (key) DO NOTHING", (_kind(simulated),)
    )
    _check_kind(db, simulated)


def _check_kind(db: Connection, simulated: bool) -> None:
    found, kind = (
        db.execute("SELECT value FROM meta WHERE key = 'kind'").fetchone(),
        _kind(simulated),
    )
    if found is not None and found[0] != kind:
        raise StoreError(
            f"it holds {found[0]} candles and this run has {kind} ones; name another database"
        )


def _kind(simulated: bool) -> str:
    return "simulated" if simulated else "real"


def _make_identity(db: Connection) -> None:
    """Once and for all; of a copy it is that of the original."""
    db.execute(
        "INSERT INTO meta VALUES ('identity', %s) ON CONFLICT (key) DO NOTHING", (token_hex(8),)
    )


def _identity(db: Connection) -> str:
    """Empty: nobody who may write has opened it since there are any."""
    row = db.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
    return str(row[0]) if row else ""


def _begin_epoch(db: Connection, now_ms: float) -> int:
    """The epoch of an opening as the sole writer."""
    row = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    epoch = max(int(row[0]) + 1 if row else 1, int(now_ms))
    db.execute(
        "INSERT INTO meta VALUES ('epoch', %s)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (str(epoch),),
    )
    db.execute("INSERT INTO epochs VALUES (%s, false)", (epoch,))
    return epoch
