"""Candle history and private events: SQLite or PostgreSQL for the service, memory twins for virtual
time."""

from .base import (
    CandleReader,
    KlineStore,
    Revision,
    Sizes,
    StoredEnd,
    StoreStatistics,
    why_unfit,
)
from .buffered import BufferedStore
from .journal import EventJournal, Journal, OtherWriters
from .journal_plan import AppendResult, AppendStatus
from .memory import MemoryStore
from .opening import MEMORY, NO_LIBRARY, look_at_database, open_journal, open_store

__all__ = [
    "MEMORY",
    "NO_LIBRARY",
    "BufferedStore",
    "AppendStatus",
    "CandleReader",
    "EventJournal",
    "Journal",
    "KlineStore",
    "MemoryStore",
    "OtherWriters",
    "AppendResult",
    "Revision",
    "Sizes",
    "StoreStatistics",
    "StoredEnd",
    "look_at_database",
    "open_journal",
    "open_store",
    "why_unfit",
]
