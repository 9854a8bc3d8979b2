"""A node says once a second how it stands, and hears how the others do."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Never

import structlog
import trio

from .. import __version__
from ..bus.engine.base import EngineFault
from ..wiring import UpstreamView
from . import registry
from .agreement import digests_of
from .listings import LIST_S
from .registry import SAY_S, Said

if TYPE_CHECKING:
    from .node import Node

log = structlog.get_logger()


async def speak(node: "Node", view: UpstreamView, clients: Callable[[], int]) -> Never:
    """Until cancelled.  ``clients()``: how many there are here."""
    beat = 0
    while True:
        said = _words(node, view, clients(), beat)
        try:
            there = await node.engine.nodes()
            await node.membership.renew()
            if not node.left.is_set():
                await node.engine.put_node(node.name, registry.written(said), registry.TTL_S)
            _note_others(node, there, said)
            if beat % round(LIST_S / SAY_S) == 0:
                await node.listings.read()
        except EngineFault:
            pass  # those who feed and read say so
        beat += 1
        await trio.sleep(SAY_S)


def _words(node: "Node", view: UpstreamView, clients: int, beat: int) -> Said:
    venues = [] if node.fed is None else node.fed.names
    stale = [venue for venue in venues if node.own_why_not(venue)]
    node.freshness.note(stale, trio.current_time())
    return Said(
        node.name,
        node.holder,
        __version__,
        list(node.settings.node.roles),
        sorted(node.feeding.own) if node.feeding is not None else [],
        venues,
        {venue: why for venue in venues if (why := node.why_not_here(venue))},
        view.report.not_ready(),
        clients,
        node.started_ms,
        node.urls,
        beat,
        stale,
        None if node.fed is None else digests_of(node.fed.exchanges),
        node.agreement.waits,
    )


def _note_others(node: "Node", there: Mapping[str, bytes], own: Said) -> None:
    known, now = node.known, trio.current_time()
    had_twin = known.twin is not None
    known.take(there, own, now)
    node.agreement.note(own, known.said, now)
    node.unfed.note(known.said.values(), node.listings.tables, now)
    if node.feeding is not None:
        holders = {each.holder for each in known.said.values()}
        node.foreign.note(node.feeding.holders, holders, now)
    if known.twin is not None and not had_twin:
        log.warning("node.twin", name=node.name, started_ms=round(known.twin.started_ms))
