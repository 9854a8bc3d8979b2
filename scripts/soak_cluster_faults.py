"""What ``scripts/soak --cluster`` does to the processes, one after the other."""

import os
import random
import signal
import time
from collections.abc import Awaitable, Callable

import trio
from attrs import frozen

from scripts.soak_cluster_nodes import Process, Topology

_RELOAD = "SELECT pg_reload_conf()"
_NEAR_S = 0.05
"""A kill in the moment of a close is that near to it."""
_BEHIND_S = 3.0
"""So long a worker may stand still before it is given up."""
_GIVEN_UP_S = 20.0
"""Its node has given it up by then."""
_MINUTE_S = 25.0
"""A minute's end that is further away is not waited for."""


@frozen
class Fault:
    """``strike(topology, victim)``: does it and puts it right, but waits for nobody to recover;
    ``role``: whose processes are victims in turn; empty: it is not about nodes."""

    name: str
    role: str
    strike: Callable[[Topology, str], Awaitable[None]]


async def _in_thread(do: Callable[..., object], *words: object) -> None:
    await trio.to_thread.run_sync(do, *words)


async def kill(topology: Topology, victim: str) -> None:
    process = topology.nodes[victim]
    await _in_thread(process.end)
    await trio.sleep(topology.lease_s + 1)
    process.start()


async def pause(topology: Topology, victim: str) -> None:
    await _paused(topology.nodes[victim], 2 * topology.lease_s)


async def stop(topology: Topology, victim: str) -> None:
    """As for an upgrade: in order, and again."""
    process = topology.nodes[victim]
    await _in_thread(process.end, signal.SIGTERM)
    process.start()


async def _paused(process: Process, seconds: float) -> None:
    process.pause(on=True)
    try:
        await trio.sleep(seconds)
    finally:
        process.pause(on=False)


async def kill_worker(topology: Topology, victim: str) -> None:
    os.kill(_a_worker(topology.nodes[victim]), signal.SIGKILL)
    await trio.lowlevel.checkpoint()


async def pause_worker(topology: Topology, victim: str) -> None:
    """It comes back, and is behind the others of its node."""
    await _stopped(topology.nodes[victim], _BEHIND_S)


async def freeze_worker(topology: Topology, victim: str) -> None:
    """Its node gives it up, and has another one."""
    await _stopped(topology.nodes[victim], _GIVEN_UP_S)


async def _stopped(node: Process, at_most_s: float) -> None:
    """Until it is gone, at most for so long: where its node dies meanwhile nobody else ends it."""
    pid = _a_worker(node)
    os.kill(pid, signal.SIGSTOP)
    try:
        with trio.move_on_after(at_most_s):
            while pid in node.workers():
                await trio.sleep(0.2)
    finally:
        if pid in node.workers():
            os.kill(pid, signal.SIGCONT)


def _a_worker(node: Process) -> int:
    return random.Random(time.monotonic_ns()).choice(node.workers())


async def kill_engine(topology: Topology, victim: str) -> None:
    server = topology.primary()
    await _in_thread(server.kill)
    await _until_other_primary(topology, server.port)
    await trio.sleep(1)
    await _in_thread(server.start)


async def pause_engine(topology: Topology, victim: str) -> None:
    """The old primary comes back as one that thinks that it still is one."""
    server = topology.primary()
    server.pause(on=True)
    try:
        await _until_other_primary(topology, server.port)
        await trio.sleep(1)
    finally:
        server.pause(on=False)


async def _until_other_primary(topology: Topology, port: int) -> None:
    with trio.move_on_after(15):
        while True:
            found = await trio.to_thread.run_sync(topology.engine.primary)
            if found is not None and found.port != port:
                return
            await trio.sleep(0.1)


async def kill_database(topology: Topology, victim: str) -> None:
    await _database_away(topology, signal.SIGKILL, 2)


async def stop_database(topology: Topology, victim: str) -> None:
    await _database_away(topology, signal.SIGINT, 1)


async def _database_away(topology: Topology, how: int, seconds: float) -> None:
    await _in_thread(topology.database.stop, how)
    await trio.sleep(seconds)
    await _in_thread(topology.database.start)


async def kill_with_database(topology: Topology, victim: str) -> None:
    """No takeover can be until the database is back."""
    await _in_thread(topology.database.stop, signal.SIGKILL)
    await _in_thread(topology.nodes[victim].end)
    await trio.sleep(topology.lease_s + 2)
    await _in_thread(topology.database.start)
    topology.nodes[victim].start()


async def close_database(topology: Topology, victim: str) -> None:
    """It takes no more writes, as one whose disk is full or that became a standby; meanwhile an
    owner is killed."""
    ask = topology.database.sql
    await _in_thread(ask, "ALTER SYSTEM SET default_transaction_read_only = on", _RELOAD)
    try:
        await trio.sleep(2)
        await _in_thread(topology.nodes[victim].end)
        await trio.sleep(topology.lease_s + 2)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            await _in_thread(ask, "ALTER SYSTEM RESET default_transaction_read_only", _RELOAD)
    topology.nodes[victim].start()


async def fill_engine(topology: Topology, victim: str) -> None:
    """Its memory is full: it refuses what is written, and answers."""
    server = topology.primary()
    server.ask("CONFIG", "SET", "maxmemory", "1mb")
    try:
        await trio.sleep(3)
    finally:
        server.ask("CONFIG", "SET", "maxmemory", "0")


FAULTS = (
    Fault("kill ingest", "ingest", kill),
    Fault("kill push", "push", kill),
    Fault("kill engine", "", kill_engine),
    Fault("pause ingest", "ingest", pause),
    Fault("kill database", "", kill_database),
    Fault("pause push", "push", pause),
    Fault("stop ingest", "ingest", stop),
    Fault("pause engine", "", pause_engine),
    Fault("stop push", "push", stop),
    Fault("stop database", "", stop_database),
    Fault("kill ingest and database", "ingest", kill_with_database),
    Fault("full engine", "", fill_engine),
    Fault("read-only database and kill ingest", "ingest", close_database),
)


WORKER_FAULTS = (
    Fault("kill worker", "push", kill_worker),
    Fault("pause worker", "push", pause_worker),
    Fault("freeze worker", "push", freeze_worker),
)
"""Where the nodes that serve have workers."""


async def aim(chance: random.Random, number: int) -> str:
    """Wait for the moment of a fault; every second one strikes as candles close.  Returns which."""
    if number % 2 == 0:
        await trio.sleep(chance.uniform(0, 1))
        return "any"
    now_s = time.time()
    to_minute = 60 - now_s % 60
    aimed = to_minute if to_minute < _MINUTE_S else 2 - now_s % 1
    spread = 0.5 if aimed == to_minute else _NEAR_S
    await trio.sleep(max(0.0, aimed + chance.uniform(-spread, spread)))
    return "minute" if aimed == to_minute else "second"
