"""The engine on real servers that refuse, are paused, killed and replaced."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from support.engine_contract import A, B, append
from support.valkey import KINDS, ValkeyServer, valkey_cluster, valkey_server

from trio_feed.bus.engine import EMPTY, Engine, EngineFault, EntryId, make_engine
from trio_feed.errors import StartError
from trio_feed.settings import EngineSettings, Secret

SECRET = "hunter2hunter2"


def of(*urls: str, **more: Any) -> EngineSettings:
    more = {"timeout_s": 0.5, **more}
    return EngineSettings("valkey", urls, **more)


async def refused(settings: EngineSettings, cluster: bytes = b"one") -> str:
    """The one line."""
    with pytest.raises(StartError) as raised:
        async with make_engine(settings, cluster):
            raise AssertionError("it was let in")
    line = str(raised.value)
    assert "\n" not in line
    assert SECRET not in line
    return line


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    with valkey_server(request.param, requirepass=SECRET) as made:
        made.ask(
            "ACL", "SETUSER", "feed", "on", f">{SECRET}", "~tf:*", "resetchannels", "-@all",
            "+@read", "+@write", "+@scripting", "+@connection", "+info", "+role", "+memory|usage",
            "-@dangerous", "+info", "+role",
        )  # fmt: skip
        made.ask("ACL", "SETUSER", "nobody", "on", f">{SECRET}", "~*", "+@connection")
        yield made


async def test_who_may_not_in_is_told_in_one_line(server: ValkeyServer) -> None:
    with trio.fail_after(30):
        where = f"engine.urls: 127.0.0.1:{server.port}: "
        assert await refused(of(server.url)) == f"{where}it wants a password: engine.password"
        wrong = "engine.user or engine.password is wrong"
        assert await refused(of(server.url, password=Secret(SECRET + "x"))) == where + wrong
        assert await refused(of(server.url, user="x", password=Secret(SECRET))) == where + wrong
        line = await refused(of(server.url, user="nobody", password=Secret(SECRET)))
        assert re.match(f"{where}it refuses: .*permissions", line)


async def test_a_user_with_the_rights_of_the_page_is_let_in(server: ValkeyServer) -> None:
    with trio.fail_after(30):
        settings = of(server.url, user="feed", password=Secret(SECRET))
        async with make_engine(settings, b"one") as engine:
            await engine.append([append(EMPTY, (7, 1), checkpoint=True)])
            assert await engine.read({A: EMPTY}, wait_s=0.1, limit=1)
            assert len(await engine.since_checkpoint(A)) == 1
            await engine.trim(A, (7, 1))
            assert (await engine.bytes_of([A]))[A] > 0
            assert await engine.take_lease(A, "one", 5)
            assert await engine.renew_leases({A: "one"}, 5) == {A: True}
            await engine.drop_lease(A, "one")
            assert await engine.holders([A]) == {A: ""}
            await engine.put_node("n", b"x", 5)
            assert await engine.nodes() == {"n": b"x"}
            await engine.put_value("v", b"x")
            assert await engine.value("v") == b"x"
        other = of(server.url, user="feed", password=Secret(SECRET), prefix="other")
        assert "permission" in await refused(other)


async def test_two_clusters_on_one_engine(server: ValkeyServer) -> None:
    with trio.fail_after(30):
        settings = of(server.url, password=Secret(SECRET), prefix="two")
        async with make_engine(settings, b"shards 4"):
            line = await refused(settings, b"shards 8")
        assert line.startswith('engine.prefix: "two" is of another cluster there (shards 4, here')
        async with make_engine(settings, b"shards 4"):
            pass
        async with make_engine(of(server.url, password=Secret(SECRET), prefix="3"), b"shards 8"):
            pass


@asynccontextmanager
async def nobody_listens() -> AsyncIterator[str]:
    """And one who says nothing."""
    (silent,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    yield f"valkey://127.0.0.1:{silent.socket.getsockname()[1]}"
    await silent.aclose()


async def test_who_is_not_there_is_said(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("coredis")
    with trio.fail_after(30):
        async with nobody_listens() as url:
            assert (await refused(of(url))).endswith(": no answer in 0.5 s")
        line = await refused(of(url))
        assert line.endswith(": it cannot be reached; does it run, and are host and port right?")
        line = await refused(of("valkey://no-such-host.invalid", timeout_s=1.4))
        assert re.search("no such host|no answer", line)
        for url in ("sentinel://127.0.0.1:1", "valkeys://127.0.0.1:1"):
            assert "cannot be reached" in await refused(of(url))
    assert caplog.records == [], "what the library logs is in the line already"


@pytest.mark.parametrize("kind", KINDS)
async def test_what_its_configuration_lacks_is_said(kind: Any) -> None:
    with (
        trio.fail_after(60),
        valkey_server(kind, appendonly="no", maxmemory_policy="allkeys-lru") as server,
        valkey_server(kind, replicaof=f"127.0.0.1 {server.port}") as replica,
    ):
        line = await refused(of(server.url))
        assert "set appendonly yes" in line
        assert "set maxmemory-policy noeviction, not allkeys-lru" in line
        assert "it is a replica" in await refused(of(replica.url))
        server.ask("CONFIG", "SET", "appendonly", "yes")
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        while server.ask("ROLE")[2] == []:
            await trio.sleep(0.05)
        assert await refused(of(server.url)) == (
            "engine.urls: it takes writes that no replica has: set min-replicas-to-write 1"
        )
        server.ask("CONFIG", "SET", "min-replicas-to-write", "1")
        async with make_engine(of(server.url), b"one") as engine:
            assert await engine.problems() == []


async def eventually(engine: Engine, entry: tuple[EntryId, EntryId]) -> list[str]:
    """Append until it is in; returns why it failed before."""
    faults: list[str] = []
    while True:
        try:
            (last,) = await engine.append([append(*entry)])
        except EngineFault as fault:
            faults.append(str(fault))
            await trio.sleep(0.05)
        else:
            assert last == entry[1]
            return faults


async def fill_up(engine: Engine) -> tuple[EntryId, EntryId]:
    """Until there is a fault; the last entry, and the one that is not in."""
    last, number = EMPTY, 1
    with pytest.raises(EngineFault, match=r": it refuses: OOM "):  # noqa: PT012
        while True:
            await engine.append([append(last, (7, number), size=20_000)])
            last, number = (7, number), number + 1
    return last, (7, number)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_is_killed_and_comes_back(kind: Any) -> None:
    with trio.fail_after(60), valkey_server(kind, appendfsync="always") as server:
        async with make_engine(of(server.url), b"one") as engine:
            await engine.append([append(EMPTY, (7, 1), checkpoint=True)])
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    with pytest.raises(EngineFault, match="connection was lost"):
                        await engine.read({B: EMPTY}, wait_s=30, limit=1)

                nursery.start_soon(read)
                while "blocked_clients:1" not in server.ask("INFO", "clients"):
                    await trio.sleep(0.02)
                server.kill()
            with pytest.raises(EngineFault, match=f"127.0.0.1:{server.port}: it cannot be reached"):
                await engine.tail(A)
            server.start()
            # It has our entries, and none of our scripts.
            assert await eventually(engine, ((7, 1), (7, 2))) == []
            assert [entry.entry_id for entry in await engine.since_checkpoint(A)] == [
                (7, 1),
                (7, 2),
            ]
            assert (await engine.read({A: (7, 1)}, wait_s=5, limit=9)).keys() == {A}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_is_paused_costs_its_time_and_no_order(kind: Any) -> None:
    with trio.fail_after(60), valkey_server(kind) as server:
        async with make_engine(of(server.url), b"one") as engine:
            await engine.append([append(EMPTY, (7, 1))])
            server.pause(on=True)
            for _ in range(2):  # of which the second has to dial
                with pytest.raises(EngineFault, match=r"no answer in 0.5 s"):
                    await engine.append([append((7, 1), (7, 2))])
            with pytest.raises(EngineFault, match=r"no answer in 0.5 s"):
                await engine.read({B: EMPTY}, wait_s=0.05, limit=1)
            server.pause(on=False)
            # The first request is done when it goes on, though nobody waits for it any more.
            assert await eventually(engine, ((7, 1), (7, 2))) == []
            found = await engine.read({A: EMPTY}, wait_s=0, limit=9)
            assert [entry.entry_id for entry in found[A]] == [(7, 1), (7, 2)]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_full_server_refuses_and_loses_nothing(kind: Any) -> None:
    with trio.fail_after(60), valkey_server(kind, maxmemory="16mb") as server:
        async with make_engine(of(server.url, timeout_s=1.4), b"one") as engine:
            last, refused_one = await fill_up(engine)
            assert last > (7, 10)
            assert await engine.tail(A) == last
            await engine.trim(A, last)
            assert await eventually(engine, (last, refused_one)) == []


async def test_a_caller_that_is_cancelled_costs_the_others_nothing(server: ValkeyServer) -> None:
    with trio.fail_after(30):
        settings = of(server.url, password=Secret(SECRET), prefix="cancelled", timeout_s=1.4)
        async with make_engine(settings, b"one") as engine:
            for number in range(1, 50):
                body = str(number).encode()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(engine.put_value, "x", body)
                    with trio.CancelScope() as scope:
                        nursery.start_soon(engine.tail, A)
                        scope.cancel()
                        await engine.value("x")
                assert await engine.value("x") == body


async def test_no_connection_is_left(server: ValkeyServer) -> None:
    def connections() -> int:
        return sum("name=trio_feed" in line for line in server.ask("CLIENT", "LIST").splitlines())

    with trio.fail_after(30):
        async with make_engine(of(server.url, password=Secret(SECRET)), b"one") as engine:
            for _ in range(20):
                with trio.move_on_after(0.01):
                    await engine.read({"none.0": EMPTY}, wait_s=10, limit=1)
            async with trio.open_nursery() as nursery:
                for _ in range(9):
                    nursery.start_soon(read_nothing, engine)
            while connections() > 1 + 4:
                await trio.sleep(0.02)
        while connections() > 0:
            await trio.sleep(0.02)


async def read_nothing(engine: Engine) -> None:
    assert await engine.read({"none.0": EMPTY}, wait_s=0.1, limit=1) == {}


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a server, of a client, of their authority and of a stranger."""
    folder = tmp_path_factory.mktemp("papers")
    authority, stranger = trustme.CA(), trustme.CA()
    found = {}
    for name, issued in (
        ("server", authority.issue_cert("127.0.0.1")),
        ("client", authority.issue_cert("feed")),
    ):
        for what, blob in (
            ("key", issued.private_key_pem.bytes()),
            ("cert", b"".join(each.bytes() for each in issued.cert_chain_pems)),
        ):
            found[f"{name}_{what}"] = str(folder / f"{name}_{what}.pem")
            Path(found[f"{name}_{what}"]).write_bytes(blob)
    for name, ca in (("ca", authority), ("stranger", stranger)):
        found[name] = str(folder / f"{name}.pem")
        ca.cert_pem.write_to_path(found[name])
    (folder / "none.pem").write_text("x")
    found["none"] = str(folder / "none.pem")
    return found


async def test_tls(papers: dict[str, str]) -> None:
    words = {
        "tls_cert_file": papers["server_cert"],
        "tls_key_file": papers["server_key"],
        "tls_ca_cert_file": papers["ca"],
    }
    ours = {"tls_cert_file": papers["client_cert"], "tls_key_file": papers["client_key"]}
    with (
        trio.fail_after(60),
        valkey_server("redis", tls=True, requirepass=SECRET, **words) as server,
        valkey_server("redis") as plain,
    ):
        right = {"password": Secret(SECRET), "ca_file": papers["ca"], **ours, "timeout_s": 1.4}
        async with make_engine(of(server.url, **right), b"one") as engine:
            assert await engine.append([append(EMPTY, (7, 1))]) == [(7, 1)]
            assert await engine.read({A: EMPTY}, wait_s=1, limit=1)
            assert await engine.read({A: (7, 1)}, wait_s=0.05, limit=1) == {}
        stranger = await refused(of(server.url, **{**right, "ca_file": papers["stranger"]}))
        assert "its certificate does not verify: " in stranger
        other_name = server.url.replace("127.0.0.1", "localhost")
        assert "certificate does not verify" in await refused(of(other_name, **right))
        nobody = {**right, "tls_cert_file": "", "tls_key_file": ""}
        # The alert that says so may be lost behind the end of the connection.
        assert "a certificate of ours?" in await refused(of(server.url, **nobody))
        spoken = plain.url.replace("valkey:", "valkeys:")
        assert "no answer" in await refused(of(spoken, **right))  # it waits for a line to end
        silent = server.url.replace("valkeys:", "valkey:")
        assert "hangs up at once; does it want TLS" in await refused(of(silent))
        for key, path in (("ca_file", "none"), ("tls_cert_file", "none")):
            line = await refused(of(server.url, **{**right, key: papers[path]}))
            assert line == f"engine.{key}: is no certificate in PEM form, or has not its key"
        line = await refused(of(server.url, **{**right, "ca_file": "/nowhere.pem"}))
        assert line == "engine.ca_file: No such file or directory"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_death_of_a_primary(kind: Any) -> None:
    """Every entry is in the log, once and in its order; who writes goes on by what is there."""
    with trio.fail_after(150), valkey_cluster(kind, password=SECRET) as cluster:
        settings = of(*cluster.urls, password=Secret(SECRET), lease_s=3, timeout_s=0.5)
        async with make_engine(settings, b"one") as engine, make_engine(settings, b"one") as other:
            assert await engine.take_lease(A, "one", 60)
            told: list[EntryId] = [EMPTY]
            wanted = 0
            faults: list[str] = []

            async def write_more(number: int) -> None:
                """Until so many are in; after a loss again from where the log ends."""
                nonlocal wanted
                wanted += number
                while told[-1][1] < wanted:
                    entry = (7, told[-1][1] + 1)
                    try:
                        (last,) = await engine.append([append(told[-1], entry)])
                    except EngineFault as fault:
                        faults.append(str(fault))
                        await trio.sleep(0.02)
                    else:
                        told.append(last)

            await write_more(200)
            assert faults == []
            old = cluster.primary()
            assert old is not None
            old.kill()
            began = trio.current_time()
            await write_more(1)
            print(f"{kind}: {trio.current_time() - began:.2f} s to the next append")
            assert faults
            assert not any(SECRET in line or "\n" in line for line in faults)
            assert cluster.primary() not in (None, old)
            await write_more(200)
            found = await other.read({A: EMPTY}, wait_s=0, limit=10_000)
            assert [entry.entry_id for entry in found[A]] == [(7, n) for n in range(1, 402)]
            assert await other.holders([A]) == {A: "one"}
            # One sentinel is dead, another is silent: the third one knows.
            cluster.sentinels[0].kill()
            cluster.sentinels[1].pause(on=True)
            async with make_engine(settings, b"one") as third:
                assert await third.tail(A) == (7, 401)
            cluster.sentinels[1].pause(on=False)
            # The old one comes back as a replica, and is not taken for a primary.
            old.start()
            line = await refused(of(old.url, password=Secret(SECRET)))
            assert line.endswith("it is a replica, which takes nothing") or "replica" in line
        wrong = of(*[url.replace("mymaster", "nobody") for url in cluster.urls[1:]])
        assert "no primary is named 'nobody' there" in await refused(wrong)
