"""``scripts/bench private``: how long a settlement event takes from its request to the user's
clients, over loopback and through the disk, beside a plain HTTP answer of the same server
(``GET /health``) in the same run."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

import trio
import trio_websocket

from trio_feed.push.private.auth import PUBLISHER_KEY, USER_KEY, new_key

from .processes import LOADING, MEASURED, ROOT, pin
from .result import Result, percentile

USER = 1001
WARM_UP = 100
EVENT = {
    "type": "balance.update",
    "user_id": USER,
    "data": {
        "asset": "BTC", "avail": "1.501000", "frozen": "0.000000", "change": "+0.001000",
        "reason": "trade_settled",
    },
}  # fmt: skip


@asynccontextmanager
async def started(folder: Path, key_sha: str, publisher_sha: str) -> AsyncIterator[tuple[str, int]]:
    """(host, port) of a service on a free port with its files in ``folder``."""
    sets = [
        "server.port=0",
        f"store.path={folder / 'bench.db'}",
        "logging.format=json",
        "simulator.trades_per_minute=1",  # the market is not what is measured
        "simulator.kline_push_ms=60000",
        f"auth.api_keys=[{{name='bench', user_id={USER}, sha256='{key_sha}'}}]",
        f"settlement.publishers=[{{name='bench', sha256='{publisher_sha}'}}]",
    ]
    words = [word for assignment in sets for word in ("--set", assignment)]
    command = ["taskset", "-c", str(MEASURED), sys.executable, "-m", "trio_feed", *words]
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process, command, stdout=subprocess.PIPE, cwd=folder, check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        process = await nursery.start(start)
        rest = b""
        async for chunk in process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            ready = [line for line in map(json.loads, lines) if line["event"] == "service.ready"]
            if ready:
                break
        nursery.start_soon(drain, process.stdout)
        await trio.sleep(3)  # the history of the simulated market comes in first
        host, _, port = ready[0]["urls"]["http"].removeprefix("http://").rpartition(":")
        try:
            yield host, int(port)
        finally:
            process.terminate()
            nursery.cancel_scope.deadline = trio.current_time() + 10


async def drain(stream: trio.abc.ReceiveStream) -> None:
    async for _ in stream:
        pass


class Http:
    """One connection, one request at a time."""

    def __init__(self, stream: trio.SocketStream, host: str) -> None:
        self._stream, self._host = stream, host

    async def ask(self, method: str, path: str, body: bytes = b"", *heads: str) -> bytes:
        head = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", *heads]
        head.append(f"Content-Length: {len(body)}")
        await self._stream.send_all("\r\n".join([*head, "", ""]).encode() + body)
        got = b""
        while b"\r\n\r\n" not in got:
            got += await self._stream.receive_some()
        start, _, rest = got.partition(b"\r\n\r\n")
        lines = [line.lower().split(b": ") for line in start.split(b"\r\n")[1:]]
        size = next((int(value) for name, value in lines if name == b"content-length"), None)
        if size is None:
            raise SystemExit(f"no length: {start!r}")
        while len(rest) < size:
            rest += await self._stream.receive_some()
        return rest


def run(quick: bool) -> Result:
    pin(LOADING)
    events, clients = (300, 1) if quick else (2_000, 10)
    result = Result("private", "ms")
    plain, to_reply, to_client = trio.run(measure, events, clients)
    for row, seconds in (
        ("GET /health", plain), ("event to its answer", to_reply),
        ("event to the client", to_client),
    ):  # fmt: skip
        ordered = sorted(seconds)
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            result.add(f"{row}: {name}", percentile(ordered, share) * 1000)
    result.ratios = {
        f"{name}: {row} / GET /health": (f"{row}: {name}", f"GET /health: {name}")
        for name in ("p50", "p99")
        for row in ("event to its answer", "event to the client")
    }
    result.notes.append(f"{events} events, {clients} connections of the one user")
    return result


async def measure(events: int, clients: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of GET /health, of an event to its answer, and to each client."""
    (key, key_sha), (publisher, publisher_sha) = new_key(USER_KEY), new_key(PUBLISHER_KEY)
    plain: list[float] = []
    to_reply: list[float] = []
    to_client: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with started(Path(folder), key_sha, publisher_sha) as (host, port):
            async with trio.open_nursery() as nursery:
                arrived, last = trio.open_memory_channel[tuple[str, float]](clients * 10)
                for _ in range(clients):
                    await nursery.start(follow, f"ws://{host}:{port}/ws", key, arrived)
                http = Http(await trio.open_tcp_stream(host, port), host)
                for n in range(events + WARM_UP):
                    begin = perf_counter()
                    await http.ask("GET", "/health")
                    plain.append(perf_counter() - begin)
                    body = json.dumps([{"event_id": f"e{n}", **EVENT}]).encode()
                    begin = perf_counter()
                    await http.ask(
                        "POST", "/api/v1/settlement/events", body,
                        f"Authorization: Bearer {publisher}",
                    )  # fmt: skip
                    to_reply.append(perf_counter() - begin)
                    for _ in range(clients):
                        event_id, at = await last.receive()
                        assert event_id == f"e{n}"
                        to_client.append(at - begin)
                nursery.cancel_scope.cancel()
    return plain[WARM_UP:], to_reply[WARM_UP:], to_client[WARM_UP * clients :]


async def follow(
    url: str,
    key: str,
    arrived: "trio.MemorySendChannel[tuple[str, float]]",
    task_status: trio.TaskStatus[None],
) -> None:
    async with trio_websocket.open_websocket_url(url) as socket:
        await socket.send_message(json.dumps({"type": "auth", "token": key}))
        while True:
            message = json.loads(await socket.get_message())
            at = perf_counter()
            if message["type"] == "auth.success":
                task_status.started()
            elif "event_id" in message:
                await arrived.send((message["event_id"], at))
