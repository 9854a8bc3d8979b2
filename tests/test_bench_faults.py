"""``scripts/bench_faults``: what counts as lost."""

import pytest
import trio

from scripts.bench_faults import KIND_S, LATEST_S, Told, lost_of, spans_of, until_told


@pytest.mark.parametrize(("behind_s", "lost"), [(0, 0), (40, 0), (LATEST_S + 100, 60)])
async def test_what_is_on_its_way_is_not_lost(
    behind_s: float, lost: int, autojump_clock: trio.abc.Clock
) -> None:
    """On a busy machine the client's user hears of a trade long after it happened."""
    told, wanted = Told(), range(100, 200)

    async def hear() -> None:
        told.note(100, 139)
        await trio.sleep(behind_s)
        told.note(140, 250)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        await trio.testing.wait_all_tasks_blocked()
        await until_told(wanted, {}, told)
        assert lost_of(wanted, told) == lost
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("late_s", "lost"), [(KIND_S - 1, 0), (KIND_S + 1, 10)])
async def test_a_repair_has_its_time_from_when_the_client_is_past_the_end(
    late_s: float, lost: int, autojump_clock: trio.abc.Clock
) -> None:
    told, wanted = Told(), range(100, 200)
    told.note(100, 149)

    async def hear() -> None:
        await trio.sleep(30)
        told.note(160, 210)
        await trio.sleep(late_s)
        told.note(150, 159)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        await until_told(wanted, {}, told)
        assert lost_of(wanted, told) == lost
        assert spans_of(wanted, told) == ([(50, 59)] if lost else [])
        nursery.cancel_scope.cancel()


async def test_candles_are_waited_for_as_trades_are(autojump_clock: trio.abc.Clock) -> None:
    told, wanted = Told(), range(100, 110)
    told.note(100, 120)
    began = trio.current_time()
    await until_told(wanted, {0: (1.0, 2.0)}, told)
    assert trio.current_time() - began == KIND_S
