"""The engine on real servers that are killed, paused, full and replaced."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any, TypeVar

import pytest
import trio
from support.engine_contract import A, B, append
from support.valkey import (
    KINDS,
    SECRET,
    ValkeyServer,
    engine_of,
    refused,
    valkey_cluster,
    valkey_server,
)

from trio_feed.bus.engine import EMPTY, Append, Engine, EngineFault, EntryId, make_engine
from trio_feed.settings import Secret

T = TypeVar("T")


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    with valkey_server(request.param) as made:
        yield made


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


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer, where a client that heard nothing of the failover may fail first."""
    while True:
        try:
            return await ask()
        except EngineFault:
            await trio.sleep(0.02)


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
        async with make_engine(engine_of(server.url), b"one") as engine:
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
        async with make_engine(engine_of(server.url), b"one") as engine:
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
        async with make_engine(engine_of(server.url, timeout_s=1.4), b"one") as engine:
            last, refused_one = await fill_up(engine)
            assert last > (7, 10)
            assert await engine.tail(A) == last
            await engine.trim(A, last)
            assert await eventually(engine, (last, refused_one)) == []


async def test_a_caller_that_is_cancelled_costs_the_others_nothing(server: ValkeyServer) -> None:
    with trio.fail_after(30):
        settings = engine_of(server.url, prefix="cancelled", timeout_s=1.4)
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


async def test_names_of_nodes_that_are_gone_are_forgotten(server: ValkeyServer) -> None:
    with trio.fail_after(30):
        settings = engine_of(server.url, prefix="nodes", timeout_s=1.4)
        async with make_engine(settings, b"one") as engine:
            await engine.put_node("a", b"", 30)
            await engine.put_node("b", b"", 0.05)
            while len(await engine.nodes()) > 1:
                await trio.sleep(0.02)
        assert server.ask("SMEMBERS", "nodes:nodes") == ["a"]


def connections(server: ValkeyServer) -> int:
    """But for the one that asks, and those of sentinels."""
    lines = server.ask("CLIENT", "LIST", "TYPE", "normal").splitlines()
    return sum("name=sentinel-" not in line for line in lines) - 1


async def test_no_connection_is_left(server: ValkeyServer) -> None:
    with trio.fail_after(30):
        async with make_engine(engine_of(server.url), b"one") as engine:
            for number in range(60):  # in all steps of a dial, and behind it
                with trio.move_on_after(number / 4000):
                    await engine.read({"none.0": EMPTY}, wait_s=10, limit=1)
            async with trio.open_nursery() as nursery:
                for _ in range(9):
                    nursery.start_soon(read_nothing, engine)
            assert connections(server) >= 1
            while connections(server) > 1 + 4:
                await trio.sleep(0.02)
        while connections(server) > 0:
            await trio.sleep(0.02)


async def test_a_password_that_is_changed_is_noticed_by_who_comes_anew(
    server: ValkeyServer,
) -> None:
    with trio.fail_after(60):
        async with make_engine(engine_of(server.url), b"one") as engine:
            for _ in range(20):
                await engine.try_anew()
            while connections(server) > 1:
                await trio.sleep(0.02)
            server.ask("CONFIG", "SET", "requirepass", "other")
            try:
                await engine.put_node("a", b"", 30)  # those that are open stay so
                with pytest.raises(EngineFault, match="it wants a password"):
                    await engine.try_anew()
            finally:
                server.settings["requirepass"] = "other"
                server.ask("CONFIG", "SET", "requirepass", "")
                del server.settings["requirepass"]
            await engine.try_anew()


async def test_an_end_that_was_deleted_by_hand_is_an_answer_of_its_own(
    server: ValkeyServer,
) -> None:
    """The others of the round trip are not concerned."""
    with trio.fail_after(60):
        async with make_engine(engine_of(server.url), b"one") as engine:
            ids = [(7, 1), (7, 2), (7, 3)]
            await engine.append([Append("a.0", p, n, b"") for p, n in pairwise([EMPTY, *ids])])
            (key,) = [k for k in server.ask("KEYS", "*") if k.endswith("{a.0}:log")]
            server.ask("XDEL", key, "7-3", "7-2")
            both = [Append("a.0", (7, 1), (7, 2), b""), Append("b.0", EMPTY, (7, 1), b"")]
            assert await engine.append(both) == [None, (7, 1)]
            assert await engine.append([Append("a.0", (7, 1), (8, 1), b"")]) == [(8, 1)]
            server.ask("XTRIM", key, "MAXLEN", "0")
            assert await engine.append([Append("a.0", EMPTY, (8, 1), b"")]) == [None]


async def read_nothing(engine: Engine) -> None:
    assert await engine.read({"none.0": EMPTY}, wait_s=0.1, limit=1) == {}


async def test_a_primary_that_was_made_a_replica_is_let_go() -> None:
    with trio.fail_after(30), valkey_server() as server:
        async with make_engine(engine_of(server.url, timeout_s=1.4), b"one") as engine:
            await engine.append([append(EMPTY, (7, 1))])
            assert connections(server) == 1
            server.ask("REPLICAOF", "127.0.0.1", server.port)
            with pytest.raises(EngineFault, match="it is a replica"):
                await engine.append([append((7, 1), (7, 2))])
            while connections(server) > 0:
                await trio.sleep(0.02)
            with pytest.raises(EngineFault, match="it is a replica"):
                await engine.tail(A)  # which a replica would tell
            server.ask("REPLICAOF", "NO", "ONE")
            assert await engine.append([append((7, 1), (7, 2))]) == [(7, 2)]


@pytest.mark.parametrize("how", ["killed", "paused"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_death_of_a_primary(kind: Any, how: str) -> None:
    """Every entry is in the log, once and in its order; who writes goes on by what is there."""
    with trio.fail_after(150), valkey_cluster(kind, password=SECRET) as cluster:
        settings = engine_of(*cluster.urls, password=Secret(SECRET), lease_s=3, timeout_s=0.5)
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
            for sentinel in cluster.sentinels:
                while connections(sentinel) > 0:  # each dial asks, and hangs up
                    await trio.sleep(0.02)
            old = cluster.primary()
            assert old is not None
            if how == "killed":
                old.kill()
            else:
                old.pause(on=True)  # whose connections stay open, and say nothing
            began = trio.current_time()
            await write_more(1)
            print(f"{kind}, {how}: {trio.current_time() - began:.2f} s to the next append")
            assert faults
            assert not any(SECRET in line or "\n" in line for line in faults)
            assert cluster.primary() not in (None, old)
            await write_more(200)
            found = await patiently(lambda: other.read({A: EMPTY}, wait_s=0, limit=10_000))
            assert [entry.entry_id for entry in found[A]] == [(7, n) for n in range(1, 402)]
            assert await other.holders([A]) == {A: "one"}
            # One sentinel is dead, another is silent: the third one knows.
            cluster.sentinels[0].kill()
            cluster.sentinels[1].pause(on=True)
            async with make_engine(settings, b"one") as third:
                assert await third.tail(A) == (7, 401)
            cluster.sentinels[1].pause(on=False)
            # The old one comes back as a replica, and is not taken for a primary.
            if how == "killed":
                old.start()
            else:
                old.pause(on=False)
            while old.role() != "slave":
                await trio.sleep(0.05)
            line = await refused(engine_of(old.url, password=Secret(SECRET)))
            assert line.endswith(": it is a replica, which takes nothing")
            # What it did not hear of while it was away is its own, too.
            while old.ask("XLEN", f"tf:{{{A}}}:log") != 401:
                await trio.sleep(0.05)
        urls = [url.replace("mymaster", "nobody") for url in cluster.urls[1:]]
        wrong = engine_of(*urls, password=Secret(SECRET))
        assert "no primary is named 'nobody' there" in await refused(wrong)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_primary_that_was_paused_is_left_before_it_knows(kind: Any) -> None:
    """Its sentinels make it a replica ten seconds after it is back; until then it takes reads."""
    with trio.fail_after(90), valkey_cluster(kind) as cluster:
        settings = engine_of(*cluster.urls)
        async with make_engine(settings, b"one") as reader, make_engine(settings, b"one") as writer:
            old = cluster.primary()
            assert old is not None
            found: list[EntryId] = []

            async def read() -> None:
                while not found:
                    with suppress(EngineFault):
                        # Longer than the failover: it is not given up for its silence.
                        rows = await reader.read({A: EMPTY}, wait_s=60, limit=10)
                        found.extend(entry.entry_id for entry in rows.get(A, ()))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await patiently(lambda: writer.tail(A))
                while connections(old) < 3:
                    await trio.sleep(0.02)
                old.pause(on=True)
                while cluster.primary() in (None, old):
                    await trio.sleep(0.05)
                old.pause(on=False)
                await patiently(lambda: writer.append([append(EMPTY, (7, 1))]))
            assert found == [(7, 1)]
            assert old.role() == "master"
