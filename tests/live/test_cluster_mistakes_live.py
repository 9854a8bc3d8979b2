"""What is wrong round a node, as its user sees it: the process ends with one clear line."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from attrs import define
from support.postgres import PostgresServer, postgres_server
from support.valkey import ValkeyServer, valkey_server

from trio_feed.bus import wire

ROOT = Path(__file__).parent.parent.parent
SECRET = "s3cret"


@define
class Servers:
    database: PostgresServer
    engine: ValkeyServer


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        database = stack.enter_context(postgres_server())
        engine = stack.enter_context(valkey_server(None, requirepass=SECRET))
        database.sql("CREATE ROLE reader LOGIN", "CREATE DATABASE closed")
        database.sql("ALTER DATABASE closed SET default_transaction_read_only = on")
        yield Servers(database, engine)


async def ended(servers: Servers, *more: str, url: str = "", database: str = "postgres") -> str:
    """The line with which a node ended."""
    sets = [
        "node.name=one", "engine.kind=valkey", f"engine.urls=['{url or servers.engine.url}']",
        f"engine.password={SECRET}", f"store.url={servers.database.url(database)}",
        "server.port=0", "exchanges.binance_usdm.symbols=['BTCUSDT']",
        "exchanges.binance_usdm.connection.rest_url=http://127.0.0.1:1",
        "exchanges.binance_usdm.connection.websocket_url=ws://127.0.0.1:1", *more,
    ]  # fmt: skip
    words = [word for each in sets for word in ("--set", each)]
    with trio.fail_after(60):
        done = await trio.run_process(
            [sys.executable, "-m", "trio_feed", "run", "--config", "/dev/null", *words],
            cwd=ROOT, check=False, capture_stdout=True, stderr=subprocess.STDOUT,
        )  # fmt: skip
    text = done.stdout.decode()
    assert SECRET not in text.replace("s3cret2", "")
    assert done.returncode == 2, text
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


async def test_a_wrong_password(servers: Servers) -> None:
    line = await ended(servers, "engine.password=s3cret2")
    assert line.startswith("trio_feed: engine.urls: 127.0.0.1:")
    assert line.endswith("engine.user or engine.password is wrong")


async def test_two_clusters_under_one_prefix(servers: Servers) -> None:
    said = f"wire {wire.VERSION}, 4 shards of each venue"
    servers.engine.ask("SET", "twice:cluster", said)
    line = await ended(servers, "engine.prefix=twice", "engine.shards=8")
    assert line == (
        f'trio_feed: engine.prefix: "twice" is of another cluster there ({said}, here'
        f" {said.replace('4', '8')}); give this one another prefix"
    )


async def test_a_node_with_another_database(servers: Servers) -> None:
    said = f"wire {wire.VERSION}, 4 shards of each venue, database 0123456789abcdef"
    servers.engine.ask("SET", "elsewhere:cluster", said)
    for roles in ("['ingest', 'push']", "['push']"):
        line = await ended(servers, "engine.prefix=elsewhere", f"node.roles={roles}")
        begin = 'trio_feed: engine.prefix: "elsewhere" is of a cluster with another database there'
        assert line.startswith(f"{begin} ({said}, here wire {wire.VERSION}, 4 shards of each venue")
        assert line.endswith("give this node the same store.url, or another prefix")


async def test_a_node_of_another_wire_version(servers: Servers) -> None:
    servers.engine.ask("SET", "older:cluster", "wire 0, 4 shards of each venue")
    line = await ended(servers, "engine.prefix=older")
    assert "engine.prefix" in line
    assert "(wire 0, 4 shards of each venue, here wire" in line


async def test_an_engine_that_keeps_nothing(servers: Servers) -> None:
    servers.engine.ask("CONFIG", "SET", "appendonly", "no")
    try:
        line = await ended(servers)
    finally:
        servers.engine.ask("CONFIG", "SET", "appendonly", "yes")
    assert line.startswith("trio_feed: engine.urls: ")
    assert "set appendonly yes" in line


@pytest.mark.parametrize("role", ["ingest", "push"])
async def test_a_database_that_takes_nothing(servers: Servers, role: str) -> None:
    line = await ended(servers, f"node.roles=['{role}']", database="closed")
    assert line.startswith("trio_feed: store.url: postgresql://")
    assert "read-only" in line
