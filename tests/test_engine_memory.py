"""The engine in memory: the contract of engines, and the faults that it makes on purpose."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from support.engine_contract import CHECKS, A, B, Kit, append

from trio_feed.bus.engine.base import EMPTY, EngineFault, EntryId
from trio_feed.bus.engine.memory import (
    LOST_ANSWER,
    LOST_REQUEST,
    NO_FAULT,
    EngineServer,
    Fault,
    MemoryEngine,
    late_answer,
    late_request,
)


@pytest.fixture
def server() -> EngineServer:
    return EngineServer()


@pytest.fixture
def kit(server: EngineServer) -> Kit:
    return Kit(MemoryEngine(server), MemoryEngine(server))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(
    check: Callable[[Kit], Awaitable[None]], kit: Kit, autojump_clock: trio.abc.Clock
) -> None:
    await check(kit)


def once(call: str, fault: Fault) -> Callable[[str], Fault]:
    left = [fault]
    return lambda name: left.pop() if name == call and left else NO_FAULT


@pytest.mark.parametrize(("fault", "is_in"), [(LOST_REQUEST, []), (LOST_ANSWER, [(7, 1)])])
async def test_the_connection_is_lost_before_or_after_an_append_took_effect(
    server: EngineServer,
    kit: Kit,
    autojump_clock: trio.abc.Clock,
    fault: Fault,
    is_in: list[EntryId],
) -> None:
    engine = MemoryEngine(server, faults=once("append", fault))
    with pytest.raises(EngineFault, match="connection was lost"):
        await engine.append([append(EMPTY, (7, 1))])
    assert await kit.ids() == is_in
    assert await engine.append([append(EMPTY, (7, 1))]) == [(7, 1)]
    assert await kit.ids() == [(7, 1)]


async def test_an_answer_that_is_late_comes_or_is_given_up(
    server: EngineServer, kit: Kit, autojump_clock: trio.abc.Clock
) -> None:
    engine = MemoryEngine(server, timeout_s=1, faults=once("append", late_answer(0.75)))
    began = trio.current_time()
    assert await engine.append([append(EMPTY, (7, 1))]) == [(7, 1)]
    assert trio.current_time() - began == pytest.approx(0.75)
    engine.faults = once("append", late_answer(1.5))
    with pytest.raises(EngineFault, match="no answer in 1 s"):
        await engine.append([append((7, 1), (7, 2))])
    assert trio.current_time() - began == pytest.approx(1.75)
    assert await kit.ids() == [(7, 1), (7, 2)]


async def test_a_request_that_is_late_takes_effect_after_its_client_gave_up(
    server: EngineServer, kit: Kit, autojump_clock: trio.abc.Clock
) -> None:
    engine = MemoryEngine(server, timeout_s=1, faults=once("append", late_request(3)))
    began = trio.current_time()
    with pytest.raises(EngineFault, match="no answer in 1 s"):
        await engine.append([append(EMPTY, (7, 1))])
    assert await kit.ids() == []
    found = await kit.other.read({A: EMPTY}, wait_s=60, limit=1)  # wakes who waits for it
    assert [entry.entry_id for entry in found[A]] == [(7, 1)]
    assert trio.current_time() - began == pytest.approx(3)


async def test_a_late_request_of_an_owner_that_was_replaced_is_fenced(
    server: EngineServer, kit: Kit, autojump_clock: trio.abc.Clock
) -> None:
    engine = MemoryEngine(server, faults=once("append", late_request(3)))
    await kit.fill(1)
    with pytest.raises(EngineFault):
        await engine.append([append((7, 1), (7, 2))])
    assert await kit.other.append([append((7, 1), (8, 1))]) == [(8, 1)]
    assert await kit.other.read({A: (8, 1)}, wait_s=10, limit=1) == {}
    assert await kit.ids() == [(7, 1), (8, 1)]


async def test_a_stopped_engine_fails_all_that_ask_and_wait(
    server: EngineServer, kit: Kit, autojump_clock: trio.abc.Clock
) -> None:
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(EngineFault, match="LOADING"):
                await kit.other.read({A: EMPTY}, wait_s=60, limit=1)

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        server.stop("engine: LOADING")
    assert trio.current_time() < 1
    with pytest.raises(EngineFault, match="LOADING"):
        await kit.engine.tail(A)
    server.start()
    assert await kit.engine.tail(A) == EMPTY


async def test_a_failover_loses_the_last_writes_of_all_keys(
    server: EngineServer, kit: Kit, autojump_clock: trio.abc.Clock
) -> None:
    await kit.fill(2)
    await kit.fill(1, shard=B)
    assert await kit.engine.take_lease(A, "one", 60)
    await kit.engine.append([append((7, 2), (7, 3))])
    server.fail_over(lost=3)
    assert await kit.ids() == [(7, 1), (7, 2)]
    assert await kit.ids(B) == []
    assert await kit.engine.tail(B) == EMPTY
    assert await kit.engine.holders([A]) == {A: ""}
    assert await kit.engine.append([append((7, 2), (7, 3))]) == [(7, 3)]
    server.fail_over(lost=100)
    assert await kit.ids() == []


async def test_a_failover_loses_a_trim_a_renewal_and_a_drop(
    server: EngineServer, kit: Kit, autojump_clock: trio.abc.Clock
) -> None:
    ids = await kit.fill(10)
    assert await kit.engine.take_lease(A, "one", 60)
    await kit.engine.trim(A, (7, 6))
    assert await kit.ids() == ids[5:]
    await kit.engine.put_value("x", b"1")
    await kit.engine.put_value("x", b"2")
    await kit.engine.drop_lease(A, "one")
    server.fail_over(lost=2)
    assert await kit.engine.holders([A]) == {A: "one"}
    assert await kit.engine.value("x") == b"1"
    server.fail_over(lost=2)
    assert await kit.ids() == ids


async def test_what_was_under_way_to_a_lost_primary_is_lost(
    server: EngineServer, kit: Kit, autojump_clock: trio.abc.Clock
) -> None:
    engine = MemoryEngine(server, faults=once("append", late_request(3)))
    with pytest.raises(EngineFault):
        await engine.append([append(EMPTY, (7, 1))])
    server.fail_over(lost=0)
    assert await kit.other.read({A: EMPTY}, wait_s=10, limit=1) == {}
    engine.faults = once("append", Fault(request_s=3, arrives=False))
    with pytest.raises(EngineFault):
        await engine.append([append(EMPTY, (7, 1))])
    assert await kit.other.read({A: EMPTY}, wait_s=10, limit=1) == {}


async def test_an_emptied_engine_knows_nothing(
    server: EngineServer, kit: Kit, autojump_clock: trio.abc.Clock
) -> None:
    await kit.fill(3)
    await kit.engine.take_lease(A, "one", 60)
    await kit.engine.join(b"a")
    server.empty()
    assert await kit.engine.tail(A) == EMPTY
    assert await kit.engine.renew_leases({A: "one"}, 60) == {A: False}
    assert await kit.engine.join(b"b") == b"b"
    assert await kit.engine.append([append((7, 3), (7, 4))]) == [EMPTY]
    assert await kit.engine.append([append(EMPTY, (7, 4))]) == [(7, 4)]


async def test_a_log_is_cut_past_a_reader(
    server: EngineServer, kit: Kit, autojump_clock: trio.abc.Clock
) -> None:
    await kit.fill(10)
    server.cut(A, keep=2)
    assert await kit.ids(after=(7, 3)) == [(7, 9), (7, 10)]
    server.cut(A, keep=0)
    assert await kit.ids() == [(7, 10)]


async def test_what_is_lacking_is_said(kit: Kit, autojump_clock: trio.abc.Clock) -> None:
    assert await kit.engine.problems() == []
    engine = MemoryEngine(EngineServer(lacks=["no appendonly"]))
    assert await engine.problems() == ["no appendonly"]
