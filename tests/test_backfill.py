"""Backfill workers: what they do while nobody may be asked, whatever our calendar says."""

import random
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from structlog.testing import capture_logs
from support.memory import MemoryNetwork
from test_rest import Exchange as Host
from test_rest import answer
from trio_feed.feeds.backfill import Job, run_worker
from trio_util import RepeatedEvent

from trio_feed.environment import Environment
from trio_feed.instants import Exchange
from trio_feed.metrics import Metrics
from trio_feed.net.budgets import Weights
from trio_feed.net.egress import Egress
from trio_feed.net.proxy import Proxy
from trio_feed.net.rest import open_rest
from trio_feed.net.route import Route
from trio_feed.settings import ProxySettings
from trio_feed.venues import RestQuestion

T = 1_800_000_000_000.0
WORKERS = 4


@define(eq=False)
class Holes:
    """What is ``open`` is missing, and due since long."""

    open: set[Hashable]
    changed: RepeatedEvent = field(factory=RepeatedEvent)
    busy: set[Hashable] = field(factory=set)
    filled: list[float] = field(factory=list)

    def most_due(self) -> tuple[Exchange, Hashable] | None:
        idle = sorted(self.open - self.busy, key=str)
        return (Exchange(0.0), idle[0]) if idle else None

    def begin(self, key: Hashable) -> Job:
        self.busy.add(key)

        def take(_body: bytes) -> None:
            self.open.discard(key)
            self.filled.append(trio.current_time())

        return Job(RestQuestion("/x", {}, 1), take, lambda: None)

    def done(self, key: Hashable) -> None:
        self.busy.discard(key)
        self.changed.set()


async def no_wait() -> None:
    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def workers(
    host: Host, holes: Holes, way: Route, ahead_s: float = 0.0
) -> AsyncIterator[Metrics]:
    """At work, on a machine whose calendar is ``ahead_s`` ahead."""
    metrics = Metrics()
    (listener,) = await host.network.listen("exchange", 80)

    def now() -> Exchange:
        return Exchange(T + (trio.current_time() + ahead_s) * 1000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.serve, listener)
        async with open_rest(
            "http://exchange", route=way, timeout_s=10, weights=Weights(1200)
        ) as rest:
            async with trio.open_nursery() as inner:
                for _ in range(WORKERS):
                    inner.start_soon(worker(holes, rest, now, metrics))
                yield metrics
                inner.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


def worker(
    holes: Holes, rest: Any, now: Callable[[], Exchange], metrics: Metrics
) -> Callable[[], Any]:
    async def work() -> None:
        await run_worker(holes, rest, venue="okx", now=now, room=no_wait, metrics=metrics)

    return work


def route(host: Host, pool: Egress | None = None) -> Route:
    return Route(host.network.dial, ProxySettings(), None, "", 5, pool)


def tries(metrics: Metrics, result: str) -> float:
    return metrics.rest_calls.labels("okx", result)._value.get()


@pytest.mark.parametrize("ahead_s", [-7200, -5, 0, 5, 600])
async def test_after_a_ban_they_ask_when_it_ends_and_one_line_is_logged(
    ahead_s: float, autojump_clock: trio.abc.Clock
) -> None:
    banned = answer(429, b"", Retry_After="60")
    host = Host(*[banned] * WORKERS, answer())  # to all that are on the way
    holes = Holes({f"hole {n}" for n in range(20)})
    with capture_logs() as lines:
        async with workers(host, holes, route(host), ahead_s) as metrics:
            await trio.sleep(120)
    assert not holes.open
    assert 60 <= min(holes.filled) <= max(holes.filled) < 62
    assert tries(metrics, "RateLimited") <= 2 * WORKERS
    loud = [line["event"] for line in lines if line["log_level"] != "debug"]
    assert loud == ["rest.banned"]


async def test_a_ban_of_centuries_is_asked_again_after_days(
    autojump_clock: trio.abc.Clock,
) -> None:
    host = Host(answer(418, b"", Retry_After="8199999999"), answer())
    holes = Holes({"hole"})
    with capture_logs() as lines:
        async with workers(host, holes, route(host)) as metrics:
            await trio.sleep(4 * 86_400)
    assert holes.filled
    assert 259_200 <= holes.filled[0] < 259_202
    assert tries(metrics, "RateLimited") <= 2 * WORKERS
    loud = [line["event"] for line in lines if line["log_level"] != "debug"]
    assert loud == ["rest.banned"]


async def test_while_all_proxies_are_down_they_do_not_spin(
    autojump_clock: trio.abc.Clock,
) -> None:
    host, holes = Host(answer()), Holes({f"hole {n}" for n in range(20)})
    pool = Egress([Proxy("http", "a", 1), Proxy("http", "b", 2)])
    with capture_logs() as lines:
        async with workers(host, holes, route(host, pool)) as metrics:
            await trio.sleep(3600)
    assert len(host.network.dialled) <= 2 * WORKERS * 60
    assert tries(metrics, "NoProxyAvailable") < 1000
    loud = [line["event"] for line in lines if line["log_level"] != "debug"]
    assert sorted(loud) == ["egress.down", "proxy.down", "proxy.down"]


async def test_a_calendar_beside_the_three_clocks() -> None:
    network = MemoryNetwork()
    world = Environment(network.dial, network.listen, lambda: T, random.Random(1))
    now = world.now(lambda mono: Exchange(float(mono) * 1000 + 5))
    assert now.wall == world.wall() == T
    assert now.exchange == now.mono * 1000 + 5
    assert now.mono <= trio.current_time()
