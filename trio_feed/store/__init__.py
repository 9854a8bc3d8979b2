"""Candle history and private events: SQLite for the service, memory twins for virtual time."""

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
from .journal import EventJournal, Journal
from .journal_plan import AppendResult, AppendStatus
from .memory import MemoryStore
from .opening import MEMORY, open_journal, open_store

__all__ = [
    "MEMORY",
    "BufferedStore",
    "AppendStatus",
    "CandleReader",
    "EventJournal",
    "Journal",
    "KlineStore",
    "MemoryStore",
    "AppendResult",
    "Revision",
    "Sizes",
    "StoreStatistics",
    "StoredEnd",
    "open_journal",
    "open_store",
    "why_unfit",
]
