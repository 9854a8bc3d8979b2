"""Candles and private events in PostgreSQL.  The only importer of psycopg, which is the extra
``cluster``."""

from .importing import fill
from .journal import open_postgres_journal
from .opening import open_postgres, open_reader, open_shared
from .probe import look_at

__all__ = [
    "fill",
    "look_at",
    "open_postgres",
    "open_postgres_journal",
    "open_reader",
    "open_shared",
]
