"""Which shards a venue has."""

from collections.abc import Collection

from ..bus.engine.base import shards_of
from ..ingest.driver import EVERY
from ..settings import Settings


def has_any(shards: Collection[str], venue: str) -> bool:
    return any(shard.rpartition(".")[0] == venue for shard in shards)


def shards_of_venue(settings: Settings, venue: str) -> int:
    """A venue whose symbols come by themselves is one shard."""
    exchange = settings.exchanges.get(venue)
    return 1 if exchange is not None and EVERY in exchange.symbols else settings.engine.shards


def all_shards(settings: Settings) -> list[str]:
    """Of the venues that are fed."""
    return [
        shard
        for venue, exchange in settings.exchanges.items()
        if exchange.enabled
        for shard in shards_of(venue, shards_of_venue(settings, venue))
    ]
