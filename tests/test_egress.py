"""The pool of proxies: whom it chooses, what a route makes of it, and what the settings say."""

import random
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from structlog.testing import capture_logs
from support.memory import MemoryNetwork
from test_tunnel import check_echo, connect_proxy, echo, page, receive_exactly

from trio_feed import errors
from trio_feed.client import open_client
from trio_feed.environment import Environment
from trio_feed.net.budgets import Dials, Weights
from trio_feed.net.egress import Egress, make_egress
from trio_feed.net.limits import DialBudget, FrameBudget
from trio_feed.net.proxy import Proxy
from trio_feed.net.rest import open_rest
from trio_feed.net.route import Route
from trio_feed.net.websocket import Deadlines, open_websocket
from trio_feed.settings import ConnectionSettings, ProxySettings, Secret, load, masked
from trio_feed.settings.exchanges import EgressSettings
from trio_feed.venues.binance.dialect import BinanceDialect

HOST, PORT = "fstream.example.com", 443
A = Proxy("http", "a", 1, "alice", Secret("hunter2"))
B = Proxy("socks5", "b", 2, "alice", Secret("hunter2"))
C = Proxy("http", "c", 3)
T0 = 4096.0  # seconds of the monotonic clock

UNREACHABLE = errors.ProxyUnreachable("proxy is down")
REFUSED = errors.ProxyAuthRequired("407")
RESET = errors.TlsReset("cut off")


def cooling_s(pool, proxy, now=T0):
    """For how many seconds ``proxy`` cools down."""
    (found,) = [s for s in pool.statistics(now) if s.address == proxy.address]
    return found.cool_s if found.state == "cooling" else 0


# ---------------------------------------------------------------- choosing


def test_the_first_is_chosen_and_kept():
    pool = Egress([A, B, C])
    for _ in range(5):
        assert pool.choose(T0) == A
        pool.succeeded(A, T0)


def test_a_pool_of_none_is_a_mistake_and_a_double_is_one():
    with pytest.raises(ValueError, match="nowhere"):
        Egress([])
    assert len(Egress([A, A, B]).statistics(T0)) == 2


def test_failover_and_stay():
    pool = Egress([A, B, C])
    assert pool.choose(T0) == A
    pool.failed(A, T0, UNREACHABLE)
    assert pool.choose(T0) == B
    assert pool.choose(T0 + 3_600) == B  # A is healthy again, and B works


def test_the_healthiest_is_next():
    pool = Egress([A, B, C])
    pool.failed(A, T0, UNREACHABLE)
    pool.failed(C, T0, RESET)
    assert pool.choose(T0 + 10) == B
    pool.failed(B, T0 + 10, UNREACHABLE)
    assert pool.choose(T0 + 10) == C  # a single error of the exchange weighs less than A's
    pool.failed(C, T0 + 10, UNREACHABLE)
    assert pool.choose(T0 + 10) == A


def test_a_pool_that_was_never_used_has_no_news():
    assert Egress([A, B]).news(T0) == []


def test_avoid_is_for_this_call_and_moves_on():
    pool = Egress([A, B])
    assert pool.choose(T0, avoid={A}) == B
    assert pool.choose(T0, avoid={A, B}) is None
    assert pool.next_at(T0) == T0  # they are healthy all the same


def test_all_down_says_until_when_and_why():
    pool = Egress([A, B])
    pool.failed(A, T0, UNREACHABLE)
    pool.failed(B, T0 + 0.5, errors.ProxyProtocolError("speaks\nnonsense"))
    now = T0 + 1
    assert pool.choose(now) is None
    assert pool.next_at(now) == T0 + 2
    text = pool.explain(now)
    assert "no proxy of 2 may be used for 1.0 s, never direct" in text
    assert "a:1 for 1.0 s (proxy is down); b:2 for 1.5 s (speaks nonsense)" in text
    assert pool.choose(T0 + 1.999) is None
    assert pool.choose(T0 + 2) == A


# ---------------------------------------------------------------- cooling down


def test_cool_downs_double_up_to_a_cap_and_start_again_after_a_success():
    pool, now, lengths = Egress([A]), T0, []
    for _ in range(8):
        pool.failed(A, now, UNREACHABLE)
        lengths.append(cooling_s(pool, A, now))
        now = pool.next_at(now)
    assert lengths == [2, 4, 8, 16, 32, 60, 60, 60]
    pool.succeeded(A, now)
    pool.failed(A, now, UNREACHABLE)
    assert cooling_s(pool, A, now) == 2


def test_a_wave_of_failures_doubles_once():
    pool = Egress([A])
    for i in range(200):
        pool.failed(A, T0 + i / 1000, UNREACHABLE)
    assert cooling_s(pool, A) == 2
    assert pool.statistics(T0)[0].failures == 200
    pool.failed(A, T0 + 2, UNREACHABLE)
    assert cooling_s(pool, A, T0 + 2) == 4


def test_a_late_success_ends_the_cool_down():
    pool = Egress([A])
    pool.failed(A, T0, UNREACHABLE)
    pool.succeeded(A, T0 + 0.001)
    assert pool.choose(T0 + 0.001) == A


def test_refused_credentials_cool_down_for_long_whatever_came_before():
    pool = Egress([A])
    pool.failed(A, T0, UNREACHABLE)
    pool.failed(A, T0, REFUSED)
    pool.failed(A, T0, UNREACHABLE)
    assert cooling_s(pool, A) == 600


def refused(code):
    return errors.ProxyRefused(f"refused: {code}", code)


OF_PROXY = [
    UNREACHABLE,
    errors.TunnelTimeout("x", "dial proxy"),
    errors.TunnelTimeout("x", "proxy TLS handshake"),
    errors.TunnelTimeout("x", "CONNECT"),
    errors.ProxyProtocolError("x"),
    *map(refused, (400, 403, 404, 405, 429, 500, 1, 2, 3, 7, 8)),
]
OF_TARGET = [
    RESET,
    errors.TlsNameMismatch("x"),
    errors.TlsUntrusted("x"),
    errors.TunnelTimeout("x", "TLS handshake"),
    errors.HostUnreachable("x"),
    errors.UpgradeRefused("x", 451),
    *map(refused, (502, 503, 504, 4, 5)),
]


def name(error):
    return f"{type(error).__name__} {getattr(error, 'code', getattr(error, 'step', ''))}"


@pytest.mark.parametrize("error", OF_PROXY, ids=name)
def test_an_error_of_the_proxy_counts_at_once(error):
    pool = Egress([A, B])
    pool.failed(A, T0, error)
    assert cooling_s(pool, A) == 2


@pytest.mark.parametrize("error", OF_TARGET, ids=name)
def test_the_third_error_of_the_target_counts_and_never_grows(error):
    pool, now = Egress([A, B]), T0
    assert pool.choose(now) == A
    for _ in range(2):
        pool.failed(A, now, error)
        pool.succeeded(A, now)  # the tunnel is up: says nothing about what is behind it
        assert cooling_s(pool, A, now) == 0
        assert pool.choose(now) == A
    for _ in range(5):
        pool.failed(A, now, error)
        assert cooling_s(pool, A, now) == 2
        now += 2


def test_errors_of_the_target_are_forgotten_after_a_minute():
    pool = Egress([A])
    for i in range(10):
        pool.failed(A, T0 + i * 60, RESET)
    assert cooling_s(pool, A, T0 + 9 * 60) == 0


def test_the_caller_may_know_better_whose_error_it_is():
    pool = Egress([A])
    pool.failed(A, T0, RESET, of_proxy=True)  # TLS with the proxy itself
    assert cooling_s(pool, A) == 2


def test_the_policy_is_the_settings():
    policy = EgressSettings(
        cool_down_min_s=1, cool_down_max_s=3, credentials_cool_down_s=30, target_errors=1
    )
    pool = Egress([A, B], policy)
    pool.failed(A, T0, RESET)
    assert cooling_s(pool, A) == 1
    pool.failed(B, T0, REFUSED)
    assert cooling_s(pool, B) == 30
    pool = Egress([A], EgressSettings(cool_down_min_s=5, credentials_cool_down_s=1))
    pool.failed(A, T0, UNREACHABLE)
    pool.failed(A, T0, REFUSED)
    assert cooling_s(pool, A) == 5  # no later failure shortens what there is


BLOCKED = [
    errors.UpgradeRefused("451", 451, blocked=True),
    errors.RestRefused("403 by country", 403, blocked=True),
]


@pytest.mark.parametrize("error", BLOCKED, ids=name)
def test_a_proxy_whose_address_is_blocked_is_left_at_once(error):
    """REST met it first 1,148 times in 7 h, and the second proxy was never tried."""
    pool = Egress([A, B, C])
    assert pool.choose(T0) == A
    pool.failed(A, T0, error)
    assert pool.choose(T0) == B
    pool.failed(C, T0 + 100, RESET)
    pool.succeeded(A, T0 + 100)  # a tunnel says nothing
    assert pool.choose(T0 + 100, avoid={B}) == C  # what was blocked last is chosen last


def test_a_blocked_region_is_asked_less_and_less_until_it_lets_us_in():
    pool, now, lengths = Egress([A]), T0, []
    for _ in range(7):
        pool.failed(A, now, BLOCKED[0])
        lengths.append(cooling_s(pool, A, now))
        now = pool.next_at(now)
        pool.succeeded(A, now)
    assert lengths == [2, 4, 8, 16, 32, 60, 60]
    assert [news.event for news in pool.news(now)] == ["proxy.down", "egress.down"]
    pool.accepted(A)
    assert [news.event for news in pool.news(now)] == ["proxy.up", "egress.up"]
    pool.failed(A, now, BLOCKED[1])
    assert cooling_s(pool, A, now) == 2


# ---------------------------------------------------------------- the fastest

FASTEST = EgressSettings(pick="fastest")


def test_the_fastest_is_preferred_where_that_is_wanted():
    pool = Egress([A, B, C], FASTEST)
    took_s = {A: 0.3, B: 0.1, C: 0.2}
    for proxy in (A, B, C):  # each is measured once
        assert pool.choose(T0) == proxy
        assert pool.choose(T0) == proxy  # and nothing moves before the measure is there
        pool.succeeded(proxy, T0, took_s[proxy])
    assert pool.choose(T0) == B
    assert [s.latency_ms for s in pool.statistics(T0)] == [300, 100, 200]
    pool.failed(B, T0, UNREACHABLE)
    assert pool.choose(T0) == C
    pool.succeeded(B, T0 + 1, 0.19)  # up again, and its smoothed 0.127 s are clearly less
    assert pool.choose(T0 + 1) == B


def test_two_of_the_same_speed_do_not_take_turns():
    pool = Egress([A, B], FASTEST)
    pool.choose(T0)
    pool.succeeded(A, T0, 0.11)
    assert pool.choose(T0) == B
    pool.succeeded(B, T0, 0.1)
    for now in range(60):
        assert pool.choose(T0 + now) == B
        pool.succeeded(B, T0 + now, 0.14)


def test_what_was_slow_long_ago_is_measured_again():
    pool = Egress([A, B], FASTEST)
    pool.choose(T0)
    pool.succeeded(A, T0, 5.0)
    pool.choose(T0)
    for now in range(0, 601, 60):
        pool.succeeded(B, T0 + now, 0.1)
        assert pool.choose(T0 + now) == (B if now < 600 else A)


def test_sticky_does_not_look_at_the_speed():
    pool = Egress([A, B])
    pool.succeeded(B, T0, 0.1)
    for _ in range(3):
        assert pool.choose(T0) == A
        pool.succeeded(A, T0, 5.0)


# ---------------------------------------------------------------- lanes


def lanes_of(pool, n, now):
    """The proxies of the lanes 0 to n - 1."""
    chosen = [pool.choose(now, lane=lane) for lane in range(n)]
    return tuple(proxy for proxy in chosen if proxy is not None)


def test_two_lanes_take_two_proxies():
    assert lanes_of(Egress([A, B, C]), 2, T0) == (A, B)
    assert lanes_of(Egress([A]), 2, T0) == (A, A)


def test_a_lane_that_loses_its_proxy_takes_a_free_one():
    pool = Egress([A, B, C])
    assert lanes_of(pool, 2, T0) == (A, B)
    pool.failed(A, T0, UNREACHABLE)
    assert lanes_of(pool, 2, T0) == (C, B)


def test_lanes_part_again_when_they_can_and_the_lower_one_stays():
    pool = Egress([A, B])
    assert lanes_of(pool, 2, T0) == (A, B)
    pool.failed(A, T0, UNREACHABLE)
    assert lanes_of(pool, 2, T0) == (B, B)
    assert lanes_of(pool, 2, T0 + 2) == (B, A)


def test_a_lower_lane_matters_more_than_a_higher_one():
    pool = Egress([A, B])
    assert (pool.choose(T0, lane=0), pool.choose(T0, lane=2)) == (A, B)
    assert pool.choose(T0, lane=1) == B


def test_no_lane_leads_anywhere_when_all_cool_down():
    pool = Egress([A, B])
    for proxy in (A, B):
        pool.failed(proxy, T0, UNREACHABLE)
    assert lanes_of(pool, 2, T0) == ()


POOL = [A, B, C, Proxy("https", "d", 4)]


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens in whatever order, what is chosen is healthy, and something is."""

    def __init__(self):
        super().__init__()
        self.pool, self.now = Egress(POOL), T0

    @rule(ms=st.integers(0, 100_000))
    def time_passes(self, ms):
        self.now += ms / 1024

    @rule(proxy=st.sampled_from(POOL))
    def succeed(self, proxy):
        self.pool.succeeded(proxy, self.now)
        assert cooling_s(self.pool, proxy, self.now) == 0

    @rule(proxy=st.sampled_from(POOL), error=st.sampled_from([*OF_PROXY, *OF_TARGET, REFUSED]))
    def fail(self, proxy, error):
        self.pool.failed(proxy, self.now, error)

    @rule(avoid=st.sets(st.sampled_from(POOL)), lane=st.integers(0, 2))
    def choose(self, avoid, lane):
        healthy = self.healthy() - avoid
        chosen = self.pool.choose(self.now, avoid, lane)
        assert chosen in healthy if healthy else chosen is None
        assert self.pool.choose(self.now, avoid, lane) == chosen

    @rule(n=st.integers(1, 3))
    def assign(self, n):
        lanes, healthy = lanes_of(self.pool, n, self.now), self.healthy()
        assert len(lanes) == (n if healthy else 0)
        assert set(lanes) <= healthy
        assert len(set(lanes)) == min(n, len(healthy))
        assert lanes_of(self.pool, n, self.now) == lanes

    @invariant()
    def waiting_has_an_end(self):
        until = self.pool.next_at(self.now)
        assert self.now <= until <= self.now + 600
        assert (until == self.now) == bool(self.healthy())

    def healthy(self):
        return {p for p in POOL if not cooling_s(self.pool, p, self.now)}


TestAnyHistory = AnyHistory.TestCase


def test_nothing_shows_a_secret():
    pool = Egress([A, B])
    for proxy in (A, B):
        pool.failed(proxy, T0, UNREACHABLE)
    texts = [repr(pool), str(pool), pool.explain(T0), repr(pool.statistics(T0))]
    texts += [repr(Route(None, ProxySettings(), None, "", 1, pool))]
    for secret in ("hunter2", "alice"):
        assert secret not in " ".join(texts)
    (first, _) = pool.statistics(T0)
    assert (first.address, first.kind, first.state) == ("a:1", "http", "cooling")
    assert (first.failures, first.successes, first.problem) == (1, 0, "proxy is down")
    assert first.cool_s == 2


# ---------------------------------------------------------------- dial budget


def test_a_window_of_dials_and_not_one_more():
    budget = DialBudget(3, 1.0)
    assert [budget.delay_s(T0 + i / 10) for i in range(3)] == [0, 0, 0]
    assert budget.delay_s(T0 + 0.3) == pytest.approx(0.7)
    assert budget.delay_s(T0 + 0.3, "a:1") == 0  # another exit
    assert budget.delay_s(T0 + 0.9999998) == 0.001  # never a wait too short to pass
    assert budget.delay_s(T0 + 1) == 0
    assert budget.delay_s(T0 + 1) == pytest.approx(0.1)
    assert "3 per 1 s" in repr(budget)


@given(st.lists(st.tuples(st.floats(0, 2), st.sampled_from("ab")), max_size=80))
def test_no_window_ever_holds_more(asks):
    budget, now, gone = DialBudget(4, 1.0), T0, {"a": [], "b": []}
    for pause, way in asks:
        now += pause
        delay_s = budget.delay_s(now, way)
        assert 0 <= delay_s <= 1
        if not delay_s:
            gone[way].append(now)
            assert sum(when > now - 1 + 1e-9 for when in gone[way]) <= 4


def test_a_budget_of_nothing_is_a_mistake():
    for per_window, window_s in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least one"):
            DialBudget(per_window, window_s)


# ---------------------------------------------------------------- the route


def route_of(network, *proxies, **more):
    pool = Egress(proxies) if proxies else None
    return Route(network.dial, ProxySettings(), None, "", 5, pool, **more)


async def socks_proxy(stream):
    """SOCKS5 with alice's password, then an echo."""
    await receive_exactly(stream, 4)
    await stream.send_all(b"\x05\x02")
    await receive_exactly(stream, 15)
    await stream.send_all(b"\x01\x00")
    await receive_exactly(stream, 7 + len(HOST))
    await stream.send_all(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
    await echo(stream)


OK = connect_proxy(b"HTTP/1.1 200 OK\r\n\r\n", then=echo)
SILENT = connect_proxy(b"")


@asynccontextmanager
async def proxies_at(handlers):
    """{Proxy: what it does with a connection}, and the exchange itself, in reach as a bait."""
    network = MemoryNetwork()

    async def answer(handler, stream):
        try:
            await handler(stream)
        except (EOFError, trio.BrokenResourceError):
            await trio.aclose_forcefully(stream)

    async def serve(listener, handler):
        while True:
            nursery.start_soon(answer, handler, await listener.accept())

    async with trio.open_nursery() as nursery:
        baits = {(HOST, PORT): echo}
        for (host, port), handler in baits.items() | {
            ((p.host, p.port), h) for p, h in handlers.items()
        }:
            (listener,) = await network.listen(host, port)
            nursery.start_soon(serve, listener, handler)
        yield network
        nursery.cancel_scope.cancel()
    assert (HOST, PORT) not in network.dialled  # never direct, in any test


async def opened(way):
    """Where an open() went, after an echo through it."""
    stream = await way.open(HOST, PORT, tls=False)
    await check_echo(stream)
    await trio.aclose_forcefully(stream)


async def test_failover_in_mid_run_and_no_way_back(autojump_clock):
    async with proxies_at({A: OK, B: socks_proxy}) as network:
        way = route_of(network, A, B)
        await opened(way)
        network.down.add((A.host, A.port))
        await opened(way)  # the same call goes on through B
        assert network.dialled == [("a", 1), ("a", 1), ("b", 2)]
        await opened(way)  # and the next does not ask A again
        network.down.clear()
        await trio.sleep(3600)
        await opened(way)
        assert network.dialled[3:] == [("b", 2)] * 2
        network.down.add((B.host, B.port))
        await opened(way)
        assert network.dialled[5:] == [("b", 2), ("a", 1)]
        first, second = way.egress.statistics(trio.current_time())
        assert (first.successes, first.failures) == (2, 1)
        assert (second.successes, second.failures) == (3, 1)


async def test_all_down_is_said_and_nothing_goes_direct(autojump_clock):
    async with proxies_at({A: OK, B: socks_proxy}) as network:
        way = route_of(network, A, B)
        network.down |= {("a", 1), ("b", 2)}
        for _ in range(3):  # the second and third dial nobody
            with pytest.raises(errors.NoProxyAvailable, match="never direct") as caught:
                await way.open(HOST, PORT, tls=True)
            assert caught.value.until == 2
        text = f"{caught.value} {caught.value!r}"
        assert "\n" not in text
        assert "a:1 for 2.0 s (proxy a:1 for fstream.example.com:443 cannot be reached" in text
        assert "hunter2" not in text
        assert "alice" not in text
        assert network.dialled == [("a", 1), ("b", 2)]
        network.down.clear()
        await trio.sleep(2)
        await opened(way)


async def test_a_proxy_that_hangs_costs_one_deadline_once(autojump_clock):
    async with proxies_at({A: SILENT, B: socks_proxy}) as network:
        way = route_of(network, A, B)
        await opened(way)
        assert trio.current_time() == pytest.approx(5)
        await opened(way)
        assert trio.current_time() == pytest.approx(5)


async def test_a_callers_shorter_deadline_does_not_hide_a_proxy_that_hangs(autojump_clock):
    async with proxies_at({A: SILENT, B: socks_proxy}) as network:
        way = route_of(network, A, B)
        with trio.move_on_after(1):  # not long enough to say anything
            await way.tunnel(HOST, PORT, tls=True)
        assert way.egress.statistics(trio.current_time())[0].failures == 0
        with trio.move_on_after(4):
            await way.tunnel(HOST, PORT, tls=True)
        assert "gave up after 4.0 s" in way.egress.statistics(trio.current_time())[0].problem
        await opened(way)
        assert network.dialled == [("a", 1), ("a", 1), ("b", 2)]


async def test_an_exchange_that_is_away_does_not_close_the_pool(autojump_clock):
    away = connect_proxy(b"HTTP/1.1 503 Away\r\n\r\n")
    async with proxies_at({A: away, C: away}) as network:
        way = route_of(network, A, C)
        for _ in range(2):
            with pytest.raises(errors.ProxyRefused):
                await way.open(HOST, PORT, tls=True)
        with pytest.raises(errors.NoProxyAvailable):
            await way.open(HOST, PORT, tls=True)
        assert way.egress.next_at(trio.current_time()) == 2
        assert network.dialled == [("a", 1), ("c", 3), ("c", 3), ("a", 1), ("a", 1), ("c", 3)]


async def test_tls_with_the_proxy_itself_is_the_proxys_error(autojump_clock):
    plain = Proxy("https", "d", 4)
    async with proxies_at({plain: SILENT, B: socks_proxy}) as network:

        async def garbage(stream):
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        (listener,) = await network.listen("e", 5)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def answer():
                await garbage(await listener.accept())

            way = route_of(network, Proxy("https", "e", 5), B)
            await opened(way)
        assert way.egress.statistics(trio.current_time())[0].state == "cooling"


HTML = b"Content-Type: text/html\r\n\r\n<html>Log in!</html>"
FOUND = b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n"
PORTALS = {
    "redirects": connect_proxy(FOUND + HTML),
    "serves its page": connect_proxy(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n" + HTML),
    "behind the tunnel": connect_proxy(b"HTTP/1.1 200 OK\r\n\r\n", then=page),
}


@pytest.mark.parametrize("how", PORTALS)
async def test_a_proxy_that_is_a_captive_portal_is_left_at_once(how, autojump_clock):
    async with proxies_at({A: PORTALS[how], C: PORTALS[how]}) as network:
        way = route_of(network, A, C)
        with capture_logs() as logs, pytest.raises(errors.NoProxyAvailable) as caught:
            await way.open(HOST, PORT, tls=True)
        assert network.dialled == [("a", 1), ("c", 3)]
    assert "captive portal" in str(caught.value)
    assert [line["event"] for line in logs] == ["proxy.down", "proxy.down", "egress.down"]


async def test_blame_reaches_the_proxy_that_carried_the_stream(autojump_clock):
    async with proxies_at({A: OK, B: socks_proxy}) as network:
        way = route_of(network, A, B)
        for _ in range(3):  # a blocked region: the tunnel opens, the exchange refuses
            stream = await way.open(HOST, PORT, tls=False)
            way.blame(stream, errors.UpgradeRefused("451", 451))
        assert network.dialled == [("a", 1)] * 3
        await opened(way)
        assert network.dialled[3:] == [("b", 2)]
        route_of(network).blame(stream, UNREACHABLE)  # no pool, nobody to blame


def rest_behind(reply):
    """A CONNECT proxy, and behind it an exchange that answers each request with ``reply``."""

    async def exchange(stream):
        while True:
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                part = await stream.receive_some(1)
                if not part:
                    return
                data += part
            await stream.send_all(reply)

    return connect_proxy(b"HTTP/1.1 200 OK\r\n\r\n", then=exchange)


GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
NOT_HERE = b"HTTP/1.1 451 No\r\nContent-Length: 2\r\n\r\n{}"
WRONG_IP = (
    b"HTTP/1.1 401 No\r\nContent-Length: 50\r\n\r\n"
    + b'{"code":-2015,"msg":"Invalid API-key, IP"}'.ljust(50)
)


@pytest.mark.parametrize("reply", [NOT_HERE, WRONG_IP, NOT_HERE.replace(b"451", b"403")])
async def test_rest_tells_the_pool_of_a_blocked_region(reply, autojump_clock):
    async with proxies_at({A: rest_behind(reply), C: rest_behind(GOOD)}) as network:
        way = route_of(network, A, C)
        async with open_rest(
            f"http://{HOST}:{PORT}",
            route=way,
            timeout_s=10,
            weights=Weights(1200),
            dialect=BinanceDialect(),
        ) as client:
            with pytest.raises(errors.RestRefused):
                await client.get("/x", {})
            assert (await client.get("/x", {})).body == b"[]"
        assert network.dialled == [("a", 1), ("c", 3)]


async def test_rest_tells_the_pool_of_a_black_hole(autojump_clock):
    """Tunnels open, and nothing comes through them."""

    async def silence(_stream):
        await trio.sleep_forever()

    hole = connect_proxy(b"HTTP/1.1 200 OK\r\n\r\n", then=silence)
    async with proxies_at({A: hole, C: rest_behind(GOOD)}) as network:
        way = route_of(network, A, C)
        async with open_rest(
            f"http://{HOST}:{PORT}", route=way, timeout_s=10, weights=Weights(1200)
        ) as client:
            for _ in range(3):  # it may be the exchange's fault as well
                with pytest.raises(errors.RestError, match="through proxy a:1: no answer"):
                    await client.get("/x", {})
            assert (await client.get("/x", {})).body == b"[]"
        assert network.dialled == [("a", 1)] * 3 + [("c", 3)]


async def test_a_node_that_wants_another_key_says_nothing_about_the_proxy(autojump_clock):
    reply = NOT_HERE.replace(b"451", b"403")
    async with proxies_at({A: rest_behind(reply), C: rest_behind(GOOD)}) as network:
        way = route_of(network, A, C)
        async with open_rest(
            f"http://{HOST}:{PORT}", route=way, timeout_s=10, weights=Weights(1200)
        ) as client:
            for _ in range(2):
                with pytest.raises(errors.RestRefused, match=r"through proxy a:1.*credentials"):
                    await client.get("/x", {})


async def test_a_proxy_of_the_environment_is_a_pool_of_one(autojump_clock):
    """A company's account is locked by who tries again and again."""
    wants = connect_proxy(b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\n\r\n")
    async with proxies_at({A: wants}) as network:
        environ = {"ALL_PROXY": "http://alice:hunter3@a:1", "NO_PROXY": "internal"}
        way = Route(network.dial, ProxySettings(), environ, "", 5, environ_pools={})
        with capture_logs() as logs:
            for _ in range(60):
                with pytest.raises(errors.NoProxyAvailable, match="refused our user name"):
                    await way.open(HOST, PORT, tls=False)
                await trio.sleep(5)
        assert network.dialled == [("a", 1)]
        assert [line["event"] for line in logs] == ["proxy.down", "egress.down"]
        (pool,) = evolve(way, lane=1).pools  # one for all who share it
        assert pool.statistics(trio.current_time())[0].failures == 1
        with pytest.raises(errors.HostUnreachable):  # NO_PROXY still counts
            await way.open("internal", PORT, tls=False)


async def test_the_client_leaves_its_proxy_alone_too(autojump_clock):
    refused = b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\n\r\n"
    async with proxies_at({A: connect_proxy(refused)}) as network:
        environment = Environment(network.dial, network.listen, lambda: 0.0, random.Random(1))
        proxy = "http://alice:hunter3@a:1"
        async with open_client("ws://feed:80/ws", proxy=proxy, environment=environment):
            await trio.sleep(300)
        assert network.dialled == [("a", 1)]
        with pytest.raises(errors.SettingsError, match="proxy: is not a proxy URL") as caught:
            async with open_client("ws://feed:80/ws", proxy="ftp://a:hunter2@b"):
                pytest.fail("open")
        assert "hunter2" not in str(caught.value)


async def test_credentials_are_tried_by_one_and_not_by_all_at_once(autojump_clock):
    refused = b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\n\r\n"
    async with proxies_at({A: connect_proxy(refused)}) as network:
        way = route_of(network, A)

        async def one():
            with pytest.raises(errors.NoProxyAvailable):
                await way.open(HOST, PORT, tls=False)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one)
        assert network.dialled == [("a", 1)]


async def test_who_was_let_in_once_dials_side_by_side(autojump_clock):
    async def slow(stream):
        await trio.sleep(1)
        await OK(stream)

    async with proxies_at({A: slow}) as network:
        way = route_of(network, A)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(opened, way)
        assert len(network.dialled) == 20
        assert trio.current_time() == pytest.approx(2)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(opened, way)
        assert trio.current_time() == pytest.approx(3)


async def test_an_upgrade_tells_the_pool_of_a_blocked_region(autojump_clock):
    async with proxies_at({A: rest_behind(NOT_HERE), C: rest_behind(NOT_HERE)}) as network:
        way = route_of(network, A, C)
        for _ in range(2):
            with pytest.raises(errors.UpgradeRefused) as caught:
                async with open_websocket(
                    f"ws://{HOST}:{PORT}/x",
                    route=way,
                    deadlines=Deadlines(5, 1, 5, 5, 5),
                    max_message_bytes=1000,
                    frames=FrameBudget((10, 1.0)),
                    hints=BinanceDialect.hints,
                    blocking=BinanceDialect.blocking,
                ):
                    pytest.fail("open")
            assert "use a proxy in another one" in str(caught.value)
            assert "through proxy " in str(caught.value)
        assert network.dialled == [("a", 1), ("c", 3)]


async def test_lanes_are_routes_through_different_proxies(autojump_clock):
    async with proxies_at({A: OK, B: socks_proxy}) as network:
        way = route_of(network, A, B)
        other = evolve(way, lane=1)
        for each in (way, other, way, other):
            await opened(each)
        assert network.dialled == [("a", 1), ("b", 2)] * 2
        network.down.add(("a", 1))
        await opened(way)
        await opened(other)
        assert network.dialled[4:] == [("a", 1), ("b", 2), ("b", 2)]


async def test_dials_wait_for_their_budget(autojump_clock):
    async with proxies_at({A: OK, B: socks_proxy}) as network:
        way = route_of(network, A, B, dials=Dials(3, 1.0))
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(opened, way)
        assert trio.current_time() == pytest.approx(9, abs=0.1)
        assert network.dialled == [("a", 1)] * 30


async def test_each_exit_has_its_own_budget(autojump_clock):
    async with proxies_at({A: OK, B: socks_proxy}) as network:
        way = route_of(network, A, B, dials=Dials(2, 60.0))
        for each in (way, evolve(way, lane=1)) * 2:
            await opened(each)
        assert trio.current_time() == pytest.approx(0, abs=0.1)
        await opened(way)
        assert trio.current_time() == pytest.approx(60, abs=0.1)


async def test_the_wait_for_the_budget_is_bounded_and_cancellable(autojump_clock):
    network = MemoryNetwork()
    way = route_of(network, dials=Dials(1, 300.0), dial_wait_s=60)  # the same without a pool
    with pytest.raises(errors.HostUnreachable):
        await way.tunnel(HOST, PORT, tls=True)
    with pytest.raises(errors.TunnelTimeout, match="direct") as caught:
        await way.tunnel(HOST, PORT, tls=True)
    assert caught.value.step == "dial budget"
    patient = evolve(way, dial_wait_s=301)
    with trio.move_on_after(100) as scope:
        await patient.tunnel(HOST, PORT, tls=True)
    assert scope.cancelled_caught
    with pytest.raises(errors.HostUnreachable):
        await patient.tunnel(HOST, PORT, tls=True)
    assert trio.current_time() == pytest.approx(300)
    assert len(network.dialled) == 2


# ---------------------------------------------------------------- settings

KEY = "exchanges.x.connection.proxies"
TOML = """
[exchanges.x.connection.egress]
cool_down_min_s = 5
[[exchanges.x.connection.proxies]]
enabled = true
address = "a:1"
username = "alice"
password = "hunter2"
[[exchanges.x.connection.proxies]]
address = "off:9"
[[exchanges.x.connection.proxies]]
enabled = true
proxy_type = "socks5"
address = "[::1]:2"
"""


def test_an_array_of_tables_makes_a_pool(tmp_path):
    file = tmp_path / "pool.toml"
    file.write_text(TOML)
    settings = load([file])
    connection = settings.exchanges["x"].connection
    assert [proxy.address for proxy in connection.proxies] == ["a:1", "off:9", "[::1]:2"]
    pool = make_egress(connection)
    assert [s.address for s in pool.statistics(T0)] == ["a:1", "[::1]:2"]
    proxy = pool.choose(T0)
    assert (proxy.username, proxy.password.reveal()) == ("alice", "hunter2")
    pool.failed(proxy, T0, UNREACHABLE)
    assert cooling_s(pool, proxy) == 5
    assert "hunter2" not in f"{settings!r} {masked(settings)}"
    shown = masked(settings)["exchanges"]["x"]["connection"]["proxies"]
    assert [proxy["password"] for proxy in shown] == ["***", "", ""]


def test_from_the_environment_as_toml():
    name = "TRIO_FEED__EXCHANGES__X__CONNECTION__PROXIES"
    settings = load((), {name: '[{enabled = true, address = "a:1"}]'})
    assert settings.exchanges["x"].connection.proxies[0].address == "a:1"


ONE = "exchanges.x.connection.proxy"


@pytest.mark.parametrize(
    ("text", "kind", "address", "login"),
    [
        ("socks5://u:p%40ss@h:1080", "socks5", "h:1080", ("u", "p@ss")),
        ("socks5h://h", "socks5", "h:1080", ("", "")),
        ("http://u@h:80", "http", "h:80", ("u", "")),
        ("https://[::1]:8443/", "https", "[::1]:8443", ("", "")),
    ],
)
def test_a_url_stands_for_a_table(text, kind, address, login, tmp_path):
    file = tmp_path / "a.toml"
    file.write_text(f'[exchanges.x.connection]\nproxy = "{text}"\n')
    (pooled,) = load(assignments=[f"{KEY}=['{text}']"]).exchanges["x"].connection.proxies
    client = ProxySettings.from_url(text)
    for found in (load([file]).exchanges["x"].connection.proxy, pooled, client):
        assert (found.enabled, found.proxy_type, found.address) == (True, kind, address)
        assert (found.username, found.password.reveal()) == login


def test_the_password_of_a_url_may_come_from_the_environment(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text('[exchanges.x.connection]\nproxy = "http://alice@h:3128"\n')
    environ = {"TRIO_FEED__EXCHANGES__X__CONNECTION__PROXY__PASSWORD": "hunter2"}
    settings = load([file], environ)
    proxy = settings.exchanges["x"].connection.proxy
    assert (proxy.enabled, proxy.username, proxy.password.reveal()) == (True, "alice", "hunter2")
    assert "hunter2" not in f"{settings!r} {masked(settings)}"


def test_an_address_may_be_a_url():
    proxy = (
        load(
            assignments=[f"{ONE}.address=socks5://h:1", f"{ONE}.enabled=true", f"{ONE}.username=u"]
        )
        .exchanges["x"]
        .connection.proxy
    )
    assert (proxy.proxy_type, proxy.address, proxy.username) == ("socks5", "h:1", "u")


def test_a_list_is_a_chain():
    connection = (
        load(assignments=[f"{KEY}=['http://a:1',['http://b:2',{{enabled=true,address='c:3'}}]]"])
        .exchanges["x"]
        .connection
    )
    pool = make_egress(connection)
    assert [s.address for s in pool.statistics(T0)] == ["a:1", "b:2 > c:3"]


@pytest.mark.parametrize(
    ("assignments", "line"),
    [
        ([f"{ONE}=ftp://u:hunter2@h"], f"{ONE}: is not a proxy URL such as http://"),
        ([f"{ONE}=u:hunter2@h:1"], f"{ONE}: is not a proxy URL such as http://"),
        ([f"{ONE}=http://u:hunter2@h:1/path"], f"{ONE}: is not a proxy URL such as http://"),
        ([f"{ONE}.address=u:hunter2@h"], f"{ONE}.address: an address with '@' is not host:port"),
        ([f"{ONE}.address=ftp://u:hunter2@h"], f"{ONE}.address: is not a proxy URL"),
        (
            [f"{ONE}.address=socks5://h:1", f"{ONE}.proxy_type=http"],
            f"{ONE}.address: is a URL that says socks5, and `proxy_type` stands beside it",
        ),
        (
            [f"{KEY}=[['http://a:1',{{enabled=true,address='b:1',via=['http://c:1']}}]]"],
            f"{KEY}.0.via: stands in a list",
        ),
        (
            [f"{KEY}=[['http://a:1',['http://b:1','http://c:1'],'http://d:1']]"],
            f"{KEY}.0.via: is a flat list",
        ),
        ([f"{KEY}=[[{{address='b:1'}},'http://c:1']]"], f"{KEY}.0.via: number 0 of the chain"),
    ],
)
def test_a_wrong_proxy_is_one_line_without_a_secret(assignments, line):
    with pytest.raises(errors.SettingsError) as caught:
        load(assignments=assignments)
    assert str(caught.value).startswith(line)
    assert "hunter2" not in str(caught.value)


def test_a_single_proxy_is_a_pool_of_one():
    assert make_egress(ConnectionSettings()) is None
    pool = make_egress(ConnectionSettings(proxy=ProxySettings(True, "http", "a:1")))
    (found,) = pool.statistics(T0)
    assert found.address == "a:1"
    lengths, now = [], T0
    for _ in range(8):  # never later than any connection would be tried again
        pool.failed(pool.choose(now), now, UNREACHABLE)
        lengths.append(pool.next_at(now) - now)
        now = pool.next_at(now)
    assert lengths == [0.5, 1, 2, 4, 8, 16, 30, 30]
    pool.failed(pool.choose(now), now, REFUSED)  # a person is needed, and accounts get locked
    assert pool.next_at(now) == now + 600


ON = "{enabled=true,address='a:1'}"


@pytest.mark.parametrize(
    ("assignments", "line"),
    [
        ([f"{KEY}=[{ON},{{address='b'}}]"], f"{KEY}.1.address: 'b' is not host:port"),
        ([f"{KEY}=[{ON},{{adress='b:1'}}]"], f"{KEY}.1.adress: unknown; did you mean address?"),
        ([f"{KEY}=[{{enabled=true}}]"], f"{KEY}.0.address: missing although"),
        ([f"{KEY}=[{{address='a:1',password=5}}]"], f"{KEY}.0.password: the secret is not"),
        ([f"{KEY}=[{{address='a:1'}}]"], f"{KEY}: none is enabled"),
        ([f"{KEY}=[{ON},{ON}]"], f"{KEY}: one is listed twice"),
        ([f"{KEY}=[5]"], f"{KEY}.0: 5 is a value where a table is wanted"),
        ([f"{KEY}=['http://u:hunter2@h']"], f"{KEY}.0: is a proxy URL without a port; write it"),
        ([f"{KEY}=['https://h/']"], f"{KEY}.0: is a proxy URL without a port; write it"),
        ([f"{KEY}=['ftp://u:hunter2@h:1']"], f"{KEY}.0: is not a proxy URL such as"),
        ([f"{KEY}=[['http://a:1', 'http://u:hunter2@h:x']]"], f"{KEY}.0: is not a proxy URL"),
        ([f"{KEY}=[[{{password='hunter2'}}]]"], f"{KEY}.0.password: given without a username"),
        ([f"{KEY}=[[]]"], f"{KEY}.0: a list is a value where"),
        ([f"{KEY}=http://u:hunter2@h:1"], f"{KEY}: is no array of tables; write [[{KEY}]]"),
        ([f"{KEY}.password=hunter2"], f"{KEY}: is no array of tables; write [[{KEY}]]"),
        (
            [
                f"{KEY}=[{ON}]",
                "exchanges.x.connection.proxy.address=b:1",
                "exchanges.x.connection.proxy.enabled=true",
            ],
            f"{KEY}: given although a single proxy is enabled",
        ),
        (
            ["exchanges.x.connection.egress.cool_down_max_s=1"],
            "exchanges.x.connection.egress.cool_down_max_s: is below cool_down_min_s",
        ),
    ],
)
def test_a_wrong_pool_is_one_line_without_a_secret(assignments, line):
    with pytest.raises(errors.SettingsError) as caught:
        load(assignments=assignments)
    assert str(caught.value).startswith(line)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_proxy_table_that_is_off_does_not_count():
    off = "exchanges.x.connection.proxy.address=b:1"
    settings = load(assignments=[f"{KEY}=[{ON}]", off])
    assert make_egress(settings.exchanges["x"].connection).choose(T0).address == "a:1"


def test_a_proxy_that_never_let_anything_through_is_not_shown_as_healthy() -> None:
    """Between two tries neither, and where what lies behind it is to blame: an alarm looks here."""
    pool = Egress([A], EgressSettings(cool_down_min_s=1, cool_down_max_s=2))
    assert pool.statistics(T0)[0].state == "healthy"
    pool.failed(A, T0, RESET)
    assert pool.statistics(T0)[0].state == "cooling"
    pool.failed(A, T0, errors.TunnelTimeout("a black hole", "CONNECT"))
    assert pool.statistics(T0 + 100)[0].state == "cooling"
    pool.succeeded(A, T0 + 101)
    assert pool.statistics(T0 + 101)[0].state == "healthy"
