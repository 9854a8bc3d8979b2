"""REST over memory streams on virtual time: answers, refusals, bans, deadlines, proxies."""

import email.utils
import gzip
import logging
import ssl
from contextlib import asynccontextmanager

import pytest
import structlog
import trio
import trio.testing
import trustme
from support.memory import MemoryNetwork

from trio_feed import errors
from trio_feed.core.clock import ExchangeClock
from trio_feed.net.budgets import Weights
from trio_feed.net.rest import open_rest
from trio_feed.net.route import Route
from trio_feed.settings import ProxySettings, Secret
from trio_feed.venues.binance.spot import DIALECT

EPOCH_MS = 1_800_000_000_000.0


def answer(status=200, body=b"[]", **headers):
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Exchange:
    """A memory network with an HTTP server that answers from ``answers``, the last one for ever."""

    def __init__(self, *answers, tls=None):
        self.answers = list(answers)
        self.tls = tls
        self.requests = []
        self.connections = 0
        self.network = MemoryNetwork()

    async def serve(self, listener):
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self.talk, await listener.accept())

    async def talk(self, stream):
        self.connections += 1
        try:
            if self.tls:
                stream = trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True)
            while request := await self.read_head(stream):
                self.requests.append(request)
                reply = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if callable(reply):
                    return await reply(stream)
                await stream.send_all(reply)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has gone, as it may

    async def read_head(self, stream):
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            part = await stream.receive_some(1)
            if not part:
                return b""
            data += part
        return data


@asynccontextmanager
async def client_of(
    exchange,
    *,
    weights=None,
    clock=None,
    url="http://api.exchange",
    at=None,
    ca="",
    dialect=DIALECT,
    **proxy,
):
    host, port = at or ("api.exchange", 443 if url.startswith("https") else 80)
    (listener,) = await exchange.network.listen(host, port)
    settings = (
        ProxySettings(enabled=True, address="proxy:3128", **proxy) if proxy else ProxySettings()
    )
    way = Route(exchange.network.dial, settings, None, ca, 5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.serve, listener)
        async with open_rest(
            url,
            route=way,
            timeout_s=10,
            weights=weights or Weights(1200),
            dialect=dialect,
            **({"exchange_at": clock} if clock else {}),
        ) as client:
            yield client
        nursery.cancel_scope.cancel()


async def failing(exchange, expected, path="/fapi/v1/klines", **more):
    async with client_of(exchange, **more) as client:
        with pytest.raises(errors.NetworkError) as caught:
            await client.get(path, {"symbol": "BTCUSDT"})
        assert type(caught.value) is expected
        assert "\n" not in str(caught.value)
        return caught.value


async def test_get(autojump_clock):
    exchange = Exchange(answer(body=b"[1]"))
    async with client_of(exchange, url="http://api.exchange/base") as client:
        assert (await client.get("/v1/x", {"symbol": "BTCUSDT", "limit": 5})).body == b"[1]"
        assert (await client.get("/v1/time", {})).body == b"[1]"
        assert "api.exchange" in repr(client)
    first, second = exchange.requests
    assert first.startswith(
        b"GET /base/v1/x?symbol=BTCUSDT&limit=5 HTTP/1.1\r\nHost: api.exchange\r\n"
    )
    assert b"accept-encoding: gzip\r\n" in first.lower()
    assert second.startswith(b"GET /base/v1/time HTTP/1.1\r\n")
    assert exchange.connections == 1  # kept alive


async def test_cookies_are_not_kept(autojump_clock):
    exchange = Exchange(answer(Set_Cookie="a=b; Path=/"))
    async with client_of(exchange) as client:
        for _ in range(2):
            assert (await client.get("/x", {})).body == b"[]"
    assert [b"cookie" in request.lower() for request in exchange.requests] == [False, False]


async def test_the_bound_is_per_answer_and_not_per_connection(autojump_clock):
    exchange = Exchange(answer(body=bytes(9 * 1024 * 1024)))
    async with client_of(exchange) as client:
        for _ in range(3):
            assert len((await client.get("/x", {})).body) == 9 * 1024 * 1024
    assert exchange.connections == 1


async def test_gzip(autojump_clock):
    body = gzip.compress(b"x" * 100_000)
    async with client_of(Exchange(answer(body=body, Content_Encoding="gzip"))) as client:
        assert (await client.get("/x", {})).body == b"x" * 100_000


@pytest.mark.parametrize(
    ("body", "encoding", "words"),
    [
        (gzip.compress(bytes(17 * 1024 * 1024)), "gzip", "more than 16777216"),  # 17 KB
        (gzip.compress(b"x" * 1000)[:-9], "gzip", "cut short"),
        (b"no gzip", "gzip", "does not unpack"),
        (b"x", "br", "not asked for"),
        (bytes(17 * 1024 * 1024), "identity", "larger than 16777216"),
    ],
    # gzip writes the time: without names the cases would have others in each run.
    ids=["bomb", "cut", "no gzip", "brotli", "huge"],
)
async def test_bodies_that_are_not_taken(body, encoding, words, autojump_clock):
    exchange = Exchange(answer(body=body, Content_Encoding=encoding))
    assert words in str(await failing(exchange, errors.RestError))


async def test_chunked_without_end_is_bounded(autojump_clock):
    async def endless(stream):
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"100000\r\n" + bytes(0x100000) + b"\r\n")
            await trio.testing.wait_all_tasks_blocked()  # memory streams never push back

    assert "larger than" in str(await failing(Exchange(endless), errors.RestError))


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (400, b'{"code":-1121,"msg":"Invalid symbol."}', -1121, "Invalid symbol."),
        (400, b'{"code":"51001","msg":"Instrument ID does not exist","data":[]}', 51001, "51001"),
        (403, b"<html>WAF</html>", None, "firewall"),
        (451, b"", None, "use a proxy"),
        (404, b"[1]", None, "path"),
        (302, b"", None, "redirect"),
        (500, b'{"code":"x"}', None, "try again"),
        (503, b"\xff\xfe", None, "try again"),
        (418 + 1, b'{"code":null}', None, "419"),
        (204, b"", None, "204"),
    ],
)
async def test_refused(status, body, code, words, autojump_clock):
    exchange = Exchange(answer(status, body, Location="http://elsewhere/"))
    error = await failing(exchange, errors.RestRefused)
    assert (error.status, error.code) == (status, code)
    assert words in str(error)
    assert "api.exchange/fapi/v1/klines" in str(error)
    assert len(exchange.requests) == 1  # redirects are not followed


def date(offset_s):
    return email.utils.formatdate(EPOCH_MS / 1000 + offset_s, usegmt=True)


BANNED = b'{"code":-1003,"msg":"Way too much request weight used; IP banned until %d. Please use"}'


@pytest.mark.parametrize(
    ("status", "body", "headers", "until_s"),
    [
        (429, b"", {"Retry_After": "7"}, 7),
        (418, b"", {"Retry_After": "7"}, 7),
        (418, BANNED % (EPOCH_MS + 123_456), {}, 60),  # no calendar of ours measures it
        (418, BANNED % (EPOCH_MS + 123_456), {"Retry_After": "7"}, 7),
        (418, BANNED % (EPOCH_MS + 123_456), {"Date": date(0), "Retry_After": "7"}, 123.456),
        (418, BANNED % (EPOCH_MS + 123_456), {"Date": date(0), "Age": "3"}, 60),  # a cache's
        (418, BANNED % (EPOCH_MS + 99_000), {"Date": date(5)}, 94),  # our clock is 5 s slow
        (418, BANNED % (EPOCH_MS + 99_000), {"Date": date(-5)}, 104),
        (418, BANNED % (EPOCH_MS + 99_000), {"Date": "yesterday"}, 60),
        (429, BANNED % (EPOCH_MS - 5), {"Date": date(0), "Retry_After": "7"}, 7),
        (429, b"", {}, 60),
        (429, b"", {"Retry_After": "soon"}, 60),
        (429, b"", {"Retry_After": "0"}, 60),
        (429, b"", {"Retry_After": "-1"}, 60),
    ],
)
async def test_ban_is_kept_exactly(status, body, headers, until_s, autojump_clock):
    exchange = Exchange(answer(status, body, **headers), answer())
    async with client_of(exchange) as client:
        with pytest.raises(errors.RateLimited) as caught:
            await client.get("/x", {})
        assert caught.value.until == pytest.approx(until_s, abs=0.001)
        await trio.sleep(until_s - 0.5)
        with pytest.raises(errors.RateLimited, match="not asked"):
            await client.get("/x", {})
        assert len(exchange.requests) == 1  # nothing was sent
        await trio.sleep(0.6)
        assert (await client.get("/x", {})).body == b"[]"


@pytest.mark.parametrize(
    ("status", "body", "headers", "kept_s", "named"),
    [
        (418, BANNED % 9_999_999_999_999, {"Date": date(0)}, 259_200, "8.2e+09"),
        (429, b"", {"Retry_After": "9" * 20}, 3_600, "1e+20"),
        (418, b"", {"Retry_After": "9" * 20}, 259_200, "1e+20"),
    ],
)
async def test_a_ban_of_centuries_is_bounded_and_said_and_asked_again(
    status, body, headers, kept_s, named, autojump_clock
):
    exchange = Exchange(answer(status, body, **headers), answer())
    async with client_of(exchange) as client:
        with structlog.testing.capture_logs() as lines:
            with pytest.raises(errors.RateLimited) as caught:
                await client.get("/x", {})
        assert caught.value.until == pytest.approx(kept_s)
        assert f"it named {named} s" in str(caught.value)
        (line,) = [line for line in lines if line["event"] == "rest.banned"]
        assert line["named_s"] > line["wait_s"] == kept_s
        await trio.sleep(kept_s + 0.1)
        assert (await client.get("/x", {})).body == b"[]"


async def test_a_ban_is_said_once_however_many_calls_meet_it(autojump_clock):
    async def refuse(stream):
        await trio.sleep(1 + len(exchange.requests) / 100)
        await stream.send_all(answer(429, b"", Retry_After="100"))

    exchange = Exchange(refuse)
    async with client_of(exchange) as client:
        with structlog.testing.capture_logs() as lines:
            async with trio.open_nursery() as nursery:

                async def ask():
                    for _ in range(5):
                        with pytest.raises(errors.RateLimited):
                            await client.get("/x", {})

                for _ in range(6):
                    nursery.start_soon(ask)
    assert len(exchange.requests) == 6
    assert [line["event"] for line in lines].count("rest.banned") == 1


@pytest.mark.parametrize(("known", "until_s"), [(True, 94), (False, 60)])
async def test_without_a_date_the_exchange_clock_of_the_caller_counts(
    known, until_s, autojump_clock
):
    clock = ExchangeClock(-2.0, EPOCH_MS - 2_000)
    for mono in (-2.0, -1.0, 0.0) if known else ():
        clock.note(int(EPOCH_MS + mono * 1_000) + 5_000, mono)
    exchange = Exchange(answer(418, BANNED % (EPOCH_MS + 99_000)))
    error = await failing(exchange, errors.RateLimited, clock=clock.evidence)
    assert error.until == pytest.approx(until_s)


async def test_an_answer_tells_when_the_exchange_gave_it(autojump_clock):
    async def late(stream):
        await trio.sleep(2)
        await stream.send_all(answer(body=b"[1]", Date=date(5)))

    async with client_of(Exchange(answer(Date="yesterday"), late)) as client:
        assert (await client.get("/x", {})).date_ms is None
        await trio.sleep(7)
        found = await client.get("/x", {})
        assert (found.body, found.date_ms) == (b"[1]", EPOCH_MS + 5_000)
        assert (found.sent, found.received) == (7, 9)


async def test_ban_holds_for_all_who_share_the_budget_and_for_those_who_wait(autojump_clock):
    async def refuse(stream):
        await trio.sleep(1)
        await stream.send_all(answer(429, b"", Retry_After="100"))

    weights = Weights(60)
    exchange = Exchange(refuse)
    refusals = []

    async with client_of(exchange, weights=weights) as client, trio.open_nursery() as nursery:

        async def ask(weight):
            with pytest.raises(errors.RateLimited):
                await client.get("/x", {}, weight=weight)
            refusals.append(weight)

        for weight in (60, 10, 10):
            nursery.start_soon(ask, weight)
            await trio.testing.wait_all_tasks_blocked()
    assert sorted(refusals) == [10, 10, 60]
    assert len(exchange.requests) == 1


@pytest.mark.parametrize(("status", "second_s"), [(418, 120), (429, 60)])
async def test_default_ban_doubles_until_a_success(status, second_s, autojump_clock):
    """A ban that is repeated grows; "too many requests" never outlasts the venue's window."""
    exchange = Exchange(answer(status), answer(status), answer(200), answer(status))
    lengths = []
    async with client_of(exchange) as client:
        for _ in range(4):
            began = trio.current_time()
            try:
                await client.get("/x", {})
            except errors.RateLimited as exc:
                lengths.append(exc.until - began)
                await trio.sleep(lengths[-1] + 1)
    assert lengths == [pytest.approx(60), pytest.approx(second_s), pytest.approx(60)]


# ---------------------------------------------------------------- the budget


async def test_calls_wait_for_the_budget(autojump_clock):
    exchange = Exchange(answer())
    async with client_of(exchange, weights=Weights(60)) as client:
        began = trio.current_time()
        for _ in range(6):
            await client.get("/x", {}, weight=20)
        assert trio.current_time() - began == pytest.approx(60)  # longer than timeout_s


async def test_used_weight_of_the_exchange_is_adopted(autojump_clock):
    exchange = Exchange(answer(X_MBX_USED_WEIGHT_1M="59"), answer(X_MBX_USED_WEIGHT_1M="junk"))
    async with client_of(exchange, weights=Weights(60)) as client:
        began = trio.current_time()
        await client.get("/x", {})
        await client.get("/x", {}, weight=11)
        assert trio.current_time() - began == pytest.approx(10)


# ---------------------------------------------------------------- trouble on the way


async def hang(stream):
    await trio.sleep_forever()


async def hang_in_body(stream):
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nxx")
    await trio.sleep_forever()


async def cut_in_body(stream):
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nxx")
    await stream.aclose()


async def drip(stream):
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        await trio.sleep(1)
        await stream.send_all(b"x")


async def hang_up(stream):
    await stream.aclose()


async def garbage(stream):
    await stream.send_all(b"SSH-2.0-x\r\n\r\n")


async def length_of_too_many_digits(stream):
    """More than Python converts: h11 refuses them (from 0.16 on)."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n")


@pytest.mark.parametrize(
    "behaviour",
    [hang, hang_in_body, cut_in_body, drip, hang_up, garbage, length_of_too_many_digits],
)
async def test_broken_answers(behaviour, autojump_clock):
    began = trio.current_time()
    exchange = Exchange(behaviour)
    error = await failing(exchange, errors.RestError)
    slow = behaviour in (hang, hang_in_body, drip)
    assert trio.current_time() - began == pytest.approx(10 if slow else 0)
    assert ("no answer within 10 s" in str(error)) == slow
    with pytest.raises(trio.ClosedResourceError):
        await exchange.network.streams[0].send_all(b"x")


async def test_giving_up_does_not_wait_for_a_tls_goodbye(tmp_path, autojump_clock):
    """httpcore closes under a shield: whoever takes no bytes would hold the call for ever."""

    async def take_nothing(stream):
        exchange.network.streams[0].send_stream.send_all_hook = trio.sleep_forever
        await trio.sleep_forever()

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.exchange").configure_cert(context)
    exchange = Exchange(take_nothing, tls=context)
    began = trio.current_time()
    url, ca = "https://api.exchange", str(tmp_path / "ca.pem")
    await failing(exchange, errors.RestError, url=url, ca=ca)
    assert trio.current_time() - began == pytest.approx(10)


async def test_next_call_after_a_broken_one_dials_anew(autojump_clock):
    exchange = Exchange(cut_in_body, cut_in_body, answer())
    async with client_of(exchange) as client:
        with pytest.raises(errors.RestError):
            await client.get("/x", {})
        assert (await client.get("/x", {})).body == b"[]"
    assert exchange.connections == 3


async def test_a_connection_that_was_closed_meanwhile_costs_no_call(autojump_clock):
    exchange = Exchange(cut_in_body, answer())
    async with client_of(exchange) as client:
        assert (await client.get("/x", {})).body == b"[]"
    assert exchange.connections == 2


async def test_cancelled_call_leaves_a_usable_client(autojump_clock):
    exchange = Exchange(hang, answer())
    async with client_of(exchange) as client:
        with trio.move_on_after(1) as scope:
            await client.get("/x", {})
        assert scope.cancelled_caught
        assert (await client.get("/x", {})).body == b"[]"


async def test_unreachable(autojump_clock):
    async with client_of(Exchange(answer()), at=("elsewhere", 1)) as client:
        with pytest.raises(errors.HostUnreachable):
            await client.get("/x", {})


async def test_dead_proxy_is_never_passed_by(autojump_clock):
    exchange = Exchange(answer())
    await failing(exchange, errors.ProxyUnreachable, proxy_type="http")
    assert set(exchange.network.dialled) == {("proxy", 3128)}
    assert exchange.requests == []


@pytest.mark.parametrize(("url", "port"), [("http://x", 80), ("https://x", 443), ("http://x:7", 7)])
async def test_no_proxy_knows_the_urls_port(url, port, autojump_clock):
    """Nobody listens anywhere: what counts is who was dialled."""
    for excluded, dialled in ((port, ("x", port)), (port + 1, ("proxy", 3128))):
        environ = dict.fromkeys(("http_proxy", "https_proxy"), "http://proxy:3128")
        environ["no_proxy"] = f"x:{excluded}"
        network = MemoryNetwork()
        way = Route(network.dial, ProxySettings(), environ, "", 5)
        async with open_rest(url, route=way, timeout_s=1, weights=Weights(1200)) as client:
            with pytest.raises(errors.NetworkError):
                await client.get("/x", {})
        assert set(network.dialled) == {dialled}


@pytest.mark.parametrize("url", ["ftp://x", "http://", "x", "http://x:port"])
async def test_url_that_is_none(url, autojump_clock):
    network = MemoryNetwork()
    way = Route(network.dial, ProxySettings(), None, "", 5)
    with pytest.raises(errors.SettingsError):
        async with open_rest(url, route=way, timeout_s=1, weights=Weights(1)):
            pass


async def test_https_through_a_connect_proxy(tmp_path, autojump_clock):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.exchange").configure_cert(context)
    inner = Exchange(answer(body=b"[2]"), tls=context)
    asked = []

    async def proxy(stream):
        asked.append(outer.requests[-1].split(b"\r\n")[0])
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        await inner.talk(stream)

    outer = Exchange(proxy)
    async with client_of(
        outer,
        url="https://api.exchange",
        at=("proxy", 3128),
        ca=str(tmp_path / "ca.pem"),
        proxy_type="http",
        username="alice",
        password=Secret("hunter2"),
    ) as client:
        assert (await client.get("/x", {})).body == b"[2]"
        assert (await client.get("/x", {})).body == b"[2]"
    assert asked == [b"CONNECT api.exchange:443 HTTP/1.1"]
    assert set(outer.network.dialled) == {("proxy", 3128)}
    assert len(inner.requests) == 2


async def test_tls_errors_are_the_tunnels_own(tmp_path, autojump_clock):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("api.exchange").configure_cert(context)
    exchange = Exchange(answer(), tls=context)
    await failing(exchange, errors.TlsUntrusted, url="https://api.exchange")


async def test_urls_are_not_logged(autojump_clock, caplog):
    for library in ("httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.NOTSET)
    caplog.set_level(logging.INFO)
    async with client_of(Exchange(answer())) as client:
        await client.get("/x", {"listenKey": "secret"})
    assert "secret" not in caplog.text


async def test_post(autojump_clock):
    """The body goes to the base URL itself, its query and the client's headers with it."""
    exchange = Exchange(answer(body=b'{"result":1}'))
    (listener,) = await exchange.network.listen("api.exchange", 80)
    way = Route(exchange.network.dial, ProxySettings(), None, "", 5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exchange.serve, listener)
        async with open_rest(
            "http://api.exchange/v2/KEY?api-key=SECRET",
            route=way,
            timeout_s=10,
            weights=Weights(1200),
            headers={"x-token": "HEADER"},
        ) as client:
            assert (await client.post(b"", name="getSlot")).body == b'{"result":1}'
        nursery.cancel_scope.cancel()
    (request,) = exchange.requests
    assert request.startswith(b"POST /v2/KEY?api-key=SECRET HTTP/1.1\r\n")
    assert b"content-type: application/json\r\n" in request.lower()
    assert b"x-token: HEADER\r\n" in request


@pytest.mark.parametrize("status", [403, 429, 500])
async def test_a_refused_post_shows_no_key(status, autojump_clock):
    exchange = Exchange(answer(status, b'{"msg":"no"}'))
    async with client_of(exchange, url="http://api.exchange/v2/KEY?api-key=SECRET") as client:
        with pytest.raises(errors.NetworkError) as caught:
            await client.post(b"", name="getSlot")
    assert str(caught.value).startswith(f"api.exchange getSlot: {status}")
    assert "KEY" not in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(("scheme", "refused"), [("https", True), ("http", False)])
async def test_what_is_wrong_with_the_ca_file_is_said_when_it_is_opened(
    scheme: str, refused: bool
) -> None:
    way = Route(
        MemoryNetwork().dial, ProxySettings(), environ=None, ca_file="nowhere.pem", timeout_s=1
    )
    try:
        async with open_rest(f"{scheme}://x", route=way, timeout_s=1, weights=Weights(1)):
            assert not refused
    except errors.SettingsError:
        assert refused
