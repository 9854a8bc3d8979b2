"""``scripts/bench memory``: what a connected client with ten subscriptions takes, in each server.

Resident memory after a collection, before and after the clients came.  For us again under traffic
to all of them: what is kept for those who resume fills up to its bound first, and only what is
added after that counts as growth.
"""

from .fanout import connected
from .processes import LOADING, MEASURED, Child, child, open_files, pin
from .result import Result, Target
from .servers import RING, SERVERS

_OURS = "trio_feed"
_GROWTH = "trio_feed: grown by traffic, all kept messages there"
_LEFT_OUT = ("C send loop", "os.write loop", "websockets, uvloop")


def run(quick: bool) -> Result:
    pin(LOADING)
    number = min(1_000 if quick else 10_000, open_files() - 200)
    result = Result(
        "memory", "KB/client", {}, [Target(_OURS, 20, most=True), Target(_GROWTH, 0.5, most=True)]
    )
    result.notes.append(f"{number} clients, 10 of 500 streams each")
    for impl in SERVERS:
        if impl in _LEFT_OUT:
            continue
        try:
            before = _alone_kb(impl)
            with connected(impl, number, [number]) as (server, clients):
                there = server.ask("rss")["kb"]
                result.add(impl, (there - before) / number)
                if impl == _OURS:
                    _traffic(server, clients, 2 * RING)
                    warm = server.ask("rss")["kb"]
                    _traffic(server, clients, 2 * RING if quick else 8 * RING)
                    result.add(_GROWTH, (server.ask("rss")["kb"] - warm) / number)
        except RuntimeError as error:
            result.skip(impl, str(error))
    return result


def _traffic(server: Child, clients: Child, rounds: int) -> None:
    """So many messages on each stream; every two rounds the clients have read them."""
    for _ in range(rounds // 2):
        server.ask("streams 2")
        clients.ask("take")


def _alone_kb(impl: str) -> float:
    """The server without clients."""
    with child("servers", impl, MEASURED) as server:
        server.read()
        return float(server.ask("rss")["kb"])
