"""A SQLite file into PostgreSQL, for those who change from one to the other.  Blocking."""

from collections.abc import Mapping
from pathlib import Path

from ..settings import DatabaseUrl
from .opening import postgres_room
from .sqlite.export import exported


def copy_into_postgres(source: Path, url: DatabaseUrl) -> Mapping[str, int]:
    """Copy a file of candles, or one of private events, into a database that has none yet, all or
    nothing; numbers and epochs stay, so that clients resume.  Returns rows by table.  Raises
    StartError with what is wrong with either."""
    postgres = postgres_room("--to")
    with exported(source) as found:
        counts: dict[str, int] = postgres.fill(
            url, found.kind, found.meta, found.columns, found.rows
        )
    return counts
