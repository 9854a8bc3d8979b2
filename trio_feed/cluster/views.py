"""What the push side of a node knows of all nodes."""

from collections.abc import Mapping
from typing import Any

import trio
from attrs import evolve

from ..ingest.fed import FedInstruments
from ..push.edge.routes import ServiceReport
from ..push.fanout.hub import Hub
from ..venues import Instruments
from ..wiring import OpenSymbols, UpstreamView
from .node import Node
from .shards import has_any


def view_of_node(node: Node, own: UpstreamView, hub: Hub) -> UpstreamView:
    """``own``: of this node's feeds."""
    node.give_view(own)

    def status() -> dict[str, Any]:
        return {
            **own.report.status(),
            "node": node.name,
            "nodes": node.known.shown(trio.current_time()),
            "shards": _shards_shown(node),
            "differs": node.agreement.differs,
            "unfed": node.unfed.symbols,
            "shards_heard_s": _heard_shown(node),
            "engine": {
                "kind": node.settings.engine.kind,
                "problem": node.engine_problem,
                "lacks": node.fitness.lacks,
            },
            "database": {"problem": node.database.problem},
        }

    def not_ready() -> str:
        if node.following is not None and (why := node.following.why_not()):
            return why
        if node.feeding is not None and node.feeding.problem:
            return f"engine: {node.feeding.problem}"
        if node.membership.other:
            return f"engine.prefix: {node.membership.other}"
        if why := node.foreign.why_not():
            return why
        if why := node.agreement.why_not(trio.current_time()):
            return why
        if not node.serves and (why := _why_not_kept(node)):
            return why
        return "" if node.serves and not node.feeds else own.report.not_ready()

    def why_not(venue: str) -> str:
        if own_why := node.why_not_here(venue):
            return own_why
        others = (each for name, each in node.known.said.items() if name != node.name)
        said = (each.why_not.get(venue, "") for each in others if has_any(each.shards, venue))
        return next((why for why in said if why), "")

    def listing(venue: str) -> FedInstruments:
        if not node.serves:
            return own.listing(venue)  # type: ignore[return-value]
        table = node.listings.tables.get(venue, Instruments())
        return FedInstruments(table, OpenSymbols(hub, venue))

    return evolve(
        own,
        report=ServiceReport(status, not_ready, own.report.clock),
        why_not=why_not,
        listing=listing,
        outside=None,
    )


def _why_not_kept(node: Node) -> str:
    """Of a node that only feeds: one that serves has live data for its clients all the same."""
    if node.store is None:
        return ""
    stored = node.store.statistics()
    if stored.problem:
        return f"database {stored.place}: it takes no candles: {stored.problem}; {stored.advice}"
    if node.database.problem:  # who has no candles to write does not notice it by them
        why = f"it does not answer: {node.database.problem}; meanwhile no shard can be taken"
        return f"database {stored.place}: {why}"
    return ""


def _heard_shown(node: Node) -> Mapping[str, float]:
    """By shard how long ago this node read something of it."""
    now, readings = (
        trio.current_time(),
        {} if node.following is None else node.following.readings,
    )
    return {shard: round(now - reading.heard_at, 1) for shard, reading in readings.items()}


def _shards_shown(node: Node) -> Mapping[str, str]:
    """By shard the node that feeds it."""
    owners = {shard: name for name, said in node.known.said.items() for shard in said.shards}
    return {shard: owners.get(shard, "") for shard in node.shards}
