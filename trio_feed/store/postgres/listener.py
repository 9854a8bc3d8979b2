"""NOTIFY on trio: whose events other processes wrote.

A connection of its own says ``LISTEN``; its socket is waited for like any other, and what libpq
read from it is looked at without ever blocking.  A notification is a hint: it may be lost with the
connection, so once a second everybody is looked at all the same.
"""

from collections.abc import Collection
from typing import Never

import psycopg
import structlog
import trio

from ..pending import Complaint
from .connection import Connection, Server, dial
from .faults import explain

log = structlog.get_logger()

CHANNEL = "trio_feed_private"
EVERYBODY = "*"
_POLL_S = 1.0
_RETRY_S = 1.0
_STATEMENT_S = 5.0


class PostgresListener:
    """See :class:`trio_feed.store.journal.Listener`.  ``own_pid``: of the connection that this
    process writes with, whose events it hands out by itself."""

    def __init__(self, server: Server) -> None:
        self.own_pid = 0
        self._server = server
        self._users: set[int] = set()
        self._all = False
        self._event = trio.Event()
        self._looked = float("-inf")

    async def run(self) -> Never:
        complaint = Complaint()
        while True:
            try:
                connection = await trio.to_thread.run_sync(self._open)
                try:
                    if complaint.problem:
                        log.info("journal.listening", path=self._server.url.shown)
                        complaint.over()
                    self._note(EVERYBODY)  # who wrote meanwhile was not heard
                    await self._listen(connection)
                finally:
                    connection.close()
            except psycopg.Error as error:
                problem, advice = explain(error)
                if complaint.is_news(problem, trio.current_time()):
                    log.warning(
                        "journal.not_listening",
                        path=self._server.url.shown,
                        problem=problem,
                        advice=advice,
                    )
            await trio.sleep(_RETRY_S)

    def look_again(self, user_id: int) -> None:
        self._users.add(user_id)
        self._event.set()

    async def news(self) -> Collection[int] | None:
        """Wait for what is new.  Returns whose events; None: look at everybody's."""
        with trio.move_on_at(self._looked + _POLL_S):
            await self._event.wait()
        users, everybody = self._users, self._all
        self._users, self._all, self._event = set(), False, trio.Event()
        if everybody or trio.current_time() >= self._looked + _POLL_S:
            self._looked = trio.current_time()
            return None
        return users

    def _open(self) -> Connection:
        connection = dial(self._server.url, _STATEMENT_S)
        try:
            connection.execute(f"LISTEN {CHANNEL}")
        except BaseException:
            connection.close()
            raise
        return connection

    async def _listen(self, connection: Connection) -> Never:
        """Raises psycopg.Error when the connection ends."""
        libpq = connection.pgconn
        while True:
            while (notification := libpq.notifies()) is not None:
                if notification.be_pid != self.own_pid:
                    self._note(notification.extra.decode())
            await trio.lowlevel.wait_readable(libpq.socket)
            libpq.consume_input()

    def _note(self, payload: str) -> None:
        if payload == EVERYBODY:
            self._all = True
        else:
            self._users.update(int(user) for user in payload.split(",") if user.isdecimal())
        self._event.set()
