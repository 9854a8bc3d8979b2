"""Candles in one SQLite file.  With ``store.journal_sqlite`` the only importer of sqlite3."""

from .opening import open_sqlite

__all__ = ["open_sqlite"]
