"""The store's file: touched only if it is one of ours, watched while it is in use, put back when it
was deleted; and what an operator can do about each way in which SQLite fails.  Blocking.
"""

import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import structlog
from attrs import define

from ...errors import StartError, StoreError
from ..private_file import create_private
from .schema import VERSION, cluster, is_clustered, version_of

log = structlog.get_logger()

_LOCK_WAIT_S = 1.0
_CHECKED_BYTES = 64 * 2**20
"""A file up to this size is read through at start (some tenths of a second); the damage in a
larger one is found where it is met."""
_WAL_LIMIT_BYTES = 16 * 2**20
_REWRITE_SHARE = 3.2
"""What is needed beside the file, at most: it grows by a second table of candles, and then a VACUUM
writes the half that is left twice, as a copy and into the log."""
_CLUSTERED_BYTES = 8 * 2**30
"""Candles of a larger file stay in the order of their coming: to move them takes minutes, and what
waits for the start may end it for that, each time anew."""

_ADVICE = {
    "SQLITE_FULL": "make room on the disk",
    "SQLITE_IOERR": "the disk does not take it: check its space, quotas and health",
    "SQLITE_READONLY": "make the file, its folder and its file system writable",
    "SQLITE_BUSY": "another process holds the file: end it, or give each its own store.path",
    "SQLITE_LOCKED": "another process holds the file: end it, or give each its own store.path",
    "SQLITE_CANTOPEN": "check that the folder is there and may be written to",
    "SQLITE_CORRUPT": "the file is damaged: stop the service, move the file away, start again;"
    " what the exchanges still have is fetched",
    "SQLITE_PROTOCOL": "another process holds the file: end it, or give each its own store.path",
    "SQLITE_NOTADB": "name another file, or move this one away",
}


def advice(error: Exception) -> str:
    """What to do about it."""
    name = getattr(error, "sqlite_errorname", "")
    family = "_".join(name.split("_")[:2])
    return _ADVICE.get(family, "check the disk and the file's permissions")


def connect(path: Path) -> sqlite3.Connection:
    """In autocommit mode; may be used by one thread after another."""
    return sqlite3.connect(
        path, timeout=_LOCK_WAIT_S, check_same_thread=False, isolation_level=None
    )


def set_up(connection: sqlite3.Connection) -> None:
    """For the connection that writes.  A new file is made so that it can shrink."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # heeded before the first table only
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")


def write_anew(connection: sqlite3.Connection, path: Path) -> str:
    """Write a file of an earlier version anew where it lacks the order of its candles, or cannot
    shrink.  Returns why it could not be; empty: nothing is left to do.  Killed in the middle, the
    file is as it was."""
    size = path.stat().st_size
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    clustered = is_clustered(connection) or size > _CLUSTERED_BYTES
    if mode and clustered:
        return ""
    if shutil.disk_usage(path.parent).free < size * _REWRITE_SHARE:
        return f"{size >> 20} MiB have to be written anew, and the disk has no place for that"
    log.info("store.rewriting", path=str(path), mib=size >> 20)
    try:
        if not clustered:
            cluster(connection)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if not mode:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        return str(error)
    return ""


def wal_bytes(path: Path) -> int:
    """Size of the log beside the file."""
    try:
        return os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        return 0


def examine(path: Path, *, kind: str) -> None:
    """Look at what lies there, without writing to it.  Raises StartError where it is not a store
    of this version or an earlier one, with candles of this ``kind``, and sqlite3.Error."""
    if not path.exists() or not path.stat().st_size:
        return
    address = path.resolve().as_uri() + "?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=_LOCK_WAIT_S)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if not tables:
            return
        if not {"meta", "klines"} <= tables:
            raise StartError(f"store.path: {path} is the database of something else; name another")
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        if version_of(meta) > VERSION:
            raise StartError(
                f"store.path: {path} was written by a newer version of trio_feed (schema"
                f" {meta['schema']}, this one reads up to {VERSION}); update, or name another file"
            )
        if meta.get("kind", kind) != kind:
            raise StartError(
                f"store.path: {path} holds {meta['kind']} candles and this run has {kind} ones;"
                " name another file"
            )
        if path.stat().st_size <= _CHECKED_BYTES:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                where = found.splitlines()[-1]
                raise StartError(f"store.path: {path}: {_ADVICE['SQLITE_CORRUPT']} ({where})")


@define
class Place:
    """Where the file lies, and which one it is."""

    path: Path
    _file: tuple[int, int] = (0, 0)

    def remember(self) -> None:
        """What lies there now is the one."""
        found = os.stat(self.path)
        self._file = found.st_dev, found.st_ino

    def is_empty(self) -> bool:
        """Whether the file is gone.  Raises StoreError where another one has taken its place, and
        OSError."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return True
        if (found.st_dev, found.st_ino) != self._file:
            raise StoreError("another file has taken the place of the one that is in use")
        return False

    def put_back(
        self, writer: sqlite3.Connection, readers: Sequence[sqlite3.Connection]
    ) -> tuple[sqlite3.Connection, list[sqlite3.Connection]]:
        """Write a deleted file anew: all of it is still there behind the open connections.

        Returns the connections to go on with; the old ones are closed.  Raises sqlite3.Error and
        OSError, and then the old ones are still good.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")
        part.unlink(missing_ok=True)
        try:
            create_private(part)
            with closing(connect(part)) as copy:
                writer.backup(copy)
            part.replace(self.path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        fresh = connect(self.path), [connect(self.path) for _ in readers]
        # The last to close a database deletes its log by name: so before the new one has a log.
        for old in (*readers, writer):
            old.close()
        self.remember()
        return fresh
