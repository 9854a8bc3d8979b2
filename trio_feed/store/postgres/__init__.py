"""Candles and private events in PostgreSQL.  The only importer of psycopg, which is the extra
``cluster``."""

from .journal import open_postgres_journal
from .opening import open_postgres

__all__ = ["open_postgres", "open_postgres_journal"]
