"""A part of ``scripts/bench engine``: what a node that serves costs the engine's server, and what
it takes itself, as one process and with workers; and the server without any reader.

The same is published each time, and 50 clients are at the node.  Reads are counted by the server.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from scripts.valkey_server import ValkeyServer

from .processes import Child, child
from .result import Result, Target

_KINDS = {"nobody reads": 0, "one process": 1, "2 workers": 2}
_CLIENTS, _EACH = 50, 4
_ANYWHERE = "0-1023"
RATIOS = {
    "reads of the engine: 2 workers / one process": "reads",
    "CPU of the engine: 2 workers / one process": "CPU of the engine",
    "CPU of the node: 2 workers / one process": "CPU of the node",
}
TARGETS = [Target("reads of the engine: 2 workers / one process", 1.1, most=True)]


def measure(
    result: Result, engine: ValkeyServer, writer: Child, streams: int, rate: int, rounds: int,
    seconds: float,
) -> None:  # fmt: skip
    """Node by node, each alone with the writer."""
    for number in range(rounds):
        for kind, workers in _KINDS.items():
            with _node(engine, f"reader-{number}-{workers}", workers, streams) as node:
                _measure(result, kind, engine, writer, node, f"stream {seconds} {rate}")
    result.ratios = {
        title: (f"2 workers: {row}", f"one process: {row}") for title, row in RATIOS.items()
    }


@contextmanager
def _node(engine: ValkeyServer, name: str, workers: int, streams: int) -> Iterator[Any]:
    if not workers:
        yield None
        return
    with ExitStack() as stack:
        job = {"role": "read", "url": engine.url, "name": name, "workers": workers}
        node = stack.enter_context(child("engine_node", job, _ANYWHERE))
        of_clients = {
            "port": node.read()["port"], "number": _CLIENTS, "common": [], "streams": streams,
            "each": _EACH, "sampled": _CLIENTS, "nap_ms": 0,
        }  # fmt: skip
        clients = stack.enter_context(child("clients", of_clients, _ANYWHERE))
        clients.read()
        yield node, clients


def _measure(
    result: Result, kind: str, engine: ValkeyServer, writer: Child, node: Any, job: str
) -> None:
    if node is not None:
        reader, clients = node
        clients.ask("take")
        reader.ask("cpu")
    cpu, reads = server_cpu(engine), _reads(engine)
    wrote = writer.ask(job)
    per_second = 1 / wrote["seconds"]
    used = 100 * (server_cpu(engine) - cpu) * per_second
    result.add(f"{kind}: CPU of the engine", used, "% of a core")
    if node is not None:
        result.add(f"{kind}: reads", (_reads(engine) - reads) * per_second, "a second")
        took = reader.ask("cpu")
        for row, name in (("node", "cpu_s"), ("parent", "parent_s")):
            result.add(f"{kind}: CPU of the {row}", 100 * took[name] * per_second, "% of a core")
        taken = clients.ask("take")
        for row in ("p50", "p99"):
            result.add(f"{kind}: publish to client, {row}", taken[f"{row}_ms"])


def server_cpu(engine: ValkeyServer) -> float:
    """Seconds so far."""
    rows = _info(engine, "cpu")
    return float(rows["used_cpu_sys"]) + float(rows["used_cpu_user"])


def _reads(engine: ValkeyServer) -> int:
    found = _info(engine, "commandstats").get("cmdstat_xread", "calls=0")
    return int(found.split(",")[0].removeprefix("calls="))


def _info(engine: ValkeyServer, part: str) -> dict[str, str]:
    told = engine.ask("INFO", part)
    return dict(line.split(":", 1) for line in told.split() if ":" in line)
