"""Tunnels over memory streams on virtual time: what proxies may answer, and what becomes of it."""

import base64
import datetime
import hashlib
import re
import ssl
import sys
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
import trustme
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from support.memory import MemoryNetwork

from trio_feed import errors
from trio_feed.net import tunnel
from trio_feed.net.egress import Egress
from trio_feed.net.proxy import Proxy
from trio_feed.net.route import Route
from trio_feed.net.tls import reload_authorities, start_tls, tls_context
from trio_feed.net.tunnel import open_tunnel
from trio_feed.settings import ProxySettings, Secret

HOST, PORT = "fstream.example.com", 443
HTTP = Proxy("http", "proxy", 3128)
HTTP_AUTH = Proxy("http", "proxy", 3128, "alice", Secret("hunter2"))
SOCKS = Proxy("socks5", "proxy", 3128)
SOCKS_AUTH = Proxy("socks5", "proxy", 3128, "alice", Secret("hunter2"))
SOCKS_OK = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


@pytest.fixture(autouse=True)
def no_challenges():
    tunnel._challenges.clear()
    tunnel._schemes.clear()


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server_context(authority, *names):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


@asynccontextmanager
async def serving(handler, host="proxy", port=3128):
    """A memory network where ``handler(stream)`` answers each connection to ``host:port``."""
    network = MemoryNetwork()
    (listener,) = await network.listen(host, port)

    async def answer(stream):
        with suppress(EOFError, trio.BrokenResourceError):  # the client is gone, as it may
            await handler(stream)

    async def serve():
        while True:
            nursery.start_soon(answer, await listener.accept())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield network
        nursery.cancel_scope.cancel()


async def receive_until(stream, end):
    data = b""
    while not data.endswith(end):
        part = await stream.receive_some(1)
        if not part:
            raise EOFError
        data += part
    return data


async def receive_exactly(stream, count):
    data = b""
    while len(data) < count:
        part = await stream.receive_some(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


async def send_slowly(stream, data):
    for byte in data:
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(bytes((byte,)))


async def echo(stream):
    while data := await stream.receive_some(1000):
        await stream.send_all(data)


def connect_proxy(reply, requests=None, then=None):
    """Reads a CONNECT, answers ``reply``, then runs ``then(stream)`` or stays silent."""

    async def handler(stream):
        request = await receive_until(stream, b"\r\n\r\n")
        if requests is not None:
            requests.append(request)
        await stream.send_all(reply)
        if then:
            await then(stream)
        await trio.sleep_forever()

    return handler


def scripted(*exchanges):
    """Reads as many bytes as each first says and answers each second, then hangs up."""

    async def handler(stream):
        for count, answer in exchanges:
            await receive_exactly(stream, count)
            if answer:
                await stream.send_all(answer)
        await stream.aclose()

    return handler


async def through(network, proxy, host=HOST, port=PORT, timeout_s=5):
    return await open_tunnel(host, port, proxy=proxy, dial=network.dial, timeout_s=timeout_s)


async def check_echo(stream, message=b"hello"):
    await stream.send_all(message)
    assert await receive_exactly(stream, len(message)) == message


async def refused(handler, proxy, expected, host=HOST, timeout_s=5):
    """The error of an open_tunnel that must fail, after the checks every failure has to pass."""
    async with serving(handler) as network:
        with pytest.raises(errors.TunnelError) as caught:
            await through(network, proxy, host=host, timeout_s=timeout_s)
        assert type(caught.value) is expected
        text = str(caught.value)
        assert "\n" not in text
        assert "proxy:3128" in text
        for secret in ("hunter2", "alice", base64.b64encode(b"alice:hunter2").decode()):
            assert secret not in f"{text} {caught.value!r} {proxy!r}"
        assert network.dialled == [("proxy", 3128)]
        for stream in network.streams:  # the half-open stream was closed
            with pytest.raises(trio.ClosedResourceError):
                await stream.send_all(b"x")
        return caught.value


# ---------------------------------------------------------------- direct


async def test_direct(autojump_clock):
    async with serving(echo, HOST, PORT) as network:
        stream = await through(network, None)
        await check_echo(stream)
        assert network.dialled == [(HOST, PORT)]


async def test_direct_unreachable(autojump_clock):
    with pytest.raises(errors.HostUnreachable, match=r"fstream\.example\.com:443") as caught:
        await through(MemoryNetwork(), None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["", "a b", "a\r\nHost: b", "a/b", "@", "x" * 64 + ".ü"])
@pytest.mark.parametrize("proxy", [None, HTTP, SOCKS])
async def test_what_is_no_host_name_goes_nowhere(host, proxy, autojump_clock):
    network = MemoryNetwork()
    with pytest.raises(errors.HostUnreachable):
        await through(network, proxy, host=host)
    assert network.dialled == []


async def test_dial_that_hangs(autojump_clock):
    async def dial(host, port):
        await trio.sleep_forever()

    for proxy, step in ((None, "dial"), (HTTP, "dial proxy")):
        began = trio.current_time()
        with pytest.raises(errors.TunnelTimeout) as caught:
            await open_tunnel(HOST, PORT, proxy=proxy, dial=dial, timeout_s=7)
        assert caught.value.step == step
        assert trio.current_time() - began == pytest.approx(7)


async def test_proxy_unreachable_is_never_passed_by(autojump_clock):
    async with serving(echo, HOST, PORT) as network:  # the exchange is there, the proxy is not
        for proxy in (HTTP, SOCKS):
            with pytest.raises(errors.ProxyUnreachable, match="proxy:3128"):
                await through(network, proxy)
        assert set(network.dialled) == {("proxy", 3128)}


# ---------------------------------------------------------------- HTTP CONNECT


async def test_connect_sends_name_and_no_credentials_unasked(autojump_clock):
    requests = []
    async with serving(connect_proxy(b"HTTP/1.1 200 OK\r\n\r\n", requests, echo)) as network:
        await check_echo(await through(network, HTTP))
        assert network.dialled == [("proxy", 3128)]
    (request,) = requests
    assert request.startswith(b"CONNECT fstream.example.com:443 HTTP/1.1\r\n")
    assert b"Host: fstream.example.com:443\r\n" in request
    assert b"authorization" not in request.lower()


async def test_connect_basic_credentials(autojump_clock):
    requests = []
    async with serving(connect_proxy(b"HTTP/1.1 200 OK\r\n\r\n", requests, echo)) as network:
        await check_echo(await through(network, HTTP_AUTH))
    assert b"Basic " + base64.b64encode(b"alice:hunter2") in requests[0]


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nVia: x\r\nProxy-Agent: y\r\n\r\n",
        b"HTTP/1.1 299 Whatever\r\nContent-Length: 5\r\n\r\n",  # RFC 9110: to be ignored
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
    ],
)
async def test_connect_reply_byte_by_byte(reply, autojump_clock):
    async def handler(stream):
        await receive_until(stream, b"\r\n\r\n")
        await send_slowly(stream, reply)
        await echo(stream)

    async with serving(handler) as network:
        await check_echo(await through(network, HTTP))


async def test_bytes_behind_the_connect_header_come_first(autojump_clock):
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhello, here is the exchange"
    async with serving(connect_proxy(reply, then=echo)) as network:
        stream = await through(network, HTTP)
        assert await stream.receive_some(5) == b"hello"
        assert await stream.receive_some() == b", here is the exchange"
        await check_echo(stream)
        await stream.wait_send_all_might_not_block()
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()


async def test_connect_407():
    reply = (
        b'HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Digest a="b"\r\n\r\n'
    )
    for proxy in (HTTP, HTTP_AUTH):
        error = await refused(connect_proxy(reply), proxy, errors.ProxyAuthRequired)
        assert "NTLM, Digest" in str(error)


@pytest.mark.parametrize("status", [301, 400, 403, 404, 405, 500, 502, 503, 504])
async def test_connect_refused(status):
    reply = b"HTTP/1.1 %d Because I say so\r\nContent-Length: 1000\r\n\r\nsorry" % status
    error = await refused(connect_proxy(reply), HTTP_AUTH, errors.ProxyRefused)
    assert error.code == status
    assert f"{status} Because I say so" in str(error)
    assert "fstream.example.com:443" in str(error)


@pytest.mark.parametrize(
    "reply",
    [
        b"\x05\xff",  # SOCKS
        b"\x15\x03\x01\x00\x02\x02\x28",  # TLS alert
        b"SSH-2.0-OpenSSH_9.6\r\n",  # would otherwise hang until the deadline
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbroken header\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000,  # endless header
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000,
        # more digits than Python converts: h11 refuses them (from 0.16 on)
        b"HTTP/1.1 502 X\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
    ],
)
async def test_connect_garbage(reply, autojump_clock):
    await refused(connect_proxy(reply), HTTP_AUTH, errors.ProxyProtocolError)


@pytest.mark.parametrize("cut", [0, 1, 12, 20])
async def test_connect_hung_up_in_mid_reply(cut, autojump_clock):
    async def hang_up(stream):
        await stream.aclose()

    handler = connect_proxy(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n"[:cut], then=hang_up)
    await refused(handler, HTTP_AUTH, errors.ProxyProtocolError)


async def test_connect_reset_while_asking(autojump_clock):
    async def handler(stream):
        await trio.aclose_forcefully(stream)

    await refused(handler, HTTP_AUTH, errors.ProxyProtocolError)


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 O", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_connect_hangs(begin, autojump_clock):
    error = await refused(connect_proxy(begin), HTTP_AUTH, errors.TunnelTimeout)
    assert error.step == "CONNECT"


async def test_connect_drip_does_not_stretch_the_deadline(autojump_clock):
    async def drip(stream):
        while True:
            await trio.sleep(1)
            await stream.send_all(b"X: y\r\n")

    began = trio.current_time()
    await refused(connect_proxy(b"HTTP/1.1 200 OK\r\n", then=drip), HTTP, errors.TunnelTimeout)
    assert trio.current_time() - began == pytest.approx(5)


async def test_cancelled_in_the_middle_closes_the_stream(autojump_clock):
    async with serving(connect_proxy(b"")) as network:
        with trio.move_on_after(1) as scope:
            await through(network, HTTP)
        assert scope.cancelled_caught
        with pytest.raises(trio.ClosedResourceError):
            await network.streams[0].send_all(b"x")


# ---------------------------------------------------------------- SOCKS5


@pytest.mark.parametrize(
    ("host", "address"),
    [
        (HOST, b"\x03\x13" + HOST.encode()),
        ("localhost", b"\x03\x09localhost"),
        ("192.0.2.7", b"\x01\xc0\x00\x02\x07"),
        ("2001:db8::1", b"\x04" + bytes.fromhex("20010db8000000000000000000000001")),
        ("börse.example", b"\x03\x14xn--brse-5qa.example"),
        ("a" * 255, b"\x03\xff" + b"a" * 255),
    ],
)
@pytest.mark.parametrize("slow", [False, True])
async def test_socks_names_stay_names(host, address, slow, autojump_clock):
    async def handler(stream):
        send = (lambda data: send_slowly(stream, data)) if slow else stream.send_all
        assert await receive_exactly(stream, 3) == b"\x05\x01\x00"
        await send(b"\x05\x00")
        request = b"\x05\x01\x00" + address + b"\x01\xbb"
        assert await receive_exactly(stream, len(request)) == request
        await send(SOCKS_OK + b"first words")
        await echo(stream)

    async with serving(handler) as network:
        stream = await through(network, SOCKS, host=host)
        assert await receive_exactly(stream, 11) == b"first words"
        await check_echo(stream)
        assert network.dialled == [("proxy", 3128)]


@pytest.mark.parametrize(
    "bound",
    [b"\x01" + b"i" * 4, b"\x04" + b"i" * 16, b"\x03\x00", b"\x03\xff" + b"n" * 255],
)
async def test_socks_bound_address_is_read_to_its_end_and_no_further(bound, autojump_clock):
    async def handler(stream):
        await receive_exactly(stream, 3)
        await stream.send_all(b"\x05\x00")
        await receive_exactly(stream, 7 + len(HOST))
        await stream.send_all(b"\x05\x00\x00" + bound + b"\x12\x34" + b"TLS")

    async with serving(handler) as network:
        assert await receive_exactly(await through(network, SOCKS), 3) == b"TLS"


async def test_socks_user_and_password(autojump_clock):
    async def handler(stream):
        assert await receive_exactly(stream, 4) == b"\x05\x02\x00\x02"
        await stream.send_all(b"\x05\x02")
        assert await receive_exactly(stream, 15) == b"\x01\x05alice\x07hunter2"
        await send_slowly(stream, b"\x01\x00")
        await receive_exactly(stream, 7 + len(HOST))
        await stream.send_all(SOCKS_OK)
        await echo(stream)

    async with serving(handler) as network:
        await check_echo(await through(network, SOCKS_AUTH))


async def test_socks_proxy_that_does_not_want_our_credentials(autojump_clock):
    handler = scripted((4, b"\x05\x00"), (7 + len(HOST), SOCKS_OK))
    async with serving(handler) as network:
        assert await (await through(network, SOCKS_AUTH)).receive_some() == b""


REQUEST = 7 + len(HOST)


@pytest.mark.parametrize(
    ("proxy", "handler", "expected"),
    [
        (SOCKS, scripted((3, b"\x05\xff")), errors.ProxyAuthRequired),
        (SOCKS_AUTH, scripted((4, b"\x05\xff")), errors.ProxyAuthRequired),
        (SOCKS_AUTH, scripted((4, b"\x05\x02"), (15, b"\x01\x01")), errors.ProxyAuthRequired),
        (SOCKS_AUTH, scripted((4, b"\x05\x02"), (15, b"")), errors.ProxyAuthRequired),  # pproxy
        (SOCKS_AUTH, scripted((4, b"\x05\x02"), (15, b"\x05\x00")), errors.ProxyProtocolError),
        (SOCKS, scripted((3, b"\x05\x02")), errors.ProxyProtocolError),  # not offered
        (SOCKS_AUTH, scripted((4, b"\x05\x01")), errors.ProxyProtocolError),
        (SOCKS, scripted((3, b"HTTP/1.1 400 Bad Request\r\n")), errors.ProxyProtocolError),
        (SOCKS, scripted((3, b"\x04\x00")), errors.ProxyProtocolError),
        (SOCKS, scripted((3, b"")), errors.ProxyProtocolError),
        (SOCKS, scripted((3, b"\x05")), errors.ProxyProtocolError),
        (SOCKS, scripted((3, b"\x05\x00"), (REQUEST, b"")), errors.ProxyProtocolError),
        (SOCKS, scripted((3, b"\x05\x00"), (REQUEST, SOCKS_OK[:-1])), errors.ProxyProtocolError),
        (SOCKS, scripted((3, b"\x05\x00"), (REQUEST, b"\x04\x00")), errors.ProxyProtocolError),
        (
            SOCKS,
            scripted((3, b"\x05\x00"), (REQUEST, b"\x05\x00\x00\x02")),
            errors.ProxyProtocolError,
        ),
        (SOCKS, scripted(), errors.ProxyProtocolError),
    ],
)
async def test_socks_goes_wrong(proxy, handler, expected, autojump_clock):
    await refused(handler, proxy, expected)


@pytest.mark.parametrize(("proxy", "size"), [(SOCKS, 3), (SOCKS_AUTH, 4)])
async def test_socks_method_that_was_not_offered_is_named(proxy, size, autojump_clock):
    error = await refused(scripted((size, b"\x05\x01")), proxy, errors.ProxyProtocolError)
    assert "chose SOCKS5 method 1, which we did not offer" in str(error)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "general failure"),
        (2, "not allowed"),
        (3, "network unreachable"),
        (4, "host unreachable"),
        (5, "connection refused"),
        (6, "TTL"),
        (7, "command"),
        (8, "address type"),
        (9, "unassigned"),
        (255, "unassigned"),
    ],
)
@pytest.mark.parametrize("short", [False, True])
async def test_socks_every_reply_code(code, words, short, autojump_clock):
    reply = bytes((5, code)) if short else bytes((5, code)) + SOCKS_OK[2:]
    error = await refused(scripted((3, b"\x05\x00"), (REQUEST, reply)), SOCKS, errors.ProxyRefused)
    assert error.code == code
    assert words in str(error)


@pytest.mark.parametrize(
    ("proxy", "step", "exchanges"),
    [
        (SOCKS, "SOCKS5 greeting", []),
        (SOCKS, "SOCKS5 greeting", [(3, b"\x05")]),
        (SOCKS_AUTH, "SOCKS5 authentication", [(4, b"\x05\x02")]),
        (SOCKS_AUTH, "SOCKS5 request", [(4, b"\x05\x02"), (15, b"\x01\x00")]),
        (SOCKS, "SOCKS5 request", [(3, b"\x05\x00"), (REQUEST, SOCKS_OK[:-1])]),
    ],
)
async def test_socks_hangs(proxy, step, exchanges, autojump_clock):
    handler = scripted(*exchanges, (10_000, b""))  # waits for what never comes
    error = await refused(handler, proxy, errors.TunnelTimeout)
    assert error.step == step


async def test_socks_refuses_what_it_cannot_carry(autojump_clock):
    hang = scripted((10_000, b""))
    await refused(hang, SOCKS, errors.ProxyProtocolError, host="a" * 256)
    long_user = Proxy("socks5", "proxy", 3128, "u" * 256, Secret("hunter2"))
    long_password = Proxy("socks5", "proxy", 3128, "alice", Secret("ü" * 128))
    await refused(hang, long_user, errors.ProxyAuthRequired)
    await refused(hang, long_password, errors.ProxyAuthRequired)


# ---------------------------------------------------------------- TLS


def tls_echo(context):
    async def handler(stream):
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await echo(tls)

    return handler


def route(network, exchange_ca="", **proxy):
    settings = (
        ProxySettings(enabled=True, address="proxy:3128", **proxy) if proxy else ProxySettings()
    )
    return Route(network.dial, settings, None, exchange_ca, 5)


async def test_tls_direct(authority, ca_file, autojump_clock):
    async with serving(tls_echo(server_context(authority, HOST)), HOST, PORT) as network:
        stream = await route(network, ca_file).open(HOST, PORT, tls=True)
        await check_echo(stream)
        await trio.aclose_forcefully(stream)


async def test_tls_in_tls_behind_a_cut_header(authority, ca_file, autojump_clock):
    outer = server_context(authority, "proxy")
    inner = tls_echo(server_context(authority, HOST))

    async def handler(stream):
        tls = trio.SSLStream(stream, outer, server_side=True, https_compatible=True)
        await receive_until(tls, b"\r\n\r\n")
        await send_slowly(tls, b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n")
        await inner(tls)

    async with serving(handler) as network:
        way = route(network, ca_file, proxy_type="https", ca_file=ca_file)
        stream = await way.open(HOST, PORT, tls=True)
        await check_echo(stream, b"x" * 50_000)
        assert network.dialled == [("proxy", 3128)]
        await trio.aclose_forcefully(stream)


async def test_sni_is_the_exchange_and_not_the_proxy(authority, ca_file, autojump_clock):
    names = []
    context = server_context(authority, HOST)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    handler = connect_proxy(b"HTTP/1.1 200 OK\r\n\r\n", then=tls_echo(context))
    async with serving(handler) as network:
        stream = await route(network, ca_file, proxy_type="http").open(HOST, PORT, tls=True)
        await trio.aclose_forcefully(stream)
    assert names == [HOST]


async def test_tls_name_mismatch(authority, ca_file, autojump_clock):
    for issued, asked in (("other.example.com", HOST), ("127.0.0.1", "192.0.2.7")):
        async with serving(tls_echo(server_context(authority, issued)), asked, PORT) as network:
            with pytest.raises(errors.TlsNameMismatch, match=asked):
                await route(network, ca_file).open(asked, PORT, tls=True)
            with pytest.raises(trio.ClosedResourceError):
                await network.streams[0].send_all(b"x")


async def test_tls_untrusted(authority, autojump_clock):
    async with serving(tls_echo(server_context(authority, HOST)), HOST, PORT) as network:
        with pytest.raises(errors.TlsUntrusted, match="ca_file"):
            await route(network).open(HOST, PORT, tls=True)


async def test_the_exchange_is_not_verified_with_the_proxys_ca(authority, ca_file, autojump_clock):
    inner = tls_echo(server_context(authority, HOST))
    outer = server_context(authority, "proxy")

    async def handler(stream):
        tls = trio.SSLStream(stream, outer, server_side=True, https_compatible=True)
        await connect_proxy(b"HTTP/1.1 200 OK\r\n\r\n", then=inner)(tls)

    async with serving(handler) as network:
        with pytest.raises(errors.TlsUntrusted, match=HOST):
            await route(network, "", proxy_type="https", ca_file=ca_file).open(HOST, 443, tls=True)
        with pytest.raises(errors.TlsUntrusted, match="with proxy proxy:3128"):
            await route(network, ca_file, proxy_type="https").open(HOST, 443, tls=True)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 plain HTTP to TLS port\r\n\r\n", b"\x16\x03"]
)
async def test_tls_cut_off(answer, autojump_clock):
    async def handler(stream):
        await receive_exactly(stream, 100)  # part of the ClientHello
        await stream.send_all(answer)
        await stream.aclose()

    async with serving(handler, HOST, PORT) as network:
        with pytest.raises(errors.TlsReset, match=HOST) as caught:
            await route(network).open(HOST, PORT, tls=True)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("proxy_type", ["", "https"])
async def test_tls_hangs(proxy_type, autojump_clock):
    hang = scripted((10**6, b""))
    where = ("proxy", 3128) if proxy_type else (HOST, PORT)
    async with serving(hang, *where) as network:
        way = route(network, proxy_type=proxy_type) if proxy_type else route(network)
        with pytest.raises(errors.TunnelTimeout) as caught:
            await way.open(HOST, PORT, tls=True)
    assert caught.value.step == ("proxy TLS handshake" if proxy_type else "TLS handshake")


async def test_start_tls_with_no_name(autojump_clock):
    ours, _theirs = trio.testing.memory_stream_pair()
    with pytest.raises(errors.TlsNameMismatch):
        await start_tls(ours, "", tls_context(""), 5)
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")


def test_contexts_are_cached_and_modern(ca_file):
    context = tls_context(ca_file)
    assert context is tls_context(ca_file)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


def plain_certificates(tmp_path):
    """What a company's CA of old makes: no key identifiers.  Its file, and a server's context."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in "ab"]
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Company CA")])

    def certificate(subject, key, extension, critical):
        builder = x509.CertificateBuilder(ca_name, subject, key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(extension, critical)
        return builder.sign(keys[0], hashes.SHA256()).public_bytes(Encoding.PEM)

    ca, leaf = tmp_path / "company.pem", tmp_path / "leaf.pem"
    ca.write_bytes(certificate(ca_name, keys[0], x509.BasicConstraints(True, None), True))
    names = x509.SubjectAlternativeName([x509.DNSName(HOST)])
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    private = keys[1].private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    leaf.write_bytes(private + certificate(own, keys[1], names, False))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(leaf)
    return str(ca), context


async def test_a_company_ca_that_python_3_13_refuses(tmp_path, monkeypatch, autojump_clock):
    make = ssl.create_default_context

    def as_in_3_13(*args, **more):
        context = make(*args, **more)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", as_in_3_13)
    ca, context = plain_certificates(tmp_path)
    async with serving(tls_echo(context), HOST, PORT) as network:
        with pytest.raises(errors.TlsUntrusted, match="tls_strict = false"):
            await route(network, ca).open(HOST, PORT, tls=True)
        lenient = evolve(route(network, ca), tls_strict=False)
        stream = await lenient.open(HOST, PORT, tls=True)
        await check_echo(stream)
        await trio.aclose_forcefully(stream)
        with pytest.raises(errors.TlsUntrusted, match="check ca_file"):  # who signed still counts
            await evolve(lenient, ca_file="").open(HOST, PORT, tls=True)


async def test_a_changed_ca_file_is_read_anew(authority, tmp_path, autojump_clock):
    """By those who connect from then on; one that cannot be used changes nothing."""
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    tls_context(str(file))
    authority.cert_pem.write_to_path(file)
    assert tls_context(str(file)).cert_store_stats()["x509"] == 1
    before = tls_context(str(file)).get_ca_certs()
    assert reload_authorities() == []
    after = tls_context(str(file)).get_ca_certs()
    assert after != before
    file.write_text("half written")
    (problem,) = reload_authorities()
    assert str(file) in str(problem)
    assert tls_context(str(file)).get_ca_certs() == after


async def test_unusable_ca_file_is_a_setting_to_mend(tmp_path, autojump_clock):
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    network = MemoryNetwork()
    for path in (str(empty), str(tmp_path / "missing.pem")):
        with pytest.raises(errors.SettingsError, match="ca_file"):
            await route(network, path).open(HOST, PORT, tls=True)
        way = route(network, proxy_type="https", ca_file=path)
        with pytest.raises(errors.SettingsError, match="ca_file"):
            await way.tunnel(HOST, PORT, tls=True)
    assert network.dialled == []  # so nothing can be left open


# ---------------------------------------------------------------- route


async def test_route_takes_the_environment_and_never_shows_it(autojump_clock):
    environ = {"HTTPS_PROXY": "http://alice:hunter2@proxy:3128"}
    requests = []
    async with serving(connect_proxy(b"HTTP/1.1 200 OK\r\n\r\n", requests)) as network:
        way = Route(network.dial, ProxySettings(), environ, "", 5)
        assert "hunter2" not in repr(way)
        await way.tunnel(HOST, PORT, tls=True)
        assert network.dialled == [("proxy", 3128)]
        assert base64.b64encode(b"alice:hunter2") in requests[0]
        with pytest.raises(errors.HostUnreachable):
            await way.open("plain.example.com", 80, tls=False)  # HTTPS_PROXY is not for plain
        assert network.dialled[1:] == [("plain.example.com", 80)]


async def test_malformed_environment_dials_nobody(autojump_clock):
    network = MemoryNetwork()
    way = Route(network.dial, ProxySettings(), {"ALL_PROXY": "http://a:hunter2@h:x"}, "", 5)
    with pytest.raises(errors.SettingsError):
        await way.open(HOST, PORT, tls=True)
    assert network.dialled == []


# ---------------------------------------------------------------- who it was, and where

CAPTIVE = b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n\r\n"


async def page(stream):
    """Behind the tunnel a captive portal answers, whatever was asked for."""
    await receive_exactly(stream, 50)
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Log in!")
    await stream.aclose()


async def silence(stream):
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("handler", "kind", "words"),
    [
        (silence, "http", "no CONNECT within 5 s"),
        (silence, "https", "no proxy TLS handshake within 5 s"),
        (silence, "socks5", "no SOCKS5 greeting within 5 s"),
        (page, "https", "proxy TLS handshake .* is proxy_type right"),
        (scripted((1, CAPTIVE)), "http", "a captive portal that wants a log-in"),
        (connect_proxy(OK, then=silence), "http", "no TLS handshake within 5 s"),
        (connect_proxy(OK, then=page), "http", "TLS handshake with .* a captive portal"),
    ],
    ids=["connect", "proxy tls", "socks", "proxy is plain", "portal", "black hole", "inner portal"],
)
async def test_a_failure_names_the_proxy_and_the_step(handler, kind, words, autojump_clock):
    async with serving(handler) as network:
        with pytest.raises(errors.TunnelError, match=words) as caught:
            await route(network, proxy_type=kind).open(HOST, PORT, tls=True)
    assert "proxy proxy:3128" in str(caught.value)
    assert HOST in str(caught.value)


async def test_who_signed_a_refused_certificate_is_said(autojump_clock):
    """A company's inspecting proxy is seen at once."""
    inspector = trustme.CA(organization_name="Example Corp\nTLS Inspection")
    inner = tls_echo(server_context(inspector, HOST))
    async with serving(connect_proxy(OK, then=inner)) as network:
        with pytest.raises(errors.TlsUntrusted) as caught:
            await route(network, proxy_type="http").open(HOST, PORT, tls=True)
    said = str(caught.value)
    assert "issued by 'Example Corp TLS Inspection'" in said
    assert "inspects TLS" in said
    assert f"{HOST} through proxy proxy:3128" in said


# ---------------------------------------------------------------- chains


async def join(one, other):
    async def copy(source, sink):
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(65536):
                await sink.send_all(data)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, one, other)
        nursery.start_soon(copy, other, one)


def hop(network, reply=OK, *, context=None):
    """A CONNECT proxy that really dials; ``context``: inside TLS."""

    async def handler(stream):
        if context is not None:
            stream = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        head = await receive_until(stream, b"\r\n\r\n")
        where, _, port = head.split(b" ")[1].decode().rpartition(":")
        if not reply.startswith(b"HTTP/1.1 200"):
            return await stream.send_all(reply)
        inner = await network.dial(where, int(port))
        await stream.send_all(reply)
        await join(stream, inner)

    return handler


@asynccontextmanager
async def chained(network, handlers):
    async def answer(handler, stream):
        with suppress(EOFError, trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            await handler(stream)
        await trio.aclose_forcefully(stream)

    async def serve(listener, handler):
        while True:
            nursery.start_soon(answer, handler, await listener.accept())

    async with trio.open_nursery() as nursery:
        for (host, port), handler in handlers.items():
            (listener,) = await network.listen(host, port)
            nursery.start_soon(serve, listener, handler)
        yield
        nursery.cancel_scope.cancel()


CHAIN = Proxy("https", "c", 3, via=(Proxy("http", "a", 1), Proxy("socks5", "b", 2)))


async def socks_hop(stream, network):
    await receive_exactly(stream, 3)
    await stream.send_all(b"\x05\x00")
    head = await receive_exactly(stream, 5)
    where = (await receive_exactly(stream, head[4])).decode()
    port = int.from_bytes(await receive_exactly(stream, 2), "big")
    inner = await network.dial(where, port)
    await stream.send_all(SOCKS_OK)
    await join(stream, inner)


async def test_a_chain_of_proxies_of_every_kind(authority, ca_file, autojump_clock):
    network = MemoryNetwork()
    handlers = {
        ("a", 1): hop(network),
        ("b", 2): lambda stream: socks_hop(stream, network),
        ("c", 3): hop(network, context=server_context(authority, "c")),
        (HOST, PORT): tls_echo(server_context(authority, HOST)),
    }
    chain = evolve(CHAIN, ca_file=ca_file)
    async with chained(network, handlers):
        way = Route(network.dial, ProxySettings(), None, ca_file, 5, Egress([chain]))
        stream = await way.open(HOST, PORT, tls=True)
        await check_echo(stream)
        await trio.aclose_forcefully(stream)
    assert network.dialled == [("a", 1), ("b", 2), ("c", 3), (HOST, PORT)]
    (found,) = way.egress.statistics(0)
    assert found.address == "a:1 > b:2 > c:3"


async def test_a_chain_that_is_cut_is_an_error_of_the_chain_and_names_the_hop(autojump_clock):
    network = MemoryNetwork()
    chain = Proxy("http", "c", 3, via=(Proxy("http", "a", 1),))
    away = hop(network, b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n")
    async with chained(network, {("a", 1): away}):
        with pytest.raises(errors.ProxyUnreachable) as caught:
            await open_tunnel(HOST, PORT, proxy=chain, dial=network.dial, timeout_s=5)
    assert "a:1 > c:3 is cut in between: proxy a:1 for c:3 refused: 503" in str(caught.value)
    assert network.dialled == [("a", 1)]  # and not past it


# ---------------------------------------------------------------- digest

ASKS = b'Proxy-Authenticate: Digest realm="r", qop="auth", nonce="%d"%s\r\n'


class DigestProxy:
    """Takes each nonce so many times; counts what it is asked with."""

    def __init__(self, uses=10, password="hunter2", more=b""):
        self.uses, self.password, self.more = uses, password, more
        self.nonce = self.seen = 0
        self.asked = []

    def right(self, sent, target):
        def md5(text):
            return hashlib.md5(text.encode()).hexdigest()

        said = dict(re.findall(r'(\w+)="?([^",]+)', sent))
        first, second = md5(f"alice:r:{self.password}"), md5(f"CONNECT:{target}")
        middle = f"{self.nonce}:{said.get('nc')}:{said.get('cnonce')}:auth"
        return said.get("response") == md5(f"{first}:{middle}:{second}")

    async def __call__(self, stream):
        head = (await receive_until(stream, b"\r\n\r\n")).decode()
        sent = re.search("(?i)proxy-authorization: (.*)\r\n", head)[1]
        self.asked.append(sent.split()[0])
        target = head.split()[1]
        self.seen += 1
        stale = b""
        if sent.startswith("Digest") and self.right(sent, target):
            if self.seen <= self.uses:
                await stream.send_all(OK)
                return await echo(stream)
            stale = b", stale=true"
        self.nonce, self.seen = self.nonce + 1, 0
        asks = ASKS % (self.nonce, stale) + self.more
        await stream.send_all(b"HTTP/1.1 407 Who\r\n" + asks + b"Content-Length: 0\r\n\r\n")
        await stream.aclose()


async def by_digest(network):
    stream = await open_tunnel(HOST, PORT, proxy=HTTP_AUTH, dial=network.dial, timeout_s=5)
    await check_echo(stream)
    await trio.aclose_forcefully(stream)


async def test_a_401_is_about_our_credentials(autojump_clock):
    """tinyproxy answers so to a wrong password; it was tried again and again."""
    refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
    async with serving(connect_proxy(refusal)) as network:
        with pytest.raises(errors.ProxyAuthRequired, match="refused our user name"):
            await by_digest(network)
        with pytest.raises(errors.ProxyRefused):
            await open_tunnel(HOST, PORT, proxy=HTTP, dial=network.dial, timeout_s=5)


async def test_digest_credentials_are_learnt_and_their_nonce_renewed(autojump_clock):
    proxy = DigestProxy(uses=3)
    async with serving(proxy) as network:
        for _ in range(5):
            await by_digest(network)
    assert proxy.asked == ["Basic", *["Digest"] * 3, "Digest", *["Digest"] * 2]


async def test_a_wrong_password_is_said_after_one_digest(autojump_clock):
    """Accounts are locked after a few."""
    proxy = DigestProxy(password="another")
    async with serving(proxy) as network:
        with pytest.raises(errors.ProxyAuthRequired, match="refused our user name") as caught:
            await by_digest(network)
    assert proxy.asked == ["Basic", "Digest"]
    assert "hunter2" not in str(caught.value)


async def test_who_takes_basic_too_is_not_asked_twice(autojump_clock):
    proxy = DigestProxy(more=b"Proxy-Authenticate: Basic realm=x\r\n")
    async with serving(proxy) as network:
        with pytest.raises(errors.ProxyAuthRequired, match="it offers Digest, Basic"):
            await by_digest(network)
    assert proxy.asked == ["Basic"]


# ---------------------------------------------------------------- NTLM, Negotiate


def ntlm_proxy(scheme, asked, *, close=False, page=b"<html>Log in</html>"):
    """Speaks pyspnego's server side, on one connection."""

    async def handler(stream):
        spnego = pytest.importorskip("spnego")
        server = spnego.server(hostname="proxy", service="HTTP", protocol=scheme.lower())
        while True:
            head = (await receive_until(stream, b"\r\n\r\n")).decode()
            name, _, token = re.search("(?i)proxy-authorization: (.*)\r\n", head)[1].partition(" ")
            asked.append(name)
            offer = scheme.encode()
            if name == scheme:
                try:
                    answer = server.step(base64.b64decode(token))
                except spnego.exceptions.SpnegoError:
                    answer = None
                if server.complete:
                    await stream.send_all(OK)
                    return await echo(stream)
                if answer:
                    offer += b" " + base64.b64encode(answer)
            body = b"Content-Length: %d\r\n" % len(page)
            body += b"Connection: close\r\n" if close else b""
            asks = b"HTTP/1.1 407 Who\r\nProxy-Authenticate: " + offer + b"\r\n"
            await stream.send_all(asks + body + b"\r\n" + page)
            if close or name != scheme:
                return await stream.aclose()

    return handler


@pytest.fixture
def accounts(tmp_path, monkeypatch):
    pytest.importorskip("spnego", reason="pyspnego is not installed (trio_feed[ntlm])")
    (tmp_path / "accounts").write_text("EXAMPLE:alice:hunter2\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(tmp_path / "accounts"))


IN_DOMAIN = Proxy("http", "proxy", 3128, "EXAMPLE\\alice", Secret("hunter2"))


@pytest.mark.parametrize("scheme", ["NTLM", "Negotiate"])
async def test_a_proxy_that_takes_ntlm_or_negotiate_only(scheme, accounts, autojump_clock):
    asked = []
    async with serving(ntlm_proxy(scheme, asked)) as network:
        for _ in range(2):
            stream = await open_tunnel(HOST, PORT, proxy=IN_DOMAIN, dial=network.dial, timeout_s=5)
            await check_echo(stream)
            await trio.aclose_forcefully(stream)
    assert asked == ["Basic", *[scheme] * 4]


@pytest.mark.parametrize(
    ("password", "close", "words"),
    [
        ("hunter3", False, "refused our user name"),
        ("hunter2", True, "in the middle of the log-in"),
    ],
)
async def test_ntlm_that_fails(password, close, words, accounts, autojump_clock):
    asked = []
    wrong = evolve(IN_DOMAIN, password=Secret(password))
    async with serving(ntlm_proxy("NTLM", asked, close=close)) as network:
        with pytest.raises(errors.ProxyAuthRequired, match=words) as caught:
            await open_tunnel(HOST, PORT, proxy=wrong, dial=network.dial, timeout_s=5)
    assert password not in str(caught.value)
    assert asked.count("NTLM") <= 2


@pytest.mark.parametrize("token", [b"!!!", b"AAAA", b"TlRMTVNTUAAC", base64.b64encode(b"x" * 90)])
async def test_a_token_that_makes_no_sense(token, accounts, autojump_clock):
    async def handler(stream):
        while True:
            await receive_until(stream, b"\r\n\r\n")
            asks = b"HTTP/1.1 407 Who\r\nProxy-Authenticate: NTLM " + token
            await stream.send_all(asks + b"\r\nContent-Length: 0\r\n\r\n")

    async with serving(handler) as network:
        with pytest.raises(errors.ProxyAuthRequired):
            await open_tunnel(HOST, PORT, proxy=IN_DOMAIN, dial=network.dial, timeout_s=5)


async def test_without_the_extra_it_is_said(monkeypatch, autojump_clock):
    monkeypatch.setitem(sys.modules, "spnego", None)
    refusal = b"HTTP/1.1 407 Who\r\nProxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n"
    async with serving(connect_proxy(refusal)) as network:
        with pytest.raises(errors.ProxyAuthRequired, match=r"trio_feed\[ntlm\]"):
            await by_digest(network)
