"""The pipe between parent and worker: in order, bounded, and nobody waits for ever."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field

from trio_feed.errors import JournalError, StoreError
from trio_feed.workers import frames
from trio_feed.workers.pipe import NoAnswer, Pipe, PipeLost
from trio_feed.workers.remote import RemoteJournal


@define(eq=False)
class End:
    """One side: what came, and how it ended."""

    pipe: Pipe = field(init=False)
    came: list[Any] = field(factory=list)
    lost: list[str] = field(factory=list)
    ended: trio.Event = field(factory=trio.Event)
    answered: Callable[[str, bytes], Any] = lambda what, body: b""

    async def answer(self, what: str, body: bytes) -> bytes:
        found = self.answered(what, body)
        return found if isinstance(found, bytes) else await found

    async def run(self) -> None:
        try:
            await self.pipe.run()
        except PipeLost as lost:
            self.lost.append(str(lost))
            self.ended.set()


async def never(_what: str, _body: bytes) -> bytes:
    await trio.sleep_forever()
    raise AssertionError("for ever")


@asynccontextmanager
async def pair(**limits: Any) -> AsyncIterator[tuple[End, End, trio.StapledStream[Any, Any]]]:
    """Parent, worker, and the worker's stream."""
    bounds = {"max_bytes": 10_000, "stall_s": 5.0} | limits
    ours, theirs = trio.testing.memory_stream_pair()
    parent, worker = End(), End()
    parent.pipe = Pipe(ours, frames.ToParent, parent.came.append, parent.answer, **bounds)
    worker.pipe = Pipe(theirs, frames.ToWorker, worker.came.append, worker.answer, **bounds)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parent.run)
        nursery.start_soon(worker.run)
        yield parent, worker, theirs
        nursery.cancel_scope.cancel()


async def test_frames_come_in_order_however_the_bytes_are_cut(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with pair() as (parent, worker, _):
        for stream in range(50):
            worker.pipe.put(frames.Keep(stream))
        worker.pipe.put(frames.Line(b"x" * 3000))
        await trio.testing.wait_all_tasks_blocked()
        assert [frame.stream for frame in parent.came[:-1]] == list(range(50))
        assert parent.came[-1] == frames.Line(b"x" * 3000)
        assert worker.pipe.bytes_waiting == 0


def test_a_decoder_waits_for_the_rest() -> None:
    data = frames.encoded(frames.Keep(1)) + frames.encoded(frames.Meet(2))
    decoder, found = frames.Decoder(frames.ToParent), list[Any]()
    for at in range(len(data)):
        found += decoder.feed(data[at : at + 1])
    assert found == [frames.Keep(1), frames.Meet(2)]


async def test_questions_of_both_sides_cross(autojump_clock: trio.abc.Clock) -> None:
    async with pair() as (parent, worker, _):

        async def slow(_what: str, body: bytes) -> bytes:
            await trio.sleep(len(body))
            return body.upper()

        parent.answered, worker.answered = slow, lambda what, body: what.encode() + body
        got: list[bytes] = []

        async def ask(body: bytes) -> None:
            got.append(await worker.pipe.ask("q", body, 10))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, b"aaa")
            nursery.start_soon(ask, b"b")
            assert await parent.pipe.ask("w", b"?", 1) == b"w?"
        assert got == [b"B", b"AAA"]


async def test_the_journals_advice_is_that_of_what_keeps_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    """A worker has no file whose permissions anybody could check."""
    async with pair() as (parent, worker, _):

        def refuse(_what: str, _body: bytes) -> bytes:
            raise JournalError("connection refused", "start PostgreSQL")

        parent.answered = refuse
        journal = RemoteJournal(worker.pipe, 1, None)
        with pytest.raises(JournalError, match="connection refused") as refused:
            await journal.head(7)
        assert refused.value.advice == "start PostgreSQL"
        parent.answered = never
        with pytest.raises(JournalError, match="no answer within") as late:
            await journal.head(7)
        assert "the process that started the workers" in late.value.advice


async def test_no_answer_in_time_and_a_refusal(autojump_clock: trio.abc.Clock) -> None:
    async with pair() as (parent, worker, _):
        parent.answered = never
        began = trio.current_time()
        with pytest.raises(NoAnswer, match="no answer within 3 s"):
            await worker.pipe.ask("q", b"", 3)
        assert trio.current_time() - began == 3

        def refuse(_what: str, _body: bytes) -> bytes:
            raise StoreError("the disk is away")

        parent.answered = refuse
        with pytest.raises(NoAnswer, match="the disk is away"):
            await worker.pipe.ask("q", b"", 3)
        parent.answered = lambda what, body: 1 / 0
        with pytest.raises(NoAnswer, match="a bug of the server"):
            await worker.pipe.ask("q", b"", 3)
        parent.answered = lambda what, body: b"fine"
        assert await worker.pipe.ask("q", b"", 3) == b"fine"


async def test_the_end_of_one_side_is_the_end_of_both(autojump_clock: trio.abc.Clock) -> None:
    async with pair() as (parent, worker, theirs):
        parent.answered = never
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(NoAnswer):
                    await worker.pipe.ask("q", b"", 100)

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await theirs.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert parent.lost == ["it has ended"]
        assert parent.pipe.reason == "ended"
        assert trio.current_time() < 1
        parent.pipe.put(frames.Drain())  # nobody gets it, and nothing happens
        with pytest.raises(NoAnswer):
            await parent.pipe.ask("q", b"", 1)


@pytest.mark.parametrize("much", [True, False])
async def test_who_takes_nothing_is_given_up(much: bool, autojump_clock: trio.abc.Clock) -> None:
    async with pair() as (parent, _, _theirs):

        async def stuck(_data: Any) -> None:
            await trio.sleep_forever()

        parent.pipe._stream.send_all = stuck  # type: ignore[method-assign]
        parent.pipe.put(frames.Feed([]))
        if much:
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(20):
                parent.pipe.put(frames.Apply(b"x" * 1000))
        began = trio.current_time()
        with trio.move_on_after(60):
            await parent.ended.wait()
        assert (trio.current_time() - began < 1) is much
        assert parent.pipe.reason == "slow"


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\2\x91\x63"])
async def test_another_language_ends_it(data: bytes, autojump_clock: trio.abc.Clock) -> None:
    async with pair() as (parent, _, theirs):
        await theirs.send_all(data)
        await trio.testing.wait_all_tasks_blocked()
        assert len(parent.lost) == 1
        assert "another language" in parent.lost[0]


async def test_answers_wait_for_room_and_news_goes_before_them(
    autojump_clock: trio.abc.Clock,
) -> None:
    """More of them at once than may wait for a worker end no worker."""
    async with pair() as (parent, worker, _):
        parent.answered = lambda what, body: body * 4000
        most, got = 0, list[bytes]()

        async def ask(letter: bytes) -> None:
            got.append(await worker.pipe.ask("q", letter, 100))

        async def watch() -> None:
            nonlocal most
            while len(got) < 20:
                most = max(most, parent.pipe.bytes_waiting)
                parent.pipe.put(frames.Drain())
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            for number in range(20):
                nursery.start_soon(ask, b"%c" % (97 + number))
        assert sorted(got) == [b"%c" % (97 + number) * 4000 for number in range(20)]
        assert 4000 < most < 10_000
        assert not parent.lost
        assert not worker.lost


async def test_questions_wait_for_room_too(autojump_clock: trio.abc.Clock) -> None:
    async with pair() as (parent, worker, _):
        parent.answered = lambda what, body: body[:1]
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(worker.pipe.ask, "q", b"x" * 4000, 100)
        assert not parent.lost


async def test_what_is_too_large_is_refused(autojump_clock: trio.abc.Clock) -> None:
    async with pair() as (parent, worker, _):
        parent.answered = lambda what, body: b"x" * 6000
        with pytest.raises(NoAnswer, match="the answer is too large: 60"):
            await worker.pipe.ask("q", b"", 3)
        with pytest.raises(NoAnswer, match="the question is too large: 60"):
            await worker.pipe.ask("q", b"x" * 6000, 3)
        parent.answered = lambda what, body: b"fine"
        assert await worker.pipe.ask("q", b"", 3) == b"fine"


async def test_who_waits_for_room_hears_of_the_end(autojump_clock: trio.abc.Clock) -> None:
    async with pair(stall_s=20.0) as (parent, worker, _):

        async def stuck(_data: Any) -> None:
            await trio.sleep_forever()

        worker.pipe._stream.send_all = stuck  # type: ignore[method-assign]
        for _ in range(2):
            worker.pipe.put(frames.Line(b"x" * 2000))

        async def ask() -> None:
            with pytest.raises(NoAnswer, match="ended"):
                await worker.pipe.ask("q", b"x", 100)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(worker.pipe.wait_empty)
            nursery.start_soon(worker.pipe.wait_empty)
            await trio.sleep(1)
            parent.pipe.give_up("it is the end")
        assert trio.current_time() < 5
