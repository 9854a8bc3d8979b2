"""What a start waits for, how long, and what ends it meanwhile."""

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import psycopg
import pytest
import structlog
import trio
from attrs import evolve
from coredis.parser import Parser
from psycopg import errors
from support.cluster import SYMBOLS, VENUE, RunningCluster, open_cluster, settings_of
from support.hangup import until_logged
from support.memory import MemoryNetwork
from support.stack import settings_for_tests, virtual_now_ms
from test_cluster import until_ready

from trio_feed import cli, service
from trio_feed.bus.engine import Engine
from trio_feed.bus.engine.memory import NO_FAULT, MemoryEngine
from trio_feed.bus.engine.valkey.faults import fault
from trio_feed.environment import Environment, real_environment
from trio_feed.errors import ServerAway, StartError
from trio_feed.notify import Manager
from trio_feed.settings import EngineSettings, Secret, Settings
from trio_feed.start_wait import StartWait
from trio_feed.store import MemoryDatabase
from trio_feed.store.postgres.connection import Overdue
from trio_feed.store.postgres.faults import explain, is_away

ROLES = ["['ingest']", "['push']", "['ingest', 'push']"]
LIMIT_S = 60.0


class Server:
    """Away until a time; ``problem`` is what it says."""

    def __init__(self, until_s: float) -> None:
        self.until_s, self.asked = until_s, 0
        self.problem = "store.url: x: nothing listens there"

    async def ask(self) -> str:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self.until_s:
            raise ServerAway(self.problem)
        return "there"


async def test_what_comes_back_is_waited_for_and_said_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[str] = []
    server = Server(trio.current_time() + 30)
    with structlog.testing.capture_logs() as lines:
        assert await StartWait(LIMIT_S, told.append).until_there(server.ask) == "there"
    assert [(line["event"], line["problem"]) for line in lines] == [
        ("service.waiting", server.problem),
        ("service.waited", server.problem),
    ]
    assert lines[0]["left_s"] == LIMIT_S
    assert told == [f"STATUS=waits for a server: {server.problem}"]
    assert 30 / 5 < server.asked < 20


async def test_what_was_never_away_says_nothing(autojump_clock: trio.testing.MockClock) -> None:
    with structlog.testing.capture_logs() as lines:
        assert await StartWait(0.0).until_there(Server(0).ask) == "there"
    assert lines == []


async def test_another_problem_is_said(autojump_clock: trio.testing.MockClock) -> None:
    server = Server(trio.current_time() + 20)

    async def ask() -> str:
        if trio.current_time() > 10:
            server.problem = "store.url: x: the server is starting"
        return await server.ask()

    with structlog.testing.capture_logs() as lines:
        await StartWait(LIMIT_S).until_there(ask)
    said = [line["problem"] for line in lines if line["event"] == "service.waiting"]
    assert said == ["store.url: x: nothing listens there", "store.url: x: the server is starting"]


@pytest.mark.parametrize("limit_s", [0.0, 7.0, LIMIT_S])
async def test_it_ends_when_the_time_is_up(
    limit_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    with pytest.raises(ServerAway, match="nothing listens there"):
        await StartWait(limit_s).until_there(Server(1e9).ask)
    assert trio.current_time() - began == pytest.approx(limit_s)


async def test_the_time_is_that_of_all_servers_together(
    autojump_clock: trio.testing.MockClock,
) -> None:
    began, wait = trio.current_time(), StartWait(LIMIT_S)
    await wait.until_there(Server(began + 40).ask)
    with pytest.raises(ServerAway):
        await wait.until_there(Server(began + 80).ask)
    assert trio.current_time() - began == pytest.approx(LIMIT_S)


async def test_a_mistake_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async def ask() -> None:
        await trio.lowlevel.checkpoint()
        raise StartError("store.url: x: it refuses the password")

    began = trio.current_time()
    with pytest.raises(StartError) as caught:
        await StartWait(LIMIT_S).until_there(ask)
    assert trio.current_time() == began
    assert not isinstance(caught.value, ServerAway)


def set_away(cluster: RunningCluster, what: str, *, away: bool) -> None:
    if what == "database":
        cluster.database.away = away
    elif away:
        cluster.server.stop()
    else:
        cluster.server.start()


@pytest.mark.parametrize("what", ["database", "engine"])
@pytest.mark.parametrize("roles", ROLES)
async def test_a_node_waits_for_database_and_engine_alike(
    what: str, roles: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_cluster() as cluster, trio.open_nursery() as nursery:
        set_away(cluster, what, away=True)
        with structlog.testing.capture_logs() as lines:
            nursery.start_soon(cluster.start, "one", roles)
            await trio.sleep(LIMIT_S / 2)
            assert not cluster.nodes
            set_away(cluster, what, away=False)
            await trio.sleep(20)
            if "ingest" in roles:
                await until_ready(cluster, "one")
            assert "one" in cluster.nodes
        (said,) = [line for line in lines if line["event"] == "service.waiting"]
        key = {"database": "store.url", "engine": "engine.urls"}[what]
        assert said["problem"].startswith(f"{key}: ")


@pytest.mark.parametrize("what", ["database", "engine"])
@pytest.mark.parametrize("roles", ROLES)
async def test_a_node_ends_when_they_stay_away(
    what: str, roles: str, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ServerAway), flatten_subgroups=True):
        async with open_cluster() as cluster:
            set_away(cluster, what, away=True)
            began = trio.current_time()
            try:
                await cluster.start("one", roles)
            finally:
                assert LIMIT_S <= trio.current_time() - began < LIMIT_S + 3


@contextmanager
def no_more(channel: trio.MemoryReceiveChannel[int], *_: int) -> Iterator[AsyncIterator[int]]:
    yield channel


@pytest.mark.parametrize("after_s", [0.0, 20.0])
async def test_a_signal_ends_a_start_at_once(
    after_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    """Also process 1 of a container hears it, for which the kernel does nothing by itself."""
    send, receive = trio.open_memory_channel[int](1)
    network, told = MemoryNetwork(), list[str]()
    environment = evolve(
        real_environment(),
        dial=network.dial,
        listen=network.listen,
        now_ms=virtual_now_ms,
        manager=Manager(told.append),
        signals=partial(no_more, receive),
    )
    settings = settings_for_tests(
        "engine.kind=valkey", "engine.urls=['valkey://engine:6379']", "node.name=one",
        "store.url=postgresql://database/feed", ".symbols=['BTCUSDT']",
    )  # fmt: skip
    began = trio.current_time()
    with structlog.testing.capture_logs() as lines:
        async with send, trio.open_nursery() as nursery:
            nursery.start_soon(run_away, settings, environment)
            await trio.sleep(after_s)
            await send.send(signal.SIGTERM)
    assert trio.current_time() - began < after_s + 2
    said = [line["event"] for line in lines]
    assert said[-2:] == ["service.stopping", "service.stopped"]
    assert "STOPPING=1" in told


async def run_away(settings: Settings, environment: Environment) -> None:
    """A service that finds no database."""
    async with open_cluster() as cluster:

        @asynccontextmanager
        async def engine(_settings: EngineSettings, _cluster: bytes) -> AsyncIterator[Engine]:
            await trio.lowlevel.checkpoint()
            yield MemoryEngine(cluster.server, 1.0, lambda _call: NO_FAULT)

        await service.run(settings, environment, engine=engine, database=MemoryDatabase(away=True))


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
async def test_a_sighup_during_a_start_is_carried_out_after_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It would end the process, which a service manager takes for an end in order."""
    new = settings_of("one", "['ingest']", f".symbols={list(SYMBOLS[:1])}")
    async with open_cluster() as cluster, trio.open_nursery() as nursery:
        cluster.database.away = True
        with structlog.testing.capture_logs() as lines:
            start = partial(cluster.start, "one", "['ingest']", reload=lambda: new)
            nursery.start_soon(start)
            await trio.sleep(10)
            signal.raise_signal(signal.SIGHUP)
            await trio.sleep(10)
            cluster.database.away = False
            await trio.sleep(20)
            await until_logged(autojump_clock, lines, "settings.applied")
        events = [line["event"] for line in lines]
        assert events.index("service.ready") < events.index("settings.applied")
        assert cluster.nodes["one"].ready.venues.exchanges[VENUE].symbols == SYMBOLS[:1]


AWAY = [
    Overdue("it took too long"),
    errors.QueryCanceled("canceling statement due to statement timeout"),
    errors.AdminShutdown("terminating connection due to administrator command"),
    errors.CannotConnectNow("the database system is starting up"),
    errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"),
    errors.TooManyConnections("sorry, too many clients already"),
    errors.DiskFull("could not extend file"),
    errors.LockNotAvailable("canceling statement due to lock timeout"),
    *map(
        psycopg.OperationalError,
        (
            'connection to server at "127.0.0.1", port 1 failed: Connection refused',
            "connection failed: timeout expired",
            'connection to server on socket "/x" failed: No such file or directory',
            "failed to resolve host 'db': [Errno -2] Name or service not known",
            "connection failed: FATAL:  the database system is in recovery mode",
            "connection failed: FATAL:  sorry, too many clients already",
            "connection failed: session is read-only",
            "connection failed: server closed the connection unexpectedly",
            "SSL SYSCALL error: EOF detected",
        ),
    ),
]
MISTAKES = [
    errors.InvalidPassword("password authentication failed"),
    errors.InvalidCatalogName('database "x" does not exist'),
    errors.InsufficientPrivilege("permission denied for schema trio_feed"),
    errors.UndefinedTable('relation "klines" does not exist'),
    psycopg.ProgrammingError('invalid URI query parameter: "x"'),
    *map(
        psycopg.OperationalError,
        (
            'connection failed: FATAL:  password authentication failed for user "feed"',
            "connection failed: fe_sendauth: no password supplied",
            'connection failed: FATAL:  database "x" does not exist',
            'connection failed: FATAL:  role "x" does not exist',
            "connection failed: FATAL:  no pg_hba.conf entry for host",
            "connection failed: server does not support SSL, but SSL was required",
            "connection failed: SSL error: certificate verify failed",
            'connection failed: invalid sslmode value: "requird"',
            "connection failed: FATAL:  something that nobody has met yet",
            "one failed: Connection refused\ntwo failed: FATAL:  password authentication failed",
        ),
    ),
]


@pytest.mark.parametrize("error", AWAY, ids=str)
def test_a_database_that_may_come_back(error: psycopg.Error) -> None:
    assert is_away(error), explain(error)


@pytest.mark.parametrize("error", MISTAKES, ids=str)
def test_a_database_that_wants_somebody_to_mend_something(error: psycopg.Error) -> None:
    assert not is_away(error), explain(error)


@pytest.mark.parametrize(("error", "code"), [(ServerAway("x: away"), 3), (StartError("x: no"), 2)])
def test_the_exit_code_says_whether_to_start_again(
    error: StartError,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise ExceptionGroup("", [error])

    monkeypatch.setattr(cli._group, "main", lambda *_a, **_k: refuse())
    assert cli.main(["run"]) == code
    assert capsys.readouterr().err == f"trio_feed: {error}\n"


def said_by(error: str) -> tuple[str, bool]:
    """As a server's answer becomes a fault."""
    said = fault("x:1", Parser().parse_error(error), Secret(""))
    return str(said), said.is_away


@pytest.mark.parametrize(
    ("answer", "is_gone"),
    [
        ("LOADING Redis is loading the dataset in memory", True),
        ("READONLY You can't write against a read only replica.", True),
        ("NOREPLICAS Not enough good replicas to write.", True),
        ("MISCONF Errors writing to the AOF file: No space left on device", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", True),
        ("ERR max number of clients reached", True),
        ("WRONGPASS invalid username-password pair or user is disabled.", False),
        ("NOAUTH Authentication required.", False),
        ("NOPERM User x has no permissions to run the 'set' command", False),
        ("ERR unknown command 'HELLO'", False),
        ("ERR DB index is out of range", False),
    ],
)
def test_an_engine_that_may_come_back(answer: str, is_gone: bool) -> None:
    assert said_by(answer)[1] is is_gone, said_by(answer)[0]
