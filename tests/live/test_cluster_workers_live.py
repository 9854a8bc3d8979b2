"""A push node with workers, against a real engine and database: killed in turn, nobody misses a
candle, and private events reach the users of any worker."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import trio
from support.postgres import postgres_server
from support.valkey import valkey_server
from test_service_live import running, wait_ready
from test_workers_live import Follower, has, lines, more_of_all, status_of, until

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no Unix sockets")


async def test_clients_of_a_push_node_with_workers(tmp_path: Path) -> None:
    with postgres_server() as database, valkey_server() as engine:
        common = (
            f"store.url={database.url('postgres')}", "engine.kind=valkey",
            f"engine.urls=['{engine.url}']", "engine.shards=2", "simulator.trades_per_minute=600",
        )  # fmt: skip
        node = partial(running, tmp_path)
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
                await until(partial(has, push, "worker.ready", 3))
                await more_of_all(clients, 4)
                for client in clients:
                    client.check()
                nursery.cancel_scope.cancel()
            push.process.send_signal(signal.SIGTERM)
            with trio.fail_after(10):
                assert await push.process.wait() == 0
        assert [line["reason"] for line in lines(push, "worker.ended")] == ["ended"]
