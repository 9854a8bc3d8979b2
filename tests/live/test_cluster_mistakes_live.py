"""What is wrong round a node, as its user sees it: the process ends with one clear line, or waits
for what is merely away."""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

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


MISTAKE, AWAY = 2, 3
"""Exit codes."""


def words(servers: Servers, *more: str, url: str = "", database: str = "postgres") -> list[str]:
    """The command line of a node."""
    sets = [
        "node.name=one", "engine.kind=valkey", f"engine.urls=['{url or servers.engine.url}']",
        f"engine.password={SECRET}", f"store.url={servers.database.url(database)}",
        "server.port=0", "exchanges.binance_usdm.symbols=['BTCUSDT']",
        "exchanges.binance_usdm.connection.rest_url=http://127.0.0.1:1",
        "exchanges.binance_usdm.connection.websocket_url=ws://127.0.0.1:1", *more,
    ]  # fmt: skip
    assigned = [word for each in sets for word in ("--set", each)]
    return [sys.executable, "-m", "trio_feed", "run", "--config", "/dev/null", *assigned]


async def ended(
    servers: Servers, *more: str, url: str = "", database: str = "postgres", code: int = MISTAKE
) -> str:
    """The line with which a node ended, which waits for nothing."""
    command = words(servers, "service.start_wait_s=0", *more, url=url, database=database)
    with trio.fail_after(60):
        done = await trio.run_process(
            command, cwd=ROOT, check=False, capture_stdout=True, stderr=subprocess.STDOUT
        )
    text = done.stdout.decode()
    assert SECRET not in text
    assert done.returncode == code, text
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
    """What may be a server that is away has another exit code: it is worth starting again."""
    engine, database = f"127.0.0.1:{servers.engine.port}", f"127.0.0.1:{servers.database.port}"
    away = ("no answer", "hangs up at once", "cannot be reached", "nothing listens there")
    code = AWAY if any(each in says for each in away) else MISTAKE
    assert await ended(servers, sets.format(engine=engine, database=database), code=code) == (
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
    line = await ended(servers, f"node.roles=['{role}']", database="closed", code=AWAY)
    assert line.startswith("trio_feed: store.url: postgresql://")
    assert "read-only" in line


@asynccontextmanager
async def started(command: list[str]) -> AsyncIterator[tuple[trio.Process, list[dict[str, Any]]]]:
    """A process, and what it says; it is killed on the way out if it still runs."""
    lines: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process, [*command, "--set", "logging.format=json"],
            stdout=subprocess.PIPE, cwd=ROOT, check=False,
        )  # fmt: skip
        process = await nursery.start(start)

        async def read() -> None:
            rest = b""
            async for chunk in process.stdout:
                *whole, rest = (rest + chunk).split(b"\n")
                lines.extend(map(json.loads, whole))

        nursery.start_soon(read)
        try:
            with trio.fail_after(90):
                yield process, lines
        finally:
            if process.returncode is None:
                process.kill()


async def said(lines: list[dict[str, Any]], event: str) -> dict[str, Any]:
    while True:
        for line in lines:
            if line["event"] == event:
                return line
        await trio.sleep(0.02)


ALONE = ("engine.kind=memory", "engine.urls=[]", "engine.password=", "node.name=")
PUBLISHERS = f"settlement.publishers=[{{name='engine', sha256='{'ab' * 32}'}}]"


@pytest.mark.parametrize("roles", ["['ingest']", "['push']", "['ingest', 'push']"])
@pytest.mark.parametrize("what", ["database", "engine"])
async def test_a_node_waits_for_a_server_that_is_paused(
    what: str, roles: str, servers: Servers
) -> None:
    server: PostgresServer | ValkeyServer = getattr(servers, what)
    server.pause(on=True)
    try:
        async with started(words(servers, f"node.roles={roles}")) as (process, lines):
            problem = (await said(lines, "service.waiting"))["problem"]
            assert problem.startswith("store.url" if what == "database" else "engine.urls")
            assert "no answer" in problem
            server.pause(on=False)
            await said(lines, "service.ready")
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        server.pause(on=False)


@pytest.mark.parametrize("how", ["paused", "refuses", "dies"])
async def test_a_process_alone_waits_for_its_journal(how: str, servers: Servers) -> None:
    """Its candles are in another database, which is there."""
    with postgres_server() as journal:
        if how == "paused":
            journal.pause(on=True)
        else:
            journal.stop(signal.SIGINT if how == "refuses" else signal.SIGKILL)
        command = words(servers, *ALONE, f"settlement.url={journal.url()}", PUBLISHERS)
        async with started(command) as (process, lines):
            problem = (await said(lines, "service.waiting"))["problem"]
            assert problem.startswith("settlement.url: postgresql://")
            if how == "paused":
                journal.pause(on=False)
            else:
                await trio.to_thread.run_sync(journal.start)
            await said(lines, "service.ready")
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


async def test_a_process_waits_for_the_end_of_another_that_writes_there(servers: Servers) -> None:
    """A machine that lost its power is noticed after half a minute: until then its database is
    held."""
    servers.database.sql("DROP DATABASE IF EXISTS held", "CREATE DATABASE held")
    command = words(servers, *ALONE, database="held")
    async with started(command) as (first, lines):
        await said(lines, "service.ready")
        async with started(command) as (second, told):
            problem = (await said(told, "service.waiting"))["problem"]
            assert f"it is being written by another trio_feed ({first.pid}@" in problem
            first.send_signal(signal.SIGTERM)
            await said(told, "service.ready")
            second.send_signal(signal.SIGTERM)
            assert await second.wait() == 0
        assert await first.wait() == 0


async def test_a_start_that_waits_is_ended_by_a_signal(servers: Servers) -> None:
    command = words(servers, "store.url=postgresql://feed@127.0.0.1:1/x")
    async with started(command) as (process, lines):
        await said(lines, "service.waiting")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert [line["event"] for line in lines][-2:] == ["service.stopping", "service.stopped"]


async def test_a_start_that_waited_in_vain_says_why_and_that_it_may_be_tried_again(
    servers: Servers,
) -> None:
    command = words(servers, "store.url=postgresql://feed@127.0.0.1:1/x", "service.start_wait_s=2")
    async with started(command) as (process, lines):
        assert await process.wait() == AWAY
    assert (await said(lines, "service.waiting"))["left_s"] == 2


async def test_a_node_that_serves_waits_for_the_tables_of_one_that_feeds(servers: Servers) -> None:
    """Its user may not make them; in Kubernetes all start at once."""
    servers.database.sql("DROP DATABASE IF EXISTS fresh", "CREATE DATABASE fresh")
    servers.database.sql(
        "CREATE SCHEMA trio_feed",
        "GRANT USAGE ON SCHEMA trio_feed TO reader",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA trio_feed GRANT SELECT ON TABLES TO reader",
        database="fresh",
    )
    sets = ("engine.prefix=fresh", "engine.shards=1")
    reads = words(
        servers, *sets, "node.name=push", "node.roles=['push']",
        f"store.url={servers.database.url('fresh', user='reader')}",
    )  # fmt: skip
    async with started(reads) as (_, lines):
        assert "start a node that writes first" in (await said(lines, "service.waiting"))["problem"]
        feeds = words(servers, *sets, "node.roles=['ingest']", database="fresh")
        async with started(feeds) as (_, told):
            await said(told, "service.ready")
            await said(lines, "service.ready")
