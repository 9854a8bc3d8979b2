"""``scripts/bench workers``: one process, and 2 and 4 workers, with the same clients.

Clients, workers and the process that publishes share all cores of this machine, so deliveries per
second say what the whole of that reaches here.  What a delivery costs of the serving processes'
CPU says what a core more would bring: flat means that workers do not stand in each other's way.
The price of a worker is that each reads all messages (``intake``), and its memory.
"""

from contextlib import ExitStack
from statistics import median

from .processes import Child, child, open_files
from .result import Result, Target
from .workers_server import STREAMS

_KINDS = (1, 2, 4)
_EACH = 10
_SECONDS = 2.0


def run(quick: bool) -> Result:
    number = min(200 if quick else 1_000, open_files() - 500)
    result = Result("workers", "deliveries/s")
    result.notes.append(
        f"{number} clients with {_EACH} of {STREAMS} streams each, on the same cores"
    )
    with ExitStack() as stack:
        pairs: dict[int, tuple[Child, Child]] = {}
        for workers in _KINDS:
            server = stack.enter_context(child("workers_server", {"workers": workers}, "0-1023"))
            job = {
                "port": server.read()["port"], "number": number, "common": [], "streams": STREAMS,
                "each": _EACH, "sampled": 50, "nap_ms": 1,
            }  # fmt: skip
            clients = stack.enter_context(child("clients", job, "0-1023"))
            stayed = clients.read()["stayed"]
            if stayed < number:
                result.skip(_name(workers), f"only {stayed} of {number} clients stayed")
                continue
            pairs[workers] = server, clients
        for _ in range(2 if quick else 5):
            for workers, (server, clients) in pairs.items():
                _measure(result, workers, server, clients)
    _judge(result, list(pairs))
    return result


def _measure(result: Result, workers: int, server: Child, clients: Child) -> None:
    clients.ask("take")
    found, name = server.ask(f"stream {_SECONDS}"), _name(workers)
    taken = clients.ask("take")
    if taken["gone"]:
        result.skip(name, f"{taken['gone']} clients were dropped")
    result.add(name, found["deliveries"] / found["seconds"])
    result.add(f"{name}: CPU", found["cpu_s"] / found["deliveries"] * 1e6, "us a delivery")
    if workers > 1:
        feed = found["feed_s"] / found["messages"] * 1e6
        result.add(f"{name}: CPU of the parent", feed, "us a message")
    result.add(f"{name}: memory of each", median(found["rss_kb"]) / 1024, "MiB")


def _name(workers: int) -> str:
    return "one process" if workers == 1 else f"{workers} workers"


def _judge(result: Result, there: list[int]) -> None:
    ratios = {}
    for workers in there:
        if workers > 1:
            title = f"CPU of a delivery: {_name(workers)} / one process"
            ratios[title] = f"{_name(workers)}: CPU", f"{_name(1)}: CPU"
    result.ratios = ratios
    result.targets = [Target(title, 1.1, most=True) for title in ratios]
