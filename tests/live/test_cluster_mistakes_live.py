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

from scripts.relay import open_relay
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
        database.sql(
            "CREATE ROLE reader LOGIN",
            f"CREATE ROLE locked LOGIN PASSWORD '{SECRET}'",
            *(f"CREATE DATABASE {name}" for name in ("closed", "newer", "empty")),
        )
        database.sql("ALTER DATABASE closed SET default_transaction_read_only = on")
        database.sql(
            "CREATE SCHEMA trio_feed",
            "CREATE TABLE trio_feed.versions (part text PRIMARY KEY, version integer NOT NULL)",
            "INSERT INTO trio_feed.versions VALUES ('store', 99)",
            database="newer",
        )
        rules = database.folder / "data" / "pg_hba.conf"
        rules.write_text(f"host all locked all scram-sha-256\n{rules.read_text()}")
        database.sql("SELECT pg_reload_conf()")
        for name, rights in (("no_commands", "~tf:* -@all +role +info"), ("no_keys", "~x:* +@all")):
            engine.ask("ACL", "SETUSER", name, "on", f">{SECRET}", *rights.split())
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
    assert SECRET not in text
    assert done.returncode == 2, text
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        ("engine.password=wrong", "engine.urls: {engine}: engine.user or engine.password is wrong"),
        ("engine.password=", "engine.urls: {engine}: it wants a password: engine.password"),
        ("engine.user=nobody", "engine.urls: {engine}: engine.user or engine.password is wrong"),
        (
            "engine.user=no_commands",
            "engine.urls: {engine}: our user may not run set, get, mget, pexpire, del, sadd,"
            " smembers, srem, xadd, xread, xrevrange, xtrim, memory usage, eval, evalsha: see the"
            " ACL in docs/engine.md",
        ),
        (
            "engine.user=no_keys",
            "engine.urls: {engine}: our user may not use keys of engine.prefix: see the ACL in"
            " docs/engine.md",
        ),
        (
            "engine.urls=['valkey://{engine}/99']",
            "engine.urls: {engine}: it refuses: DB index is out of range",
        ),
        (
            "engine.urls=['sentinel://{engine}/mymaster']",
            "engine.urls: {engine}: it is a server and no sentinel: write valkey:// in engine.urls",
        ),
        (
            "engine.urls=['valkeys://{engine}']",
            "engine.urls: {engine}: no answer in 1 s; does it speak TLS there?",
        ),
        (
            "engine.urls=['valkey://{database}']",
            "engine.urls: {database}: it hangs up at once; is it Valkey, and does it want TLS or a"
            " certificate of ours?",
        ),
        (
            "engine.urls=['valkey://127.0.0.1:1']",
            "engine.urls: 127.0.0.1:1: it cannot be reached; does it run, and are host and port"
            " right?",
        ),
        (
            "engine.urls=['valky://{engine}']",
            "engine.urls.0: is not a URL such as valkey://10.0.0.1:6379 or"
            " sentinel://10.0.0.1:26379/mymaster (--set)",
        ),
        (
            "engine.urls=['valkey://:s3cret@{engine}']",
            "engine.urls.0: user and password stand in engine.user and engine.password (--set)",
        ),
        ("engine.url=valkey://{engine}", "engine.url: unknown; did you mean urls? (--set)"),
        (
            "store.url=postgresql://locked:wrong@{database}/postgres",
            "store.url: postgresql://locked@{database}/postgres: it refuses the password; correct"
            " the password: in the URL, in PGPASSWORD or in ~/.pgpass",
        ),
        (
            "store.url=postgresql://nobody@{database}/postgres",
            "store.url: postgresql://nobody@{database}/postgres: there is no such user; create it:"
            " createuser --pwprompt USER",
        ),
        (
            "store.url=postgresql://feed:s3cret@{database}/nothing",
            "store.url: postgresql://feed@{database}/nothing: there is no such database; create it:"
            " createdb -O USER DATABASE",
        ),
        (
            "store.url=postgresql://locked:s3cret@{database}/empty",
            "store.url: postgresql://locked@{database}/empty: locked may not make the schema"
            " trio_feed; as owner: GRANT CREATE ON DATABASE empty TO locked",
        ),
        (
            "store.url=postgresql://feed@{database}/newer",
            "store.url: postgresql://feed@{database}/newer: the store there was written by a newer"
            " version of trio_feed (schema 99, this one reads up to 2); update, or name another"
            " database",
        ),
        (
            "store.url=postgresql://feed@{database}/postgres?sslmode=requird",
            "store.url: postgresql://feed@{database}/postgres: invalid sslmode value:"
            ' "requird"; correct the URL, or libpq\'s variables of the environment',
        ),
        (
            "store.url=postgresql://feed:s3cret@127.0.0.1:1/x",
            "store.url: postgresql://feed@127.0.0.1:1/x: nothing listens there; is the server"
            " running, and are host and port right?",
        ),
    ],
    ids=lambda text: text.partition("=")[2][:40] or "none",
)  # fmt: skip
async def test_a_wrong_setting(sets: str, says: str, servers: Servers) -> None:
    engine, database = f"127.0.0.1:{servers.engine.port}", f"127.0.0.1:{servers.database.port}"
    assert await ended(servers, sets.format(engine=engine, database=database)) == (
        f"trio_feed: {says.format(engine=engine, database=database)}"
    )


async def test_one_that_is_too_old(servers: Servers) -> None:
    """By what it says of itself: no older one is installed."""
    (line,) = [x for x in servers.engine.ask("INFO", "server").splitlines() if "redis_version" in x]
    now = line.partition(":")[2].encode()

    def older(data: bytes) -> bytes:
        return data.replace(b"\n" + now + b"\r", b"\n" + b"6.2.14"[: len(now)] + b"\r")

    with open_relay(servers.engine.port, older) as relay:
        line = await ended(servers, url=f"valkey://127.0.0.1:{relay.port}")
    assert line.startswith(f"trio_feed: engine.urls: 127.0.0.1:{relay.port}: its version is 6.2.1")
    assert line.endswith(": Valkey or Redis 7.0 or newer is needed")


async def test_one_without_a_command(servers: Servers) -> None:
    with valkey_server("redis", rename_command="EVALSHA x") as server:
        line = await ended(servers, "engine.password=", url=server.url)
    assert line.endswith(": it does not know evalsha: Valkey or Redis 7.0 is needed")


async def test_one_that_evicts(servers: Servers) -> None:
    servers.engine.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        line = await ended(servers)
    finally:
        servers.engine.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert line == (
        f"trio_feed: engine.urls: 127.0.0.1:{servers.engine.port}: it drops keys when it is full:"
        " set maxmemory-policy noeviction, not allkeys-lru"
    )


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
