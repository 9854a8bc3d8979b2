"""The store in front of a database that fails: what it says, in virtual time."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from attrs import evolve
from structlog.testing import capture_logs
from support.make import MINUTE, SERIES, T0, kline, message

from trio_feed.errors import StoreError
from trio_feed.metrics import Metrics
from trio_feed.model import Hole, Interval, Kline, KlineMessage, Series
from trio_feed.settings import StoreSettings
from trio_feed.settings.fields import Duration
from trio_feed.store import opening
from trio_feed.store.backend import Backend, StoreFault
from trio_feed.store.base import End, Entry, Revision, Sizes
from trio_feed.store.buffered import BufferedStore, BufferLimits

OTHER = Series("binance_usdm", "ETHUSDT", Interval.M1)
FOREIGN = Series("okx", "ETHUSDT", Interval.H1)


class Fragile:
    """A database that takes what it is given, or says why not."""

    epoch, place = 1, "nowhere"

    def __init__(self) -> None:
        self.problem = ""
        self.written: list[Entry] = []

    async def write(self, batch: Sequence[Entry]) -> None:
        await trio.lowlevel.checkpoint()
        if self.problem:
            raise StoreFault(self.problem, "mend it")
        self.written += batch

    async def shrink(self) -> bool:
        return False

    async def sizes(self) -> Any:
        raise StoreFault("not asked for here", "")


async def test_a_problem_that_comes_back_is_said_again_at_once(
    autojump_clock: trio.abc.Clock,
) -> None:
    backend = Fragile()
    store = BufferedStore(cast("Backend", backend), BufferLimits(0.1, 100, {}), Metrics())
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            for n in range(2):
                backend.problem = "full"
                store.put(message(kline(T0 + n * MINUTE), offset=n + 1))
                await trio.sleep(10)
                assert store.pending() == 1
                backend.problem = ""
                await trio.sleep(10)
                assert store.pending() == 0
            nursery.cancel_scope.cancel()
    events = [line["event"] for line in logs if line["event"].startswith("store.write")]
    assert events == ["store.write_failed", "store.write_recovered"] * 2
    assert len(backend.written) == 2


class Table(Fragile):
    """A database with rows, whose answers may take a while."""

    def __init__(self, rows: Sequence[int] = ()) -> None:
        super().__init__()
        self.minutes = list(rows)
        self.slow = trio.Event()
        self.slow.set()
        self.asked: list[dict[str, Any]] = []
        self.to_prune: list[int] = []
        self.to_shrink: list[bool] = []
        self.pruning: list[tuple[Any, float, int]] = []
        self.closed: bool | None = None
        self.steps: list[tuple[str, float]] = []
        self.read_problem = ""

    async def _answer(self, **asked: Any) -> None:
        self.asked.append(asked)
        await self.slow.wait()
        await trio.lowlevel.checkpoint()
        if self.read_problem:
            raise StoreFault(self.read_problem, "mend it")

    async def history(self, series: Series, **where: Any) -> list[Kline]:
        rows = [kline(T0 + n * MINUTE) for n in self.minutes]
        await self._answer(**where)
        return rows

    async def first_open(self, series: Series) -> int | None:
        await self._answer()
        return T0 + min(self.minutes) * MINUTE if self.minutes else None

    async def ends(self, venue: str | None, symbols: Any) -> dict[Series, End]:
        ends = {SERIES: End()} if self.minutes else {}
        for n in self.minutes:
            ends[SERIES].add(kline(T0 + n * MINUTE))
        await self._answer(venue=venue, symbols=symbols)
        return ends

    async def after(self, series: Series, epoch: int, offset: int, **more: Any) -> Any:
        await self._answer(epoch=epoch, offset=offset, **more)
        rows = [message(kline(T0 + n * MINUTE), offset=n + 1) for n in self.minutes]
        return [row for row in rows if row.offset > offset]

    async def revisions(self, series: Series, **where: Any) -> list[Revision]:
        await self._answer(**where)
        return []

    async def prune(self, keep: Any, wall_ms: float, limit: int) -> int:
        self.pruning.append((keep, wall_ms, limit))
        self.steps.append(("prune", trio.current_time()))
        return self.to_prune.pop(0) if self.to_prune else 0

    async def shrink(self) -> bool:
        self.steps.append(("shrink", trio.current_time()))
        return bool(self.to_shrink) and self.to_shrink.pop(0)

    async def sizes(self) -> Sizes:
        self.steps.append(("sizes", trio.current_time()))
        return Sizes({Interval.M1: 5}, 100, 20, 3)

    async def close(self, *, complete: bool) -> None:
        self.closed = complete


def store_of(backend: Fragile, *, most: int = 100, every_s: float = 1.0, keep: Any = None) -> Any:
    limits = BufferLimits(every_s, most, keep or {})
    return BufferedStore(cast("Backend", backend), limits, Metrics())


def row(n: int, offset: int, close: str = "100.50", **more: Any) -> KlineMessage:
    return evolve(message(kline(T0 + n * MINUTE, close), offset=offset), **more)


def minutes(rows: Sequence[Kline]) -> list[int]:
    return [(k.open_ms - T0) // MINUTE for k in rows]


async def test_the_first_batch_is_written_at_once_and_others_at_the_interval(
    autojump_clock: trio.abc.Clock,
) -> None:
    """What is told and not on the disk yet is lost by a kill, where nothing says where to go on."""
    backend = Fragile()
    store = store_of(backend, every_s=2.0)
    async with trio.open_nursery() as nursery:
        backend.sizes = Table().sizes  # type: ignore[method-assign]
        nursery.start_soon(store.run)
        await trio.sleep(10)
        store.put(row(0, 1))
        store.put(row(1, 2))
        await trio.testing.wait_all_tasks_blocked()
        assert (store.pending(), len(backend.written), trio.current_time()) == (0, 2, 10.0)
        assert store._metrics.store_pending._value.get() == 0
        store.put(row(2, 3))
        await trio.sleep(1.9)
        store.put(row(3, 4))
        assert (store.pending(), len(backend.written)) == (2, 2)
        await trio.sleep(0.2)
        assert (store.pending(), len(backend.written)) == (0, 4)
        nursery.cancel_scope.cancel()


async def test_a_refused_batch_is_tried_again_more_and_more_rarely(
    autojump_clock: trio.abc.Clock,
) -> None:
    tries: list[float] = []

    class Full(Table):
        async def write(self, batch: Sequence[Entry]) -> None:
            tries.append(trio.current_time())
            await super().write(batch)

    backend = Full()
    backend.problem = "full"
    store = store_of(backend, every_s=1.0)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            store.put(row(0, 1))
            await trio.sleep(60)
            pauses = [b - a for a, b in itertools.pairwise(tries)]
            assert pauses[:7] == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
            assert store._metrics.store_errors._value.get() == len(tries)
            failed = len(tries)
            backend.problem = ""
            await trio.sleep(7)
            assert store.pending() == 0
            backend.problem = "full"
            store.put(row(1, 2))
            before = trio.current_time()
            await trio.sleep(3)
            nursery.cancel_scope.cancel()
    assert [at - before for at in tries if at >= before][:2] == pytest.approx([0.0, 0.2])
    (recovered,) = [line for line in logs if line["event"] == "store.write_recovered"]
    assert recovered["failures"] == failed
    said = [line for line in logs if line["event"] == "store.write_failed"]
    assert said[0]["pending"] == 1
    assert (said[0]["path"], said[0]["problem"], said[0]["advice"]) == (
        "nowhere",
        "full",
        "mend it",
    )


async def test_what_failed_stays_before_what_came_meanwhile(autojump_clock: trio.abc.Clock) -> None:
    backend = Table()
    store = store_of(backend)
    backend.problem = "full"
    store.put(row(0, 1))
    async with trio.open_nursery() as nursery:

        async def flush() -> None:
            with pytest.raises(StoreFault):
                await store.flush()

        nursery.start_soon(flush)
        await trio.lowlevel.checkpoint()
        store.put(row(1, 2))
    assert store.pending() == 2
    backend.problem = ""
    await store.flush()
    assert [entry.offset for entry in backend.written] == [1, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize(("waiting", "full"), [(2, False), (3, True)])
async def test_room_waits_at_the_limit(
    waiting: int, full: bool, autojump_clock: trio.abc.Clock
) -> None:
    backend = Table()
    store = store_of(backend, most=3, every_s=4.0)
    for n in range(waiting):
        store.put(row(n, n + 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        assert await store.wait_capacity() is full
        assert store.pending() == (0 if full else waiting)
        nursery.cancel_scope.cancel()


async def test_a_disk_that_takes_nothing_is_a_problem_until_it_does(
    autojump_clock: trio.abc.Clock,
) -> None:
    backend = Table()
    store = store_of(backend, most=2, every_s=1.0)
    backend.problem = "the disk is full"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        store.put(row(1, 2))
        await trio.sleep(1)
        assert ("the disk is full" in store.statistics().problem, store.statistics().full) == (
            True, False,
        )  # fmt: skip
        store.put(row(2, 3))
        assert store.statistics().full
        backend.problem = ""
        await trio.sleep(60)
        assert (store.statistics().problem, store.statistics().full) == ("", False)
        nursery.cancel_scope.cancel()


async def test_what_is_being_written_counts_as_pending(autojump_clock: trio.abc.Clock) -> None:
    class Slow(Table):
        async def write(self, batch: Sequence[Entry]) -> None:
            await trio.sleep(1)

    store = store_of(Slow([0]))
    store.put(row(1, 2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.flush)
        await trio.sleep(0.5)
        store.put(row(2, 3))
        assert store.pending() == 2
        assert minutes(await store.history(SERIES, limit=9)) == [0, 1, 2]


# ---------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"limit": 9}, [0, 1, 2, 3, 4]),
        ({"limit": 2}, [3, 4]),
        ({"limit": 2, "start_ms": T0 + MINUTE}, [1, 2]),
        ({"limit": 9, "start_ms": T0 + 3 * MINUTE}, [3, 4]),
        ({"limit": 9, "start_ms": T0 + 3 * MINUTE + 1}, [4]),
        ({"limit": 9, "end_ms": T0 + 4 * MINUTE}, [0, 1, 2, 3]),
        ({"limit": 9, "end_ms": T0 + 4 * MINUTE + 1}, [0, 1, 2, 3, 4]),
        ({"limit": 2, "start_ms": T0, "end_ms": T0 + 4 * MINUTE}, [2, 3]),
    ],
)
async def test_what_is_pending_is_in_the_history(where: dict[str, int], found: list[int]) -> None:
    """The database knows minutes 0 to 2; 1 was changed, 3 and 4 are new."""
    backend = Table([0, 1, 2])
    start, end = where.get("start_ms"), where.get("end_ms")
    backend.minutes = [
        n for n in backend.minutes
        if (start is None or T0 + n * MINUTE >= start) and (end is None or T0 + n * MINUTE < end)
    ]  # fmt: skip
    store = store_of(backend)
    store.put(row(4, 9))
    store.put(row(3, 8))
    store.put(row(1, 10, "7.5", revision=True))
    store.put(evolve(row(2, 1, "1.0"), series=OTHER))
    rows = await store.history(SERIES, **where)
    assert minutes(rows) == found
    for candle in rows:
        assert str(candle.close) == ("7.5" if candle.open_ms == T0 + MINUTE else "100.50")
    assert backend.asked == [{"limit": where["limit"], "start_ms": start, "end_ms": end}]


async def test_what_comes_during_a_question_is_in_its_answer(
    autojump_clock: trio.abc.Clock,
) -> None:
    backend = Table([0, 1])
    store = store_of(backend)
    answers: dict[str, Any] = {}
    backend.slow = trio.Event()

    async def ask(name: str, question: Any) -> None:
        answers[name] = await question

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "history", store.history(SERIES, limit=9))
        nursery.start_soon(ask, "first", store.first_open(SERIES))
        nursery.start_soon(ask, "stored_ends", store.stored_ends())
        nursery.start_soon(ask, "after", store.after(SERIES, 1, 1, limit=9))
        await trio.testing.wait_all_tasks_blocked()
        store.put(row(-1, 3))
        store.put(row(2, 4))
        store.put_hole(SERIES, Hole(T0, T0 + 9 * MINUTE))
        store.put(evolve(row(7, 1), series=OTHER))
        backend.problem = ""
        await store.flush()  # written meanwhile: the answer under way does not know it
        backend.slow.set()
    assert minutes(answers["history"]) == [-1, 0, 1, 2]
    assert answers["first"] == T0 - MINUTE
    assert [m.offset for m in answers["after"]] == [2, 3, 4]
    stored_end = answers["stored_ends"][SERIES]
    assert (stored_end.kline.open_ms, stored_end.settled_ms) == (T0 + 2 * MINUTE, T0 + 9 * MINUTE)
    assert stored_end.first_open_ms == T0 - MINUTE
    assert set(answers["stored_ends"]) == {SERIES, OTHER}
    # Nothing is laid over later answers any more.
    assert minutes(await store.history(SERIES, limit=9)) == [0, 1]


async def test_the_first_open_of_what_is_only_pending() -> None:
    store = store_of(Table())
    assert await store.first_open(SERIES) is None
    store.put(row(3, 1))
    assert await store.first_open(SERIES) == T0 + 3 * MINUTE


@pytest.mark.parametrize(
    ("venue", "symbols", "found"),
    [
        (None, None, {SERIES, OTHER, FOREIGN}),
        ("binance_usdm", None, {SERIES, OTHER}),
        ("okx", None, {FOREIGN}),
        (None, ["ETHUSDT"], {OTHER, FOREIGN}),
        ("binance_usdm", ["ETHUSDT"], {OTHER}),
        ("okx", ["BTCUSDT"], set()),
        (None, [], set()),
    ],
)
async def test_tails_of_what_is_pending(
    venue: str | None, symbols: list[str] | None, found: set[Series]
) -> None:
    store = store_of(Table())
    for series in (SERIES, OTHER, FOREIGN):
        store.put(evolve(row(0, 1), series=series))
    store.put_hole(Series("okx", "ETHUSDT", Interval.D1), Hole(T0, T0))  # a hole is no stored_end
    assert set(await store.stored_ends(venue, symbols)) == found


@pytest.mark.parametrize(("epoch", "exact"), [(1, True), (0, False)])
async def test_of_this_epoch_everything_is_known(epoch: int, exact: bool) -> None:
    backend = Table([0])
    await store_of(backend).after(SERIES, epoch, 3, closed_ms=77, limit=9)
    closed_ms = None if exact else 77
    assert backend.asked == [
        {"epoch": epoch, "offset": 3, "closed_ms": closed_ms, "limit": 9, "exact": exact}
    ]


async def test_after_a_refused_candle_nothing_earlier_is_answered() -> None:
    store = store_of(Table([0, 1, 2]))
    store.put(evolve(row(3, 4), kline=evolve(kline(T0 + 3 * MINUTE), trades=2**63)))
    store.put(row(4, 5))
    assert await store.after(SERIES, 1, 3, limit=9) is None
    assert [m.offset for m in await store.after(SERIES, 1, 4, limit=9)] == [5]
    assert await store.after(SERIES, 1, 4, limit=0) is None
    assert store.statistics().refused == 1
    assert store._metrics.store_refused._value.get() == 1
    assert store.pending() == 2  # that it was lost is kept as well
    store.put(evolve(row(3, 2**63)))  # of which not even that can be kept
    assert (store.pending(), store.statistics().refused) == (2, 2)


async def test_a_refused_row_is_said_once_a_minute(autojump_clock: trio.abc.Clock) -> None:
    store = store_of(Table())
    with capture_logs() as logs:
        for _ in range(3):
            store.put(row(3, 2**63))
            store.put_hole(SERIES, Hole(T0, 2**63))
        await trio.sleep(61)
        store.put_hole(SERIES, Hole(T0, 2**63))
    problems = [line["problem"].split()[0] for line in logs]
    assert problems[:2] == ["offset", "last_ms"]
    assert problems[-1] == "last_ms"
    assert store.statistics().refused == 7


async def test_a_question_that_fails_is_a_store_error_and_one_line(
    autojump_clock: trio.abc.Clock,
) -> None:
    backend = Table([0])
    backend.read_problem = "disk on fire"
    store = store_of(backend)
    questions = [
        lambda: store.history(SERIES, limit=1),
        store.stored_ends,
        lambda: store.first_open(SERIES),
        lambda: store.after(SERIES, 1, 0, limit=1),
        lambda: store.revisions(SERIES, limit=1),
    ]
    with capture_logs() as logs:
        for question in questions:
            with pytest.raises(StoreError, match="stored candles cannot be read: disk on fire"):
                await question()
    assert [line["event"] for line in logs] == ["store.read_failed"]


async def test_revisions_are_asked_of_what_was_written_first() -> None:
    backend = Table()
    store = store_of(backend)
    await store.revisions(SERIES, start_ms=3, end_ms=4, limit=5)
    assert backend.asked == [{"start_ms": 3, "end_ms": 4, "limit": 5}]
    store.put(row(0, 1))
    await store.revisions(SERIES, limit=5)
    assert (store.pending(), len(backend.written)) == (0, 1)
    store.put(row(1, 2))
    backend.problem = "full"
    with pytest.raises(StoreError, match="candles cannot be written now: full"):
        await store.revisions(SERIES, limit=5)


# ---------------------------------------------------------------- retention and the end


async def test_retention_goes_step_by_step_and_looks_at_the_sizes(
    autojump_clock: trio.abc.Clock,
) -> None:
    backend, keep = Table(), {Interval.M1: 60.0}
    backend.to_prune, backend.to_shrink = [2000, 3], [True]
    store = store_of(backend, keep=keep)
    store.put(row(0, 1, received_ms=77.0))
    await store.retain()
    assert [name for name, _ in backend.steps] == [*["prune"] * 3, *["shrink"] * 2, "sizes"]
    starts = [at for _, at in backend.steps]
    assert [b - a for a, b in itertools.pairwise(starts)] == pytest.approx([0.02] * 5)
    assert backend.pruning[0] == (keep, 77.0, 2000)
    assert (store.statistics().pruned, store.statistics().sizes.file_bytes) == (2003, 100)
    metrics = store._metrics
    assert metrics.store_pruned._value.get() == 2003
    kinds = {
        kind: metrics.store_bytes.labels(kind)._value.get() for kind in ("file", "wal", "free")
    }
    assert kinds == {"file": 100, "wal": 20, "free": 3}
    assert metrics.store_rows.labels("1m")._value.get() == 5


@pytest.mark.parametrize(
    ("keep", "put", "asks"), [(False, True, 0), (True, False, 0), (True, True, 1)]
)
async def test_nothing_is_pruned_before_something_new_came(
    keep: bool, put: bool, asks: int, autojump_clock: trio.abc.Clock
) -> None:
    backend = Table()
    store = store_of(backend, keep={Interval.M1: 60.0} if keep else {})
    if put:
        store.put(row(0, 1))
    await store.retain()
    assert len(backend.pruning) == asks


async def test_retention_comes_again_every_half_minute_and_survives_faults(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Broken(Table):
        broken = False

        async def shrink(self) -> bool:
            if self.broken:
                raise StoreFault("locked", "mend it")
            return await super().shrink()

    backend = Broken()
    store = store_of(backend, keep={Interval.M1: 60.0})
    store.put(row(0, 1))
    backend.to_prune = [5, 0, 0, 7]
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            await trio.sleep(29.9)
            assert [name for name, _ in backend.steps].count("sizes") == 1
            backend.broken = True
            await trio.sleep(60)
            backend.broken = False
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
    assert [line["rows"] for line in logs if line["event"] == "store.pruned"] == [5, 7]
    assert len([line for line in logs if line["event"] == "store.retention_failed"]) == 1
    assert [name for name, _ in backend.steps].count("sizes") == 3


@pytest.mark.parametrize("fails", [False, True])
async def test_the_end_says_whether_everything_was_written(
    fails: bool, autojump_clock: trio.abc.Clock
) -> None:
    backend = Table()
    backend.problem = "full" if fails else ""
    store = store_of(backend)
    store.put(row(0, 1))
    with capture_logs() as logs:
        await store.last_flush()
        await store.close()
    assert backend.closed is not fails
    assert [line["event"] for line in logs] == ["store.write_failed"] * fails


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is named by a path, and its lock file is made there."""
    monkeypatch.chdir(tmp_path)


async def open_with(
    backend: Table, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> tuple[list[Any], list[str]]:
    """Open the store over a fake database, put a row, leave.  What it asked for, and its lines."""
    asked: list[Any] = []

    def fake(path: Any, *, simulated: bool, now_ms: float) -> Table:
        asked.append((str(path), simulated, now_ms))
        return backend

    monkeypatch.setattr(opening, "open_sqlite", fake)
    settings = StoreSettings(path="some/where.db", **more)
    with capture_logs() as logs:
        async with opening.open_store(
            settings, simulated=True, now_ms=5.5, metrics=Metrics()
        ) as store:
            assert isinstance(store, BufferedStore)
            store.put(row(0, 1))
            asked.append(store)
    return asked, [line["event"] for line in logs]


async def test_on_the_way_out_everything_is_written(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    backend = Table()
    keep = {Interval.M1: Duration("1h"), Interval.S1: Duration("forever")}
    asked, lines = await open_with(
        backend, monkeypatch, keep=keep, flush_interval_s=0.7, max_pending_rows=900
    )
    assert asked[0] == ("some/where.db", True, 5.5)
    limits = asked[1]._limits
    year_ms = 365 * 86_400_000.0  # of 30s, the default; "forever" is no length
    kept = {Interval.M1: 3_600_000.0, Interval.S30: year_ms}
    assert limits == BufferLimits(0.7, 900, kept)
    assert (backend.closed, len(backend.written), lines) == (True, 1, [])


@pytest.mark.parametrize("hangs", ["write", "close"])
async def test_the_way_out_takes_three_seconds_at_most(
    hangs: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    backend = Table()

    async def never(*_: Any, **__: Any) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(backend, hangs, never)
    began = trio.current_time()
    _, lines = await open_with(backend, monkeypatch)
    assert trio.current_time() - began == pytest.approx(3.0)
    assert lines == (["store.rows_lost"] if hangs == "write" else [])
    assert backend.closed is (False if hangs == "write" else None)


async def test_the_way_out_is_gone_to_its_end_when_cancelled(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    backend = Table()
    monkeypatch.setattr(opening, "open_sqlite", lambda *_, **__: backend)
    with trio.CancelScope() as scope:
        async with opening.open_store(
            StoreSettings(path="x.db"), simulated=False, now_ms=1.0, metrics=Metrics()
        ) as store:
            store.put(row(0, 1))
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert (backend.closed, len(backend.written)) == (True, 1)
