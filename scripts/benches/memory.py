"""``scripts/bench memory``: what a connected client with ten subscriptions takes, in each server.

Resident memory after a collection, before and after the clients came; and for us again after
traffic to all of them, for what grows with it (the issue wants none; ten minutes are
``scripts/soak``'s).
"""

from .fanout import connected
from .processes import LOADING, MEASURED, child, open_files, pin
from .result import Result, Target
from .servers import SERVERS

_OURS = "trio_feed"
_GROWTH = "trio_feed: grown by traffic"
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
                    for _ in range(3 if quick else 10):
                        server.ask("streams 2")
                        clients.ask("take")
                    warm = server.ask("rss")["kb"]
                    for _ in range(6 if quick else 20):
                        server.ask("streams 2")
                        clients.ask("take")
                    result.add(_GROWTH, (server.ask("rss")["kb"] - warm) / number)
        except RuntimeError as error:
            result.skip(impl, str(error))
    return result


def _alone_kb(impl: str) -> float:
    """The server without clients."""
    with child("servers", impl, MEASURED) as server:
        server.read()
        return float(server.ask("rss")["kb"])
