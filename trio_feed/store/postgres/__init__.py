"""Candles and private events in PostgreSQL.  The only importer of psycopg, which is the extra
``cluster``."""

from .opening import open_postgres

__all__ = ["open_postgres"]
