"""The parent's side alone: what it tells a worker, in which order, and what it answers."""

import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
from attrs import define, evolve, field, frozen
from support.fleet import MemoryFleet
from support.make import MINUTE, SERIES, T0, kline
from support.memory import MemoryNetwork
from support.stack import settings_for_tests, virtual_now_ms

from trio_feed.bus import wire
from trio_feed.bus.local import LocalBus
from trio_feed.core.effects import CandleNews
from trio_feed.environment import Environment
from trio_feed.errors import SettingsError, StoreError
from trio_feed.metrics import Metrics
from trio_feed.model import Instrument, KlineMessage, Series
from trio_feed.push.edge.routes import ServiceReport
from trio_feed.settings import Settings
from trio_feed.store import MemoryStore
from trio_feed.validate import check
from trio_feed.wiring import UpstreamView
from trio_feed.workers import frames, questions
from trio_feed.workers.front import Front
from trio_feed.workers.link import Sources
from trio_feed.workers.log_lines import say_again
from trio_feed.workers.pipe import NoAnswer, Pipe, PipeLost
from trio_feed.workers.places import Room


@frozen
class Listed:
    """All of it is fed."""

    listed: list[Instrument]

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self.listed)

    fed = __iter__


class NoJournal:
    epoch, shared_epoch, others = 11, None, None


@define(eq=False)
class Bench:
    """A front, and the test in the place of its workers."""

    front: Front
    bus: LocalBus
    store: MemoryStore
    fleet: MemoryFleet
    listed: list[Instrument]
    ready: list[str]
    nursery: trio.Nursery

    def worker(self, number: int) -> "Worker":
        made = Worker()
        made.pipe = Pipe(
            self.fleet.running[number].theirs,
            frames.ToWorker,
            made.came.append,
            made.answer,
            max_bytes=10**6,
            stall_s=5,
        )
        self.nursery.start_soon(made.run)
        return made

    def publish(self, n: int, series: Series = SERIES) -> None:
        """As the driver does."""
        message = self.bus.publish(CandleNews(series, kline(T0 + n * MINUTE), 1, 1.0))
        assert isinstance(message, KlineMessage)
        self.store.put(message)


@define(eq=False)
class Worker:
    pipe: Pipe = field(init=False)
    came: list[Any] = field(factory=list)
    lost: str = ""

    async def answer(self, what: str, _body: bytes) -> bytes:
        return questions.encode([f'{{"what": "{what}"}}'])

    async def run(self) -> None:
        try:
            await self.pipe.run()
        except PipeLost as lost:
            self.lost = str(lost)

    def items(self) -> list[wire.Item]:
        return [item for f in self.came if isinstance(f, frames.Feed) for item in f.items]


@asynccontextmanager
async def bench(*more: str) -> AsyncIterator[Bench]:
    settings: Settings = settings_for_tests("server.workers=2", *more)
    network, metrics = MemoryNetwork(), Metrics()
    environment = Environment(network.dial, network.listen, virtual_now_ms, random.Random(1))
    bus = LocalBus(epoch=7, history_rows=3, resume_messages=4, now_ms=lambda: 5.0)
    store, fleet = MemoryStore(7), MemoryFleet(network, environment, bare=True)
    listed: list[Instrument] = []
    ready = ["no data yet"]
    report = ServiceReport(lambda: {"version": "x"}, lambda: ready[0], lambda: "")
    view: Any = UpstreamView(report, lambda venue: "why", lambda venue: Listed(listed))
    journal: Any = NoJournal()
    sources = Sources(bus, store, journal, view, lambda: ["v"], metrics)
    async with trio.open_nursery() as nursery:
        front = Front(settings, environment, fleet, sources, {"server.port": Room(1, 0)})
        made = Bench(front, bus, store, fleet, listed, ready, nursery)
        yield made
        nursery.cancel_scope.cancel()


async def begun(made: Bench) -> tuple[Worker, Worker]:
    made.nursery.start_soon(made.front.run)
    await trio.testing.wait_all_tasks_blocked()
    workers = made.worker(1), made.worker(2)
    await trio.testing.wait_all_tasks_blocked()
    return workers


async def test_a_worker_is_told_everything_and_then_how_the_feeds_stand(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with bench() as made:
        made.bus.open(SERIES, [kline(T0)])
        made.bus.alias("BTC-USDT", "BTCUSDT")
        one, two = await begun(made)
        for worker in (one, two):
            hello, *rest, view = worker.came
            assert isinstance(hello, frames.Hello)
            assert (hello.epoch, hello.journal_epoch, hello.worker) == (
                7,
                11,
                (one, two).index(worker) + 1,
            )
            assert isinstance(view, frames.View)
            assert (view.not_ready, view.why_not) == ("no data yet", {"v": "why"})
            kinds = [type(item) for item in worker.items()]
            assert kinds == [wire.Aliased, wire.Opened]
            assert all(isinstance(frame, frames.Feed) for frame in rest)
        made.publish(1)
        made.publish(2)
        await trio.testing.wait_all_tasks_blocked()
        last = two.came[-1]
        assert isinstance(last, frames.Feed)
        assert [item.open_ms for item in last.items] == [T0 + MINUTE, T0 + 2 * MINUTE]  # one frame


async def test_an_answer_comes_behind_what_was_published_before_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Else a history would hold a candle that the worker then publishes once more."""
    async with bench() as made:
        made.bus.open(SERIES)
        one, _ = await begun(made)
        quick = made.store.history

        async def slow(*args: Any, **more: Any) -> Any:
            await quick(*args, **more)
            made.publish(5)  # and nothing waits from here on
            return [kline(T0 + 5 * MINUTE)]

        made.store.history = slow  # type: ignore[method-assign]
        place = len(one.came)
        question = questions.HistoryQuestion("binance_usdm", "BTCUSDT", SERIES.interval, 10)
        answer = await one.pipe.ask(questions.HISTORY, questions.encode(question), 5)
        assert [row.open_ms for row in questions.candles_of(answer)] == [T0 + 5 * MINUTE]
        told = [item for f in one.came[place:] if isinstance(f, frames.Feed) for item in f.items]
        assert [item.open_ms for item in told if isinstance(item, wire.Candle)] == [T0 + 5 * MINUTE]


async def test_news_of_a_stream_that_a_new_worker_does_not_know_yet_is_in_its_snapshot(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with bench() as made:
        others = [Series("v", f"S{n}", SERIES.interval) for n in range(30)]
        for series in others:
            made.bus.open(series)
        turns = 0

        class Busy(trio.abc.Instrument):
            def before_task_step(self, task: Any) -> None:
                nonlocal turns
                if task.name == "snapshot" and turns < 60:  # the market does not wait
                    turns += 1
                    made.publish(turns, others[turns % 30])

        instrument = Busy()
        trio.lowlevel.add_instrument(instrument)
        one, two = await begun(made)
        trio.lowlevel.remove_instrument(instrument)
        assert turns > 20
        for worker in (one, two):
            seen: dict[int, int] = {}
            for item in worker.items():
                if isinstance(item, wire.Opened):
                    assert item.stream not in seen
                    seen[item.stream] = item.offset
                elif isinstance(item, wire.Candle):
                    assert item.offset == seen[item.stream] + 1
                    seen[item.stream] = item.offset
            assert len(seen) == 30
            assert sum(seen.values()) == turns


async def test_what_changes_is_told_each_second(autojump_clock: trio.abc.Clock) -> None:
    async with bench() as made:
        one, _ = await begun(made)
        made.listed.append(Instrument("v", "AUSDT", "A-USDT", "spot"))
        made.ready[0] = ""
        await trio.sleep(1.1)
        views = [frame for frame in one.came if isinstance(frame, frames.View)]
        assert (views[-1].not_ready, views[-1].listings) == ("", {"v": made.listed})
        await trio.sleep(1)
        assert one.came[-1].listings == {}


async def test_a_strange_question_is_refused(autojump_clock: trio.abc.Clock) -> None:
    async with bench() as made:
        one, _ = await begun(made)
        with pytest.raises(NoAnswer, match="no such question"):
            await one.pipe.ask("strange", b"", 5)


async def test_a_store_that_cannot_answer_says_why(autojump_clock: trio.abc.Clock) -> None:
    async with bench() as made:
        one, _ = await begun(made)

        async def away(*_args: Any, **_more: Any) -> Any:
            raise StoreError("the disk is away")

        made.store.after = away  # type: ignore[method-assign]
        question = questions.AfterQuestion("v", "S", SERIES.interval, 1, 2, None, 5)
        with pytest.raises(NoAnswer, match="the disk is away"):
            await one.pipe.ask(questions.AFTER, questions.encode(question), 5)


async def test_a_worker_that_never_serves_ends_the_start(autojump_clock: trio.abc.Clock) -> None:
    async with bench() as made:
        with pytest.RaisesGroup(
            pytest.RaisesExc(match="did not serve within 120 s"),
            pytest.RaisesExc(match="did not serve within 120 s"),
            flatten_subgroups=True,
        ):
            await made.front.run()


def test_a_line_of_a_worker_has_its_number() -> None:
    with structlog.testing.capture_logs() as lines:
        say_again(json.dumps({"event": "a.b", "level": "info", "x": 1}).encode(), 3)
        say_again(json.dumps({"event": "a.b", "level": "odd", "worker": 9}).encode(), 3)
        say_again(b"[]", 3)
        say_again(b"{", 3)
    assert lines[:2] == [
        {"event": "a.b", "log_level": "info", "x": 1, "worker": 3},
        {"event": "a.b", "log_level": "warning", "worker": 3},
    ]
    assert [line["event"] for line in lines[2:]] == ["worker.unreadable"] * 2


def test_workers_do_what_one_process_does() -> None:
    """Nothing of the settings is refused for their sake."""
    passed = "dialects.binance_usdm.passthrough=['GET /fapi/v2/account', 'WS /ws-fapi/v1']"
    check(settings_for_tests("server.workers=2", ".symbols='on_demand'", passed))


def test_workers_want_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for_tests("server.workers=2")
    check(settings)
    monkeypatch.delattr("socket.AF_UNIX")
    with pytest.raises(SettingsError, match=r"server\.workers"):
        check(settings)
    check(evolve(settings, server=evolve(settings.server, workers=1)))
