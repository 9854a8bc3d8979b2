"""Whose turn it is: direct writes up to a bound, then portions; nothing is timed."""

import pytest
import trio
import trio.testing

from trio_feed.push.fanout.coalescing import AT_ONCE, CHUNK, Flusher


class Debtor:
    """Notes, in a list shared with others, that it was flushed."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def flush(self) -> None:
        self.log.append(self.name)


class Pieces:
    """A task of so many pieces; what it notes is (name, pieces asked for, direct writes left)."""

    def __init__(self, name: str, pieces: int, flusher: Flusher, log: list[tuple[str, int, int]]):
        self.name, self.left, self.flusher, self.log = name, pieces, flusher, log

    def step(self, most: int) -> bool:
        writes = 0
        while self.flusher.may_write():
            writes += 1
        self.log.append((self.name, most, writes))
        self.left -= 1
        return not self.left


def test_the_bounds_are_those_of_the_module() -> None:
    assert (Flusher().at_once, AT_ONCE, CHUNK) == (256, 256, 128)


def test_so_many_direct_writes_and_no_more_before_its_turn() -> None:
    flusher = Flusher(at_once=3)
    assert [flusher.may_write() for _ in range(5)] == [True] * 3 + [False] * 2
    assert not flusher.busy  # a direct write owes nothing to anybody


async def test_after_its_turn_the_direct_writes_are_there_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    flusher, log = Flusher(at_once=2), list[str]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked()
            assert [flusher.may_write() for _ in range(3)] == [True, True, False]
            flusher.owe(Debtor("a", log))
            assert flusher.busy
        await trio.testing.wait_all_tasks_blocked()
        assert log == ["a"] * 3
        assert not flusher.busy
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("first", ["may_write", "owe", "begin"])
async def test_each_kind_of_work_wakes_it(first: str, autojump_clock: trio.abc.Clock) -> None:
    flusher, log, steps = Flusher(at_once=1), list[str](), list[tuple[str, int, int]]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        await trio.testing.wait_all_tasks_blocked()
        if first == "may_write":
            assert flusher.may_write()
        elif first == "owe":
            flusher.owe(Debtor("a", log))
        else:
            flusher.begin(Pieces("a", 1, flusher, steps))
        await trio.testing.wait_all_tasks_blocked()
        assert (log, len(steps)) == (["a"] * (first == "owe"), int(first == "begin"))
        assert flusher.may_write()
        nursery.cancel_scope.cancel()


class Turns(trio.abc.Instrument):
    """Puts a bar into a log before each turn of the flusher."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name == "flusher":
            self.log.append("|")


async def written(flusher: Flusher, log: list[str]) -> str:
    """Run it until nobody is owed anything; what was done, with a bar between two turns."""
    turns = Turns(log)
    trio.lowlevel.add_instrument(turns)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run, name="flusher")
        for _ in range(100):  # bounded, so that a broken flusher fails here and does not hang
            await trio.lowlevel.checkpoint()
        assert not flusher.busy
        trio.lowlevel.remove_instrument(turns)
        nursery.cancel_scope.cancel()
    return "".join(log).strip("|")


async def test_those_who_are_owed_are_flushed_in_order_and_in_portions() -> None:
    flusher, log = Flusher(chunk=2), list[str]()
    for name in "abcde":
        flusher.owe(Debtor(name, log))
    assert await written(flusher, log) == "ab|cd|e"


async def test_a_portion_of_a_task_and_of_the_debtors_each_turn() -> None:
    """A long task keeps nobody waiting who is owed a frame."""
    flusher, log = Flusher(chunk=1), list[str]()

    class Task:
        left = 3

        def step(self, most: int) -> bool:
            log.append(str(most))
            self.left -= 1
            return not self.left

    flusher.begin(Task())
    for name in "ab":
        flusher.owe(Debtor(name, log))
    assert await written(flusher, log) == "1a|1b|1"


async def test_tasks_go_one_after_the_other_and_write_directly_only_when_alone(
    autojump_clock: trio.abc.Clock,
) -> None:
    """With another task behind it what a client gets is written together: no direct writes."""
    flusher, steps = Flusher(at_once=9, chunk=4), list[tuple[str, int, int]]()
    flusher.begin(Pieces("a", 2, flusher, steps))
    flusher.begin(Pieces("b", 2, flusher, steps))
    assert flusher.busy
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert steps == [("a", 4, 0), ("a", 4, 0), ("b", 4, 4), ("b", 4, 4)]


async def test_between_two_pieces_nothing_is_written_directly() -> None:
    """What comes meanwhile would overtake the rest of the task."""
    flusher, between = Flusher(at_once=9, chunk=4), list[bool]()

    class Task:
        left = 3

        def step(self, most: int) -> bool:
            self.left -= 1
            return not self.left

    task = Task()
    flusher.begin(task)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        for _ in range(100):
            await trio.lowlevel.checkpoint()
            if 0 < task.left < 3:
                between.append(flusher.may_write())
        nursery.cancel_scope.cancel()
    assert between
    assert not any(between)


def test_it_is_full_with_thirty_two_tasks() -> None:
    flusher, steps = Flusher(), list[tuple[str, int, int]]()
    for n in range(32):
        assert not flusher.full, n
        flusher.begin(Pieces("a", 1, flusher, steps))
    assert flusher.full
