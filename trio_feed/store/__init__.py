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
from .claims import Sharing
from .journal import EventJournal, Journal, OtherWriters
from .journal_plan import AppendResult, AppendStatus
from .memory import MemoryStore
from .memory_database import MemoryDatabase
from .opening import (
    MEMORY,
    NO_LIBRARY,
    look_at_database,
    open_journal,
    open_reading_store,
    open_shared_store,
    open_store,
)
from .shards import ShardStore

__all__ = [
    "MEMORY",
    "NO_LIBRARY",
    "BufferedStore",
    "AppendStatus",
    "CandleReader",
    "EventJournal",
    "Journal",
    "KlineStore",
    "MemoryDatabase",
    "MemoryStore",
    "OtherWriters",
    "AppendResult",
    "Revision",
    "ShardStore",
    "Sharing",
    "Sizes",
    "StoreStatistics",
    "StoredEnd",
    "look_at_database",
    "open_journal",
    "open_reading_store",
    "open_shared_store",
    "open_store",
    "why_unfit",
]
