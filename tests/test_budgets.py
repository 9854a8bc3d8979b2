"""Budgets that are shared: who waits for them, in which order, and by which exit."""

import pytest
import trio
from support.memory import MemoryNetwork
from test_rest import Exchange, answer

from trio_feed import errors
from trio_feed.net.budgets import Budgets, Dials, WaitQueue, Weights
from trio_feed.net.egress import Egress
from trio_feed.net.proxy import Proxy
from trio_feed.net.rest import open_rest
from trio_feed.net.route import Route
from trio_feed.settings import ProxySettings
from trio_feed.venues.binance.spot import DIALECT

A, B = Proxy("http", "a", 1), Proxy("http", "b", 2)


def always():
    return True


# ---------------------------------------------------------------- waiting


async def test_waiters_are_served_in_the_order_in_which_they_came(autojump_clock):
    dials, served = Dials(1, 10.0), []

    async def wait(number):
        assert await dials.take("direct", always)
        served.append((number, trio.current_time()))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(wait, number)
            await trio.sleep(0.001)
        assert dials.waiting == 3  # behind the one whose turn it is
    assert [number for number, _ in served] == list(range(5))
    assert [at for _, at in served] == pytest.approx([0, 10, 20, 30, 40], abs=0.1)


async def test_nobody_waits_for_an_exit_that_is_not_wanted_any_more(autojump_clock):
    dials = Dials(1, 300.0)
    assert await dials.take("a:1", always)
    answers = []

    async def wait():
        answers.append(await dials.take("a:1", lambda: trio.current_time() < 20))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
    assert answers == [False] * 3
    assert trio.current_time() < 22  # and not 300


async def test_one_who_gives_up_leaves_the_line(autojump_clock):
    dials = Dials(1, 10.0)
    assert await dials.take("direct", always)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dials.take, "direct", always)
        with trio.move_on_after(5):
            await dials.take("direct", always)
        await dials.take("direct", always)
    assert trio.current_time() == pytest.approx(20, abs=0.1)


async def test_what_the_question_raises_comes_out_and_the_line_goes_on(autojump_clock):
    line = WaitQueue()
    with pytest.raises(errors.RateLimited):
        await line.take(refuse)
    assert await line.take(lambda: 0.0)


def refuse():
    raise errors.RateLimited("banned", 0.0)


# ---------------------------------------------------------------- who shares what


def test_venues_that_name_the_same_exchange_share():
    budgets = Budgets()
    assert budgets.dials("binance", 300, 300) is budgets.dials("binance", 300, 300)
    assert budgets.dials("binance", 300, 300) is not budgets.dials("okx", 3, 1)
    weights = budgets.weights("binance", 1200, 60)
    assert budgets.weights("binance", 1200, 60) is weights
    assert weights.at("a:1") is weights.at("a:1")
    assert weights.at("a:1") is not weights.at("direct")
    assert budgets.weights("okx", 1200, 2).bans is not weights.bans


async def test_another_weight_counts_for_those_who_wait_already(autojump_clock):
    """SIGHUP with another rest_weight_per_minute."""
    budgets = Budgets()
    weights = budgets.weights("binance", 60, 60)

    def ask(weight):
        return lambda: weights.at("direct").delay_s(weight, trio.current_time())

    assert await weights.queue("direct").take(ask(60))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(weights.queue("direct").take, ask(60))
        await trio.sleep(5)
        budgets.resize("binance", 600)
        budgets.resize("okx", 1)  # nobody's
    assert trio.current_time() < 7
    assert weights.at("a:1").delay_s(600, trio.current_time()) == 0  # and for new exits
    assert budgets.weights("binance", 600, 60) is weights


async def test_two_venues_of_one_exchange_dial_out_of_one_budget(autojump_clock):
    network, budgets = MemoryNetwork(), Budgets()
    for _venue in range(2):
        dials = budgets.dials("binance", 2, 60.0)
        way = Route(network.dial, ProxySettings(), None, "", 5, dials=dials)
        for _ in range(2):
            with pytest.raises(errors.HostUnreachable):
                await way.open("exchange", 80, tls=False)
    assert len(network.dialled) == 4
    assert trio.current_time() == pytest.approx(60, abs=0.1)


# ---------------------------------------------------------------- REST by several exits


class Proxied(Exchange):
    """An exchange that is reached through the CONNECT proxies of ``doors``."""

    def __init__(self, *answers):
        super().__init__(*answers)
        self.doors = []

    async def door(self, nursery, proxy):
        (listener,) = await self.network.listen(proxy.host, proxy.port)

        async def carry(stream):
            self.doors.append(proxy.host)
            await self.read_head(stream)
            await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
            await self.talk(stream)

        @nursery.start_soon
        async def listen():
            while True:
                nursery.start_soon(carry, await listener.accept())


async def test_each_exit_has_its_own_weight_and_its_own_connections(autojump_clock):
    exchange = Proxied(answer(X_MBX_USED_WEIGHT_1M="55"))
    pool, weights = Egress([A, B]), Weights(60)
    way = Route(exchange.network.dial, ProxySettings(), None, "", 5, pool)
    async with trio.open_nursery() as nursery:
        await exchange.door(nursery, A)
        await exchange.door(nursery, B)
        async with open_rest(
            "http://exchange", route=way, timeout_s=10, weights=weights, dialect=DIALECT
        ) as client:
            await client.get("/x", {}, weight=5)
            assert (
                weights.at("a:1").delay_s(6, trio.current_time()) > 0
            )  # the exchange counts 55 there
            await client.get("/x", {}, weight=5)
            assert exchange.doors == ["a"]  # kept alive
            pool.failed(A, trio.current_time(), errors.ProxyUnreachable("gone"))
            began = trio.current_time()
            await client.get("/x", {}, weight=50)
            assert exchange.doors == ["a", "b"]
            assert trio.current_time() == began  # B has a budget of its own
        nursery.cancel_scope.cancel()


async def test_a_call_goes_on_by_the_next_exit_and_a_ban_holds_for_all(autojump_clock):
    exchange = Proxied(answer(), answer(429, Retry_After="30"), answer())
    pool, weights = Egress([A, B]), Weights(60)
    way = Route(exchange.network.dial, ProxySettings(), None, "", 5, pool)
    async with trio.open_nursery() as nursery:
        await exchange.door(nursery, B)
        async with open_rest("http://exchange", route=way, timeout_s=10, weights=weights) as client:
            await client.get("/x", {})
            assert exchange.network.dialled == [("a", 1), ("b", 2)]
            with pytest.raises(errors.RateLimited):
                await client.get("/x", {})
            await exchange.door(nursery, A)
            pool.failed(B, trio.current_time(), errors.ProxyUnreachable("gone"))
            await trio.sleep(10)
            with pytest.raises(errors.RateLimited, match="not asked"):
                await client.get("/x", {})  # by A, which has not been told anything
            await trio.sleep(20)
            await client.get("/x", {})
        nursery.cancel_scope.cancel()
    assert len(exchange.requests) == 3
