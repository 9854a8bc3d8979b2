"""Connections to a PostgreSQL server: dialled when they are needed, and again when they were lost.

Blocking, for threads of trio.  Nothing waits without end: each use of a connection has a deadline
here and one at the server, and dialling has one; a task that is cancelled gets its thread back
within a tenth of a second, or when the dial has ended.  After a dial that failed, all links to that
server leave it alone for a moment that doubles, so that what asks meanwhile is answered at once.

The server must see one session per connection (no PgBouncer in transaction mode): locks and
settings are a session's.
"""

import os
import socket
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from select import select
from threading import Lock
from typing import Any, TypeVar

import psycopg
import trio
from attrs import define, field
from psycopg.pq import TransactionStatus

from ...settings import DatabaseUrl

SCHEMA = "trio_feed"
"""Where the tables are, in whatever database."""
_DIAL_S = 3
_LOOKS = 8
"""At an idle connection on which something has come: a notice; or last words, and then the end."""
_BACKOFF_MIN_S = 0.2
_BACKOFF_MAX_S = 5.0
_ALIVE = {
    # A peer that is gone without a word is noticed in half a minute, on both sides: so the lock of
    # a machine that went away is free again.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_SET_UP = (
    f"SET search_path = {SCHEMA}; SET statement_timeout = {{}}; SET TimeZone = 'UTC';"
    " SET DateStyle = 'ISO'; SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5;"
    " SET tcp_keepalives_count = 3; SET idle_in_transaction_session_timeout = 60000"
)
T = TypeVar("T")


class Overdue(psycopg.OperationalError):
    """The server did not answer in time."""


class LeftAlone(psycopg.OperationalError):
    """It could not be reached a moment ago, and is not tried yet."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """In autocommit mode.  Every wait ends at ``deadline``, of ``time.monotonic``."""

    deadline = float("inf")

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """The same steps; psycopg comes by at least every tenth of a second."""
        ready = None
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as stop:
                result: T = stop.value
                return result
            ready = yield wanted
            if time.monotonic() > self.deadline:
                raise Overdue("it took too long")
            with suppress(RuntimeError):  # of a thread that is not trio's
                trio.from_thread.check_cancelled()


@define(eq=False)
class Server:
    """Where to dial, and when again.  Shared by the links of one store, so from several threads."""

    url: DatabaseUrl
    _failures: int = 0
    _again_at: float = 0.0
    _problem: psycopg.Error | None = None
    _lock: Lock = field(factory=Lock)

    def dial(self, statement_s: float) -> Connection:
        """A new connection.  Raises psycopg.Error."""
        with self._lock:
            if time.monotonic() < self._again_at:
                raise LeftAlone(str(self._problem)) from self._problem
        connection = None
        try:
            connection = dial(self.url, statement_s)
        except psycopg.Error as error:
            with self._lock:
                wait_s = min(_BACKOFF_MAX_S, _BACKOFF_MIN_S * 2 ** min(self._failures, 10))
                self._failures += 1
                self._again_at = time.monotonic() + wait_s
                self._problem = error.with_traceback(None)
            raise
        with self._lock:
            self._failures, self._again_at, self._problem = 0, 0.0, None
        return connection


def dial(url: DatabaseUrl, statement_s: float) -> Connection:
    """A connection, ready to use.  Raises psycopg.Error."""
    name = f"trio_feed {os.getpid()}@{socket.gethostname()}"[:63]
    wanted: dict[str, Any] = {
        "connect_timeout": _DIAL_S,
        "application_name": name,
        "gssencmode": "disable",  # else its libraries are asked first, which takes a while
        **_ALIVE,
    }
    given = psycopg.conninfo.conninfo_to_dict(url.reveal())
    wanted = {key: value for key, value in wanted.items() if key not in given}
    connection = Connection.connect(url.reveal(), autocommit=True, client_encoding="utf8", **wanted)
    try:
        connection.deadline = time.monotonic() + _DIAL_S
        connection.execute(_SET_UP.format(int(statement_s * 1000)))
        ((durable,),) = connection.execute("SELECT current_setting('synchronous_commit')")
        if durable in ("off", "local"):  # what was acknowledged is on the disk, and on the standby
            connection.execute("SET synchronous_commit = on")
    except BaseException:
        connection.close()
        raise
    return connection


class Link:
    """One connection that is always there, if it can be.  One thread at a time.

    ``prepare`` makes a new one ready (a lock, say) and may raise; ``deadline_s`` bounds each use,
    from the first statement to the last."""

    def __init__(
        self,
        server: Server,
        deadline_s: float,
        prepare: Callable[[Connection], None] | None = None,
        connection: Connection | None = None,
    ) -> None:
        self._server, self._deadline_s, self._prepare = server, deadline_s, prepare
        self._connection = connection

    @contextmanager
    def use(self) -> Iterator[Connection]:
        """The connection, within the deadline.  Closed if it is left in the middle of
        something.  Raises psycopg.Error, also where it cannot be dialled."""
        connection = self._ready()
        try:
            yield connection
        finally:
            if connection.pgconn.transaction_status != TransactionStatus.IDLE:
                self.close()
            connection.deadline = float("inf")

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All or nothing, within the deadline.  Raises psycopg.Error; after a COMMIT that was not
        answered nobody knows which of both."""
        with self.use() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                status = connection.pgconn.transaction_status
                if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                    with suppress(psycopg.Error):  # then it is closed
                        connection.execute("ROLLBACK")

    def handed_over(self) -> Connection | None:
        """The connection, which is another link's from now on."""
        connection, self._connection = self._connection, None
        return connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ready(self) -> Connection:
        connection = self._connection
        if connection is not None and not _is_alive(connection):
            self.close()
            connection = None
        if connection is None:
            connection = self._server.dial(self._deadline_s)
            try:
                if self._prepare is not None:
                    connection.deadline = time.monotonic() + self._deadline_s
                    self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        connection.deadline = time.monotonic() + self._deadline_s
        return connection


def pause(seconds: float) -> None:
    """Sleep, in a thread, unless the task that waits for it is cancelled."""
    end = time.monotonic() + seconds
    while (rest := end - time.monotonic()) > 0:
        with suppress(RuntimeError):  # of a thread that is not trio's
            trio.from_thread.check_cancelled()
        time.sleep(min(rest, 0.1))


def _is_alive(connection: Connection) -> bool:
    """Whether nothing is known of its end: a server that goes away says so, then closes."""
    if connection.closed:
        return False
    libpq = connection.pgconn
    try:
        for _ in range(_LOOKS):
            if not select([libpq.socket], [], [], 0)[0]:
                return True
            libpq.consume_input()
    except (psycopg.Error, OSError, ValueError):
        pass
    return False
