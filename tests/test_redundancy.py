"""redundancy = 2: one of two connections dies, and nobody notices anything."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import frozen
from structlog.testing import capture_logs
from support.memory import MemoryNetwork
from support.proxies import MemoryProxy
from support.stack import START_MS, PushClient, Stack, open_stack, push_client, settings_for_tests

from trio_feed.core.arbitration import Arbitration
from trio_feed.instants import Mono
from trio_feed.model import BookTop, Ticker
from trio_feed.simulator.machinery.memory_stream import pipe_pair

MINUTE = 60_000
PROXIES = "[{enabled=true,address='a:3128'},{enabled=true,address='b:3128'}]"
CHANNELS = ("trade", "ticker", "book")


@frozen
class Doubled:
    """A stack whose exchange is reached through two proxies, and a client of everything."""

    stack: Stack
    client: PushClient
    proxies: dict[str, MemoryProxy]

    def lane(self, number: int) -> Any:
        """The exchange's end of the first connection of a lane."""
        states = sorted(self.stack.ready.feeds[0].connections, key=lambda state: state.id)
        return next(state for state in states if state.lane == number)

    def statuses(self) -> list[tuple[int, str, str]]:
        states = self.stack.ready.feeds[0].connections
        return sorted((state.lane, state.exit, state.status) for state in states)


@asynccontextmanager
async def doubled(venue: str, *more: str) -> AsyncIterator[Doubled]:
    settings = settings_for_tests(
        ".audit_after_s=0",
        ".trade_intervals=['30s']",
        ".channels=['kline','trade','ticker','book']",
        ".connection.redundancy=2",
        ".connection.silence_timeout_s=20",
        f".connection.proxies={PROXIES}",
        "kline.broadcast_buffer_size=1000000",
        *more,
        venue=venue,
    )
    network = MemoryNetwork(pipe_pair)
    proxies = {name: MemoryProxy(network, name) for name in "ab"}
    async with trio.open_nursery() as nursery:
        for proxy in proxies.values():
            await nursery.start(proxy.run)
        async with (
            open_stack(settings, network=network, push_ms=5_000, trades_per_minute=30) as stack,
            push_client(stack) as client,
        ):
            await client.ask(type="subscribe", symbol="BTCUSDT", interval="1m")
            for channel in CHANNELS:
                await client.ask(type="subscribe", symbol="BTCUSDT", channel=channel)
            yield Doubled(stack, client, proxies)
        nursery.cancel_scope.cancel()


def kill(side: Doubled) -> None:
    """The oldest connection of the exchange is cut."""
    side.stack.exchange.connections[0].abort()


def half_open(side: Doubled) -> None:
    side.stack.exchange.connections[0].mute()


def proxy_dies(side: Doubled) -> None:
    side.proxies["a"].die()


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> list[Ticker | BookTop]:
    """The tickers and best prices of both connections that count as news."""
    seen: list[Ticker | BookTop] = []
    is_new = Arbitration.is_new

    def spy(self: Arbitration, event: Ticker | BookTop, order: int, received: Mono) -> bool:
        new = is_new(self, event, order, received)
        seen.extend([event] if new else [])
        return new

    monkeypatch.setattr(Arbitration, "is_new", spy)
    return seen


def check_lines(client: PushClient) -> None:
    """Nothing twice, nothing missing, no book that stood still."""
    times = [row["time"] * 1000 for row in client.candles(final=True)]
    assert times == list(range(times[0], times[-1] + MINUTE, MINUTE))
    assert times[-1] + 2 * MINUTE > START_MS + trio.current_time() * 1000
    told: dict[str, list[Any]] = {
        channel: [m["data"] for m in client.messages if m["type"] == f"{channel}_data"]
        for channel in CHANNELS
    }
    ids = [message["data"]["trade_id"] for message in told["trade"]]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert len(told["ticker"]) > 60  # of those that come in one read the last one counts
    assert len(told["book"]) > 100
    assert not any(message["data"]["stale"] for message in told["book"][1:])


@pytest.mark.parametrize(
    ("venue", "fault"),
    [
        ("binance", kill),
        pytest.param("binance_usdm", half_open, marks=pytest.mark.slow),
        ("binance_usdm", proxy_dies),
        ("okx", half_open),
        pytest.param("okx", proxy_dies, marks=pytest.mark.slow),
    ],
)
async def test_one_of_two_dies_and_nobody_notices(
    venue: str,
    fault: Callable[[Doubled], None],
    accepted: list[Ticker | BookTop],
    autojump_clock: trio.abc.Clock,
) -> None:
    with trio.fail_after(3_600):
        async with doubled(venue) as side:
            stack, (feed,) = side.stack, side.stack.ready.feeds
            await trio.sleep(30)
            assert {exit_ for _lane, exit_, _status in side.statuses()} == {"a:3128", "b:3128"}
            assert {status for _lane, _exit, status in side.statuses()} == {"live"}
            asked, reasons = stack.exchange.requests, set()
            fault(side)
            for _ in range(120):
                reasons.add(feed.not_ready(10))
                await trio.sleep(1)
            assert reasons == {""}
            assert stack.exchange.requests == asked
            check_lines(side.client)
            assert len(set(accepted)) == len(accepted) > 0
            assert max(state.attempts for state in feed.connections) > 1
            assert {status for _lane, _exit, status in side.statuses()} == {"live"}


async def test_lanes_that_had_to_share_a_proxy_part_again(autojump_clock: trio.abc.Clock) -> None:
    """And each proxy's way down and up is logged once, however many connections fail meanwhile."""
    with capture_logs() as logs, trio.fail_after(3_600):
        async with doubled("binance_usdm") as side:
            await trio.sleep(30)
            side.proxies["a"].die()
            await trio.sleep(60)
            assert {exit_ for _lane, exit_, _status in side.statuses()} == {"b:3128"}
            (first, second) = side.stack.ready.feeds[0].status()["proxies"]
            assert (first["address"], second["state"]) == ("a:3128", "healthy")
            side.proxies["a"].come_back()
            await trio.sleep(180)
            states = side.stack.ready.feeds[0].connections
            for url in {state.plan.url for state in states}:
                exits = [state.exit for state in states if state.plan.url == url]
                assert sorted(exits) == ["a:3128", "b:3128"]
            check_lines(side.client)
    told = [log["event"] for log in logs if log["event"].startswith(("proxy.", "egress."))]
    assert told == ["proxy.down", "proxy.up"]


async def test_one_way_out_for_two_connections_is_said_once(
    autojump_clock: trio.abc.Clock,
) -> None:
    settings = settings_for_tests(".connection.redundancy=2")
    with capture_logs() as logs, trio.fail_after(3_600):
        async with open_stack(settings) as stack:
            await trio.sleep(120)
            states = stack.ready.feeds[0].connections
            found = sorted((state.lane, state.exit, state.status) for state in states)
            assert found == [(0, "direct", "live"), (1, "direct", "live")]
    assert [log["event"] for log in logs].count("redundancy.one_way") == 1


async def test_all_proxies_down_is_said_once_and_waited_for(
    autojump_clock: trio.abc.Clock,
) -> None:
    with capture_logs() as logs, trio.fail_after(3_600):
        async with doubled("binance_usdm") as side:
            await trio.sleep(30)
            for proxy in side.proxies.values():
                proxy.die()
            await trio.sleep(300)
            assert side.stack.ready.feeds[0].not_ready(30) != ""
            shown = side.stack.ready.feeds[0].status()["proxies"]
            assert all("cannot be reached" in proxy["problem"] for proxy in shown)
            for proxy in side.proxies.values():
                proxy.come_back()
            await trio.sleep(240)
            assert side.stack.ready.feeds[0].not_ready(30) == ""
    told = [log["event"] for log in logs if log["event"].startswith(("proxy.", "egress."))]
    assert told == ["proxy.down", "proxy.down", "egress.down", "proxy.up", "egress.up", "proxy.up"]
    (down,) = [log for log in logs if log["event"] == "egress.down"]
    assert "never direct" in down["problem"]
    loud = [log for log in logs if log["log_level"] in ("warning", "error")]
    assert len(loud) < 30, [log["event"] for log in loud]
