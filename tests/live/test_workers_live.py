"""Workers as processes: killed, paused, drained, orphaned; their clients miss nothing."""

import json
import os
import signal
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import websockets.sync.client
from test_service_live import Running, refused, running, wait_ready

from trio_feed.client import CandleUpdate, ConnectionChange, ConnectionState, open_client
from trio_feed.dialects.outside import Signed
from trio_feed.push.private.auth import USER_KEY, new_key
from trio_feed.workers import frames, questions
from trio_feed.workers.pipe import Pipe
from trio_feed.workers.questions import PassAnswer
from trio_feed.workers.remote_outside import RemoteLines

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no Unix sockets")
TWO = ("server.workers=2", "simulator.trades_per_minute=600")


@attrs.define
class Follower:
    """A client that goes on wherever it is let in, and what it was told."""

    opens: list[int] = attrs.field(factory=list)
    changes: list[ConnectionChange] = attrs.field(factory=list)
    changed: trio.Event = attrs.field(factory=trio.Event)

    async def run(self, url: str) -> None:
        async with open_client(url) as client:
            await client.subscribe("BTCUSDT", "1s", history=1)
            async for message in client:
                if isinstance(message, CandleUpdate) and message.final:
                    self.opens.append(message.kline.open_ms)
                elif isinstance(message, ConnectionChange):
                    self.changes.append(message)
                self.changed.set()
                self.changed = trio.Event()

    async def more(self, count: int) -> None:
        wanted = len(self.opens) + count
        while len(self.opens) < wanted:
            await self.changed.wait()

    def check(self) -> None:
        assert self.opens == list(range(self.opens[0], self.opens[-1] + 1000, 1000))


async def status_of(url: str) -> dict[str, Any]:
    def get() -> Any:
        with urllib.request.urlopen(f"{url}/api/v1/status", timeout=60) as answer:
            return json.load(answer)

    found: dict[str, Any] = await trio.to_thread.run_sync(get)
    return found


def alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def gone(pids: Sequence[int]) -> bool:
    return not any(map(alive, pids))


def has(service: Running, name: str, count: int) -> bool:
    return len(lines(service, name)) >= count


async def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    with trio.fail_after(within_s):
        while not true():
            await trio.sleep(0.05)


async def more_of_all(clients: list[Follower], count: int) -> None:
    with trio.fail_after(150):
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.more, count)


def lines(service: Running, name: str) -> list[dict[str, Any]]:
    return [line for line in service.lines if line["event"] == name]


async def test_workers_that_die_or_stand_still_are_replaced_and_nobody_misses_a_candle(
    tmp_path: Path,
) -> None:
    clients = [Follower() for _ in range(6)]
    async with running(tmp_path, *TWO) as service:
        urls = (await service.event("service.ready"))["urls"]
        await wait_ready(service)
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.run, urls["websocket"])
            await more_of_all(clients, 2)
            status = await status_of(urls["http"])
            assert len(status["clients"]) == 6
            for number, end in enumerate((signal.SIGKILL, signal.SIGSTOP), 1):
                workers = (await status_of(urls["http"]))["workers"]
                victim = max(workers, key=lambda worker: worker["clients"])
                os.kill(victim["pid"], end)
                await until(partial(has, service, "worker.ready", 2 + number))
                await until(partial(gone, [victim["pid"]]))
                await more_of_all(clients, 3)
            ends = lines(service, "worker.ended")
            assert [line["reason"] for line in ends] == ["ended", "silent"]
            assert ends[0]["problem"] == "killed by SIGKILL"
            for client in clients:
                client.check()
            changes = [change for client in clients for change in client.changes]
            resumed = [each for each in changes if each.state is ConnectionState.RESUMED]
            assert resumed
            assert all(each.recovered for each in resumed)
            pids = [worker["pid"] for worker in (await status_of(urls["http"]))["workers"]]
            nursery.cancel_scope.cancel()
        service.process.send_signal(signal.SIGTERM)
        with trio.fail_after(10):
            assert await service.process.wait() == 0
        await until(partial(gone, pids))
    assert not lines(service, "service.failed")


async def test_without_its_parent_a_worker_ends(tmp_path: Path) -> None:
    async with running(tmp_path, *TWO) as service:
        urls = (await service.event("service.ready"))["urls"]
        pids = [worker["pid"] for worker in (await status_of(urls["http"]))["workers"]]
        assert all(map(alive, pids))
        service.process.kill()
        await service.process.wait()
        await until(partial(gone, pids), 10)


async def test_a_signal_of_a_terminal_reaches_the_parent_only(tmp_path: Path) -> None:
    """Ctrl-C, and a service manager that signals the whole group: the parent drains its workers, so
    clients hear when to come back."""
    async with running(tmp_path, *TWO) as service:
        urls = (await service.event("service.ready"))["urls"]
        workers = (await status_of(urls["http"]))["workers"]

        def talk() -> list[Any]:
            with websockets.sync.client.connect(urls["websocket"], open_timeout=10) as client:
                for worker in workers:
                    os.kill(worker["pid"], signal.SIGTERM)
                    os.kill(worker["pid"], signal.SIGINT)
                client.send('{"type": "ping", "id": 1}')
                told = [json.loads(client.recv(timeout=10)) for _ in range(2)]
                service.process.send_signal(signal.SIGTERM)
                told.append(json.loads(client.recv(timeout=10)))
                return told

        told = await trio.to_thread.run_sync(talk)
        assert [message["type"] for message in told] == ["connection_success", "pong", "reconnect"]
        with trio.fail_after(10):
            assert await service.process.wait() == 0


async def test_settings_reach_all_workers(tmp_path: Path) -> None:
    """SIGHUP: a key that is gone ends its clients at every worker, a new one is let in."""
    old, old_sha = new_key(USER_KEY)
    new, new_sha = new_key(USER_KEY)
    config = tmp_path / "keys.toml"

    def write(name: str, sha: str) -> None:
        config.write_text(
            f"[auth]\napi_keys = [{{name = '{name}', user_id = 7, sha256 = '{sha}'}}]\n"
        )

    def talk(url: str, service: Running) -> None:
        with websockets.sync.client.connect(url) as one, websockets.sync.client.connect(url) as two:
            for client in (one, two):
                client.recv(timeout=10)
                client.send(json.dumps({"type": "auth", "token": old}))
                assert json.loads(client.recv(timeout=10))["type"] == "auth.success"
            write("new", new_sha)
            service.process.send_signal(signal.SIGHUP)
            for client in (one, two):
                last = json.loads(client.recv(timeout=10))
                assert "revoked" in last["message"]
        for _ in range(6):
            with websockets.sync.client.connect(url) as client:
                client.recv(timeout=10)
                client.send(json.dumps({"type": "auth", "token": new}))
                assert json.loads(client.recv(timeout=10))["type"] == "auth.success"

    write("old", old_sha)
    async with running(tmp_path, *TWO, config=config) as service:
        url = (await service.event("service.ready"))["urls"]["websocket"]
        await trio.to_thread.run_sync(talk, url, service)
        assert {line["worker"] for line in lines(service, "client.authenticated")} <= {1, 2}


async def test_as_many_signed_answers_as_there_may_be_at_a_time() -> None:
    """Of the largest size, more together than may wait for a worker: nobody is lost."""
    body, most, got = os.urandom(16 * 2**20), 64 * 2**20, list[int]()
    ends = [trio.SocketStream(each) for each in trio.socket.socketpair()]

    async def answer(_what: str, _body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return questions.encode(PassAnswer("answered", status=200, body=body))

    parent, worker = (
        Pipe(end, kind, print, answer, max_bytes=most, stall_s=5)
        for end, kind in zip(ends, (frames.ToParent, frames.ToWorker), strict=True)
    )

    async def ask() -> None:
        answered = await RemoteLines(worker).outside("v").ask(Signed("GET", b"/x"), 1)
        assert answered.body == body
        got.append(parent.bytes_waiting)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parent.run)
            nursery.start_soon(worker.run)
            async with trio.open_nursery() as asking:
                for _ in range(8):
                    asking.start_soon(ask)
            nursery.cancel_scope.cancel()
    assert len(got) == 8


async def test_a_port_that_is_taken_is_said_at_the_start(tmp_path: Path) -> None:
    async with running(tmp_path, *TWO) as service:
        address = (await service.event("service.ready"))["urls"]["http"]
        port = address.rpartition(":")[2]
        problem = await trio.to_thread.run_sync(
            lambda: refused(tmp_path, "store.path=:memory:", *TWO, f"server.port={port}")
        )
        assert "server.port: cannot listen" in problem
        assert "is it running already" in problem
