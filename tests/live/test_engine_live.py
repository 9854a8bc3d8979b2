"""The engine on real servers that let us in, or say in one line why not."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from attrs import evolve
from support.engine_contract import A, B, append
from support.valkey import KINDS, SECRET, TlsFiles, ValkeyServer, engine_of, refused, valkey_server

from trio_feed.bus.engine import EMPTY, EngineFault, make_engine
from trio_feed.bus.engine.opening import look_at_engine, open_engine
from trio_feed.settings import EngineSettings, Secret


def rights_of_the_page() -> list[str]:
    page = (Path(__file__).parents[2] / "docs/engine.md").read_text("utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith("ACL SETUSER ")]
    return line.replace("PASSWORD", SECRET).split()


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    with valkey_server(request.param, requirepass=SECRET) as made:
        made.ask(*rights_of_the_page())
        made.ask("ACL", "SETUSER", "nobody", "on", f">{SECRET}", "~*", "+@connection")
        yield made


async def test_who_may_not_in_is_told_in_one_line(server: ValkeyServer) -> None:
    with trio.fail_after(30):
        where = f"engine.urls: 127.0.0.1:{server.port}: "
        assert (
            await refused(engine_of(server.url)) == f"{where}it wants a password: engine.password"
        )
        wrong = "engine.user or engine.password is wrong"
        assert await refused(engine_of(server.url, password=Secret(SECRET + "x"))) == where + wrong
        assert (
            await refused(engine_of(server.url, user="x", password=Secret(SECRET))) == where + wrong
        )
        line = await refused(engine_of(server.url, user="nobody", password=Secret(SECRET)))
        assert re.match(f"{where}it refuses: .*permissions.*; see the ACL in docs/engine.md", line)


async def test_each_right_of_the_page_is_needed_and_missed(server: ValkeyServer) -> None:
    """But for that of choosing a database, which is only used where one is named."""
    whole = rights_of_the_page()
    with trio.fail_after(60):
        settings = engine_of(server.url, user="less", password=Secret(SECRET), timeout_s=1.4)
        for right in [word for word in whole if word.startswith("+") and word != "+select"]:
            less = ["less" if word == "feed" else word for word in whole if word != right]
            server.ask("ACL", "SETUSER", "less", "reset")
            server.ask(*less)
            line = await refused(settings)
            assert line.startswith(f"engine.urls: 127.0.0.1:{server.port}: ")
            assert "docs/engine.md" in line
            name = right[1:].replace("|usage", " usage")
            assert f"our user may not run {name}: " in line or f"the '{name}' command" in line
        server.ask("ACL", "SETUSER", "less", "reset")
        server.ask(*["less" if word == "feed" else word for word in whole])
        async with make_engine(settings, b"one"):
            assert server.ask("KEYS", "tf:*try*") == []
        line = await refused(evolve(settings, prefix="other"))
        assert line.endswith("may not use keys of engine.prefix: see the ACL in docs/engine.md")


async def test_a_lease_of_another_type_is_nobodys_and_keeps_one_shard(server: ValkeyServer) -> None:
    """Renewing it failed, and with it that of all others, so that the whole node stood still."""
    with trio.fail_after(30):
        settings = engine_of(server.url, user="feed", password=Secret(SECRET))
        async with make_engine(settings, b"one") as engine:
            assert await engine.take_lease(A, "one", 20)
            assert await engine.take_lease(B, "one", 20)
            server.ask("DEL", f"tf:{{{A}}}:lease")
            server.ask("RPUSH", f"tf:{{{A}}}:lease", "x")
            assert await engine.renew_leases({A: "one", B: "one"}, 20) == {A: False, B: True}
            assert await engine.holders([A, B, "x.0"]) == {
                A: "a value of another type", B: "one", "x.0": ""
            }  # fmt: skip
            assert not await engine.take_lease(A, "one", 20)
            await engine.drop_lease(A, "one")
            assert (await engine.holders([A]))[A] == "a value of another type"
            server.ask("DEL", f"tf:{{{A}}}:lease", f"tf:{{{B}}}:lease")


async def test_a_log_of_another_type_is_named(server: ValkeyServer) -> None:
    with trio.fail_after(30):
        settings = engine_of(server.url, user="feed", password=Secret(SECRET))
        async with make_engine(settings, b"one") as engine:
            await engine.append([append(EMPTY, (1, 1), shard=A), append(EMPTY, (1, 1), shard=B)])
            server.ask("DEL", f"tf:{{{A}}}:log")
            server.ask("SET", f"tf:{{{A}}}:log", "x")
            problem = f"tf:{{{A}}}:log holds a value of another type: delete that key"
            for call in (
                partial(engine.append, [append((1, 1), (1, 2), shard=each) for each in (B, A)]),
                partial(engine.tail, A),
                partial(engine.since_checkpoint, A),
                partial(engine.read, {A: EMPTY}, wait_s=1, limit=9),
                partial(engine.read, {A: EMPTY}, wait_s=0, limit=9),
            ):
                with pytest.raises(EngineFault, match=f": {re.escape(problem)}$"):
                    await call()
            with pytest.raises(EngineFault, match=r": one of tf:.*, tf:.*:log holds"):
                await engine.read({A: EMPTY, B: EMPTY}, wait_s=0, limit=9)
            server.ask("DEL", f"tf:{{{A}}}:log", f"tf:{{{B}}}:log")


async def test_a_user_with_the_rights_of_the_page_is_let_in(server: ValkeyServer) -> None:
    with trio.fail_after(30):
        settings = engine_of(server.url, user="feed", password=Secret(SECRET))
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
        other = engine_of(server.url, user="feed", password=Secret(SECRET), prefix="other")
        assert "may not use keys of engine.prefix" in await refused(other)


async def test_two_clusters_on_one_engine(server: ValkeyServer) -> None:
    with trio.fail_after(30):
        settings = engine_of(server.url, password=Secret(SECRET), prefix="two")
        async with make_engine(settings, b"shards 4") as engine:
            await engine.join(b"shards 4")
            line = await refused(settings, b"shards 8")
        assert line.startswith('engine.prefix: "two" is of another cluster there (shards 4, here')
        async with make_engine(settings, b"shards 4"):
            pass
        async with make_engine(
            engine_of(server.url, password=Secret(SECRET), prefix="3"), b"shards 8"
        ):
            pass


async def looked(settings: EngineSettings) -> tuple[str, str, str]:
    async with open_engine(settings) as engine:
        return await look_at_engine(engine, settings.prefix, b"shards 4")


async def test_a_look_at_the_engine_before_the_start(server: ValkeyServer) -> None:
    with trio.fail_after(30):
        settings = engine_of(server.url, password=Secret(SECRET), prefix="look")
        assert await looked(settings) == ("no node is there yet", "", "")
        async with make_engine(settings, b"shards 8") as engine:
            await engine.join(b"shards 8")
            await engine.put_node("in1", b"x", 5)
            found, problem, advice = await looked(settings)
            assert (found, advice) == ("", "give this one another prefix")
            assert "another cluster there (shards 8, here shards 4)" in problem
        _, problem, _ = await looked(engine_of(server.url))
        assert problem.endswith("it wants a password: engine.password")


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
            assert (await refused(engine_of(url))).endswith(": no answer in 0.5 s")
        line = await refused(engine_of(url))
        assert line.endswith(": it cannot be reached; does it run, and are host and port right?")
        line = await refused(engine_of("valkey://no-such-host.invalid", timeout_s=1.4))
        assert re.search("no such host|no answer", line)
        with valkey_server() as server:
            url = server.url.replace("valkey:", "sentinel:")
            line = await refused(engine_of(url, timeout_s=1.4))
        assert line.endswith(": it is a server and no sentinel: write valkey:// in engine.urls")
        for url in ("sentinel://127.0.0.1:1", "valkeys://127.0.0.1:1"):
            assert "cannot be reached" in await refused(engine_of(url))
    assert caplog.records == [], "what the library logs is in the line already"


@pytest.mark.parametrize("kind", KINDS)
async def test_what_its_configuration_lacks_is_said(kind: Any) -> None:
    with (
        trio.fail_after(60),
        valkey_server(kind, appendonly="no", maxmemory_policy="allkeys-lru") as server,
        valkey_server(kind, replicaof=f"127.0.0.1 {server.port}") as replica,
    ):
        line = await refused(engine_of(server.url))
        assert "set appendonly yes" in line
        assert "set maxmemory-policy noeviction, not allkeys-lru" in line
        assert "it is a replica" in await refused(engine_of(replica.url))
        server.ask("CONFIG", "SET", "appendonly", "yes")
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        while server.ask("ROLE")[2] == []:
            await trio.sleep(0.05)
        assert await refused(engine_of(server.url)) == (
            f"engine.urls: 127.0.0.1:{server.port}: it takes writes that no replica has:"
            " set min-replicas-to-write 1"
        )
        server.ask("CONFIG", "SET", "min-replicas-to-write", "1")
        async with make_engine(engine_of(server.url), b"one") as engine:
            assert await engine.problems() == []


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
    files = TlsFiles(papers["ca"], papers["server_cert"], papers["server_key"])
    ours = {"tls_cert_file": papers["client_cert"], "tls_key_file": papers["client_key"]}
    with (
        trio.fail_after(60),
        valkey_server("redis", tls=files, requirepass=SECRET) as server,
        valkey_server("redis") as plain,
    ):
        right = {"password": Secret(SECRET), "ca_file": papers["ca"], **ours, "timeout_s": 1.4}
        async with make_engine(engine_of(server.url, **right), b"one") as engine:
            assert await engine.append([append(EMPTY, (7, 1))]) == [(7, 1)]
            assert await engine.read({A: EMPTY}, wait_s=1, limit=1)
            assert await engine.read({A: (7, 1)}, wait_s=0.05, limit=1) == {}
        stranger = await refused(engine_of(server.url, **{**right, "ca_file": papers["stranger"]}))
        assert "its certificate does not verify: " in stranger
        other_name = server.url.replace("127.0.0.1", "localhost")
        assert "certificate does not verify" in await refused(engine_of(other_name, **right))
        nobody = {**right, "tls_cert_file": "", "tls_key_file": ""}
        # The alert that says so may be lost behind the end of the connection.
        wants = await refused(engine_of(server.url, **nobody))
        assert "a certificate of ours?" in wants or "it refuses our certificate, or wants" in wants
        spoken = plain.url.replace("valkey:", "valkeys:")
        assert (await refused(engine_of(spoken, **right))).endswith("; does it speak TLS there?")
        silent = server.url.replace("valkeys:", "valkey:")
        assert "hangs up at once; is it Valkey, and does it want TLS" in await refused(
            engine_of(silent)
        )
        for key, path in (("ca_file", "none"), ("tls_cert_file", "none")):
            line = await refused(engine_of(server.url, **{**right, key: papers[path]}))
            assert line == f"engine.{key}: is no certificate in PEM form, or has not its key"
        line = await refused(engine_of(server.url, **{**right, "ca_file": "/nowhere.pem"}))
        assert line == "engine.ca_file: No such file or directory"
