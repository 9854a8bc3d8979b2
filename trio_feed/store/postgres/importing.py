"""Fill an empty database with the tables of another store.  Blocking."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import psycopg

from ...errors import StoreError
from ...settings import DatabaseUrl
from .connection import Connection, Server
from .journal import kept_id
from .locks import be_sole_writer
from .opening import open_part, refused
from .schema import CURSOR, JOURNAL, STORE

_DEADLINE_S = 6 * 3600.0
_EMPTY = {"store": "SELECT 1 FROM series LIMIT 1", "journal": "SELECT 1 FROM users LIMIT 1"}
_COUNTERS = {
    "store": "SELECT setval(pg_get_serial_sequence('series', 'id'), max(id)) FROM series",
    "journal": "SELECT setval('event_ids', max(id)) FROM events",
}
_OTHERS = (
    "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND application_name LIKE 'trio\\_feed %' LIMIT 1"
)
_PUT_META = (
    "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)


def fill(
    url: DatabaseUrl,
    kind: str,
    meta: Mapping[str, str],
    columns: Mapping[str, Sequence[str]],
    rows: Callable[[str], Iterable[tuple[Any, ...]]],
) -> dict[str, int]:
    """All or nothing; returns the number of rows by table.  Raises StartError with what is wrong
    with the database, also where it has such rows already or a service uses it."""
    part = {"store": STORE, "journal": JOURNAL}[kind]
    link = open_part(Server(url), "--to", part, _DEADLINE_S)
    try:
        with link.transaction() as db:
            if other := db.execute(_OTHERS).fetchone():
                name = str(other[0]).removeprefix("trio_feed ")
                raise StoreError(f"a trio_feed uses it ({name}); end it first")
            if kind == "store":
                be_sole_writer(db)
            if db.execute(_EMPTY[kind]).fetchone():
                raise StoreError(f"it has a {kind} already; an empty database is needed")
            counts = {}
            for table, names in columns.items():
                if kind == "store":  # of a start without anything behind it
                    db.execute(f"DELETE FROM {table}")
                counts[table] = _copy(db, table, names, rows(table))
            db.execute(_COUNTERS[kind])
            _put_meta(db, kind, meta)
    except (psycopg.Error, StoreError) as error:
        raise refused("--to", url, error) from None
    finally:
        link.close()
    return counts


def _put_meta(db: Connection, kind: str, meta: Mapping[str, str]) -> None:
    for key, value in meta.items():
        if kind == "journal":
            key = f"journal.{key}"
        elif key == "epoch":  # it never goes back
            row = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
            value = str(max(int(value), int(row[0]) if row else 0))
        elif key != "kind" and not key.startswith(CURSOR):
            continue
        db.execute(_PUT_META, (key, value))


def _copy(db: Connection, table: str, names: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> int:
    listed, count = ", ".join(f'"{name}"' for name in names), 0
    at = names.index("event_id") if "event_id" in names else None
    with db.cursor() as cursor, cursor.copy(f"COPY {table} ({listed}) FROM STDIN") as copy:
        for row in rows:
            if at is not None:
                row = (*row[:at], kept_id(row[at]), *row[at + 1 :])
            copy.write_row(row)
            count += 1
    return count
