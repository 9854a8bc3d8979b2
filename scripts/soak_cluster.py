"""``scripts/soak --cluster``: nodes, engine and database as processes, each killed and paused in
turn, and a judge over all clients.

The market is a function of seed and time, so what closed candles have to say is known.  Prints a
line per fault (what was struck when, what clients saw) and at last one object of JSON.
"""

import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from attrs import define, field, frozen

from scripts.postgres_server import PostgresServer
from scripts.soak_cluster_clients import Client, Publisher
from scripts.soak_cluster_faults import FAULTS, WORKER_FAULTS, Fault, aim
from scripts.soak_cluster_judge import BROKEN
from scripts.soak_cluster_nodes import (
    NODES,
    SYMBOLS,
    USERS,
    Topology,
    open_topology,
    why_not,
)
from scripts.soak_cluster_values import Found, judge_values, not_stored, read_stored
from scripts.soak_cluster_wait import get, until
from scripts.valkey_server import Kind, ValkeyCluster

MUST_BE_ZERO = (
    *BROKEN, "wrong_values", "store_missing", "told_not_stored", "crashes", "never_recovered",
    "frozen",
)  # fmt: skip
_READY_S = 180.0
"""A machine without a free core takes so long to start them all."""
_ON_DISK_S = 10.0
"""What was told is stored by then: no fault lasts any more."""
_FRESH_S = 5.0
"""A client that heard nothing for longer has not recovered."""


@frozen
class ClusterPlan:
    minutes: float = 30.0
    clients: int = 200
    every_s: float = 15.0
    """From one fault to the next, at least."""
    seed: int = 1
    kind: Kind | None = None
    lease_s: float = 3.0
    standby: str = "cold"
    push_workers: int = 1
    """Of each node that serves; more than one: single ones are killed and paused, too."""
    faults: tuple[str, ...] = ()
    """Their names; empty: all, in turn."""
    settle_s: float = 60.0
    """Everybody has recovered by then, and all that was accepted has arrived."""
    more: tuple[Fault, ...] = ()
    """Beside the usual ones."""

    @property
    def chosen(self) -> list[Fault]:
        known = list(FAULTS)
        if self.push_workers > 1:  # between the others
            for place, fault in enumerate(WORKER_FAULTS):
                known.insert(3 * place + 1, fault)
        known += self.more
        return [each for each in known if not self.faults or each.name in self.faults]


@define(eq=False)
class ClusterSoak:
    plan: ClusterPlan
    topology: Topology
    clients: list[Client] = field(factory=list)
    struck: list[dict[str, Any]] = field(factory=list)
    crashes: list[str] = field(factory=list)
    never_recovered: list[str] = field(factory=list)
    log: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)

    def pick(self, last: str) -> str:
        """A push node, another than the last one."""
        chance = random.Random(f"{last} {time.monotonic_ns()}")
        found = [self.topology.address(name) for name in self.topology.of_role("push")]
        return chance.choice([each for each in found if each != last] or found)

    def note_crashes(self) -> None:
        for process in (*self.topology.nodes.values(), self.topology.exchange):
            if process.crashed:
                process.expected = True
                self.crashes.append(process.name)
                self.log(f"{process.name} ended by itself with {process.returncode}")
                process.start()


async def run(
    plan: ClusterPlan,
    folder: Path,
    *,
    engine: AbstractContextManager[ValkeyCluster] | None = None,
    database: AbstractContextManager[PostgresServer] | None = None,
) -> dict[str, Any]:
    """The whole of it; ``engine`` and ``database``: others than the usual ones.  Raises
    RuntimeError: servers are missing."""
    opened = open_topology(
        folder,
        seed=plan.seed,
        kind=plan.kind,
        lease_s=plan.lease_s,
        standby=plan.standby,
        push_workers=plan.push_workers,
        engine=engine,
        database=database,
    )
    topology = await trio.to_thread.run_sync(opened.__enter__)
    try:
        return await _run(ClusterSoak(plan, topology))
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 60):
            await trio.to_thread.run_sync(partial(opened.__exit__, None, None, None))


async def _run(soak: ClusterSoak) -> dict[str, Any]:
    plan, topology = soak.plan, soak.topology
    began = trio.current_time()
    for process in topology.nodes.values():
        process.start()
    if not await until(lambda: _all_ready(soak), _READY_S):
        soak.never_recovered.append("start: " + "; ".join(await _not_ready(soak)))
        return _result(soak, Counter(), 0.0)
    ready_s = trio.current_time() - began
    chance = random.Random(f"cluster {plan.seed}")
    publisher = Publisher(topology.keys.publisher, USERS, soak.pick)
    for number in range(plan.clients):
        token = topology.keys.users[USERS[number // len(SYMBOLS) % len(USERS)]]
        own = random.Random(f"client {plan.seed} {number}")
        soak.clients.append(Client(SYMBOLS[number % len(SYMBOLS)], token, soak.pick, own))
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as publishing:
            for client in soak.clients:
                nursery.start_soon(client.run)
            await until(_all_hear(soak), plan.settle_s)
            await until(lambda: _true(all(c.authenticated for c in soak.clients)), plan.settle_s)
            publishing.start_soon(publisher.run)
            await _strike_all(soak, chance, began + plan.minutes * 60)
            publishing.cancel_scope.cancel()
        counts = await _judge(soak, publisher)
        nursery.cancel_scope.cancel()
    result = _result(soak, counts, ready_s)
    result["private_accepted"] = sum(map(len, publisher.accepted.values()))
    result["private_tries_refused"] = dict(publisher.refused)
    result["private_worst_s"] = round(publisher.worst_s, 2)
    return result


async def _strike_all(soak: ClusterSoak, chance: random.Random, end: float) -> None:
    number = 0
    while trio.current_time() < end and not soak.never_recovered:
        fault = soak.plan.chosen[number % len(soak.plan.chosen)]
        if soak.plan.faults and number >= len(soak.plan.chosen):
            break  # each once
        victim = await _busiest(soak, fault.role) if fault.role else ""
        await _strike(soak, fault, victim, await aim(chance, number))
        number += 1
        with trio.move_on_at(min(end, trio.current_time() + soak.plan.every_s)):
            while True:
                soak.note_crashes()
                await trio.sleep(1)


async def _busiest(soak: ClusterSoak, role: str) -> str:
    """Who feeds the most shards, or serves the most clients."""
    topology = soak.topology
    found = Counter(dict.fromkeys(topology.of_role(role), 0))
    if role == "push":
        names = {topology.address(name): name for name in topology.of_role(role)}
        found.update(names[client.node] for client in soak.clients if client.node)
        return found.most_common(1)[0][0]

    async def all_are_owned() -> bool:
        owners = await _owners(topology)
        if not owners or not all(owners):
            return False
        found.update(owner for owner in owners if owner in found)
        return True

    await until(all_are_owned, _READY_S)
    return found.most_common(1)[0][0]


async def _owners(topology: Topology) -> list[str]:
    """Of each shard, as a node says that serves; empty: none says so."""
    for name in topology.of_role("push"):
        status, body = await get(topology.address(name), "/api/v1/status")
        if status == 200:
            return list(json.loads(body)["shards"].values())
    return []


async def _strike(soak: ClusterSoak, fault: Fault, victim: str, moment: str) -> None:
    began, when = trio.current_time(), time.strftime("%H:%M:%S")
    before = sum((client.counts for client in soak.clients), Counter[str]())
    statuses = sum((client.statuses for client in soak.clients), Counter[str]())
    for client in soak.clients:
        client.silence.take(began)
    soak.note_crashes()
    await fault.strike(soak.topology, victim)
    done_s = trio.current_time() - began

    async def recovered() -> bool:
        return await _all_hear(soak)() and await _all_ready(soak)

    if not await until(recovered, soak.plan.settle_s):
        problem = "; ".join(await _not_ready(soak)) or "clients hear nothing"
        soak.never_recovered.append(f"{fault.name} {victim}: {problem}")
        soak.log(f"not recovered: {problem}")
    now = trio.current_time()
    after = sum((client.counts for client in soak.clients), Counter[str]())
    told = sum((client.statuses for client in soak.clients), Counter[str]())
    silences = sorted(client.silence.take(now) for client in soak.clients)
    seen = {
        "fault": f"{fault.name} {victim}".strip(),
        "at": when,
        "moment": moment,
        "put_right_s": round(done_s, 1),
        "recovered_s": round(now - began, 1),
        "worst_silence_s": round(silences[-1], 2),
        "median_silence_s": round(silences[len(silences) // 2], 2),
        "moved": after["reconnects"] - before["reconnects"],
        "told": {state: told[state] - statuses[state] for state in told},
        "broken": {n: after[n] - before[n] for n in BROKEN if after[n] - before[n]},
    }
    soak.struck.append(seen)
    soak.log(json.dumps(seen))


def _all_hear(soak: ClusterSoak) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        now = trio.current_time()
        return all(now - client.silence.heard_at < 2 for client in soak.clients)

    for client in soak.clients:  # what came before does not count
        client.silence.heard_at = min(client.silence.heard_at, trio.current_time())
    return check


async def _true(value: bool) -> bool:
    await trio.lowlevel.checkpoint()
    return value


async def _all_ready(soak: ClusterSoak) -> bool:
    soak.note_crashes()
    return not await _not_ready(soak)


async def _not_ready(soak: ClusterSoak) -> list[str]:
    found = []
    for name in NODES:
        status, body = await get(soak.topology.address(name), "/ready")
        if status != 200:
            found.append(f"{name}: {body[-300:].decode(errors='replace') or 'no answer'}")
    return found


# The judge


async def _judge(soak: ClusterSoak, publisher: Publisher) -> Counter[str]:
    """Waits for what is under way, then counts."""
    by_user = {soak.topology.keys.users[user]: user for user in USERS}

    def missing(client: Client) -> int:
        wanted = publisher.accepted.get(by_user[client.token], [])
        return sum(event not in client.private.got for event in wanted)

    async def arrived() -> bool:
        await trio.lowlevel.checkpoint()
        return not any(map(missing, soak.clients))

    await until(arrived, soak.plan.settle_s)
    await trio.sleep(3)  # what is seen last is told
    now = trio.current_time()
    for client in soak.clients:
        client.trades.settle(now + 10)
    counts = sum((client.counts for client in soak.clients), Counter[str]())
    counts["private_lost"] = sum(map(missing, soak.clients))
    counts["frozen"] = sum(now - client.silence.heard_at > _FRESH_S for client in soak.clients)
    newest = {c.symbol: max(w.last_s or 0 for w in [c.candles["1s"]]) for c in soak.clients}
    for client in soak.clients:
        last = client.candles["1s"].last_s or 0
        counts["frozen"] += newest[client.symbol] - last > _FRESH_S or time.time() - last > 60
    told: Found = {}
    for client in soak.clients:
        for name, watch in client.candles.items():
            told.setdefault((client.symbol, name), {}).update(watch.told)
    stored: Found = {}

    async def on_the_disk() -> bool:
        nonlocal stored
        stored = await trio.to_thread.run_sync(read_stored, soak.topology.database)
        return not not_stored(told, stored)

    await until(on_the_disk, _ON_DISK_S)
    counts.update(judge_values(soak.plan.seed, told, stored, soak.log))
    return counts


def _result(soak: ClusterSoak, counts: Counter[str], ready_s: float) -> dict[str, Any]:
    totals = {name: counts[name] for name in MUST_BE_ZERO}
    totals["crashes"] = len(soak.crashes)
    totals["never_recovered"] = len(soak.never_recovered)
    return {
        **totals,
        **{name: count for name, count in sorted(counts.items()) if name not in totals},
        "clients": len(soak.clients),
        "faults": len(soak.struck),
        "ready_s": round(ready_s, 1),
        "worst_silence_s": _by_fault(soak, lambda each: each["worst_silence_s"]),
        "told_stale": _by_fault(soak, lambda each: each["told"].get("stale", 0)),
        "problems": soak.never_recovered + [f"{name} ended by itself" for name in soak.crashes],
        "seed": soak.plan.seed,
    }


def _by_fault(soak: ClusterSoak, figure: Callable[[dict[str, Any]], float]) -> dict[str, float]:
    """The worst of each kind."""
    worst: dict[str, float] = {}
    for each in soak.struck:
        name = " ".join(word for word in each["fault"].split() if word not in NODES)
        worst[name] = max(worst.get(name, 0), figure(each))
    return worst


def main(plan: ClusterPlan, end_on_signal: Callable[[trio.CancelScope], Awaitable[None]]) -> int:
    """Returns the exit code."""
    if unknown := set(plan.faults) - {fault.name for fault in plan.chosen}:
        named = ", ".join(sorted(unknown))
        print(f"scripts/soak --cluster: no such fault with these nodes: {named}", file=sys.stderr)
        return 2
    if why := why_not(plan.kind):
        print(f"scripts/soak --cluster: {why}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="trio_feed_soak_cluster_"))
    result: dict[str, Any] = {}

    async def whole() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_on_signal, nursery.cancel_scope)
            result.update(await run(plan, folder))
            nursery.cancel_scope.cancel()

    trio.run(whole)
    if not result:
        return 130
    print(json.dumps(result))
    failed = any(result[name] for name in MUST_BE_ZERO)
    if failed:
        print(f"logs of the nodes are kept in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return int(failed)
