"""Which shards a venue has."""

from collections.abc import Collection

from ..ingest.driver import EVERY
from ..settings import Settings


def has_any(shards: Collection[str], venue: str) -> bool:
    return any(shard.rpartition(".")[0] == venue for shard in shards)


def shards_of_venue(settings: Settings, venue: str) -> int:
    """A venue whose symbols come by themselves is one shard."""
    exchange = settings.exchanges.get(venue)
    return 1 if exchange is not None and EVERY in exchange.symbols else settings.engine.shards
