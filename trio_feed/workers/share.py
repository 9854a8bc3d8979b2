"""A worker's share of what there may be at a time for all clients, or for an address.  Pure.

What clients may have per second is not divided but shared: :mod:`..push.edge.spending`.  Places
for clients are given away by the parent.
"""

from attrs import evolve

from ..settings import Settings

_LEAST_WAITING = 2**22
"""Bytes for one client that reads slowly."""


def share_of(settings: Settings) -> Settings:
    """The settings of one worker; each has some of everything."""
    limits, settlement, workers = settings.limits, settings.settlement, settings.server.workers
    return evolve(
        settings,
        limits=evolve(
            limits,
            waiting_bytes=max(_LEAST_WAITING, limits.waiting_bytes // workers),
            waiting_per_address=max(1, limits.waiting_per_address // workers),
        ),
        settlement=evolve(settlement, max_requests=max(1, settlement.max_requests // workers)),
    )
