"""``scripts/bench engine``: nodes around a real Redis (or Valkey).

First 10,000 messages a second over 500 symbols, from what is published at one node to the sockets
of clients at another: how late they are, and what of a core either node takes; and what a node with
workers costs (:mod:`.engine_readers`).  Then whole nodes as
processes, with PostgreSQL and a simulated exchange: what a killed, a leaving and a new one cost.
"""

import json
import signal
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from scripts import valkey_server
from scripts.soak_cluster_nodes import Topology, open_topology, why_not

from . import engine_readers
from .engine_node import STREAMS
from .engine_readers import server_cpu
from .processes import child, open_files
from .result import Result, Target

RATE = 10_000
LEASE_S = 3.0
_CLIENTS = 50
_EACH = 4
_WAIT_S = 60.0
_ANYWHERE = "0-1023"


def run(quick: bool) -> Result:
    result = Result("engine", "ms")
    result.notes.append(f"{RATE:,} messages/s over {STREAMS} symbols; {_CLIENTS} clients, {_EACH}")
    result.notes[-1] += " symbols each; exchange, servers, nodes and clients on the same cores"
    result.targets = [
        Target("publish to client, p50", 12, most=True),
        Target("publish to client, p99", 25, most=True),
        Target("ingest: CPU", 30, most=True),
        Target("reading: CPU", 25, most=True),
        Target("takeover after kill -9", LEASE_S * 1000 + 500, most=True),
        Target("orderly handover", 100, most=True),
        Target("push node: start to ready", 2_000, most=True),
        *engine_readers.TARGETS,
    ]
    if why := valkey_server.why_not():
        result.skip("messages", why)
    else:
        open_files()
        _messages(result, 2 if quick else 5, 3.0 if quick else 10.0)
    if why := why_not():
        result.skip("nodes", why)
    else:
        with tempfile.TemporaryDirectory() as folder:
            _nodes(result, Path(folder), 1 if quick else 3)
    return result


def _messages(result: Result, rounds: int, seconds: float) -> None:
    with ExitStack() as stack:
        engine = stack.enter_context(valkey_server.valkey_server())
        writer = stack.enter_context(_node("write", engine.url))
        writer.read()
        with ExitStack() as readers:
            reader = readers.enter_context(_node("read", engine.url))
            job = {
                "port": reader.read()["port"], "number": _CLIENTS, "common": [],
                "streams": STREAMS, "each": _EACH, "sampled": _CLIENTS, "nap_ms": 0,
            }  # fmt: skip
            clients = readers.enter_context(child("clients", job, _ANYWHERE))
            clients.read()
            writer.ask(f"stream 1 {RATE}")
            for _ in range(rounds):
                clients.ask("take")
                reader.ask("cpu")
                server_s = server_cpu(engine)
                wrote = writer.ask(f"stream {seconds} {RATE}")
                read, taken = reader.ask("cpu"), clients.ask("take")
                result.add("messages", wrote["messages"] / wrote["seconds"], "a second")
                result.add("publish to client, p50", taken["p50_ms"])
                result.add("publish to client, p99", taken["p99_ms"])
                result.add("ingest: CPU", 100 * wrote["cpu_s"] / wrote["seconds"], "% of a core")
                result.add("reading: CPU", 100 * read["cpu_s"] / wrote["seconds"], "% of a core")
                used = server_cpu(engine) - server_s
                result.add("engine: CPU", 100 * used / wrote["seconds"], "% of a core")
        rounds = (rounds + 1) // 2
        engine_readers.measure(result, engine, writer, STREAMS, RATE, rounds, seconds)


def _node(role: str, url: str) -> Any:
    return child("engine_node", {"role": role, "url": url}, _ANYWHERE)


def _nodes(result: Result, folder: Path, rounds: int) -> None:
    with open_topology(folder, lease_s=LEASE_S) as topology:
        for name in ("in1", "push1"):
            topology.nodes[name].start()
        _until(lambda: _ready(topology, "push1"))
        for _ in range(rounds):
            for measure in (_killed, _left):
                owner = next(name for name in ("in1", "in2") if topology.nodes[name].runs)
                other = "in2" if owner == "in1" else "in1"
                topology.nodes[other].start()
                _until(partial(_ready, topology, other))
                time.sleep(2)
                # Its neighbour has some of the shards after a while; what is measured are these.
                measure(result, topology, owner, other)
                _until(lambda: _ready(topology, "push1"))
            process, began = topology.nodes["push2"], time.monotonic()
            process.start()
            _until(lambda: _ready(topology, "push2"))
            result.add("push node: start to ready", (time.monotonic() - began) * 1000)
            result.add("push node: CPU to ready", process.cpu_s() * 1000)
            process.end()


def _killed(result: Result, topology: Topology, owner: str, other: str) -> None:
    had = _owned(topology, owner)
    topology.nodes[owner].end()
    began = time.time()
    _until(lambda: had <= set(_events(topology, other, "shard.taken", began - 0.001)))
    taken = _events(topology, other, "shard.taken", began - 0.001)
    result.add("takeover after kill -9", (max(taken[shard] for shard in had) - began) * 1000)


def _left(result: Result, topology: Topology, owner: str, other: str) -> None:
    had, began = _owned(topology, owner), time.time()
    topology.nodes[owner].end(signal.SIGTERM)
    _until(lambda: had <= set(_events(topology, other, "shard.taken", began)))
    given = _events(topology, owner, "shard.given", began)
    sealed = {s: at - _took(topology, owner, s) for s, at in given.items()}
    taken = _events(topology, other, "shard.taken", began)
    for shard in had:
        result.add("orderly handover", (taken[shard] - sealed[shard]) * 1000)


def _took(topology: Topology, name: str, shard: str) -> float:
    """Seconds that giving up a shard took the last time."""
    rows = [r for r in topology.log_lines(name) if r["event"] == "shard.given"]
    return float(next(r["took_s"] for r in reversed(rows) if r["shard"] == shard))  # type: ignore[arg-type]


def _owned(topology: Topology, name: str) -> set[str]:
    found = _get(topology, "push1", "/api/v1/status")
    return {shard for shard, owner in found["shards"].items() if owner == name}


def _events(topology: Topology, name: str, event: str, since: float) -> dict[str, float]:
    """By shard when it was logged first, unix seconds."""
    found: dict[str, float] = {}
    for row in topology.log_lines(name):
        if row["event"] == event:
            at = datetime.fromisoformat(str(row["timestamp"])).timestamp()
            if at >= since:
                found.setdefault(str(row["shard"]), at)
    return found


def _ready(topology: Topology, name: str) -> bool:
    return _get(topology, name, "/ready").get("ready") is True


def _get(topology: Topology, name: str, path: str) -> dict[str, Any]:
    """What it answers; empty where it does not."""
    try:
        with urllib.request.urlopen(f"http://{topology.address(name)}{path}", timeout=3) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except (urllib.error.URLError, OSError, ValueError):
        return {}


def _until(condition: Callable[[], bool]) -> None:
    """Raises RuntimeError where it does not come to it."""
    end = time.monotonic() + _WAIT_S
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("a node did not get there in time")
        time.sleep(0.01)
