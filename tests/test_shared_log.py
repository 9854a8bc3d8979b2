"""Several readers of a log cost the engine one, and notice what each would notice alone."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from attrs import define, field

from trio_feed.bus.engine.base import EMPTY, Append, EngineFault, Entry, EntryId
from trio_feed.bus.engine.memory import (
    LOST_REQUEST,
    NO_FAULT,
    EngineServer,
    Fault,
    MemoryEngine,
    late_request,
)
from trio_feed.bus.engine.shared import SharedLog, Window

A, B = "binance.0", "binance.1"
BODY = b"x" * 100
SIZE = 300
"""Of an entry of such a body in a window."""


def entries(epoch: int, *sequences: int, body: bytes = BODY) -> list[Entry]:
    return [Entry((epoch, sequence), body) for sequence in sequences]


def ids(found: Sequence[Entry]) -> list[EntryId]:
    return [entry.entry_id for entry in found]


# The window


def test_a_window_knows_who_has_read_what_it_has() -> None:
    window = Window((5, 3), 10_000)
    window.put((5, 3), entries(5, 4, 5, 7))
    assert [n for n in range(10) if window.covers((5, n))] == [3, 4, 5, 7]
    assert not window.covers((4, 9))
    assert not window.covers((6, 1))
    assert ids(window.since((5, 3), 9)) == [(5, 4), (5, 5), (5, 7)]
    assert ids(window.since((5, 4), 1)) == [(5, 5)]
    assert not window.since((5, 7), 9)


def test_answers_that_overlap_are_one_log() -> None:
    window = Window((5, 3), 10_000)
    assert window.put((5, 3), entries(5, 4, 5))
    assert window.put((5, 2), entries(5, 3, 4, 5, 6)), "of who was behind"
    assert not window.put((5, 3), entries(5, 4)), "it is late"
    assert not window.put((5, 6), [])
    assert window.put((5, 6), entries(6, 1))
    assert ids(window.since((5, 3), 9)) == [(5, 4), (5, 5), (5, 6), (6, 1)]


def test_what_does_not_follow_begins_anew() -> None:
    window = Window((5, 3), 10_000)
    window.put((5, 3), entries(5, 4, 5))
    assert window.put((5, 8), entries(5, 9))
    assert [n for n in range(10) if window.covers((5, n))] == [8, 9]
    assert window.bytes == SIZE
    assert window.put((7, 1), []), "who waits there finds the place"
    assert window.covers((7, 1))
    assert not window.covers((5, 9))


def test_a_window_is_bounded() -> None:
    window, last = Window(EMPTY, 3 * SIZE), EMPTY
    for sequence in range(1, 100):
        window.put(last, entries(5, sequence))
        last = (5, sequence)
        assert window.bytes == SIZE * min(sequence, 3)
        assert ids(window.since(window.start, 99))[-1] == last
    assert [n for n in range(101) if window.covers((5, n))] == [96, 97, 98, 99]
    window.put(last, entries(5, 100, body=bytes(4 * SIZE)))
    assert (window.bytes, window.start, window.end) == (0, (5, 100), (5, 100))


# Readers


@define(eq=False)
class Counted(MemoryEngine):
    """``calls`` that were made of it, and how many reads are under way."""

    calls: Counter[str] = field(factory=Counter)
    reading: int = 0

    async def read(
        self, after: Mapping[str, EntryId], *, wait_s: float, limit: int
    ) -> dict[str, list[Entry]]:
        self.calls["read"] += 1
        self.reading += 1
        try:
            return await super().read(after, wait_s=wait_s, limit=limit)
        finally:
            self.reading -= 1

    async def since_checkpoint(self, shard: str) -> list[Entry]:
        self.calls["since_checkpoint"] += 1
        return await super().since_checkpoint(shard)


@define(eq=False)
class Kit:
    nursery: trio.Nursery
    server: EngineServer = field(factory=EngineServer)
    fault: Fault = NO_FAULT
    engine: Counted = field(init=False)
    log: SharedLog = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.engine = Counted(self.server, 1.0, lambda call: self.fault)
        self.log = SharedLog(self.engine, 100 * SIZE)

    @property
    def reads(self) -> int:
        return self.engine.calls["read"]

    def append(self, epoch: int, *sequences: int, shard: str = A, checkpoint: bool = False) -> None:
        for sequence in sequences:
            entry_id = epoch, sequence
            each = Append(shard, self.server.tail(shard), entry_id, BODY, checkpoint)
            assert self.server.append(each) == entry_id

    def reader(self, *shards: str, at: EntryId = EMPTY, wait_s: float = 1.0) -> "Reader":
        made = Reader(self.log, dict.fromkeys(shards or (A,), at), wait_s)
        self.nursery.start_soon(made.run)
        return made


@define(eq=False)
class Reader:
    """As a worker: asks again and again, from where it is."""

    log: SharedLog
    after: dict[str, EntryId]
    wait_s: float
    got: list[EntryId] = field(factory=list)
    faults: list[str] = field(factory=list)
    answers: int = 0
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    on: trio.Event = field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.on.set()

    async def run(self) -> None:
        with self.scope:
            while True:
                await self.on.wait()
                try:
                    found = await self.log.read(self.after, wait_s=self.wait_s, limit=10)
                except EngineFault as fault:
                    self.faults.append(str(fault))
                    await trio.sleep(0.5)
                    continue
                self.answers += 1
                for shard, rows in found.items():
                    self.got += ids(rows)
                    # A question is not changed while it is asked.
                    self.after = {**self.after, shard: rows[-1].entry_id}


@asynccontextmanager
async def opened() -> AsyncIterator[Kit]:
    async with trio.open_nursery() as nursery:
        yield Kit(nursery)
        nursery.cancel_scope.cancel()


async def test_readers_at_the_end_cost_one_read_a_tick(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as kit:
        readers = [kit.reader(A, B) for _ in range(5)]
        await trio.sleep(0.1)
        for tick in range(1, 21):
            kit.append(5, tick, shard=A)
            kit.append(5, tick, shard=B)
            await trio.sleep(0.005)
        assert kit.reads == 21
        assert all(len(reader.got) == 40 for reader in readers)
        await trio.sleep(10)
        assert kit.reads == pytest.approx(31, abs=1), "one a second for all"
        assert not any(reader.faults for reader in readers)


async def test_those_who_are_as_far_get_the_same_object(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """So it is made into bytes once."""
    async with opened() as kit:
        found: list[object] = []

        async def ask(at: EntryId) -> None:
            found.append(await kit.log.read({A: at}, wait_s=1.0, limit=10))

        for _ in range(3):
            kit.nursery.start_soon(ask, (5, 1))
        await trio.sleep(0.1)
        kit.append(5, 1, 2, 3)
        await trio.sleep(0.1)
        assert len(found) == 3
        assert len(set(map(id, found))) == 1
        await ask((5, 2))
        assert found[-1] == {A: entries(5, 3)}


async def test_who_is_behind_the_window_asks_for_itself_and_joins(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as kit:
        kit.append(5, *range(1, 401))
        first = kit.reader(at=(5, 400))
        await trio.sleep(0.1)
        kit.append(5, *range(401, 500))
        late = kit.reader(at=(5, 300))
        await trio.sleep(0.1)
        assert late.got == [(5, n) for n in range(301, 500)]
        assert kit.engine.reading == 1, "it waits with the other now"
        before = kit.reads
        for n in range(500, 520):
            kit.append(5, n)
            await trio.sleep(0.005)
        assert kit.reads == before + 20
        assert first.got[-1] == late.got[-1] == (5, 519)


async def test_who_was_away_for_a_moment_is_answered_from_the_window(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as kit:
        one, slow = kit.reader(), kit.reader()
        kit.append(5, 1)
        await trio.sleep(0.1)
        slow.on = trio.Event()
        kit.append(5, 2)
        await trio.sleep(0.1)
        for n in range(3, 60):
            kit.append(5, n)
            await trio.sleep(0.005)
        assert slow.got[-1] == (5, 2)
        before = kit.reads
        slow.on.set()
        await trio.sleep(0.01)
        assert slow.got == one.got == [(5, n) for n in range(1, 60)]
        assert kit.reads == before


async def test_another_asks_where_the_one_who_asked_for_all_is_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its worker was killed.  No answer is late for that, and there is still one read."""
    async with opened() as kit:
        first = kit.reader()
        await trio.sleep(0.1)
        others = []
        for _ in range(4):
            others.append(kit.reader())
            await trio.sleep(0.1)
        assert (kit.reads, kit.engine.reading) == (1, 1)
        first.scope.cancel()
        await trio.sleep(0.1)
        assert (kit.reads, kit.engine.reading) == (2, 1)
        assert not any(reader.answers for reader in others), "nobody knows whether it answers"
        kit.append(5, 1)
        await trio.sleep(0.001)
        assert all(reader.got == [(5, 1)] for reader in others)
        await trio.sleep(0.5)
        for reader in others[:3]:  # one after the other, whoever asks
            reader.scope.cancel()
            await trio.sleep(0.01)
        kit.append(5, 2)
        await trio.sleep(0.001)
        assert others[3].got == [(5, 1), (5, 2)]


async def test_a_fault_is_told_to_all_who_wait_and_tried_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as kit:
        readers = [kit.reader() for _ in range(5)]
        await trio.sleep(0.1)
        kit.server.stop("engine: gone")
        await trio.sleep(0.1)
        assert [reader.faults for reader in readers] == [["engine: gone"]] * 5
        assert kit.reads == 1
        assert not kit.log.windows


async def test_an_engine_that_is_silent_is_asked_once_and_nobody_hears_that_it_answers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as kit:
        readers = [kit.reader() for _ in range(5)]
        await trio.sleep(0.1)
        kit.append(5, 1)
        kit.fault = late_request(60)
        await trio.sleep(0.1)
        answers = [reader.answers for reader in readers]
        before = kit.reads
        await trio.sleep(1.0)
        assert [len(reader.faults) for reader in readers] == [1] * 5
        assert [reader.answers for reader in readers] == answers
        assert kit.reads == before


async def test_an_engine_that_fails_takes_what_is_kept_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A worker that is behind hears of it too, as it would alone."""
    async with opened() as kit:
        first = kit.reader()
        kit.append(5, 1, 2, 3)
        await trio.sleep(0.1)
        kit.fault = LOST_REQUEST
        with pytest.raises(EngineFault, match="lost"):
            await kit.log.read({A: (5, 0)}, wait_s=0, limit=9)
        with pytest.raises(EngineFault, match="lost"):
            await kit.log.read({A: (5, 1)}, wait_s=0, limit=9)
        kit.fault = NO_FAULT
        assert ids((await kit.log.read({A: (5, 1)}, wait_s=0, limit=9))[A]) == [(5, 2), (5, 3)]
        kit.fault = LOST_REQUEST
        with pytest.raises(EngineFault, match="lost"):
            await kit.log.since_checkpoint(A)
        assert not kit.log.windows
        assert not first.faults


async def test_waits_of_different_lengths_are_kept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as kit:
        ends: list[tuple[str, float]] = []

        async def ask(name: str, wait_s: float) -> None:
            assert await kit.log.read({A: EMPTY}, wait_s=wait_s, limit=9) == {}
            ends.append((name, round(trio.current_time(), 2)))

        kit.nursery.start_soon(ask, "long", 1.0)
        await trio.sleep(0.1)
        kit.nursery.start_soon(ask, "short", 0.25)
        await trio.sleep(0.1)
        assert kit.engine.reading == 2, "it may not wait for so long"
        kit.nursery.start_soon(ask, "later", 1.0)
        await trio.sleep(2.0)
        assert kit.reads == 2
        assert ends[0] == ("short", 0.35)
        assert sorted(ends[1:]) == [("later", 1.0), ("long", 1.0)]


async def test_who_knows_more_shards_does_not_wait_for_one_who_knows_fewer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as kit:
        kit.reader(A)
        await trio.sleep(0.1)
        both = kit.reader(A, B)
        await trio.sleep(0.1)
        kit.append(5, 1, shard=B)
        await trio.sleep(0.001)
        assert both.got == [(5, 1)]


# An engine that forgets


async def alone_and_shared(
    kit: Kit, at: EntryId, wait_s: float = 0.0
) -> tuple[list[EntryId], list[EntryId]]:
    found = []
    for log in (MemoryEngine(kit.server), kit.log):
        answer = await log.read({A: at}, wait_s=wait_s, limit=99)
        found.append(ids(answer.get(A, [])))
    return found[0], found[1]


async def test_an_engine_that_was_emptied_goes_on_with_another_epoch_for_all(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as kit:
        one, slow = kit.reader(), kit.reader()
        kit.append(5, 1)
        await trio.sleep(0.1)
        slow.on = trio.Event()
        kit.append(5, 2)
        await trio.sleep(0.1)
        kit.append(5, 3, 4)
        await trio.sleep(0.1)
        kit.server.empty()
        slow.on.set()
        await trio.sleep(0.1)
        assert slow.got == one.got == [(5, n) for n in (1, 2, 3, 4)], "it was told in time"
        assert await kit.log.since_checkpoint(A) == [], "who starts is told how it stands"
        kit.append(9, 1, checkpoint=True)
        kit.append(9, 2)
        await trio.sleep(0.1)
        assert one.got[4:] == slow.got[4:] == [(9, 1), (9, 2)]
        assert kit.engine.reading == 1


async def test_readers_on_both_sides_of_a_failover(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It lost what all but one had read; another owner goes on from there."""
    async with opened() as kit:
        kit.append(5, 1, checkpoint=True)
        ahead = kit.reader(at=(5, 1))
        await trio.sleep(0.1)
        kit.append(5, 2, 3)
        await trio.sleep(0.1)
        kit.server.fail_over(2)
        fresh = await kit.log.since_checkpoint(A)
        assert ids(fresh) == [(5, 1)]
        assert await alone_and_shared(kit, (5, 1)) == ([], []), "the log does not have the others"
        behind = kit.reader(at=(5, 1))
        await trio.sleep(0.1)
        kit.append(9, 1, checkpoint=True)
        kit.append(9, 2)
        await trio.sleep(2.5)
        assert behind.got == [(9, 1), (9, 2)]
        assert ahead.got == [(5, 2), (5, 3), (9, 1), (9, 2)]
        assert kit.engine.reading == 1


async def test_a_hole_that_the_engine_lost_again_is_come_upon_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Who asks for the last checkpoint because of it and reads on waits, as it would alone."""
    async with opened() as kit:
        kit.append(5, 1, checkpoint=True)
        kit.append(5, 2)
        kit.reader(at=(5, 2))
        await trio.sleep(0.1)
        kit.append(5, 7)
        await trio.sleep(0.1)
        kit.server.fail_over(1)
        assert await alone_and_shared(kit, (5, 2)) == ([], [(5, 7)]), "it was there"
        assert ids(await kit.log.since_checkpoint(A)) == [(5, 1), (5, 2)]
        assert await alone_and_shared(kit, (5, 2)) == ([], [])


async def test_an_old_answer_takes_nothing_away(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as kit:
        kit.append(5, 1, checkpoint=True)
        one = kit.reader(at=(5, 1))
        await trio.sleep(0.1)
        kit.fault = Fault(answer_s=0.5)
        kit.nursery.start_soon(partial(kit.log.since_checkpoint, A))
        await trio.sleep(0.1)
        kit.fault = NO_FAULT
        kit.append(5, 2)
        await trio.sleep(1)
        assert kit.log.windows[A].covers((5, 1))
        assert one.got == [(5, 2)]


async def test_a_log_that_was_trimmed_is_told_as_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as kit:
        kit.append(5, *range(1, 300))
        kit.reader(at=(5, 299))
        await trio.sleep(0.1)
        kit.append(5, *range(300, 310))
        await trio.sleep(0.1)
        kit.server.cut(A, 5)
        alone, shared = await alone_and_shared(kit, (5, 200))
        assert alone == shared == [(5, n) for n in range(305, 310)]


async def test_the_newest_place_is_the_one_that_others_come_up_to(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After a fault who lags may be the first to ask: those at the end share one read all the
    same."""
    async with opened() as kit:
        kit.append(5, *range(1, 100))
        lagging = kit.reader(at=(5, 2))
        others = [kit.reader(at=(5, 99)) for _ in range(4)]
        await trio.sleep(0.1)
        assert kit.engine.reading == 1
        before = kit.reads
        kit.append(5, 100)
        await trio.sleep(0.1)
        assert kit.reads == before + 1
        assert {reader.got[-1] for reader in (lagging, *others)} == {(5, 100)}


async def test_who_starts_brings_the_others_news_and_takes_nothing_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as kit:
        kit.append(5, 1, checkpoint=True)
        kit.append(5, 2)
        await kit.log.read({A: (5, 1)}, wait_s=0, limit=9)
        kit.append(5, 3, 4)
        assert ids(await kit.log.since_checkpoint(A)) == [(5, n) for n in (1, 2, 3, 4)]
        before = kit.reads
        found = await kit.log.read({A: (5, 1)}, wait_s=0, limit=9)
        assert ids(found[A]) == [(5, 2), (5, 3), (5, 4)]
        assert kit.reads == before


async def test_what_all_keep_together_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as kit:
        kit.reader(A, B)
        for n in range(1, 500):
            kit.append(5, n, shard=A)
            kit.append(5, n, shard=B)
            await trio.sleep(0.005)
        assert [window.bytes for window in kit.log.windows.values()] == [100 * SIZE] * 2
