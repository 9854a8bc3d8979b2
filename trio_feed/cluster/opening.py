"""A process becomes a node: the engine is opened and looked at, and the database of all nodes."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ..bus.engine.base import EngineFault
from ..bus.engine.opening import MakeEngine, make_engine, patiently
from ..environment import Environment
from ..errors import StartError
from ..metrics import Metrics
from ..settings import Settings
from ..store import KlineStore, MemoryDatabase, open_store
from .listings import Listings
from .membership import Membership, cluster_of
from .node import Node
from .registry import SAY_S, Known
from .shards import all_shards


@asynccontextmanager
async def open_node(
    settings: Settings, environment: Environment, make: MakeEngine = make_engine
) -> AsyncIterator[Node | None]:
    """This process as a node; None: it is alone.  Raises StartError."""
    if settings.engine.kind == "memory":
        yield None
        return
    shards = all_shards(settings)
    async with make(settings.engine, cluster_of(settings)) as engine:
        name = settings.node.name
        holder = f"{name}:{secrets.token_hex(4)}"
        known = Known(name, holder)
        try:
            known.begin(await patiently(engine.nodes), trio.current_time())
            if name in known.said:  # of a process that has died, or of one that runs
                await trio.sleep(2 * SAY_S)
                if known.is_taken(await patiently(engine.nodes)):
                    raise StartError(f'node.name: "{name}" is taken: a node of that name runs')
        except EngineFault as fault:
            raise StartError(f"engine.urls: {fault}") from None
        listings = Listings(engine, settings)
        membership = Membership(engine, settings)
        node = Node(settings, environment, engine, holder, shards, known, listings, membership)
        node.started_ms = environment.now_ms()
        yield node


@asynccontextmanager
async def open_stores(
    settings: Settings,
    node: Node | None,
    environment: Environment,
    metrics: Metrics,
    twin: MemoryDatabase | None,
) -> AsyncIterator[KlineStore]:
    """The store of a process that is alone, or that of all nodes.  Raises StartError."""
    simulated = settings.simulator.enabled
    if node is not None:
        async with node.open_store(simulated=simulated, metrics=metrics, twin=twin) as shared:
            yield shared
        return
    now_ms = environment.now_ms()
    async with open_store(
        settings.store, simulated=simulated, now_ms=now_ms, metrics=metrics
    ) as store:
        yield store
