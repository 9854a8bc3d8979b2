"""Between readers and processor: what comes alone is taken at once, and nothing overtakes."""

from collections.abc import Callable
from typing import cast

import pytest
import trio
from attrs import define, field
from support.make import T0, trade

from trio_feed.ingest.intake import FEW, Incoming, Intake
from trio_feed.instants import Mono, Wall
from trio_feed.store import KlineStore


def read(*ids: int) -> Incoming:
    """A read that brought these trades."""
    return Incoming([trade(n, T0 + n) for n in ids], Mono(1.0), Wall(T0))


@define
class Scene:
    """``taken``: in a reader's own turn."""

    is_full: bool = False
    waits: bool = False
    taken: list[Incoming] = field(factory=list)

    def take(self, incoming: Incoming) -> bool:
        if not self.waits:
            self.taken.append(incoming)
        return not self.waits


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def intake(scene: Scene) -> Intake:
    return Intake(2, cast(KlineStore, scene), scene.take)


async def test_what_comes_alone_is_taken_at_once(scene: Scene, intake: Intake) -> None:
    first, second = read(1), read(*range(2, 2 + FEW))
    intake.send_nowait(first)
    intake.send_nowait(second)
    assert scene.taken == [first, second]
    assert not intake.waiting


def many(scene: Scene) -> Incoming:
    return read(*range(FEW + 1))


def full(scene: Scene) -> Incoming:
    scene.is_full = True
    return read(1)


def may_wait(scene: Scene) -> Incoming:
    scene.waits = True
    return read(1)


@pytest.mark.parametrize("make", [many, full, may_wait])
async def test_else_it_is_for_the_processor(
    make: Callable[[Scene], Incoming], scene: Scene, intake: Intake
) -> None:
    incoming = make(scene)
    intake.send_nowait(incoming)
    assert (scene.taken, intake.waiting) == ([], 1)
    assert await intake.receive() is incoming


async def test_nothing_overtakes_what_is_not_done(scene: Scene, intake: Intake) -> None:
    """Not even while the processor has it in hand."""
    first, second, third = read(*range(FEW + 1)), read(20), read(21)
    intake.send_nowait(first)
    assert await intake.receive() is first
    intake.send_nowait(second)
    assert (scene.taken, intake.waiting) == ([], 2)
    intake.done()
    assert await intake.receive() is second
    intake.done()
    intake.send_nowait(third)
    assert scene.taken == [third]


async def test_where_there_is_no_room_it_is_waited_for(
    scene: Scene, intake: Intake, autojump_clock: trio.abc.Clock
) -> None:
    scene.is_full = True
    reads = [read(n) for n in range(4)]
    intake.send_nowait(reads[0])
    intake.send_nowait(reads[1])
    with pytest.raises(trio.WouldBlock):
        intake.send_nowait(reads[2])
    with trio.move_on_after(1):  # given up: as if it had not been
        await intake.send(reads[2])
    assert intake.waiting == 2
    async with trio.open_nursery() as nursery:
        nursery.start_soon(intake.send, reads[3])
        await trio.testing.wait_all_tasks_blocked()
        found = []
        for _ in range(3):
            found.append(await intake.receive())
            intake.done()
    assert found == [reads[0], reads[1], reads[3]]
    assert not intake.waiting
