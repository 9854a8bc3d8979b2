"""A push node with workers, against a real engine and database: killed in turn, nobody misses a
candle, and private events reach the users of any worker."""

import json
import os
import signal
import urllib.request
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import trio
import websockets.sync.client
from support.postgres import postgres_server
from support.private import balance, event
from support.valkey import valkey_server
from test_service_live import running, wait_ready
from test_workers_live import Follower, has, lines, more_of_all, status_of, until

from trio_feed.push.private.auth import PUBLISHER_KEY, USER_KEY, new_key

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no Unix sockets")
_LONG_S = 150.0
"""A bound for each wait: other tests may have the machine's cores."""


def _private(url: str, http: str, user: str, publisher: str) -> list[int]:
    """Offsets that clients of one user get, each at whichever worker, of three events."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(websockets.sync.client.connect(url, open_timeout=_LONG_S))
            for _ in range(4)
        ]
        for client in clients:
            client.recv(timeout=_LONG_S)
            client.send(json.dumps({"type": "auth", "token": user}))
            assert json.loads(client.recv(timeout=_LONG_S))["type"] == "auth.success"
        for number in range(3):
            body = json.dumps([event(f"e{number}", "balance.update", balance(), 1001)]).encode()
            head = {"Authorization": f"Bearer {publisher}"}
            request = urllib.request.Request(f"{http}/api/v1/settlement/events", body, head)
            with urllib.request.urlopen(request, timeout=_LONG_S) as answer:
                assert json.load(answer)["accepted"] == 1
        told = [json.loads(client.recv(timeout=_LONG_S)) for client in clients for _ in range(3)]
        assert {message["type"] for message in told} == {"balance.update"}
        return [message["offset"] for message in told]


async def test_clients_of_a_push_node_with_workers(tmp_path: Path) -> None:
    with postgres_server() as database, valkey_server() as engine:
        user, user_sha = new_key(USER_KEY)
        publisher, publisher_sha = new_key(PUBLISHER_KEY)
        common = (
            f"auth.api_keys=[{{name='u', user_id=1001, sha256='{user_sha}'}}]",
            f"settlement.publishers=[{{name='p', sha256='{publisher_sha}'}}]",
            f"store.url={database.url('postgres')}", "engine.kind=valkey",
            f"engine.urls=['{engine.url}']", "engine.shards=2", "simulator.trades_per_minute=600",
        )  # fmt: skip
        table = "exchanges.binance_usdm"
        little = (
            f"{table}.symbols=['BTCUSDT']", f"{table}.intervals=['1m']",
            f"{table}.trade_intervals=['1s']", f"{table}.rollup_intervals=[]",
            f"{table}.channels=['kline']", f"{table}.history_bars=5",
        )  # fmt: skip
        node = partial(running, tmp_path, *little)
        feeds = node(*common, "node.name=in", "node.roles=['ingest']")
        serves = node(*common, "node.name=out", "node.roles=['push']", "server.workers=2")
        async with feeds as ingest, serves as push:
            await ingest.event("service.ready")
            urls = (await push.event("service.ready"))["urls"]
            await wait_ready(push)
            clients = [Follower() for _ in range(6)]
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(client.run, urls["websocket"])
                await more_of_all(clients, 3)
                status = await status_of(urls["http"])
                assert len(status["clients"]) == 6
                victim = max(status["workers"], key=lambda worker: worker["clients"])
                os.kill(victim["pid"], signal.SIGKILL)
                await until(partial(has, push, "worker.ready", 3), _LONG_S)
                await more_of_all(clients, 4)
                for client in clients:
                    client.check()
                nursery.cancel_scope.cancel()
            told = partial(_private, urls["websocket"], urls["http"], user, publisher)
            assert await trio.to_thread.run_sync(told) == [1, 2, 3] * 4
            push.process.send_signal(signal.SIGTERM)
            with trio.fail_after(_LONG_S):
                assert await push.process.wait() == 0
        assert "killed by SIGKILL" in [line["problem"] for line in lines(push, "worker.ended")]
