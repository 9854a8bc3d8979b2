"""``scripts/bench connect``: clients that come all at once, each with eleven subscriptions.

A hundred of them are on their way at a time.  ``connects/s`` is by wall clock, from the first SYN
to the last confirmation, with the client process on the other core; ``per CPU s`` counts the
server's own time only.  ``stall``: the longest time its event loop stood still meanwhile, and
(``CPU``) was at work without looking at its other tasks: that counts on a machine others use.
"""

from .processes import LOADING, MEASURED, child, cpu_s, open_files, pin
from .result import Result, Target
from .servers import STREAMS

_OURS = "trio_feed"
_SERVERS = (_OURS, "websockets", "picows, uvloop", "hypercorn, trio")
_STALL, _PER_CPU = f"{_OURS}: longest stall", f"{_OURS}: connects/CPU s"
_RATIO = "connects per CPU second, trio_feed / websockets"


def run(quick: bool) -> Result:
    pin(LOADING)
    number = min(1_000 if quick else 10_000, open_files() - 200)
    stayed = f"{_OURS}: stayed"
    result = Result(
        "connect",
        "connects/s",
        {_RATIO: (_PER_CPU, "websockets: connects/CPU s")},
        [Target(_PER_CPU, 1_000), Target(_RATIO, 0.5), Target(_STALL, 50, most=True),
         Target(stayed, number)],
    )  # fmt: skip
    result.notes.append(f"{number} clients, 11 subscriptions each")
    for _ in range(1):
        for impl in _SERVERS:
            try:
                _connect(result, impl, number)
            except RuntimeError as error:
                result.skip(impl, str(error))
    return result


def _connect(result: Result, impl: str, number: int) -> None:
    job = {"number": number, "common": [("ALL", number)], "streams": STREAMS, "each": 10}
    with child("servers", impl, MEASURED) as server:
        port = server.read()["port"]
        server.ask("stall")
        before = cpu_s(server.process.pid)
        with child("clients", {**job, "port": port}, LOADING) as clients:
            found = clients.read()
            used, stall = cpu_s(server.process.pid) - before, server.ask("stall")
        result.add(f"{impl}: connects", found["stayed"] / found["seconds"])
        result.add(f"{impl}: connects/CPU s", found["stayed"] / used, "connects/CPU s")
        result.add(f"{impl}: longest stall", stall["stall_ms"], "ms")
        result.add(f"{impl}: longest stall, CPU", stall["stall_cpu_ms"], "ms")
        result.add(f"{impl}: stayed", found["stayed"], "clients")
