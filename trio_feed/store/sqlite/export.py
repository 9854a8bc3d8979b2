"""The tables of a SQLite file, to be copied into another database.  Blocking."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from attrs import frozen

from ...errors import StartError
from ..journal_sqlite import open_journal_backend
from ..sole_writer import sole_writer
from .file import connect
from .rows import BEFORE_NAMES, NAMES
from .schema import CURSOR, create_or_migrate

Kind = Literal["store", "journal"]
_TABLES: Mapping[Kind, Mapping[str, Sequence[str]]] = {
    "store": {
        "series": ("id", "venue", "symbol", "interval"),
        "klines": ("series_id", *NAMES, "epoch", "offset"),
        "holes": ("series_id", "first_ms", "last_ms"),
        "revisions": ("series_id", "open_ms", "epoch", "offset", "learned_ms", *BEFORE_NAMES),
        "epochs": ("epoch", "written_to_the_end"),
        "ends": (
            "series_id", "first_open_ms", "last_open_ms", "settled_ms", "last_stream_id", "candles",
            "forgotten_epoch", "forgotten_offset",
        ),
    },
    "journal": {
        "events": ("id", "publisher", "event_id", "at_ms"),
        "deliveries": ("event", "user_id", "offset", "body"),
        "orders": ("order_id", "user_id", "at_ms"),
        "users": ("user_id", "offset"),
    },
}  # fmt: skip


@frozen
class Export:
    """``meta`` as it is in the file, without its version; ``columns`` by table, in an order in
    which they can be filled."""

    kind: Kind
    meta: Mapping[str, str]
    columns: Mapping[str, Sequence[str]]
    _connection: sqlite3.Connection

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        names = ", ".join(f'"{name}"' for name in self.columns[table])
        return self._connection.execute(f"SELECT {names} FROM {table}")


@contextmanager
def exported(path: Path) -> Iterator[Export]:
    """A store of candles or private events, in one state; nobody writes it meanwhile.  One of an
    earlier version is migrated first.  Raises StartError with what is wrong with the file."""
    if not path.is_file():
        raise StartError(f"{path}: no such file")
    with sole_writer(path, "store.path"):
        try:
            with closing(connect(path)) as connection:
                kind = _kind(connection, path)
                if kind == "store":
                    create_or_migrate(connection)
                else:
                    open_journal_backend(path, now_ms=0).close()
                connection.execute("BEGIN")
                meta = dict(connection.execute("SELECT key, value FROM meta"))
                kept = {
                    key: value
                    for key, value in meta.items()
                    if key in ("epoch", "kind", "shared_epoch") or key.startswith(CURSOR)
                }
                yield Export(kind, kept, _TABLES[kind], connection)
        except sqlite3.Error as error:
            raise StartError(f"{path}: {error}") from None


def _kind(connection: sqlite3.Connection, path: Path) -> Kind:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if {"meta", "klines"} <= tables:
        return "store"
    if {"meta", "deliveries"} <= tables:
        return "journal"
    raise StartError(f"{path}: holds neither candles nor private events of trio_feed")
