"""Whose turn it is: direct writes up to a bound, then portions."""

from collections.abc import Callable
from sys import maxsize

import pytest
import trio
import trio.testing

from trio_feed.push.fanout.coalescing import (
    AT_ONCE,
    CHUNK,
    COLLECT_S,
    MOST_GATHERED,
    MOST_TASKS,
    WriteCoalescer,
)


class Flushable:
    """Notes, in a list shared with others, that it was flushed."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def flush(self) -> None:
        self.log.append(self.name)


class Pieces:
    """A task of so many pieces; what it notes is (name, pieces asked for, direct writes left)."""

    def __init__(
        self, name: str, pieces: int, coalescer: WriteCoalescer, log: list[tuple[str, int, int]]
    ):
        self.name, self.left, self.coalescer, self.log = name, pieces, coalescer, log

    def step(self, most: int) -> bool:
        self.log.append((self.name, most, self.coalescer.take(99)))
        self.left -= 1
        return not self.left


def still(now: Callable[[], float] = lambda: 0.0, **more: int) -> WriteCoalescer:
    """Its time stands, unless it is told."""
    return WriteCoalescer(**more, clock=now)


def turn(coalescer: WriteCoalescer, log: list[str]) -> str:
    """What was written in one turn."""
    log.clear()
    coalescer.turn()
    return "".join(log)


def test_the_bounds_are_those_of_the_module() -> None:
    assert (WriteCoalescer().at_once, AT_ONCE, CHUNK, COLLECT_S) == (256, 256, 128, 0.03)


def passed(now: Callable[[], float] = lambda: 0.0, **more: int) -> WriteCoalescer:
    """One that has just begun, and ended, a pass."""
    coalescer = still(now, **more)
    coalescer.schedule(Flushable("x", []))
    coalescer.turn()
    assert not coalescer.busy
    return coalescer


def test_the_first_pass_waits_for_nobody() -> None:
    coalescer, log = still(), list[str]()
    coalescer.schedule(Flushable("a", log))
    coalescer.more()
    assert turn(coalescer, log) == "a"


def test_soon_after_a_pass_what_waits_gathers_while_messages_come() -> None:
    coalescer, log = passed(), list[str]()
    coalescer.schedule(Flushable("a", log))
    for _ in range(5):
        coalescer.more()
        assert turn(coalescer, log) == ""
    # The task that publishes may have had its turn twice before.
    assert turn(coalescer, log) == ""
    coalescer.schedule(Flushable("b", log))
    assert turn(coalescer, log) == "ab"


def test_passes_begin_thirty_milliseconds_apart_where_messages_come_in_each_turn() -> None:
    now = 5.0
    coalescer, log = passed(lambda: now), list[str]()

    def busy_turn() -> str:
        coalescer.more()
        return turn(coalescer, log)

    for _ in range(2):
        coalescer.schedule(Flushable("a", log))
        now += COLLECT_S - 0.001
        assert busy_turn() == ""
        now += 0.001
        assert busy_turn() == "a"
    assert not coalescer.busy


def test_it_gathers_no_more_than_sixteen_mebibytes() -> None:
    coalescer, log = passed(), list[str]()
    coalescer.schedule(Flushable("a", log))
    for size, written in ((MOST_GATHERED - 1, ""), (1, "a")):
        coalescer.gathered += size
        coalescer.more()
        assert turn(coalescer, log) == written
    assert (MOST_GATHERED, coalescer.gathered) == (16 * 2**20, 0)


def test_tasks_that_came_together_are_waited_for_but_not_longer() -> None:
    now = 5.0
    coalescer, log, steps = still(lambda: now), list[str](), list[tuple[str, int, int]]()
    for name in "ab":
        coalescer.begin(Pieces(name, 9, coalescer, steps))
    coalescer.schedule(Flushable("client", log))
    now += COLLECT_S - 0.001
    assert turn(coalescer, log) == ""
    now += 0.001
    assert turn(coalescer, log) == "client"


def test_who_comes_in_a_pass_waits_for_the_next() -> None:
    coalescer, log = still(chunk=1), list[str]()
    for name in "ab":
        coalescer.schedule(Flushable(name, log))
    assert turn(coalescer, log) == "a"
    coalescer.schedule(Flushable("a", log))
    coalescer.more()
    assert [turn(coalescer, log), turn(coalescer, log)] == ["b", ""]


@pytest.mark.parametrize(("others_ms", "portions"), [(0, 1), (1.5, 2), (9, 4)])
def test_it_takes_as_long_as_the_others_did_but_four_portions_at_most(
    others_ms: float, portions: int
) -> None:
    now = 5.0
    coalescer, log = still(lambda: now, chunk=1), list[str]()

    class Slow(Flushable):
        def flush(self) -> None:
            nonlocal now
            now += 0.001
            super().flush()

    for name in "abcdefghij":
        coalescer.schedule(Slow(name, log))
    for _ in range(2):
        now += others_ms / 1000
        assert len(turn(coalescer, log)) == portions


def test_of_several_tasks_a_client_gets_all_with_one_write() -> None:
    coalescer, log, steps = still(), list[str](), list[tuple[str, int, int]]()
    coalescer.schedule(Flushable("client", log))
    for name in "abc":
        coalescer.begin(Pieces(name, 1, coalescer, steps))
    assert [turn(coalescer, log) for _ in range(3)] == ["", "", "client"]
    assert "".join(name for name, _, _ in steps) == "abc"


def test_so_many_direct_writes_and_no_more_before_its_turn() -> None:
    coalescer = still(at_once=3)
    assert coalescer.may_write()
    assert [coalescer.take(2) for _ in range(3)] == [2, 1, 0]
    assert not coalescer.may_write()
    assert not coalescer.busy  # a direct write owes nothing to anybody


async def test_after_its_turn_the_direct_writes_are_there_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    coalescer, log = WriteCoalescer(at_once=2), list[str]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(coalescer.run)
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked()
            assert coalescer.take(3) == 2
            coalescer.schedule(Flushable("a", log))
            assert coalescer.busy
        await trio.testing.wait_all_tasks_blocked()
        assert log == ["a"] * 3
        assert not coalescer.busy
        nursery.cancel_scope.cancel()


async def test_they_are_there_from_the_moment_on_in_which_it_has_caught_up(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Who publishes in each turn of the loop would else find none for ever."""
    coalescer, log = WriteCoalescer(at_once=2, clock=lambda: 0.0), list[str]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(coalescer.run)
        for _ in range(20):  # trio shuffles the tasks of a turn
            await trio.testing.wait_all_tasks_blocked()
            coalescer.schedule(Flushable("a", log))
            while coalescer.busy:
                await trio.lowlevel.checkpoint()
            assert coalescer.take(3) == 2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("first", ["may_write", "schedule", "begin"])
async def test_each_kind_of_work_wakes_it(first: str, autojump_clock: trio.abc.Clock) -> None:
    coalescer, log, steps = WriteCoalescer(at_once=1), list[str](), list[tuple[str, int, int]]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(coalescer.run)
        await trio.testing.wait_all_tasks_blocked()
        if first == "may_write":
            assert coalescer.may_write()
        elif first == "schedule":
            coalescer.schedule(Flushable("a", log))
        else:
            coalescer.begin(Pieces("a", 1, coalescer, steps))
        await trio.testing.wait_all_tasks_blocked()
        assert (log, len(steps)) == (["a"] * (first == "schedule"), int(first == "begin"))
        assert coalescer.may_write()
        nursery.cancel_scope.cancel()


class Turns(trio.abc.Instrument):
    """Puts a bar into a log before each turn of the coalescer."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name == "coalescer":
            self.log.append("|")


async def written(coalescer: WriteCoalescer, log: list[str]) -> str:
    """Run it until nothing is scheduled; what was done, with a bar between two turns."""
    turns = Turns(log)
    trio.lowlevel.add_instrument(turns)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(coalescer.run, name="coalescer")
        for _ in range(100):  # bounded, so that a broken coalescer fails here and does not hang
            await trio.lowlevel.checkpoint()
        assert not coalescer.busy
        trio.lowlevel.remove_instrument(turns)
        nursery.cancel_scope.cancel()
    return "".join(log).strip("|")


async def test_those_who_wait_are_flushed_in_order_and_in_portions() -> None:
    coalescer, log = still(chunk=2), list[str]()
    for name in "abcde":
        coalescer.schedule(Flushable(name, log))
    assert await written(coalescer, log) == "ab|cd|e"


async def test_a_portion_of_a_task_and_of_the_scheduled_each_turn() -> None:
    """A long task keeps nobody waiting whose frame waits."""
    coalescer, log = still(at_once=1, chunk=1), list[str]()

    class Task:
        left = 3

        def step(self, most: int) -> bool:
            log.append(str(most))
            self.left -= 1
            return not self.left

    coalescer.begin(Task())
    for name in "ab":
        coalescer.schedule(Flushable(name, log))
    assert await written(coalescer, log) == "1a|1b|1"


async def test_tasks_go_one_after_the_other_and_write_directly_only_when_alone(
    autojump_clock: trio.abc.Clock,
) -> None:
    """With another task behind it what a client gets is written together: no direct writes, and
    more clients in a turn, because to queue is cheap."""
    coalescer, steps = WriteCoalescer(at_once=9, chunk=4), list[tuple[str, int, int]]()
    coalescer.begin(Pieces("a", 2, coalescer, steps))
    coalescer.begin(Pieces("b", 2, coalescer, steps))
    assert coalescer.busy
    async with trio.open_nursery() as nursery:
        nursery.start_soon(coalescer.run)
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    coalescer.begin(Pieces("c", 2, coalescer, steps))
    coalescer.turn()
    coalescer.turn()
    assert steps == [(name, 32, 0) for name in "aabb"] + [("c", 9, 9)] * 2


async def test_between_two_pieces_nothing_is_written_directly() -> None:
    """What comes meanwhile would overtake the rest of the task."""
    coalescer, between = WriteCoalescer(at_once=9, chunk=4), list[bool]()

    class Task:
        left = 3

        def step(self, most: int) -> bool:
            self.left -= 1
            return not self.left

    task = Task()
    coalescer.begin(task)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(coalescer.run)
        for _ in range(100):
            await trio.lowlevel.checkpoint()
            if 0 < task.left < 3:
                between.append(coalescer.take(1) > 0)
        nursery.cancel_scope.cancel()
    assert between
    assert not any(between)


def test_with_too_many_tasks_the_oldest_is_done_at_once() -> None:
    """What is written in it is queued, for else it would be as long as all its writes."""
    coalescer, steps = still(), list[tuple[str, int, int]]()
    assert coalescer.may_write()
    for _ in range(MOST_TASKS):
        coalescer.begin(Pieces("a", 1, coalescer, steps))
    assert steps == []
    for _ in range(2):
        coalescer.begin(Pieces("b", 1, coalescer, steps))
    assert steps == [("a", maxsize, 0)] * 2
    for _ in range(MOST_TASKS):
        coalescer.turn()
    assert [name for name, _, _ in steps] == ["a"] * MOST_TASKS + ["b"] * 2
    assert not coalescer.busy
