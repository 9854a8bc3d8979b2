"""Several nodes of the whole service under virtual time; see ``scripts/simulate --nodes 2x2``.

Nodes that feed and nodes that serve share an engine and a database in memory, behind which faults
are scripted; clients move between the nodes that serve.  The exchange, its faults and the ways to
it are those of a single service.
"""

import math
import random
from functools import partial
from itertools import product
from typing import Any

import trio
from attrs import define, field

from scripts.simulate_box import open_box
from scripts.simulate_judge import Felt
from scripts.simulate_nodes_client import Client
from scripts.simulate_nodes_cluster import Cluster
from scripts.simulate_nodes_judge import judge
from scripts.simulate_nodes_run import NodesRun
from scripts.simulate_run import START_MS
from scripts.simulate_time import Outcome, in_virtual_time
from trio_feed.model import Interval, Series
from trio_feed.simulator.faults.injection import run_schedule
from trio_feed.testing.judge import Stored
from trio_feed.testing.truth import days_of

BUILT_S = 120.0
"""So long after the exchange's last candle those that are made here are waited for."""
SETTLE_S = 3_600.0
"""After the last fault: what no client has by then counts as lost."""


@define
class Scene:
    """Everything of one run."""

    cluster: Cluster
    clients: list[Client] = field(factory=list)
    end_ms: int = 0
    """Of the hours, in the exchange's time; 0: they are not over."""
    wanted: dict[str, int] = field(factory=dict)
    """By symbol the last candle of the hours."""
    complete: trio.Event = field(factory=trio.Event)

    def look(self) -> None:
        """Something came to a client."""
        if self.end_ms and all(
            client.candles[symbol, Interval.M1].last_ms >= open_ms
            for client in self.clients
            for symbol, open_ms in self.wanted.items()
        ):
            self.complete.set()

    def end(self) -> None:
        """The hours are over."""
        context = self.cluster.context
        self.end_ms = math.floor(context.clocks.exchange_ms())
        for symbol in self.cluster.run.followed:
            days = days_of(context.exchange.market, symbol)
            ((self.wanted[symbol], _),) = days.last(Interval.M1, 1, self.end_ms)


def simulate_nodes(run: NodesRun) -> Outcome:
    """One run -> what was injected, a line each, and the result."""
    felt = Felt()
    return in_virtual_time(run.seed, felt, partial(_simulate, run, felt))


async def _simulate(run: NodesRun, felt: Felt) -> Outcome:
    async with trio.open_nursery() as nursery:
        context = await open_box(run.one, nursery)
        scene = Scene(Cluster(run, context))
        for number in range(run.clients):
            scene.clients.append(_client(scene, number))
        for node in scene.cluster.nodes.values():
            nursery.start_soon(node.run, name=node.name)
        for client in scene.clients:
            nursery.start_soon(client.run, name=client.name)
        script = [item for item in run.one.faults() if item[0] > 0]
        nursery.start_soon(run_schedule, context, script)
        nursery.start_soon(scene.cluster.play)
        end_s = run.one.hours * 3600
        await trio.sleep_until(end_s)
        scene.end()
        scene.look()
        with trio.move_on_at(end_s + SETTLE_S):
            await scene.complete.wait()
            await _written(scene)
        if run.one.built or run.one.rollups:
            await trio.sleep(BUILT_S)
        result, wrong = _judged(scene, felt)
        nursery.cancel_scope.cancel()
    lines = [*context.log, *context.fault_proxy.violations.log]
    return [*sorted(lines, key=lambda line: float(line[2:].split()[0])), *wrong], result


def _client(scene: Scene, number: int) -> Client:
    run = scene.cluster.run
    return Client(
        f"client{number + 1}",
        scene.cluster.context.network,
        run.server_names,
        run.followed,
        run.one.origins,
        run.followed[number % len(run.followed)],
        random.Random(f"client {number} {run.seed}"),
        scene.look,
        moves=number > 0,
    )


async def _written(scene: Scene) -> None:
    """Until the database has the last candles, too."""
    database = scene.cluster.database
    series = [(_series(scene, symbol), open_ms) for symbol, open_ms in scene.wanted.items()]
    while not all(each in database.rows and at in database.rows[each].messages
                  for each, at in series):  # fmt: skip
        await trio.sleep(1)


def _series(scene: Scene, symbol: str, interval: Interval = Interval.M1) -> Series:
    return Series(scene.cluster.run.one.venue, symbol, interval)


def _judged(scene: Scene, felt: Felt) -> tuple[dict[str, Any], list[str]]:
    cluster, run, context = scene.cluster, scene.cluster.run, scene.cluster.context
    stored: dict[tuple[str, Interval], Stored] = {}
    for symbol, interval in product(run.followed, run.one.origins):
        rows = cluster.database.rows.get(_series(scene, symbol, interval))
        there = {} if rows is None else rows.messages
        stored[symbol, interval] = {at: message.kline for at, message in there.items()}
    verdict, wrong = judge(run, context, scene.clients, stored, scene.end_ms or START_MS)
    return {
        **verdict,
        "crashes": len(cluster.crashes),
        "bypassed": sum(node.dialling.bypassed for node in cluster.nodes.values()),
        "virtual_hours": round(trio.current_time() / 3600, 2),
        "seed": run.seed,
        "nodes": f"{run.feeders}x{run.servers}",
        "clients": run.clients,
        "standby": "hot" if run.is_hot else "cold",
        "starts": {name: node.starts for name, node in cluster.nodes.items()},
        "messages": sum(client.record.messages for client in scene.clients),
        "logs": dict(felt.logs.most_common(30)),
        "faults": dict(sorted((context.injected + cluster.injected).items())),
    }, wrong
