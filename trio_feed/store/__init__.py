"""Candle history and private events: SQLite for the service, memory twins for virtual time."""

from .base import KlineStore
from .journal import Fate, Journal, Outcome
from .memory import MemoryStore
from .opening import MEMORY, open_journal, open_store

__all__ = [
    "MEMORY",
    "Fate",
    "Journal",
    "KlineStore",
    "MemoryStore",
    "Outcome",
    "open_journal",
    "open_store",
]
