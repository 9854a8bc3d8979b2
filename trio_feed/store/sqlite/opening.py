"""Open, create or migrate the candle file."""

import sqlite3
from pathlib import Path

import structlog

from ...errors import StartError
from ..private_file import create_private
from .backend import SqliteBackend
from .file import Place, advice, connect, examine, set_up, write_anew
from .schema import VERSION, create_or_migrate, transaction

log = structlog.get_logger()

_READERS = 5
"""Clients have four of them at most (``push.edge.work``), so feeds never wait for those."""


def open_sqlite(path: Path, *, simulated: bool, now_ms: float) -> SqliteBackend:
    """Open or create the file; one of an earlier version is migrated in place (blocking).  Raises
    StartError with what is wrong with the path.

    A file remembers whether it holds simulated candles; the two kinds never share one.  What is
    not a store of ours is left as it is.  ``now_ms`` seeds the epoch.
    """
    kind = "simulated" if simulated else "real"
    opened: list[sqlite3.Connection] = []
    place = Place(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        examine(path, kind=kind)
        create_private(path)
        opened.append(connect(path))
        epoch = _prepare(opened[0], path, kind=kind, now_ms=now_ms)
        opened += [connect(path) for _ in range(_READERS)]
        place.remember()
    except (OSError, sqlite3.Error) as error:
        for connection in opened:
            connection.close()
        problem = f"cannot be opened for writing: {error}; {advice(error)}"
        raise StartError(f"store.path: {path} {problem}") from None
    return SqliteBackend(opened[0], opened[1:], place, epoch)


def _prepare(connection: sqlite3.Connection, path: Path, *, kind: str, now_ms: float) -> int:
    """The tables, and this opening's epoch."""
    set_up(connection)
    before = create_or_migrate(connection)
    if before not in (0, VERSION):
        log.info("store.migrated", path=str(path), before=before, now=VERSION)
    if why := write_anew(connection, path):
        log.warning(
            "store.not_rewritten",
            path=str(path),
            problem=why,
            advice="it is used as it is, only slower or not shrinking; the next start tries again",
        )
    with transaction(connection):
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        epoch = max(int(meta.get("epoch", "0")) + 1, int(now_ms))
        rows = [("kind", kind), ("epoch", str(epoch))]
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
        connection.execute("INSERT INTO epochs VALUES (?, 0)", (epoch,))
    return epoch
