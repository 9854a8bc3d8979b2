"""The server over memory streams, on virtual time: hostile clients, crashing apps, shutdown."""

import errno
import gc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import structlog
import trio
import trio_websocket
from attrs import evolve
from support.memory import MemoryListener, MemoryNetwork, MemoryStream
from trio.testing import MockClock

from trio_feed.errors import StartError
from trio_feed.metrics import Metrics
from trio_feed.push.edge.accepted import Accepted
from trio_feed.push.edge.admission_check import AdmissionRules
from trio_feed.push.edge.clients import ALIVE, Probes
from trio_feed.push.edge.connection import Connection
from trio_feed.push.edge.limits import ServerLimits
from trio_feed.push.edge.question import Question, Reply
from trio_feed.push.edge.server import Application, check_hypercorn, serve
from trio_feed.push.edge.websocket import CLOSE_S, ClientWebSocket, Handler
from trio_feed.push.fanout.frames import text_frame
from trio_feed.push.fanout.waiting import WaitingBytes

LIMITS = ServerLimits(
    max_connections=3, max_message_bytes=1000, handshake_timeout_s=5, shutdown_grace_s=2
)
RULES = AdmissionRules()
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
ALWAYS_BAD = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=abc\r\n"


def get(*headers: bytes, path: bytes = b"/") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n" + b"".join(headers) + b"\r\n"


HOSTILE = {
    "deflate with a bad window": (get(UPGRADE, KEY, ALWAYS_BAD), b"101"),
    "extensions not ascii": (get(UPGRADE, KEY, b"Sec-WebSocket-Extensions: \xff\r\n"), b"101"),
    "protocol not ascii": (get(UPGRADE, KEY, b"Sec-WebSocket-Protocol: \xff\r\n"), b"400"),
    "connection not ascii": (
        get(KEY, b"Upgrade: websocket\r\nConnection: Upgrade, \xff\r\n"),
        b"400",
    ),
    "upgrade without a value": (get(KEY, b"Upgrade:\r\nConnection: Upgrade\r\n"), b"200"),
    "upgrade missing": (get(KEY, b"Connection: Upgrade\r\n"), b"200"),
    "no key": (get(UPGRADE, b"Sec-WebSocket-Version: 13\r\n"), b"400"),
    "wrong version": (get(UPGRADE, KEY.replace(b"13", b"8")), b"426"),
    "version not ascii": (get(UPGRADE, KEY.replace(b"13", b"\xff")), b"426"),
    "http 1.2": (get(UPGRADE, KEY).replace(b"HTTP/1.1", b"HTTP/1.2"), b"505"),
    "http 1.0": (get(UPGRADE, KEY).replace(b"HTTP/1.1", b"HTTP/1.0"), b"400"),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), b"505"),
    "h2c upgrade": (
        get(b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMA\r\n"),
        b"200",
    ),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", b"400"),
    "endless head": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 100_000, b"431"),
    "endless target": (b"GET /" + b"a" * 100_000, b"431"),
}
"""Name -> (what the client sends, the status it is answered with)."""


class App:
    """Echoes on a WebSocket, answers ``fine`` over HTTP; ``/crash`` raises.

    ``handlers`` replace that for a path (ASGI), and ``sockets``; ``seen`` are the scopes and
    questions that came in, ``clients`` the WebSockets, and ``ended`` counts those that were left.
    """

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[Any, Any, Any], Awaitable[None]]] = {}
        self.sockets: dict[str, Handler] = {}
        self.seen: list[Any] = []
        self.clients: list[ClientWebSocket] = []
        self.ended = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        self.seen.append(scope)
        if scope["path"] == "/crash":
            raise RuntimeError("the application\nis broken")
        if scope["path"] in self.handlers:
            await self.handlers[scope["path"]](scope, receive, send)
        else:
            await respond(send)

    def websocket(self, question: Question) -> Handler | Reply:
        self.seen.append(question)
        if question.path == "/crash":
            raise RuntimeError("the application\nis broken")
        return partial(self._converse, self.sockets.get(question.path, echo))

    async def _converse(self, handler: Handler, client: ClientWebSocket) -> None:
        self.clients.append(client)
        try:
            await handler(client)
        finally:
            self.ended += 1


async def respond(send: Any, body: bytes = b"fine", status: int = 200) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(client: ClientWebSocket) -> None:
    while (message := await client.receive()) is not None:
        assert isinstance(message, str)
        await client.stream.send_frames((text_frame(message.encode()),))


def nobody(_question: Question) -> Reply:
    return Reply("nobody is here", 404)


def application(app: Any) -> Application:
    return Application(app, getattr(app, "websocket", nobody))


class Served:
    """A running server: ``dial`` it, ``stop`` it."""

    def __init__(self, network: MemoryNetwork, listener: MemoryListener) -> None:
        self.network, self.listener = network, listener
        self.scope = trio.CancelScope()
        self.stopped = trio.Event()
        self.stop_accepting = trio.Event()
        self.metrics = Metrics()

    def refused(self) -> dict[str, float]:
        """How many were turned away, by reason."""
        samples = next(iter(self.metrics.refused.collect())).samples
        return {s.labels["reason"]: s.value for s in samples if s.name.endswith("_total")}

    async def dial(self) -> MemoryStream:
        return await self.network.dial("127.0.0.1", self.listener.port)

    async def ask(self, request: bytes) -> bytes:
        """The status of the answer."""
        stream = await self.dial()
        await stream.send_all(request)
        status = (await head(stream))[9:12]
        await stream.aclose()
        return status

    async def stop(self) -> float:
        """Cancel the server; gives the seconds that it took."""
        began = trio.current_time()
        self.scope.cancel()
        await self.stopped.wait()
        return trio.current_time() - began


@asynccontextmanager
async def served(
    app: Any,
    limits: ServerLimits = LIMITS,
    tamper: Any = None,
    rules: AdmissionRules = RULES,
    waiting: WaitingBytes | None = None,
    probes: Probes = ALIVE,
) -> AsyncIterator[Served]:
    network = MemoryNetwork()
    [listener] = await network.listen("127.0.0.1", 0)
    running = Served(network, listener)
    if tamper is not None:
        accept = listener.accept

        async def tampered() -> Any:
            return await tamper(await accept())

        listener.accept = tampered  # type: ignore[method-assign]

    async def run(task_status: trio.TaskStatus[None]) -> None:
        with running.scope:
            await serve(
                application(app),
                listeners=[listener],
                limits=limits,
                rules=rules,
                metrics=running.metrics,
                stop_accepting=running.stop_accepting,
                waiting=waiting,
                probes=probes,
                task_status=task_status,
            )
        running.stopped.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield running
        running.scope.cancel()


async def head(stream: Any) -> bytes:
    """A response up to its blank line, or what came before the end."""
    received = b""
    with trio.fail_after(1000):
        while b"\r\n\r\n" not in received:
            data = await stream.receive_some()
            if not data:
                break
            received += data
    return received


async def until_closed(stream: Any) -> bytes:
    received = b""
    with trio.fail_after(1000):
        while data := await stream.receive_some():
            received += data
    return received


async def send_until_broken(
    stream: MemoryStream, data: bytes, every_s: float, piece: int = 1
) -> None:
    for start in range(0, len(data), piece):
        try:
            await stream.send_all(data[start : start + piece])
        except trio.BrokenResourceError:
            return
        await trio.sleep(every_s)
    pytest.fail("the server took everything")


@asynccontextmanager
async def websocket(running: Served, path: str = "/") -> AsyncIterator[Any]:
    stream = await running.dial()
    async with trio.open_nursery() as nursery:
        client = await trio_websocket.wrap_client_stream(nursery, stream, "127.0.0.1", path)
        yield client
        with trio.move_on_after(1):
            await client.aclose()
        nursery.cancel_scope.cancel()


async def upgraded(running: Served, path: bytes = b"/") -> MemoryStream:
    """A raw client behind its 101."""
    stream = await running.dial()
    await stream.send_all(get(UPGRADE, KEY, path=path))
    assert b" 101 " in await head(stream)
    return stream


def frame(payload: bytes, opcode: int = 1, *, final: bool = True) -> bytes:
    size = len(payload)
    assert size < 65536
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([0x80 * final | opcode]) + length + bytes(4) + payload


async def says(client: Any, text: str) -> str:
    await client.send_message(text)
    answer: str = await client.get_message()
    return answer


async def test_echo_keep_alive_and_what_the_app_gets(autojump_clock: MockClock) -> None:
    app = App()
    async with served(app) as running:
        async with websocket(running) as client:
            assert await says(client, "hello") == "hello"
            stream = app.clients[0].stream
            assert (stream.bytes_in > 100, stream.bytes_out > 100) == (True, True)
        http = await running.dial()
        for _ in range(3):
            await http.send_all(get())
            answer = await head(http)
            while not answer.endswith(b"fine"):
                answer += await http.receive_some()
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"server" not in answer.lower()


async def test_half_closed_http_client_gets_its_answer(autojump_clock: MockClock) -> None:
    async with served(App()) as running:
        stream = await running.dial()
        await stream.send_all(get())
        await stream.send_eof()
        assert (await until_closed(stream)).endswith(b"fine")


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_handshake_is_answered_and_harms_nobody(
    name: str, autojump_clock: MockClock
) -> None:
    request, status = HOSTILE[name]
    with structlog.testing.capture_logs() as logs:
        async with served(App()) as running, websocket(running) as other:
            assert await running.ask(request) == status
            assert await says(other, "still here") == "still here"
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == []


async def test_unforeseen_exception_stays_in_its_connection(autojump_clock: MockClock) -> None:
    async def poison(stream: MemoryStream) -> MemoryStream:
        async def bug() -> None:
            raise ZeroDivisionError("never thought of that")

        stream.receive_stream.receive_some_hook = bug
        return stream

    poisonous = iter([False, True])

    async def second(stream: MemoryStream) -> MemoryStream:
        return await poison(stream) if next(poisonous) else stream

    with structlog.testing.capture_logs() as logs:
        async with served(App(), tamper=second) as running, websocket(running) as other:
            assert await until_closed(await running.dial()) == b""
            assert await says(other, "still here") == "still here"
    [crash] = [entry for entry in logs if entry["event"] == "client.crashed"]
    assert (crash["error"], crash["message"]) == ("ZeroDivisionError", "never thought of that")
    assert crash["at"].startswith("test_server.py:")


async def test_crash_of_the_app_stays_in_its_connection(autojump_clock: MockClock) -> None:
    async def crash_later(_client: ClientWebSocket) -> None:
        async with trio.open_nursery():
            raise RuntimeError("later")

    app = App()
    app.sockets["/later"] = crash_later
    with structlog.testing.capture_logs() as logs:
        async with served(app) as running, websocket(running) as other:
            assert await running.ask(get(path=b"/crash")) == b"500"
            assert await running.ask(get(UPGRADE, KEY, path=b"/crash")) == b"500"
            stream = await upgraded(running, b"/later")
            assert b"\x88\x02\x03\xf3" in await until_closed(stream)  # Close 1011
            assert await says(other, "still here") == "still here"
    crashes = [entry for entry in logs if entry["event"] == "client.crashed"]
    assert [entry["message"] for entry in crashes] == ["is broken", "is broken", "later"]
    assert "exc_info" not in crashes[0]


async def test_compression_is_never_agreed_to(autojump_clock: MockClock) -> None:
    offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
    async with served(App()) as running:
        stream = await running.dial()
        await stream.send_all(get())
        await head(stream)
        await stream.send_all(get(UPGRADE, KEY, offer))  # the second request of this connection
        answer = await head(stream)
        assert b" 101 " in answer
        assert b"extensions" not in answer.lower()


async def test_request_head_that_never_ends_is_dropped(autojump_clock: MockClock) -> None:
    async with served(App()) as running:
        stream = await running.dial()
        await send_until_broken(stream, b"GET / HTTP/1.1\r\n" + b"a" * 1000, every_s=1)
        assert trio.current_time() < LIMITS.handshake_timeout_s + 2


@pytest.mark.parametrize("first", [b"", get(), get(UPGRADE)])
async def test_client_that_waits_after_its_answer_is_dropped(
    first: bytes, autojump_clock: MockClock
) -> None:
    async with served(App()) as running:
        stream = await running.dial()
        await stream.send_all(first)
        await until_closed(stream)
        assert trio.current_time() <= LIMITS.handshake_timeout_s + 0.1


async def test_websocket_outlives_the_handshake_timeout(autojump_clock: MockClock) -> None:
    app = App()
    async with served(app) as running, websocket(running) as client:
        await trio.sleep(90)
        assert await says(client, "still here") == "still here"
        await trio.sleep(90)
        assert await says(client, "and still") == "and still"


async def test_silent_client_is_dropped(autojump_clock: MockClock) -> None:
    async with served(App()) as running:
        await until_closed(await upgraded(running))
        assert trio.current_time() == pytest.approx(LIMITS.receive_timeout_s, abs=1)


async def test_one_too_many_is_told_to_come_back(autojump_clock: MockClock) -> None:
    async with served(App()) as running:
        streams = [await upgraded(running) for _ in range(LIMITS.max_connections)]
        refused = await running.dial()
        await refused.send_all(get(UPGRADE, KEY))
        answer = await until_closed(refused)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 5\r\n" in answer
        await trio.sleep(0.1)
        await refused.send_all(b"what it had still to say is not answered with a reset")
        await streams[0].aclose()
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert b" 101 " in await head(await opened(running))
        assert trio.current_time() < 2  # the place was free at once, not after a ping interval


async def test_a_probe_is_answered_when_there_is_no_place(autojump_clock: MockClock) -> None:
    async with served(App(), evolve(LIMITS, max_connections=0)) as running:
        for method, body in ((b"GET", b'{"status": "alive"}'), (b"HEAD", b"")):
            probe = await running.dial()
            await probe.send_all(method + b" /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await until_closed(probe)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.partition(b"\r\n\r\n")[2] == body
        other = await running.dial()
        await other.send_all(b"GET /healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await until_closed(other)).startswith(b"HTTP/1.1 503 ")


async def test_a_probe_is_answered_while_hundreds_of_strangers_are_refused(
    autojump_clock: MockClock,
) -> None:
    """Those who say nothing for longest give way to it, and it is bounded itself."""
    probe = b"GET /health?nocache=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with served(App(), evolve(LIMITS, max_connections=0)) as running:
        silent = [await running.dial() for _ in range(200)]
        streams = []
        for _ in range(3):
            stream = await running.dial()
            await stream.send_all(probe)
            streams.append(stream)
            silent += [await running.dial() for _ in range(10)]
            await trio.testing.wait_all_tasks_blocked()
        for stream in streams:
            answer = await until_closed(stream)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b'{"status": "alive"}')
        await trio.sleep(2)
        many = [await running.dial() for _ in range(200)]
        for stream in many:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(probe)
        answers = [await until_closed(stream) for stream in many]
        assert 64 <= sum(bool(answer) for answer in answers) <= 64 + 16


async def test_other_probes_are_answered_when_there_is_no_place(
    autojump_clock: MockClock,
) -> None:
    answers = {"/ready": lambda: (503, '{"ready": false}')}
    async with served(App(), evolve(LIMITS, max_connections=0), probes=answers) as running:
        stream = await running.dial()
        await stream.send_all(get(path=b"/ready"))
        answer = await until_closed(stream)
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert answer.endswith(b'\r\n\r\n{"ready": false}')


async def test_place_is_free_when_the_app_ends(autojump_clock: MockClock) -> None:
    async def linger(client: ClientWebSocket) -> None:
        await echo(client)
        await trio.sleep(0.5)

    app = App()
    app.sockets["/"] = linger
    async with served(app, evolve(LIMITS, max_connections=1)) as running:
        await (await upgraded(running)).aclose()
        await trio.sleep(0.4)
        assert b" 503 " in await head(await opened(running))
        await trio.sleep(0.2)
        assert b" 101 " in await head(await opened(running))


async def opened(running: Served) -> MemoryStream:
    stream = await running.dial()
    await stream.send_all(get(UPGRADE, KEY))
    return stream


async def test_refusing_is_bounded_in_time_and_number(autojump_clock: MockClock) -> None:
    async with served(App(), evolve(LIMITS, max_connections=0)) as running:
        refused = [await running.dial() for _ in range(70)]
        answers = [await until_closed(stream) for stream in refused]
        assert sum(bool(answer) for answer in answers) == 64
        assert await until_closed(await running.dial()) == b""
        await trio.sleep(1.1)  # by then those who never closed were dropped
        assert await running.ask(get()) == b"503"


async def test_accept_failing_for_a_while_is_survived(autojump_clock: MockClock) -> None:
    failures = [OSError(errno.EMFILE, "too many"), OSError(errno.ENFILE, "too many")]

    async def shortage(stream: MemoryStream) -> MemoryStream:
        if failures:
            await stream.aclose()
            raise failures.pop()
        return stream

    async with served(App(), tamper=shortage) as running:
        for _ in range(2):
            await until_closed(await running.dial())
        assert await running.ask(get()) == b"200"


def freezing() -> tuple[list[MemoryStream], Any]:
    """What was accepted, and a tamper hook."""
    accepted: list[MemoryStream] = []

    async def note(stream: MemoryStream) -> MemoryStream:
        accepted.append(stream)
        return stream

    return accepted, note


async def frozen_client(running: Served, accepted: list[MemoryStream]) -> MemoryStream:
    """An echo client whose kernel takes nothing any more, with an answer under way."""
    stream = await upgraded(running)
    accepted[-1].send_stream.send_all_hook = trio.sleep_forever
    await stream.send_all(frame(b"say this"))
    await trio.testing.wait_all_tasks_blocked(0.001)
    return stream


async def test_frozen_client_does_not_delay_the_exit(autojump_clock: MockClock) -> None:
    accepted, note = freezing()
    async with served(App(), tamper=note) as running:
        await frozen_client(running, accepted)
        assert await running.stop() == 0


async def test_frozen_client_is_dropped_after_the_send_timeout(autojump_clock: MockClock) -> None:
    accepted, note = freezing()
    app = App()
    async with served(app, tamper=note) as running:
        await frozen_client(running, accepted)
        await trio.sleep(LIMITS.send_timeout_s + 1)
        assert app.ended == 1


async def test_exit_is_immediate_where_nothing_is_being_finished(
    autojump_clock: MockClock,
) -> None:
    app = App()
    async with served(app) as running:
        streams = [await upgraded(running), await running.dial()]
        keeping_alive = await running.dial()
        await keeping_alive.send_all(get())
        await head(keeping_alive)
        assert await running.stop() == 0
        for stream in [*streams, keeping_alive]:
            await until_closed(stream)
        assert app.ended == 1
        with pytest.raises(ConnectionRefusedError):
            await running.dial()


async def test_what_is_being_finished_has_the_grace(autojump_clock: MockClock) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(1.5)
        await respond(send)

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep_forever()

    app = App()
    app.handlers.update({"/slow": slow, "/endless": endless})
    async with served(app) as running:
        slow_one, endless_one = await running.dial(), await running.dial()
        await slow_one.send_all(get(path=b"/slow"))
        await endless_one.send_all(get(path=b"/endless"))
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert await running.stop() == pytest.approx(LIMITS.shutdown_grace_s)
        assert (await until_closed(slow_one)).endswith(b"fine")
        assert await until_closed(endless_one) == b""


async def test_app_may_say_goodbye_when_it_is_cancelled(autojump_clock: MockClock) -> None:
    async def polite(client: ClientWebSocket) -> None:
        try:
            await echo(client)
        finally:
            with trio.move_on_after(1, shield=True):
                await client.close(1012)

    app = App()
    app.sockets["/"] = polite
    async with served(app) as running:
        stream = await upgraded(running)
        await running.stop()
        assert b"\x88\x02\x03\xf4" in await until_closed(stream)


async def test_message_too_big_is_refused_and_not_collected(autojump_clock: MockClock) -> None:
    async with served(App()) as running:
        stream = await upgraded(running)
        await stream.send_all(frame(b"x" * 900, final=False))
        more = frame(b"x" * 900, opcode=0, final=False)
        await send_until_broken(stream, more * 1000, every_s=0.1, piece=len(more))
        assert b"\x03\xf1a message may have 1000 bytes" in await until_closed(stream)
        assert trio.current_time() < CLOSE_S + 1


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x05hello", 1002),
        (frame(b"\xff\xfe"), 1007),
        (frame("\u20ac".encode() * 334), 1009),
        (frame(b"", opcode=9) * 30, 1008),
        (frame(b"", opcode=0, final=False), 1002),
    ],
)
async def test_broken_frames_are_answered_with_their_code(
    sent: bytes, code: int, autojump_clock: MockClock
) -> None:
    app = App()
    async with served(app, evolve(LIMITS, control_burst=20)) as running:
        async with websocket(running) as other:
            stream = await upgraded(running)
            await stream.send_all(sent)
            await trio.sleep(0.1)
            assert app.ended == 1  # the app was told at once, not after the client's answer
            await stream.send_all(frame(code.to_bytes(2), opcode=8))
            received = await until_closed(stream)
            assert close_code(received) == code
            assert trio.current_time() < 1
            assert await says(other, "still here") == "still here"
        assert running.refused() == {f"frame_{code}": 1}


def close_code(received: bytes) -> int:
    """Of the Close frame at the end of what a server sent; pings and pongs are skipped."""
    while received and received[0] != 0x88:
        received = received[2 + received[1] :]
    return int.from_bytes(received[2:4])


async def test_client_that_does_not_answer_a_close_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    async with served(App()) as running:
        stream = await upgraded(running)
        await stream.send_all(b"\x81\x05hello")
        assert close_code(await until_closed(stream)) == 1002
        assert trio.current_time() == pytest.approx(CLOSE_S, abs=0.1)


async def test_the_last_word_of_an_app_is_read_before_the_end(autojump_clock: MockClock) -> None:
    async def polite(client: ClientWebSocket) -> None:
        await trio.sleep(1)
        await client.close(4000)

    app = App()
    app.sockets["/"] = polite
    async with served(app) as running:
        stream = await upgraded(running)
        await trio.sleep(1.1)
        await stream.send_all(frame(b"data after your close") * 3)
        await stream.send_all(frame((4000).to_bytes(2), opcode=8) + b"\xff" * 100)
        assert close_code(await until_closed(stream)) == 4000
        assert trio.current_time() < 1.3


def deflated(text: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def test_compressed_messages_are_inflated_with_a_bound(autojump_clock: MockClock) -> None:
    app = App()
    async with served(app, rules=AdmissionRules(deflate=True)) as running:
        streams = []
        for sent in (b"hello" * 50, b"x" * 100_000_000):
            stream = await running.dial()
            offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
            await stream.send_all(get(UPGRADE, KEY, offer))
            assert b"permessage-deflate" in await head(stream)
            payload = deflated(sent)
            for start in range(0, len(payload), 60_000):
                opcode = 0x41 if start == 0 else 0  # RSV1, text
                rest = payload[start : start + 60_000]
                final = start + 60_000 >= len(payload)
                await stream.send_all(frame(rest, opcode, final=final))
            streams.append(stream)
        answer = await read_until(streams[0], b"hello" * 50)
        assert b"\x81\x7e\x00\xfa" in answer  # the echo does not compress
        assert close_code(await until_closed(streams[1])) == 1009


async def read_until(stream: MemoryStream, wanted: bytes) -> bytes:
    received = b""
    with trio.fail_after(1000):
        while wanted not in received:
            data = await stream.receive_some()
            assert data, received
            received += data
    return received


async def test_crashes_are_counted_and_sampled(autojump_clock: MockClock) -> None:
    with structlog.testing.capture_logs() as logs:
        async with served(App()) as running:
            for _ in range(25):
                assert await running.ask(get(path=b"/crash")) == b"500"
            await trio.sleep(60)
            await running.ask(get(path=b"/crash"))
            assert running.metrics.crashes._value.get() == 26
    crashes = [entry for entry in logs if entry["event"] == "client.crashed"]
    assert [entry["left_out"] for entry in crashes] == [0] * 10 + [15]


async def test_websocket_app_that_leaves_messages_unread_can_end(
    autojump_clock: MockClock,
) -> None:
    async def deaf(_client: ClientWebSocket) -> None:
        await trio.sleep(1)

    app = App()
    app.sockets["/deaf"] = deaf
    async with served(app) as running:
        stream = await upgraded(running, b"/deaf")
        await stream.send_all(frame(b"hello?") * 100)
        await until_closed(stream)
        assert trio.current_time() <= 1 + CLOSE_S + 0.1


async def test_http_app_that_leaves_the_body_unread_can_end(autojump_clock: MockClock) -> None:
    ended = trio.Event()

    async def unauthorized(scope: Any, receive: Any, send: Any) -> None:
        try:
            await trio.sleep(1)
            await respond(send, b"no", 401)
        finally:
            ended.set()

    app = App()
    app.handlers["/post"] = unauthorized
    async with served(app) as running:
        stream = await running.dial()
        await stream.send_all(b"POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n")
        for _ in range(50):
            await stream.send_all(b"x")
            await trio.testing.wait_all_tasks_blocked()
        assert b" 401 " in await until_closed(stream)
        assert ended.is_set()
        assert trio.current_time() <= 1 + CLOSE_S + 0.1


@pytest.mark.parametrize("before", [b"", get()])
async def test_frames_before_the_handshake_is_done(
    before: bytes, autojump_clock: MockClock
) -> None:
    """Also behind another request, while which more is read than the upgrade's head."""
    app = App()
    async with served(app) as running:
        stream = await running.dial()
        await stream.send_all(before + get(UPGRADE, KEY) + frame(b"too early"))
        answer = await until_closed(stream)
        assert answer.count(b"HTTP/1.1 400 ") == 1
        assert len(app.seen) == bool(before)
        assert running.refused() == {"too_early": 1}


async def test_an_app_that_does_not_listen_is_ended_after_its_client(
    autojump_clock: MockClock,
) -> None:
    async def work(client: ClientWebSocket) -> None:
        await client.receive()
        async with client.reading_ahead():
            await trio.sleep_forever()

    app = App()
    app.sockets["/work"] = work
    async with served(app) as running:
        stream = await upgraded(running, b"/work")
        await stream.send_all(frame(b"work") + frame(b"and more"))
        await trio.sleep(1)
        await stream.send_all(frame(b"are you there", opcode=9))
        assert b"are you there" in await stream.receive_some()
        await stream.aclose()
        await trio.sleep(CLOSE_S + 0.1)
        assert app.ended == 1


async def test_what_is_read_ahead_is_received_later(autojump_clock: MockClock) -> None:
    """And no more of it than a few messages."""
    got: list[Any] = []

    async def work(client: ClientWebSocket) -> None:
        got.append(await client.receive())
        async with client.reading_ahead():
            await trio.sleep(1)
        for _ in range(29):
            got.append(await client.receive())
        assert not client.more

    app = App()
    app.sockets["/work"] = work
    async with served(app) as running:
        stream = await upgraded(running, b"/work")
        for number in range(30):
            await stream.send_all(frame(b"%d" % number))
            await trio.testing.wait_all_tasks_blocked()
        assert close_code(await until_closed(stream)) == 1000
        assert got == [str(number) for number in range(30)]


async def test_a_pong_under_way_is_finished_when_reading_ahead_ends(
    autojump_clock: MockClock,
) -> None:
    """Half of it would end the connection."""
    accepted, note = freezing()

    async def work(client: ClientWebSocket) -> None:
        async with client.reading_ahead():
            await trio.sleep(1)
        await echo(client)

    app = App()
    app.sockets["/work"] = work
    async with served(app, tamper=note) as running:
        stream = await upgraded(running, b"/work")

        async def slowly() -> None:
            await trio.sleep(2)

        accepted[-1].send_stream.send_all_hook = slowly
        await stream.send_all(frame(b"ping", opcode=9) + frame(b"still here"))
        assert await read_until(stream, b"still here") == b"\x8a\x04ping\x81\x0astill here"


@pytest.mark.parametrize("leaving", ["closes", "resets", "says too much"])
async def test_app_that_only_sends_notices_that_its_client_has_gone(
    leaving: str, autojump_clock: MockClock
) -> None:
    ended = trio.Event()

    async def torrent(client: ClientWebSocket) -> None:
        try:
            async with client.reading_ahead():
                for _ in range(10_000):
                    await client.stream.send_frames((text_frame(b"more"),))
                    await trio.sleep(0.001)
            pytest.fail("the app was left sending to nobody")
        finally:
            ended.set()

    app = App()
    app.sockets["/torrent"] = torrent
    with structlog.testing.capture_logs() as logs:
        async with served(app) as running:
            stream = await upgraded(running, b"/torrent")
            if leaving == "closes":
                await stream.send_eof()
            elif leaving == "resets":
                await stream.aclose()
            else:
                await stream.send_all(frame(b"x" * 2000))
            await ended.wait()
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == []


async def test_client_leaving_tells_the_app(autojump_clock: MockClock) -> None:
    app = App()
    async with served(app) as running:
        stream = await upgraded(running)
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert app.ended == 1


async def serve_plainly(app: Any, listeners: Any) -> None:
    rest = {"rules": RULES, "metrics": Metrics(), "stop_accepting": trio.Event()}
    await serve(application(app), listeners=listeners, limits=LIMITS, **rest)


class WithLifespan(App):
    """``said`` is what the app was told; each step first waits ``delay_s``."""

    def __init__(self, startup: str = "complete", delay_s: float = 0.0) -> None:
        super().__init__()
        self.said: list[str] = []
        self._startup, self._delay_s = startup, delay_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await super().__call__(scope, receive, send)
            return
        scope["state"]["shared"] = "by all"
        for step, outcome in (("startup", self._startup), ("shutdown", "complete")):
            self.said.append((await receive())["type"])
            await trio.sleep(self._delay_s)
            message = "trace\nback\nOSError: no disk\n"
            await send({"type": f"lifespan.{step}.{outcome}", "message": message})


async def test_lifespan(autojump_clock: MockClock) -> None:
    app = WithLifespan(delay_s=1)
    async with served(app) as running:
        assert app.said == ["lifespan.startup"]
        await running.ask(get())
        assert app.seen[0]["state"]["shared"] == "by all"
        assert await running.stop() == pytest.approx(1)
    assert app.said == ["lifespan.startup", "lifespan.shutdown"]


async def test_lifespan_that_does_not_end_is_ended(autojump_clock: MockClock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep_forever()

    async with served(app) as running:
        assert await running.stop() == pytest.approx(LIMITS.shutdown_grace_s)


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (WithLifespan(startup="failed"), "push server: OSError: no disk"),
        (WithLifespan(delay_s=10_000), "Timeout"),
    ],
)
async def test_failing_start_is_a_start_error(
    app: WithLifespan, reason: str, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    listeners = await network.listen("127.0.0.1", 0)
    with pytest.raises(StartError, match=reason):
        await serve_plainly(app, listeners)
    assert network.listeners == {}
    assert trio.current_time() <= LIMITS.startup_timeout_s


def test_the_installed_hypercorn_is_the_one_we_know() -> None:
    check_hypercorn()


@pytest.mark.parametrize(
    ("target", "value", "named"),
    [
        ("importlib.metadata.version", lambda _: "0.19.0", "version 0.19.0"),
        ("hypercorn.trio.tcp_server.TCPServer._read_data", None, "TCPServer._read_data"),
        ("hypercorn.trio.tcp_server.TCPServer.__init__", lambda self: None, "TCPServer"),
        ("hypercorn.protocol.ProtocolWrapper.__init__", lambda self: None, "Wrapper.protocol"),
        ("hypercorn.config.Config.accesslog", None, "Config.accesslog"),
    ],
)
async def test_another_hypercorn_is_refused(
    target: str, value: Any, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = MemoryNetwork()
    listeners = await network.listen("127.0.0.1", 0)
    with monkeypatch.context() as patch:
        patch.delattr(target) if value is None else patch.setattr(target, value)
        with pytest.raises(StartError, match=named), trio.fail_after(5):
            await serve_plainly(App(), listeners)
    assert network.listeners == {}


async def test_requests_of_an_address_on_all_its_connections_have_a_rate(
    autojump_clock: MockClock,
) -> None:
    """They are slowed down and not refused; a WebSocket is none of them."""
    limits = evolve(LIMITS, max_connections=99, http_per_s=10, http_burst=20)
    app = App()
    async with served(app, limits) as running, websocket(running) as client:

        async def ask(times: int) -> None:
            stream = await running.dial()
            for _ in range(times):
                await stream.send_all(get())
                answer = await head(stream)
                while not answer.endswith(b"fine"):
                    answer += await stream.receive_some()

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask, 5)
        assert trio.current_time() - began < 0.1
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask, 10)
            for _ in range(20):
                await client.send_message("x")
                assert await client.get_message() == "x"
            assert trio.current_time() - began < 0.1
        assert 3 <= trio.current_time() - began <= 5
        assert await running.ask(get()) == b"200"


async def test_nothing_of_a_connection_is_left_for_the_garbage_collector(
    autojump_clock: MockClock,
) -> None:
    """A collection stops everybody, so it comes seldom; what has gone must not wait for it."""
    gc.collect()
    kinds = (Accepted, Connection, ClientWebSocket)
    before = {id(one) for one in gc.get_objects() if isinstance(one, kinds)}
    app = App()
    async with served(app) as server:
        gc.disable()
        try:
            async with websocket(server) as client:
                await client.send_message("a")
                assert await client.get_message() == "a"
            assert await server.ask(get()) == b"200"
            await trio.sleep(LIMITS.handshake_timeout_s + 2 * CLOSE_S)
            app.seen.clear()
            app.clients.clear()
            left = [one for one in gc.get_objects() if isinstance(one, kinds)]
            assert [one for one in left if id(one) not in before] == []
        finally:
            gc.enable()
