"""Candle history: SQLite for the service, a memory twin for tests and virtual time."""

from .base import KlineStore
from .memory import MemoryStore
from .opening import MEMORY, open_store

__all__ = ["MEMORY", "KlineStore", "MemoryStore", "open_store"]
