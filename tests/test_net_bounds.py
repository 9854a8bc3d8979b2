"""Edges of the net room: the last that passes, the first that does not, and how it is said."""

import gzip
import math
from contextlib import suppress
from email.utils import formatdate
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from support.memory import MemoryNetwork
from test_rest import EPOCH_MS, Exchange, answer, client_of

from trio_feed import errors
from trio_feed.instants import Mono
from trio_feed.net.budgets import Budgets, Dials, WaitQueue, Weights
from trio_feed.net.counted_stream import MAX_REFUSAL_BYTES, CountedStream
from trio_feed.net.egress import Egress, EgressNews
from trio_feed.net.limits import (
    Bans,
    DialBudget,
    FrameBudget,
    WeightBudget,
    Window,
    status_hint,
)
from trio_feed.net.proxy import Proxy
from trio_feed.net.rest import open_rest
from trio_feed.net.route import Exit, Route
from trio_feed.net.tunnel import open_tunnel
from trio_feed.settings import ProxySettings, Secret
from trio_feed.settings.exchanges import EgressSettings

A, B, C = Proxy("http", "a", 1), Proxy("http", "b", 2), Proxy("http", "c", 3)
UNREACHABLE = errors.ProxyUnreachable("proxy is down")
RESET = errors.TlsReset("cut off")


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (299, "does not accept"), (300, "redirects"), (399, "redirects"), (400, "does not accept"),
        (401, "credentials"), (403, "let us in"), (404, "no such path"), (418, "banned"),
        (429, "slow down"), (451, "legal"), (499, "does not accept"), (500, "trouble"),
    ],
)  # fmt: skip
def test_what_a_status_means(status: int, words: str) -> None:
    assert words in status_hint(status, {418: "banned"})
    assert words == "banned" or words in status_hint(status)


@pytest.mark.parametrize(
    ("per_minute", "burst_s", "at_once"),
    [(600, 60.0, 600), (600, 90.0, 600), (600, 6.0, 60), (6, 2.0, 1), (1, 60.0, 1)],
)
def test_how_much_may_go_at_once(per_minute: int, burst_s: float, at_once: int) -> None:
    budget = WeightBudget(per_minute, burst_s)
    assert budget.delay_s(at_once, Mono(0)) == 0
    assert budget.delay_s(1, Mono(0)) > 0


def test_a_short_window_is_longer_by_a_fifth() -> None:
    """60 in 6 s; what is longer on the way than the next ones still counts."""
    budget = WeightBudget(600, 6.0)
    assert budget.delay_s(60, Mono(0)) == 0
    assert budget.delay_s(60, Mono(7.1)) == pytest.approx(0.1)
    assert budget.delay_s(60, Mono(7.2)) == 0


def test_of_a_short_burst_there_is_no_window_at_a_minute() -> None:
    budget = WeightBudget(60, 60.0)
    assert budget.delay_s(60, Mono(0)) == 0
    assert budget.delay_s(60, Mono(60)) == 0  # and not 72 s later


def test_a_count_of_the_exchange_is_of_its_minute() -> None:
    budget = WeightBudget(60)
    budget.observed(60, Mono(0))
    assert budget.delay_s(1, Mono(0)) == pytest.approx(1.0)
    budget.observed(0, Mono(30))
    assert budget.delay_s(30, Mono(30)) == 0
    assert budget.delay_s(1, Mono(30)) > 0
    assert repr(budget) == "<WeightBudget 0 of 60 left>"


def test_what_is_heavier_than_a_burst_waits_for_a_full_bucket() -> None:
    budget = WeightBudget(60)
    assert budget.delay_s(10, Mono(0)) == 0
    assert budget.delay_s(90, Mono(0)) == pytest.approx(10.0)
    assert budget.delay_s(90, Mono(10)) == 0
    assert budget.delay_s(1, Mono(10)) == pytest.approx(31.0)


def test_bans_at_their_edges() -> None:
    bans = Bans()
    assert bans.until == Mono(-math.inf)
    assert bans.ban(Mono(10), 2.0) == 12
    assert (bans.left_s(Mono(11.5)), bans.left_s(Mono(12)), bans.left_s(Mono(13))) == (0.5, 0, 0)
    assert bans.ban(Mono(20), 99, longest_s=7) == 27
    bans = Bans()
    assert bans.ban_by_default(Mono(0)) == 60
    assert bans.ban_by_default(Mono(59.9)) == pytest.approx(119.9)  # still the first one
    assert bans.ban_by_default(Mono(119.9)) == pytest.approx(239.9)
    assert repr(bans) == "<Bans, 2 of unknown length in a row>"


@pytest.mark.parametrize(("most", "length_s"), [(0, 1.0), (1, 0.0), (-1, 1.0), (1, -1.0)])
def test_windows_of_nothing(most: int, length_s: float) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Window(most, length_s)


def test_a_window_at_its_edges() -> None:
    window = Window(2, 10.0)
    window.take(Mono(0))
    window.take(Mono(1))
    assert (len(window), list(window.taken)) == (2, [0, 1])
    assert window.delay_s(Mono(1)) == 9
    assert window.delay_s(Mono(1), 2) == 10
    assert window.delay_s(Mono(1), 99) == 10  # never more than all of it
    assert window.delay_s(Mono(9.9999)) == 0.001  # no shorter wait than this
    assert window.delay_s(Mono(10)) == 0
    window.take(Mono(10), 5)
    assert list(window.taken) == [10, 10]
    assert list(Window(2, 1.0, [Mono(1), Mono(2), Mono(3)]).taken) == [2, 3]


def test_dials_are_counted_by_exit() -> None:
    budget = DialBudget(2, 10.0)
    assert [budget.delay_s(Mono(0), "a") for _ in range(3)] == [0, 0, 10]
    assert budget.delay_s(Mono(0)) == 0
    assert budget.delay_s(Mono(4), "a") == 6
    assert repr(budget) == "<DialBudget 2 per 10 s, 2 counted>"


def test_frames_and_operations() -> None:
    budget = FrameBudget((3, 1.0), (2, 60.0))
    assert (budget.delay_s(Mono(0)), budget.delay_s(Mono(0), 2)) == (0, 0)
    budget.operated(Mono(0), 2)
    assert (budget.delay_s(Mono(1)), budget.delay_s(Mono(1), 1)) == (0, 59)
    budget.sent(Mono(1))
    assert budget.delay_s(Mono(1)) == 0
    budget.sent(Mono(1))
    assert budget.delay_s(Mono(1.5)) == 0.5  # the third is kept for a pong
    assert budget.delay_s(Mono(1.5), 1) == 58.5
    assert repr(budget) == "<FrameBudget 3 per 1 s>"
    free = FrameBudget((3, 1.0))
    free.operated(Mono(0), 99)
    assert free.delay_s(Mono(0), 99) == 0


# ---------------------------------------------------------------- lines


async def test_a_line_asks_again_within_a_second(autojump_clock: trio.abc.Clock) -> None:
    line, asked = WaitQueue(), list[float]()

    def ask() -> float:
        asked.append(trio.current_time())
        return max(0.0, 2.5 - trio.current_time())

    assert await line.take(ask)
    assert asked == pytest.approx([0, 1, 2, 2.5])
    assert line.waiting == 0


async def test_lines_are_by_exit_and_counted_together(autojump_clock: trio.abc.Clock) -> None:
    dials = Dials(1, 10.0)
    for exit_ in ("a", "b"):
        assert await dials.take(exit_, lambda: True)
    async with trio.open_nursery() as nursery:
        for exit_ in ("a", "a", "b", "b", "b"):
            nursery.start_soon(dials.take, exit_, lambda: True)
        await trio.testing.wait_all_tasks_blocked()
        assert (dials.waiting, dials.queue("a").waiting, dials.queue("b").waiting) == (3, 1, 2)
        nursery.cancel_scope.cancel()
    assert dials.queue("a") is dials.queue("a")


def test_the_first_to_ask_says_how_large_a_budget_is() -> None:
    budgets = Budgets()
    weights = budgets.weights("x", 60, 60)
    assert budgets.weights("x", 600, 60) is weights
    assert weights.at("e").delay_s(61, Mono(0)) == 0
    assert weights.at("e").delay_s(1, Mono(0)) == pytest.approx(2.0)
    assert repr(weights) == "<Weights e: <WeightBudget -1 of 60 left>>"


async def test_a_budget_of_the_same_size_stays_as_it_was(autojump_clock: trio.abc.Clock) -> None:
    weights = Weights(60)
    budget = weights.at("e")
    assert budget.delay_s(60, Mono(0)) == 0
    weights.resize(60)
    assert budget.delay_s(1, Mono(0)) == pytest.approx(1.0)
    weights.resize(120)
    assert weights.at("f").delay_s(120, Mono(0)) == 0
    assert weights.at("f").delay_s(1, Mono(0)) > 0


# ---------------------------------------------------------------- the pool


def test_news_is_said_once_and_names_the_pool_when_all_are_down() -> None:
    pool = Egress([A, B])
    now = Mono(100)
    pool.failed(A, now, UNREACHABLE)
    assert pool.news(now) == [EgressNews(False, "a:1", "proxy is down", "ProxyUnreachable")]
    assert pool.news(now) == []
    pool.failed(B, now, UNREACHABLE)
    first, second = pool.news(now)
    assert (first.address, first.event) == ("b:2", "proxy.down")
    assert (second.up, second.address, second.event) == (False, "", "egress.down")
    assert second.problem.startswith("no proxy of 2 may be used for 2.0 s")
    pool.succeeded(A, now)
    first, second = pool.news(now)
    assert first == EgressNews(True, "a:1", "")
    assert second == EgressNews(True, "", "")
    assert (first.event, second.event) == ("proxy.up", "egress.up")
    # It was down from its first cool-down to its next success, whatever the time.
    assert pool.news(Mono(9_999)) == []
    assert len(pool) == 2
    assert repr(pool) == "<Egress of 2 proxies, 1 failed last>"


@pytest.mark.parametrize(("pause_s", "cools"), [(59.9, True), (60.0, False)])
def test_errors_of_the_target_that_are_a_minute_apart(pause_s: float, cools: bool) -> None:
    pool, now = Egress([A, B]), Mono(0)
    for _ in range(3):
        pool.failed(A, now, RESET)
        last, now = now, now + pause_s
    assert (pool.statistics(last)[0].cool_s > 0) is cools


def test_the_policy_is_counted_out() -> None:
    policy = EgressSettings(
        cool_down_min_s=3, cool_down_max_s=10, credentials_cool_down_s=99, target_errors=2
    )
    pool, now = Egress([A], policy), Mono(0)
    lengths = []
    for _ in range(4):
        pool.failed(A, now, UNREACHABLE)
        lengths.append(pool.next_at(now) - now)
        now = pool.next_at(now)
    assert lengths == [3, 6, 10, 10]
    pool = Egress([A, B], policy)
    pool.failed(A, Mono(0), RESET)
    assert pool.statistics(Mono(0))[0].cool_s == 0
    pool.failed(A, Mono(0), RESET)
    assert (pool.choose(Mono(0)), pool.statistics(Mono(0))[0].cool_s) == (B, 3)
    alone = Egress([A], policy)  # the callers' own backoff is the right wait: else it never grew
    for _ in range(9):
        alone.failed(A, Mono(0), RESET)
    assert alone.choose(Mono(0)) == A
    pool = Egress([A], policy)
    pool.failed(A, Mono(0), errors.ProxyAuthRequired("407"))
    assert pool.next_at(Mono(0)) == 99
    pool.failed(A, Mono(98), UNREACHABLE)  # it cools down already: nothing is added
    assert pool.next_at(Mono(98)) == 99
    pool.failed(A, Mono(99), UNREACHABLE)
    assert pool.next_at(Mono(99)) == 102


@pytest.mark.parametrize(
    ("error", "of_proxy"),
    [
        (errors.ProxyRefused("x", 403), True), (errors.ProxyRefused("x", 502), False),
        (errors.ProxyRefused("x", 503), False), (errors.ProxyRefused("x", 504), False),
        (errors.ProxyRefused("x", 505), True), (errors.ProxyRefused("x", 3), True),
        (errors.ProxyRefused("x", 4), False), (errors.ProxyRefused("x", 5), False),
        (errors.ProxyRefused("x", 6), True), (errors.TunnelTimeout("x", "TLS handshake"), False),
        (errors.TunnelTimeout("x", "proxy TLS handshake"), True),
        (errors.TunnelTimeout("x", "dial proxy"), True), (errors.HostUnreachable("x"), False),
        (errors.TlsNameMismatch("x"), False), (errors.TlsUntrusted("x"), False),
        (errors.UpgradeRefused("x", 451), False), (errors.ProxyProtocolError("x"), True),
    ],
)  # fmt: skip
def test_whose_error_it_is(error: errors.NetworkError, of_proxy: bool) -> None:
    pool = Egress([A])
    pool.failed(A, Mono(0), error)
    assert (pool.choose(Mono(0)) is None) is of_proxy
    for known in (True, False):
        pool = Egress([A])
        pool.failed(A, Mono(0), error, of_proxy=known)
        assert (pool.choose(Mono(0)) is None) is known


def test_a_snapshot_of_the_pool() -> None:
    pool = Egress([A, B])
    pool.succeeded(A, Mono(0))
    pool.succeeded(A, Mono(0))
    pool.failed(A, Mono(0), errors.TlsReset("x" * 400))
    pool.failed(B, Mono(1), UNREACHABLE)
    a, b = pool.statistics(Mono(2.5))
    assert (a.address, a.kind, a.state, a.failures, a.successes, a.cool_s) == (
        "a:1", "http", "cooling", 1, 2, 0.0,
    )  # fmt: skip
    assert a.problem == "x" * 300
    assert (b.state, b.failures, b.successes, b.cool_s) == ("cooling", 1, 0, 0.5)
    assert (pool.statistics(Mono(3))[1].state, pool.next_at(Mono(2.5))) == ("cooling", 2.5)


def test_three_lanes_over_two_proxies() -> None:
    pool, now = Egress([A, B]), Mono(0)
    assert [pool.choose(now, lane=lane) for lane in (0, 1, 2)] == [A, B, A]
    assert pool.choose(now, lane=2) == A  # there is nothing better, so it stays
    pool = Egress([A, B, C])
    assert [pool.choose(now, lane=lane) for lane in (2, 1, 0)] == [A, B, C]


# ---------------------------------------------------------------- the route


def test_exits_have_names() -> None:
    assert (Exit(None).name, Exit(A).name) == ("direct", "a:1")


async def test_who_is_told_of_an_open_stream(autojump_clock: trio.abc.Clock) -> None:
    network, opened = MemoryNetwork(), list[str]()
    (_listener,) = await network.listen("exchange", 80)
    way = Route(network.dial, ProxySettings(), None, "", 5, opened=opened.append)
    for way_in in (way.open, way.tunnel):
        stream = await way_in("exchange", 80, tls=False)
        await trio.aclose_forcefully(stream)
    assert opened == ["direct", "direct"]
    way.blame(stream, RESET)  # without a pool: nothing


@pytest.mark.parametrize(("gives_up_s", "blamed"), [(2.4, False), (2.6, True)])
async def test_a_caller_that_gives_up_after_half_the_deadline_blames_the_proxy(
    gives_up_s: float, blamed: bool, autojump_clock: trio.abc.Clock
) -> None:
    network, pool = MemoryNetwork(), Egress([A])
    (_listener,) = await network.listen("a", 1)  # takes the connection and says nothing
    way = Route(network.dial, ProxySettings(), None, "", 5.0, pool)
    with structlog.testing.capture_logs() as logs:
        with trio.move_on_after(gives_up_s):
            await way.open("exchange", 80, tls=False)
    assert (pool.statistics(Mono(0))[0].failures == 1) is blamed
    assert [line["event"] for line in logs] == (["proxy.down", "egress.down"] if blamed else [])


async def test_the_longest_wait_for_a_dial(autojump_clock: trio.abc.Clock) -> None:
    network, dials = MemoryNetwork(), Dials(1, 100.0)
    way = Route(network.dial, ProxySettings(), None, "", 5, dials=dials, dial_wait_s=7)
    with pytest.raises(errors.HostUnreachable):
        await way.open("exchange", 80, tls=False)
    with pytest.raises(errors.TunnelTimeout, match="no dial within 7 s") as caught:
        await way.open("exchange", 80, tls=False)
    assert (caught.value.step, trio.current_time()) == ("dial budget", pytest.approx(7))
    assert Route(network.dial, ProxySettings(), None, "", 5).dial_wait_s == 600


async def test_where_all_have_failed_it_says_when_to_come_back(
    autojump_clock: trio.abc.Clock,
) -> None:
    network, pool = MemoryNetwork(), Egress([A, B])
    way = Route(network.dial, ProxySettings(), None, "", 5, pool)
    with pytest.raises(errors.NoProxyAvailable, match="exchange:80: no proxy of 2") as caught:
        await way.open("exchange", 80, tls=False)
    assert caught.value.until == pool.next_at(Mono(0))
    assert network.dialled == [("a", 1), ("b", 2)]  # each once
    with pytest.raises(errors.NoProxyAvailable):
        await way.open("exchange", 80, tls=False)
    assert len(network.dialled) == 2


# ---------------------------------------------------------------- REST


async def refused(*answers: Any, **more: Any) -> errors.NetworkError:
    async with client_of(Exchange(*answers), **more) as client:
        with pytest.raises(errors.NetworkError) as caught:
            await client.get("/x", {})
    return caught.value


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b'{"code":-1121,"msg":"Invalid  symbol\\n."}', -1121, "400 -1121 'Invalid symbol .'"),
        (b'{"code":"51001","msg":""}', 51001, "400 51001 ("),
        (b'{"code":999999999}', 999_999_999, "400 999999999 ("),
        (b'{"code":1234567890}', None, "400 ("),
        (b'{"code":"x","msg":"y"}', None, "400 'y' ("),
        (b"nonsense", None, "400 ("),
    ],
)
async def test_what_a_refusal_says(
    body: bytes, code: int | None, said: str, autojump_clock: trio.abc.Clock
) -> None:
    error = await refused(answer(400, body))
    assert isinstance(error, errors.RestRefused)
    assert (error.status, error.code) == (400, code)
    assert said in str(error)
    long = await refused(answer(400, b'{"msg":"' + b"x" * 300 + b'"}'))
    assert f"'{'x' * 200}'" in str(long)


@pytest.mark.parametrize(
    ("headers", "left_s"),
    [
        ({"Retry_After": "7"}, 7), ({"Retry_After": " 7 "}, 7), ({"Retry_After": "0"}, 60),
        ({"Retry_After": "-7"}, 60), ({"Retry_After": "soon"}, 60), ({}, 60),
        ({"Retry_After": "9" * 20}, 3600), ({"Retry_After": "9" * 21}, 3600),
        ({"Retry_After": "9" * 5_000}, 3600),
        ({"Retry_After": "3601"}, 3600),
    ],
)  # fmt: skip
async def test_how_long_a_429_is_kept(
    headers: dict[str, str], left_s: float, autojump_clock: trio.abc.Clock
) -> None:
    with structlog.testing.capture_logs() as logs:
        error = await refused(answer(429, **headers))
    assert isinstance(error, errors.RateLimited)
    assert f"no calls for {left_s} s" in str(error)
    (line,) = [line for line in logs if line["event"] == "rest.banned"]
    assert (line["host"], line["status"], line["wait_s"]) == ("api.exchange", 429, left_s)
    named = headers.get("Retry_After", "").strip()
    longer = named.isdigit() and (len(named) > 4 or int(named) > left_s)
    assert ("; it named" in str(error)) is longer


@pytest.mark.parametrize(
    ("date_ms", "at_ms", "until_ms", "left_s"),
    [
        (EPOCH_MS, None, EPOCH_MS + 90_000, 90), (None, EPOCH_MS, EPOCH_MS + 90_000, 90),
        (EPOCH_MS, EPOCH_MS - 50_000, EPOCH_MS + 90_000, 90), (None, None, EPOCH_MS, 60),
        (EPOCH_MS, None, EPOCH_MS, 60), (EPOCH_MS, None, EPOCH_MS - 1, 60),
        (EPOCH_MS, None, EPOCH_MS + 5_000_000, 5000),
    ],
)  # fmt: skip
async def test_an_end_is_measured_by_the_exchanges_clock(
    date_ms: float | None, at_ms: float | None, until_ms: float, left_s: float,
    autojump_clock: trio.abc.Clock,
) -> None:  # fmt: skip
    headers = {} if date_ms is None else {"Date": formatdate(date_ms / 1000, usegmt=True)}
    body = b'{"code":-1003,"msg":"banned until %d."}' % until_ms
    clock = None if at_ms is None else (lambda _mono: at_ms)
    error = await refused(answer(418, body, **headers), clock=clock)
    assert f"no calls for {left_s:.0f} s" in str(error)


@pytest.mark.parametrize(
    ("headers", "date_ms"),
    [
        ({"Date": "Fri, 15 Jan 2027 08:00:00 GMT"}, EPOCH_MS),
        ({"Date": "Fri, 15 Jan 2027 08:00:00 GMT", "Age": "0"}, EPOCH_MS),
        ({"Date": "Fri, 15 Jan 2027 08:00:00 GMT", "Age": "1"}, None),
        ({"Date": "Fri, 15 Jan 2027 08:00:00 -0000"}, None),
        ({"Date": "yesterday"}, None), ({}, None),
    ],
)  # fmt: skip
async def test_when_an_answer_was_given(
    headers: dict[str, str], date_ms: float | None, autojump_clock: trio.abc.Clock
) -> None:
    async with client_of(Exchange(answer(**headers))) as client:
        assert (await client.get("/x", {})).date_ms == date_ms


@pytest.mark.parametrize(("size", "fits"), [(16 << 20, True), ((16 << 20) + 1, False)])
async def test_how_much_a_gzip_may_hold(
    size: int, fits: bool, autojump_clock: trio.abc.Clock
) -> None:
    body = gzip.compress(bytes(size), 1)
    exchange = Exchange(answer(body=body, Content_Encoding="GZIP"))
    async with client_of(exchange) as client:
        if fits:
            assert len((await client.get("/x", {})).body) == size
        else:
            with pytest.raises(errors.RestError, match="more than 16777216 bytes"):
                await client.get("/x", {})


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "http://", "https://x:0", "http://x:99999", "http://[::1", "x", "http://ü..x"],
)
async def test_urls_that_are_none(url: str) -> None:
    way = Route(MemoryNetwork().dial, ProxySettings(), None, "", 5)
    with pytest.raises(errors.SettingsError, match="is not an http"):
        async with open_rest(url, route=way, timeout_s=1, weights=Weights(60)):
            pass


@pytest.mark.parametrize(
    ("used", "left"), [("55", 5), ("x", 59), ("", 59), ("-5", 59), ("\u0665", 59)]
)
async def test_the_weight_that_an_exchange_counts(
    used: str, left: int, autojump_clock: trio.abc.Clock
) -> None:
    weights = Weights(60)
    headers = {"X_MBX_USED_WEIGHT_1M": used} if used.isascii() else {}
    async with client_of(Exchange(answer(**headers)), weights=weights) as client:
        await client.get("/x", {})
    now = Mono(trio.current_time())
    assert weights.at("direct").delay_s(left, now) == 0
    assert weights.at("direct").delay_s(1, now) > 0


async def test_a_call_takes_so_long_and_no_longer(autojump_clock: trio.abc.Clock) -> None:
    async def silent(_stream: Any) -> None:
        await trio.sleep_forever()

    error = await refused(silent)
    assert str(error) == "api.exchange/x: no answer within 10 s"
    assert trio.current_time() == pytest.approx(10)


async def test_headers_of_a_call(autojump_clock: trio.abc.Clock) -> None:
    exchange = Exchange(answer())
    (listener,) = await exchange.network.listen("api.exchange", 8080)
    way = Route(exchange.network.dial, ProxySettings(), None, "", 5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.serve, listener)
        async with open_rest(
            "http://api.exchange:8080/base",
            route=way,
            timeout_s=1,
            weights=Weights(60),
            headers={"X-Key": "k"},
        ) as client:
            await client.get("/x", {"a": 1, "b": "c"})
        nursery.cancel_scope.cancel()
    head = exchange.requests[0].decode().lower()
    assert head.startswith("get /base/x?a=1&b=c http/1.1\r\n")
    for line in ("user-agent: trio_feed", "accept-encoding: gzip", "x-key: k"):
        assert f"\r\n{line}\r\n" in head
    assert "content-type" not in head


# ---------------------------------------------------------------- the wire


async def wire_of(*, upgraded: bool = False) -> tuple[CountedStream, Any]:
    ours, theirs = trio.testing.memory_stream_pair()
    wire = CountedStream(ours, FrameBudget((3, 1.0)))
    wire.upgraded = upgraded
    return wire, theirs


async def test_a_wire_counts_and_remembers(autojump_clock: trio.abc.Clock) -> None:
    wire, theirs = await wire_of(upgraded=True)
    await trio.sleep(3)
    await theirs.send_all(b"12345")
    assert await wire.receive_some(3) == b"123"
    assert await wire.receive_some() == b"45"
    assert (wire.received_bytes, wire.last_received) == (5, 3)
    assert not wire.ended.is_set()
    await theirs.aclose()
    assert await wire.receive_some() == b""
    assert (wire.end, wire.ended.is_set()) == ("the peer hung up without a close frame", True)
    await wire.aclose()
    assert wire.end == "the peer hung up without a close frame"  # the first reason stays


async def test_a_wire_that_is_reset_or_closed_here() -> None:
    wire, _ = await wire_of()
    await wire.aclose()
    assert (wire.end, wire.ended.is_set()) == ("closed here", True)

    class Reset:
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            raise trio.BrokenResourceError

    broken: Any = Reset()
    wire = CountedStream(broken, FrameBudget((3, 1.0)))
    with pytest.raises(trio.BrokenResourceError):
        await wire.receive_some()
    assert wire.end == "the connection was reset"


@pytest.mark.parametrize("upgraded", [False, True])
async def test_only_frames_count_and_not_the_request(
    upgraded: bool, autojump_clock: trio.abc.Clock
) -> None:
    wire, _ = await wire_of(upgraded=upgraded)
    for _ in range(2):
        await wire.send_all(b"x")
    assert wire._frames.delay_s(Mono(trio.current_time())) == (1.0 if upgraded else 0.0)


@pytest.mark.parametrize(("more", "ends"), [(0, False), (1, True)])
async def test_how_much_a_refusal_may_be(more: int, ends: bool) -> None:
    assert MAX_REFUSAL_BYTES == 262_144
    for upgraded in (False, True):
        wire, theirs = await wire_of(upgraded=upgraded)
        left = MAX_REFUSAL_BYTES + more
        await theirs.send_all(b"HTTP/1.1 200 ".ljust(left, b"x"))
        while left and not wire.ended.is_set():
            left -= len(await wire.receive_some())
        assert wire.ended.is_set() is (ends and not upgraded)
        assert wire.end == ("the peer sent too much" if ends and not upgraded else "")


async def read_all(wire: CountedStream) -> None:
    while await wire.receive_some():
        pass


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 451 No", 451), (b"HTTP/1.0 200 OK", 200), (b"HTTP/1.1 599 X", 599),
        (b"HTTP/1.1 101 Switching", None), (b"HTTP/1.1 600 X", None), (b"HTTP/2.0 404 X", None),
        (b"HTTP/1.1 45", None), (b"", None),
    ],
)  # fmt: skip
async def test_the_status_of_a_refusal(head: bytes, status: int | None) -> None:
    wire, theirs = await wire_of()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, wire)
        for n in range(len(head)):  # however it is cut
            await theirs.send_all(head[n : n + 1])
            await trio.testing.wait_all_tasks_blocked()
        await theirs.aclose()
    assert wire.refused_with() == status


# ---------------------------------------------------------------- tunnels


async def through(proxy: Proxy, reply: bytes, *, host: str = "x.example", port: int = 443) -> Any:
    """Open a tunnel by a proxy that sends ``reply`` to whatever it is told; what it was told, or
    the error."""
    network, told = MemoryNetwork(), bytearray()
    (listener,) = await network.listen(proxy.host, proxy.port)

    async def answer_() -> None:
        stream = await listener.accept()
        with suppress(trio.BrokenResourceError):
            await stream.send_all(reply)
            while data := await stream.receive_some():
                told.extend(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_)
        try:
            stream = await open_tunnel(host, port, proxy=proxy, dial=network.dial, timeout_s=5)
        except errors.TunnelError as error:
            return error
        finally:
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)
    return bytes(told)


@pytest.mark.parametrize("status", [200, 201, 299])
async def test_every_2xx_is_a_tunnel(status: int, autojump_clock: trio.abc.Clock) -> None:
    told = await through(A, b"HTTP/1.1 %d X\r\n\r\n" % status)
    assert told.startswith(b"CONNECT x.example:443 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (300, "ask its operator"), (403, "rules"), (404, "CONNECT proxy"),
        (405, "does not allow CONNECT"), (502, "could not reach the target)"),
        (503, "could not reach the target)"), (504, "in time"),
    ],
)  # fmt: skip
async def test_what_a_proxy_refuses(
    status: int, words: str, autojump_clock: trio.abc.Clock
) -> None:
    error = await through(A, b"HTTP/1.1 %d Because\r\n\r\n" % status)
    assert isinstance(error, errors.ProxyRefused)
    assert (error.code, f"{status} Because" in str(error)) == (status, True)
    assert words in str(error)


SOCKS = Proxy("socks5", "s", 1080)
LOGIN = Proxy("socks5", "s", 1080, "u", Secret("pw"))
BOUND = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("proxy", "reply", "host", "told"),
    [
        (SOCKS, b"\x05\x00" + BOUND, "n", b"\x05\x01\x00" b"\x05\x01\x00\x03\x01n\x01\xbb"),
        (
            SOCKS, b"\x05\x00" + BOUND, "1.2.3.4",
            b"\x05\x01\x00" b"\x05\x01\x00\x01\x01\x02\x03\x04\x01\xbb",
        ),
        (
            SOCKS, b"\x05\x00" + BOUND, "::1",
            b"\x05\x01\x00" b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x01\xbb",
        ),
        (LOGIN, b"\x05\x00" + BOUND, "n", b"\x05\x02\x00\x02" b"\x05\x01\x00\x03\x01n\x01\xbb"),
        (
            LOGIN, b"\x05\x02\x01\x00" + BOUND, "n",
            b"\x05\x02\x00\x02" b"\x01\x01u\x02pw" b"\x05\x01\x00\x03\x01n\x01\xbb",
        ),
    ],
)  # fmt: skip
async def test_what_is_said_in_socks(
    proxy: Proxy, reply: bytes, host: str, told: bytes, autojump_clock: trio.abc.Clock
) -> None:
    assert await through(proxy, reply, host=host) == told


@pytest.mark.parametrize("length", [255, 256])
async def test_how_long_words_may_be_in_socks(length: int, autojump_clock: trio.abc.Clock) -> None:
    fits = length == 255
    long = "x" * length
    cases: list[tuple[Proxy, bytes, str, type[errors.TunnelError]]] = [
        (SOCKS, b"\x05\x00" + BOUND, long, errors.ProxyProtocolError),
        (Proxy("socks5", "s", 1, long, Secret("p")), b"\x05\x02\x01\x00" + BOUND, "n",
         errors.ProxyAuthRequired),
        (Proxy("socks5", "s", 1, "u", Secret(long)), b"\x05\x02\x01\x00" + BOUND, "n",
         errors.ProxyAuthRequired),
    ]  # fmt: skip
    for proxy, reply, host, error in cases:
        found = await through(proxy, reply, host=host)
        if fits:
            assert isinstance(found, bytes)
        else:
            assert type(found) is error
            assert "beyond 255 bytes" in str(found)
