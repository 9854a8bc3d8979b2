"""The repair of a chain, opened: its nodes, and where an earlier run of the service had read to."""

from collections.abc import Sequence
from typing import TypeGuard

import structlog

from ..net.rest import RestClient
from ..settings import ChainEndpointSettings, ChainSettings
from ..venues import Venue
from ..venues.base import ChainVenue
from .chain import ChainFeed
from .chain_memory import ChainMemory, resume_chain
from .driver import Driver
from .newcomers import Newcomers


def is_repaired(venue: Venue) -> TypeGuard[ChainVenue]:
    """What the venue's subscription misses can be fetched.  Logged where it only lacks a URL."""
    if not isinstance(venue, ChainVenue):
        return False
    if not venue.chain:
        problem = "no RPC URL is configured: what the subscription misses is lost"
        structlog.get_logger().warning("chain.repairs_off", venue=venue.NAME, problem=problem)
        return False
    return True


def nodes_of(solana: ChainSettings, rest_url: str) -> Sequence[ChainEndpointSettings]:
    """Those of the settings; else the venue's own."""
    return solana.endpoints or (ChainEndpointSettings(rest_url),)


async def open_chain(
    venue: ChainVenue,
    settings: ChainSettings,
    driver: Driver,
    clients: Sequence[RestClient],
    newcomers: Newcomers,
) -> ChainFeed:
    """With a client for each node; goes on where an earlier run ended."""
    name = f"{venue.NAME} {settings.program_id}"
    cursor = await resume_chain(driver, newcomers.store, name)
    memory = ChainMemory(newcomers.store, name, cursor)
    return ChainFeed(venue, settings, driver, clients, newcomers, memory)
