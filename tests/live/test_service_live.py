"""The service as its users start it: a process, sockets, signals."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme
import websockets.sync.client

ROOT = Path(__file__).parent.parent.parent
NODE = shutil.which("node")
WS = Path(__file__).parent / "js" / "node_modules" / "ws"


@attrs.define
class Running:
    process: trio.Process
    lines: list[dict[str, Any]]
    changed: trio.Event

    async def event(self, name: str) -> dict[str, Any]:
        while True:
            for line in self.lines:
                if line["event"] == name:
                    return line
            await self.changed.wait()


def command(tmp_path: Path, *more: str, config: Path | None = None) -> list[str]:
    chosen = ["server.port=0", f"store.path={tmp_path / 'candles.db'}", "logging.format=json"]
    sets = [word for assignment in (*chosen, *more) for word in ("--set", assignment)]
    files = ["config/default.toml", *([str(config)] if config else [])]
    configs = [word for file in files for word in ("--config", file)]
    return [sys.executable, "-m", "trio_feed", *configs, *sets]


@asynccontextmanager
async def running(tmp_path: Path, *more: str, config: Path | None = None) -> AsyncIterator[Running]:
    """A started service, ready; killed on the way out if it still runs."""
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process,
            command(tmp_path, *more, config=config),
            stdout=subprocess.PIPE,
            cwd=ROOT,
            check=False,
        )
        process = await nursery.start(start)
        service = Running(process, [], trio.Event())

        async def read() -> None:
            rest = b""
            async for chunk in process.stdout:
                *lines, rest = (rest + chunk).split(b"\n")
                service.lines += [json.loads(line) for line in lines]
                service.changed.set()
                service.changed = trio.Event()

        nursery.start_soon(read)
        try:
            with trio.fail_after(180):  # other tests may have the machine's cores
                await service.event("service.ready")
            yield service
        finally:
            if process.returncode is None:
                process.kill()
    assert service.process.returncode != 1, "the service crashed"


def refused(tmp_path: Path, *more: str) -> str:
    """What a service that cannot start says on stderr; it must exit with 2."""
    done = subprocess.run(
        command(tmp_path, *more), cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def most_stored(tmp_path: Path) -> int:
    """How many candles the longest series has in the file."""
    with closing(sqlite3.connect(tmp_path / "candles.db")) as db:
        rows = db.execute("SELECT count(*) FROM klines GROUP BY series_id").fetchall()
    return max(count for (count,) in rows)


async def test_a_client_that_we_did_not_write_gets_history_and_updates(tmp_path: Path) -> None:
    def talk(url: str) -> list[dict[str, Any]]:
        with websockets.sync.client.connect(url, open_timeout=10) as client:
            client.send(
                json.dumps({"type": "subscribe", "symbol": "BTCUSDT", "interval": "1m", "limit": 7})
            )
            got: list[dict[str, Any]] = []
            while len(got) < 6:
                message = json.loads(client.recv(timeout=10))
                # Who comes before the first message of the stream hears that it is live.
                if message["type"] != "stream_status" or message["data"]["status"] != "live":
                    got.append(message)
            return got

    async with running(tmp_path) as service:
        url = (await service.event("service.ready"))["urls"]["websocket"]
        await wait_ready(service)
        messages = await trio.to_thread.run_sync(talk, url)
        kinds = [message["type"] for message in messages]
        assert kinds[:3] == ["connection_success", "history_data", "subscription_confirmed"]
        assert set(kinds[3:]) == {"kline_data"}
        history = messages[1]["data"]["data"]
        assert len(history) == 7
        assert messages[1]["data"]["has_more"] is True
        assert messages[3]["data"]["data"]["time"] == history[-1]["time"] + 60
        rows = history + [m["data"]["data"] for m in messages[3:]]
        assert {row["source"] for row in rows} == {"simulated"}
        with trio.fail_after(60):  # what lies before comes page by page, of each series in turn
            while most_stored(tmp_path) < 1000:
                await trio.sleep(0.1)
        service.process.send_signal(signal.SIGTERM)
        with trio.fail_after(30):
            assert await service.process.wait() == 0
        assert most_stored(tmp_path) >= 1000


@pytest.mark.skipif(NODE is None or not WS.exists(), reason="node or npm's ws is not installed")
async def test_npm_ws_gets_history_and_updates(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        url = (await service.event("service.ready"))["urls"]["websocket"]
        await wait_ready(service)
        with trio.fail_after(60):
            done = await trio.run_process(
                [str(NODE), "client.js", url],
                cwd=Path(__file__).parent / "js",
                capture_stdout=True,
            )
        told = json.loads(done.stdout)
        assert told["history"] == 100
        assert told["updates"] >= 3
        assert told["interval"] == "m1"
        assert told["overlap"] is False


async def page(base: str, path: str) -> tuple[int, str]:
    """GET, as (status, body)."""
    host, _, port = base.removeprefix("http://").rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        ask = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        await stream.send_all(ask.encode())
        head, _, body = b"".join([chunk async for chunk in stream]).partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


async def wait_ready(service: Running) -> None:
    """/ready turns to 200 once every series has its history."""
    base = (await service.event("service.ready"))["urls"]["http"]
    with trio.fail_after(150):
        while (status := (await page(base, "/ready"))[0]) != 200:
            assert status == 503
            await trio.sleep(0.1)


async def test_http_pages(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        await wait_ready(service)
        base = (await service.event("service.ready"))["urls"]["http"]

        assert (await page(base, "/health"))[0] == 200
        status, body = await page(base, "/api/v1/klines?symbol=ETHUSDT&interval=1h&limit=3")
        assert (status, len(json.loads(body)["data"])) == (200, 3)
        status, body = await page(base, "/api/v1/klines?symbol=ETHUSDT&interval=7h")
        assert (status, json.loads(body)["code"]) == (400, 1001)
        status, body = await page(base, "/api/v1/status")
        told = json.loads(body)
        connections = told["venues"]["binance_usdm"]["connections"]
        assert {connection["status"] for connection in connections} == {"live"}
        candles = "btcusdt_perpetual@continuousKline_1m"  # tickers have a path of their own
        (connection,) = [each for each in connections if candles in each["streams"]]
        assert told["store"]["file_bytes"] > 0
        assert told["store"]["refused_rows"] == 0
        assert {"rows", "wal_bytes", "free_bytes", "pending_rows", "pruned_rows"} < set(
            told["store"]
        )
        assert connection["message_count"] > 0
        assert "trio_feed_messages_total" in (await page(base, "/metrics"))[1]
        assert "BTCUSDT" in (await page(base, "/api/v1/symbols"))[1]


async def test_a_restart_goes_on_where_the_last_run_ended(tmp_path: Path) -> None:
    for number in range(2):
        async with running(tmp_path) as service:
            await wait_ready(service)
            service.process.send_signal(signal.SIGINT)
            with trio.fail_after(30):
                assert await service.process.wait() == 0
                await service.event("service.stopped")
            filled = [line for line in service.lines if line["event"] == "backfill.filled"]
            candles = sum(line["candles"] for line in filled)
            assert candles > 1_500 if number == 0 else candles < 1000
    with closing(sqlite3.connect(tmp_path / "candles.db")) as db:
        opens = db.execute(
            "SELECT open_ms FROM klines JOIN series ON series.id = series_id"
            " WHERE symbol = 'BTCUSDT' AND interval = '1m' ORDER BY open_ms"
        ).fetchall()
    times = [row[0] for row in opens]
    assert times == list(range(times[0], times[-1] + 60_000, 60_000))


def frozen_client(url: str) -> socket.socket:
    """A client that subscribes to everything and never reads again."""
    host, _, port = url.removeprefix("ws://").removesuffix("/ws").rpartition(":")
    client = socket.create_connection((host, int(port)))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    client.sendall(
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert client.recv(4).startswith(b"HTTP")
    for interval in ("1s", "1m", "5m", "1h"):
        ask = {"type": "subscribe", "symbol": "BTCUSDT", "interval": interval, "limit": 1000}
        text = json.dumps(ask).encode()
        client.sendall(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)
    return client


async def test_a_frozen_client_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        await wait_ready(service)
        client = frozen_client((await service.event("service.ready"))["urls"]["websocket"])
        await trio.sleep(1)
        service.process.send_signal(signal.SIGTERM)
        with trio.fail_after(5 + 2):
            assert await service.process.wait() == 0
        client.close()


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        frozen = frozen_client((await service.event("service.ready"))["urls"]["websocket"])
        service.process.send_signal(signal.SIGTERM)
        await service.event("service.stopping")
        service.process.send_signal(signal.SIGTERM)
        with trio.fail_after(30):
            assert await service.process.wait() in (0, 128 + signal.SIGTERM, -signal.SIGTERM)
        frozen.close()


BROKEN = """
import sys
import trio
from trio_feed import service
from trio_feed.cli import main
from trio_feed.push.fanout.hub import Hub

up, urls = trio.Event(), service.urls

def found(*arguments):
    up.set()
    return urls(*arguments)

async def broken(hub):
    await up.wait()
    raise RuntimeError("once in a\\nblue moon")

service.urls, Hub.run = found, broken
sys.exit(main(sys.argv[1:]))
"""
"""A bug in the moment when the service is up."""


def test_a_bug_is_the_last_line_of_the_log_and_exit_code_1(tmp_path: Path) -> None:
    python, _, _, *arguments = command(tmp_path)
    done = subprocess.run(
        [python, "-c", BROKEN, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.endswith("trio_feed: bug: RuntimeError: once in a\nblue moon\n")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "service.failed"
    assert events[-1]["problem"].endswith(": once in a blue moon")


def test_what_a_user_can_mend_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(tmp_path, f"server.port={port}")
        assert f"server.port: cannot listen on 127.0.0.1:{port}" in line
    for host in ("203.0.113.1", "a..b", "x" * 64):
        line = refused(tmp_path, f"server.host={host}", "server.admin_host=127.0.0.1")
        assert f"server.host: cannot listen on {host}:0" in line
    line = refused(tmp_path, "server.admin_host=203.0.113.1")
    assert "server.admin_host: cannot listen on 203.0.113.1:0" in line
    (tmp_path / "file").write_text("")
    assert "store.path: " in refused(tmp_path, f"store.path={tmp_path / 'file' / 'x.db'}")
    assert "server.prt: unknown" in refused(tmp_path, "server.prt=1")
    assert "exchanges.nowhere: not a venue" in refused(tmp_path, "exchanges.nowhere.enabled=true")
    real = tmp_path / "real.db"
    done = subprocess.run(
        command(tmp_path, "--check"), cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert not real.exists()


def test_check_prints_settings_without_secrets(tmp_path: Path) -> None:
    name = "TRIO_FEED__EXCHANGES__BINANCE_USDM__CONNECTION__PROXY__"
    environ = os.environ | {name + "USERNAME": "me", name + "PASSWORD": "hunter2"}
    done = subprocess.run(
        [*command(tmp_path), "--check"],
        cwd=ROOT, capture_output=True, text=True, timeout=30, env=environ, check=True,
    )  # fmt: skip
    shown = json.loads(done.stdout)
    assert shown["exchanges"]["binance_usdm"]["connection"]["proxy"]["password"] == "***"
    assert "hunter2" not in done.stdout + done.stderr


async def test_sighup_takes_new_symbols_and_refuses_nonsense(tmp_path: Path) -> None:
    file = tmp_path / "more.toml"
    table = "[exchanges.binance_usdm]\nsymbols = "
    file.write_text(table + '["BTCUSDT", "ETHUSDT"]\n')
    async with running(tmp_path, config=file) as service:
        process = service.process
        file.write_text(table + '["BTCUSDT", "SOLUSDT"]\n')
        process.send_signal(signal.SIGHUP)
        with trio.fail_after(30):
            changed = await service.event("venue.changed")
            assert changed["symbols"] == ["BTCUSDT", "SOLUSDT"]
            file.write_text(table + "7\n")
            process.send_signal(signal.SIGHUP)
            refused = await service.event("settings.refused")
            assert "exchanges.binance_usdm.symbols" in refused["problem"]
            assert process.returncode is None
            process.terminate()
            assert await process.wait() == 0


async def upgraded_to(url: str) -> trio.SocketStream:
    """A raw client behind its 101, with updates coming."""
    host, _, port = url.removeprefix("ws://").removesuffix("/ws").rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    await stream.send_all(
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
    text = b'{"type": "subscribe", "symbol": "BTCUSDT", "interval": "1s", "limit": 1}'
    await stream.send_all(bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text)
    return stream


async def test_two_hundred_clients_are_told_before_the_exit(tmp_path: Path) -> None:
    """1 % of them are frozen; everybody else gets its own time to come back, and close 1012."""
    told: list[bytes] = []

    async def read_to_the_end(stream: trio.SocketStream) -> None:
        received = b""
        async with stream:
            async for chunk in stream:
                received += chunk
                if b"\x03\xf4service restart" in received[-40:]:
                    await stream.send_all(b"\x88\x82\0\0\0\0\x03\xf4")
        told.append(received)

    async with running(tmp_path) as service:
        await wait_ready(service)
        url = (await service.event("service.ready"))["urls"]["websocket"]
        frozen = [frozen_client(url) for _ in range(2)]
        async with trio.open_nursery() as nursery:
            for _ in range(198):
                nursery.start_soon(read_to_the_end, await upgraded_to(url))
            began = trio.current_time()
            service.process.send_signal(signal.SIGTERM)
            with trio.fail_after(5 + 2):
                assert await service.process.wait() == 0
            took_s = trio.current_time() - began
        for client in frozen:
            client.close()
    print(f"200 clients, 2 frozen: exit after {took_s:.2f} s")
    waits = {received.rpartition(b'"after_ms":')[2].partition(b"}")[0] for received in told}
    assert len(told) == 198
    assert all(b"\x03\xf4service restart" in received for received in told)
    assert len(waits) > 100  # not all at once


async def renewed_by_a_signal(
    service: Running, authority: trustme.CA, tmp_path: Path, url: str, context: ssl.SSLContext
) -> None:
    host, port = url.removeprefix("wss://").removesuffix("/ws").rsplit(":", 1)

    def serial() -> str:
        with (
            socket.create_connection((host, int(port)), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname=host) as stream,
        ):
            return str(stream.getpeercert()["serialNumber"])

    old = await trio.to_thread.run_sync(serial)
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    (tmp_path / "key.pem").write_text("half written")
    service.process.send_signal(signal.SIGHUP)
    with trio.fail_after(30):
        assert "tls_cert_file" in (await service.event("settings.refused"))["problem"]
    assert await trio.to_thread.run_sync(serial) == old
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    service.process.send_signal(signal.SIGHUP)
    with trio.fail_after(30):
        assert (await service.event("settings.applied"))["need_restart"] == []
    assert await trio.to_thread.run_sync(serial) != old


async def test_tls_by_settings(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    files = [f"server.tls_{n}_file={tmp_path / n}.pem" for n in ("cert", "key")]

    def first_message(url: str) -> str:
        with websockets.sync.client.connect(url, ssl=context, open_timeout=10) as client:
            return str(json.loads(client.recv(timeout=10))["type"])

    async with running(tmp_path, *files, "server.admin_host=127.0.0.1") as service:
        urls = (await service.event("service.ready"))["urls"]
        assert urls["websocket"].startswith("wss://")
        kind = await trio.to_thread.run_sync(first_message, urls["websocket"])
        assert kind == "connection_success"
        assert (await page(urls["admin"], "/health"))[0] == 200
        assert "trio_feed_clients" in (await page(urls["admin"], "/metrics"))[1]
        await renewed_by_a_signal(service, authority, tmp_path, urls["websocket"], context)
    (tmp_path / "key.pem").write_text("no key")
    assert "server.tls_cert_file: " in refused(tmp_path, *files)
