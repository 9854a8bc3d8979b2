"""More than one machine: a log that may forget, between nodes that feed and nodes that serve."""

from .base import EMPTY, Append, Engine, EngineFault, Entry, EntryId, shard_of, shards_of
from .opening import NO_LIBRARY, make_engine

__all__ = [
    "EMPTY",
    "NO_LIBRARY",
    "Append",
    "Engine",
    "EngineFault",
    "Entry",
    "EntryId",
    "make_engine",
    "shard_of",
    "shards_of",
]
