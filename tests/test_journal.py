"""What the journal decides and keeps: both backends give the same answers (SQLite called here
without threads; with threads and a real disk: tests/live)."""

import sqlite3
from collections.abc import Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_feed.errors import JournalError, StartError
from trio_feed.metrics import Metrics
from trio_feed.model import Delivery, PrivateMessage, Settlement
from trio_feed.settings import SettlementSettings
from trio_feed.store import AppendStatus, Journal, journal_sqlite
from trio_feed.store.journal import JournalBackend
from trio_feed.store.journal_memory import MemoryJournalBackend
from trio_feed.store.journal_plan import Settled
from trio_feed.store.journal_sqlite import open_journal_backend

SETTINGS = SettlementSettings(retention_s=100.0, order_retention_s=1000.0)


def event(
    event_id: str,
    *deliveries: tuple[int | None, int | None],
    at_ms: float = 1000.0,
    publisher: str = "engine",
) -> Settlement:
    """``deliveries`` as (user, order)."""
    rows = tuple(
        Delivery(user, order, f'"{event_id}":{n}') for n, (user, order) in enumerate(deliveries)
    )
    return Settlement(publisher, event_id, rows, at_ms)


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JournalBackend]:
    made: JournalBackend
    made = (
        MemoryJournalBackend(7)
        if request.param == "memory"
        else open_journal_backend(tmp_path / "j.db", now_ms=7)
    )
    yield made
    made.close()


def to_all(event_id: str, text: str = "x", *, publisher: str = "engine") -> Settlement:
    return Settlement(publisher, event_id, (), 1000.0, f'"text":"{text}"')


def statuses(settled: Settled) -> list[str]:
    return [f"{o.status} {o.reason}".strip() for o in settled.outcomes]


def numbers(messages: list[PrivateMessage]) -> list[tuple[int, int]]:
    return [(m.user_id, m.offset) for m in messages]


def test_events_are_numbered_per_user(backend: JournalBackend) -> None:
    first = backend.settle([event("a", (1, None)), event("b", (2, None)), event("c", (1, None))])
    assert numbers(first.messages) == [(1, 1), (2, 1), (1, 2)]
    second = backend.settle([event("d", (1, None), (1, None))])
    assert numbers(second.messages) == [(1, 3), (1, 4)]
    assert [backend.head(user) for user in (1, 2, 3)] == [4, 1, 0]
    assert [m.body for m in backend.read(1, 0, 99, 99)] == ['"a":0', '"c":0', '"d":0', '"d":1']
    assert numbers(backend.read(1, 1, 3, 99)) == [(1, 2), (1, 3)]
    assert numbers(backend.read(1, 0, 99, 2)) == [(1, 1), (1, 2)]
    assert backend.read(9, 0, 99, 2) == []


def test_an_event_is_kept_once(backend: JournalBackend) -> None:
    settled = backend.settle([event("a", (1, None)), event("a", (1, None)), event("b", (1, None))])
    assert statuses(settled) == ["accepted", "duplicate", "accepted"]
    again = backend.settle([event("b", (1, None)), event("c", (1, None))])
    assert statuses(again) == ["duplicate", "accepted"]
    assert numbers(again.messages) == [(1, 3)]


def test_an_event_id_belongs_to_its_publisher(backend: JournalBackend) -> None:
    first = [event("a", (1, None)), event("a", (2, None), publisher="bank")]
    assert statuses(backend.settle(first)) == ["accepted", "accepted"]
    assert statuses(backend.settle(first)) == ["duplicate", "duplicate"]
    assert [backend.head(user) for user in (1, 2)] == [1, 1]


def test_the_same_id_with_other_content_is_rejected(backend: JournalBackend) -> None:
    reason = "rejected event_id: used before with other content; a new event needs a new id"
    first = event("a", (1, 7), (2, 8))
    (row, other) = first.deliveries
    changed = evolve(first, deliveries=(evolve(row, body='"a":9'), other))
    for_another = evolve(first, deliveries=(evolve(row, user_id=3), other))
    shorter = evolve(first, deliveries=(row,))
    assert statuses(backend.settle([first, changed])) == ["accepted", reason]
    assert statuses(backend.settle([changed, for_another, shorter])) == [reason] * 3
    assert (backend.head(1), backend.head(3)) == (1, 0)


def test_the_same_content_in_other_words_is_a_duplicate(backend: JournalBackend) -> None:
    """Fields in another order (a publisher's hash map), and an owner who is named or not."""
    one = Settlement("engine", "a", (Delivery(1, 7, '"x":1.50,"y":{"p":1,"q":2}'),), 1.0)
    two = Settlement("engine", "a", (Delivery(None, 7, '"y":{"q":2,"p":1},"x":1.50'),), 2.0)
    digits = Settlement("engine", "a", (Delivery(1, 7, '"x":1.5,"y":{"p":1,"q":2}'),), 2.0)
    assert [s.split()[0] for s in statuses(backend.settle([one, two, digits]))] == [
        "accepted", "duplicate", "rejected",
    ]  # fmt: skip


VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, at_ms INTEGER NOT NULL);
CREATE TABLE deliveries (
    event INTEGER NOT NULL, user_id INTEGER NOT NULL, offset INTEGER NOT NULL, body TEXT NOT NULL);
CREATE UNIQUE INDEX deliveries_by_user ON deliveries (user_id, offset);
CREATE INDEX deliveries_by_event ON deliveries (event);
CREATE TABLE orders (
    order_id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL, at_ms INTEGER NOT NULL);
CREATE INDEX orders_by_age ON orders (at_ms);
CREATE TABLE users (user_id INTEGER PRIMARY KEY, offset INTEGER NOT NULL);
INSERT INTO meta VALUES ('schema', '1'), ('epoch', '5');
INSERT INTO events VALUES (3, 'a', 10), (4, 'b', 20);
INSERT INTO deliveries VALUES (3, 1, 8, '"a":0'), (3, 2, 1, '"a":1'), (4, 1, 9, '"b":0');
INSERT INTO orders VALUES (77, 1, 10);
INSERT INTO users VALUES (1, 9), (2, 1);
"""
"""A file of version 1, as 0.1.0 made it; user 1's first seven events have been pruned."""


def version_1(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)


def test_a_file_of_version_1_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    version_1(path)
    for _ in range(2):  # the second opening finds it done
        backend = open_journal_backend(path, now_ms=7)
        assert (backend.epoch, backend.shared_epoch) == (5, 5)
        assert [(m.offset, m.body) for m in backend.read(1, 7, 99, 99)] == [
            (8, '"a":0'), (9, '"b":0'),
        ]  # fmt: skip
        again = backend.settle(
            [event("a", (1, None), (2, None)), event("b", (1, None), publisher="bank")]
        )
        assert statuses(again) == ["duplicate", "duplicate"]
        assert statuses(backend.settle([event("b", (2, None))]))[0].startswith("rejected event_id")
        backend.close()
    backend = open_journal_backend(path, now_ms=7)
    assert statuses(backend.settle([event("c", (None, 77))])) == ["accepted"]
    assert (backend.head(1), backend.prune(15, 0, 9)) == (10, 1)
    assert statuses(backend.settle([event("a", (2, None))])) == ["accepted"]
    backend.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j.db"
    version_1(path)
    broken = (*journal_sqlite._FROM_1, "INSERT INTO nothing VALUES (1)")
    with monkeypatch.context() as patch:
        patch.setattr(journal_sqlite, "_FROM_1", broken)
        with pytest.raises(StartError):
            open_journal_backend(path, now_ms=7)
    backend = open_journal_backend(path, now_ms=7)
    assert statuses(backend.settle([event("b", (1, None))])) == ["duplicate"]
    backend.close()


def test_the_owner_of_an_order_is_known_from_before(backend: JournalBackend) -> None:
    settled = backend.settle([event("a", (None, 10)), event("b", (1, 10)), event("c", (None, 10))])
    assert statuses(settled) == [
        "rejected user_id: missing, and nothing is known of order 10", "accepted", "accepted",
    ]  # fmt: skip
    later = backend.settle([event("a", (None, 10)), event("d", (1, 11), (2, 12))])
    assert numbers(later.messages) == [(1, 3), (1, 4), (2, 1)]
    assert numbers(backend.settle([event("e", (None, 12))]).messages) == [(2, 2)]


def test_an_order_never_changes_hands(backend: JournalBackend) -> None:
    backend.settle([event("a", (1, 10))])
    wrong = backend.settle([event("b", (2, 10)), event("c", (2, 20), (1, 20)), event("d", (2, 20))])
    assert statuses(wrong) == [
        "rejected user_id: order 10 belongs to another user",
        "rejected user_id: order 20 belongs to another user",
        "accepted",
    ]
    assert backend.head(1) == 1


def test_a_rejected_event_may_come_again(backend: JournalBackend) -> None:
    assert statuses(backend.settle([event("a", (1, 5), (None, 6))]))[0].startswith("rejected")
    assert (backend.head(1), backend.read(1, 0, 9, 9)) == (0, [])
    assert statuses(backend.settle([event("b", (2, 6)), event("a", (1, 5), (None, 6))])) == [
        "accepted", "accepted",
    ]  # fmt: skip


def test_pruning_forgets_the_oldest_and_never_the_numbers(backend: JournalBackend) -> None:
    backend.settle([event(f"e{n}", (1, n + 1), at_ms=n * 10.0) for n in range(10)])
    assert backend.prune(50.0, 0.0, 3) == 3
    assert backend.prune(50.0, 0.0, 3) == 2
    assert backend.prune(50.0, 0.0, 3) == 0
    assert [m.offset for m in backend.read(1, 0, 99, 99)] == [6, 7, 8, 9, 10]
    assert statuses(backend.settle([event("e9", (1, None)), event("e0", (1, None))])) == [
        "duplicate", "accepted",
    ]  # fmt: skip
    assert backend.head(1) == 11
    assert backend.prune(1e9, 45.0, 100) == 6 + 5
    assert statuses(backend.settle([event("x", (None, 1)), event("y", (None, 6))])) == [
        "rejected user_id: missing, and nothing is known of order 1", "accepted",
    ]  # fmt: skip
    assert backend.head(1) == 12


def test_one_that_is_too_young_protects_what_came_after(backend: JournalBackend) -> None:
    """The clock jumped back: a user's events stay a run without holes all the same."""
    backend.settle([event("a", (1, None), at_ms=500.0), event("b", (1, None), at_ms=10.0)])
    assert backend.prune(100.0, 0.0, 10) == 0
    assert [m.offset for m in backend.read(1, 0, 9, 9)] == [1, 2]


actions = st.lists(
    st.one_of(
        st.tuples(
            st.just("settle"),
            st.lists(
                st.tuples(
                    st.integers(0, 12),
                    st.lists(
                        st.tuples(
                            st.one_of(st.none(), st.integers(1, 3)),
                            st.one_of(st.none(), st.integers(1, 5)),
                        ),
                        min_size=1,
                        max_size=2,
                    ),
                ),
                max_size=4,
            ),
        ),
        st.tuples(st.just("prune"), st.integers(0, 30)),
    ),
    max_size=12,
)


@given(actions)
@settings(max_examples=60, deadline=None)
def test_the_two_shelves_agree(steps: list[Any]) -> None:
    memory, disk = MemoryJournalBackend(7), open_journal_backend(Path(":memory:"), now_ms=7)
    disk._reader.close()  # in memory two connections would be two databases
    disk._reader = disk._writer
    try:
        for at, (what, value) in enumerate(steps):
            if what == "prune":
                found = [s.prune(value, value / 2, 3) for s in (memory, disk)]
                assert found[0] == found[1]
            else:
                batch = [event(f"e{n}", *rows, at_ms=at * 3) for n, rows in value]
                one, two = memory.settle(batch), disk.settle(batch)
                assert one.outcomes == two.outcomes
                assert one.messages == two.messages
            for user in (1, 2, 3):
                assert memory.head(user) == disk.head(user)
                assert memory.read(user, 0, 99, 99) == disk.read(user, 0, 99, 99)
    finally:
        disk._writer.close()


def test_an_epoch_belongs_to_the_file(tmp_path: Path) -> None:
    for now in (5, 6):
        backend = open_journal_backend(tmp_path / "j.db", now_ms=now)
        assert backend.epoch == 5
        backend.settle([event(f"e{now}", (1, None))])
        assert backend.head(1) == now - 4
        backend.close()


@asynccontextmanager
async def running(backend: JournalBackend, **more: Any) -> Any:
    told: list[PrivateMessage] = []
    journal = Journal(
        backend,
        evolve(SETTINGS, **more),
        in_threads=False,
        now_ms=lambda: trio.current_time() * 1000,
        metrics=Metrics(),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run, told.extend)
        yield journal, told
        nursery.cancel_scope.cancel()


class Slow(MemoryJournalBackend):
    """Counts batches; fails on demand."""

    batches = 0
    broken = False

    def settle(self, events: Any) -> Settled:
        self.batches += 1
        if self.broken:
            raise JournalError("database or disk is full")
        return super().settle(events)


async def test_requests_that_wait_are_written_together(autojump_clock: trio.abc.Clock) -> None:
    backend = Slow(1)
    async with running(backend) as (journal, told), trio.open_nursery() as nursery:
        for n in range(50):
            nursery.start_soon(journal.append, [event(f"e{n}", (1, None))])
    assert backend.batches <= 2
    assert [m.offset for m in told] == list(range(1, 51))


async def test_who_appended_is_told_after_the_clients_are(autojump_clock: trio.abc.Clock) -> None:
    async with running(MemoryJournalBackend(1)) as (journal, told):
        outcomes = await journal.append([event("a", (1, None)), event("a", (1, None))])
        assert [o.status for o in outcomes] == [AppendStatus.ACCEPTED, AppendStatus.DUPLICATE]
        assert numbers(told) == [(1, 1)]
        assert await journal.append([]) == []


async def test_the_same_event_at_the_same_time_is_accepted_once(
    autojump_clock: trio.abc.Clock,
) -> None:
    found: list[str] = []
    async with running(MemoryJournalBackend(1)) as (journal, told):

        async def append() -> None:
            found.extend(o.status for o in await journal.append([event("a", (1, None))]))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(append)
    assert sorted(found) == ["accepted", *["duplicate"] * 4]
    assert numbers(told) == [(1, 1)]


async def test_a_batch_that_fails_is_acknowledged_to_nobody_and_life_goes_on(
    autojump_clock: trio.abc.Clock,
) -> None:
    backend = Slow(1)
    async with running(backend) as (journal, told):
        backend.broken = True
        with pytest.raises(JournalError, match="disk is full"):
            await journal.append([event("a", (1, None))])
        assert told == []
        backend.broken = False
        (outcome,) = await journal.append([event("a", (1, None))])
        assert outcome.status is AppendStatus.ACCEPTED
        assert numbers(told) == [(1, 1)]


async def test_batches_that_fail_for_one_reason_are_one_line(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Publishers send again and again while a database is away."""
    backend = Slow(1)
    async with running(backend) as (journal, _):
        with structlog.testing.capture_logs() as lines:
            for broken in (True, True, True, False, True):
                backend.broken = broken
                with suppress(JournalError):
                    await journal.append([event("a", (1, None))])
    told = [line["problem"] for line in lines if line["event"] == "journal.write_failed"]
    assert told == ["database or disk is full"] * 2, "once for each time that it was away"


async def test_one_who_gives_up_waiting_takes_nothing_back(autojump_clock: trio.abc.Clock) -> None:
    backend = MemoryJournalBackend(1)
    async with running(backend) as (journal, told):
        with trio.CancelScope() as scope:
            scope.cancel()
            await journal.append([event("a", (1, None))])
        await journal.append([event("b", (1, None))])
        assert numbers(told) == [(1, 1), (1, 2)]


async def test_what_is_too_old_goes_by_itself(autojump_clock: trio.abc.Clock) -> None:
    async with running(MemoryJournalBackend(1), retention_s=150.0) as (journal, _):
        for n in range(3):
            await journal.append([event(f"e{n}", (1, None), at_ms=trio.current_time() * 1000)])
            await trio.sleep(60)
        await trio.sleep(61)
        assert await journal.read(1, 0, 3) == []  # the first one is gone: no part of it
        assert [m.offset for m in await journal.read(1, 2, 3)] == [3]
        assert await journal.head(1) == 3


def test_a_batch_is_kept_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_journal_backend(tmp_path / "j.db", now_ms=7)
    write = journal_sqlite._write

    def fails_at_the_end(db: sqlite3.Connection, plan: Any) -> None:
        write(db, plan)
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(journal_sqlite, "_write", fails_at_the_end)
        with pytest.raises(JournalError, match="disk I/O error"):
            backend.settle([event("a", (1, 10))])
    assert (backend.head(1), backend.read(1, 0, 9, 9)) == (0, [])
    assert statuses(backend.settle([event("a", (1, 10))])) == ["accepted"]
    backend.close()


# ---------------------------------------------------------------- batches and pruning in time


class Noting(MemoryJournalBackend):
    """Notes what it is asked, and when."""

    def __init__(self, prunes: list[int] | None = None) -> None:
        super().__init__(7)
        self.batches: list[int] = []
        self.prunes: list[tuple[float, float, int, float]] = []
        self.answers = prunes or []

    def settle(self, events: Any) -> Settled:
        self.batches.append(len(events))
        return super().settle(events)

    def prune(self, before_ms: float, orders_before_ms: float, limit: int) -> int:
        self.prunes.append((before_ms, orders_before_ms, limit, trio.current_time()))
        return self.answers.pop(0) if self.answers else 0


def journal_on(backend: JournalBackend, metrics: Metrics | None = None) -> Journal:
    return Journal(
        backend,
        SETTINGS,
        in_threads=False,
        now_ms=lambda: 1_000_000.0 + trio.current_time() * 1000,
        metrics=metrics or Metrics(),
    )


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [([2000], [2000]), ([1000, 1000], [2000]), ([1000, 1001], [1000, 1001]), ([3000], [3000]),
     ([1, 2, 3], [6]), ([1999, 1, 1], [2000, 1])],
)  # fmt: skip
async def test_how_many_events_are_written_together(
    sizes: list[int], batches: list[int], autojump_clock: trio.abc.Clock
) -> None:
    backend = Noting()
    journal = journal_on(backend)
    done: list[int] = []

    async def append(number: int, size: int) -> None:
        outcomes = await journal.append([event(f"{number}-{n}", (1, None)) for n in range(size)])
        assert len(outcomes) == size
        done.append(number)

    async with trio.open_nursery() as nursery:
        for number, size in enumerate(sizes):
            nursery.start_soon(append, number, size)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(journal.run, lambda _messages: None)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert backend.batches == batches
    assert sorted(done) == list(range(len(sizes)))


async def test_the_oldest_are_forgotten_in_small_steps_each_minute(
    autojump_clock: trio.abc.Clock,
) -> None:
    backend = Noting([250, 3])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal_on(backend).run, lambda _messages: None)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    times = [row[3] for row in backend.prunes]
    assert times == pytest.approx([0, 0.05, 0.1, 60.1])
    assert [row[:3] for row in backend.prunes[:3]] == [(900_000.0, 0.0, 250)] * 3
    assert backend.prunes[3][:2] == pytest.approx((960_100.0, 60_100.0))


async def test_a_prune_that_fails_is_counted_and_tried_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Stuck(Noting):
        def prune(self, *where: Any) -> int:
            super().prune(*where)
            raise JournalError("locked")

    backend, metrics = Stuck(), Metrics()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal_on(backend, metrics).run, lambda _messages: None)
        await trio.sleep(61)
        nursery.cancel_scope.cancel()
    assert [row[3] for row in backend.prunes] == [0, 60]
    assert metrics.journal_errors._value.get() == 2


@pytest.mark.parametrize(
    ("after", "until", "limit", "offsets"),
    [(0, 9, 9, [1, 2, 3, 4]), (1, 9, 9, [2, 3, 4]), (0, 3, 9, [1, 2, 3]), (0, 9, 2, [1, 2]),
     (4, 9, 9, []), (3, 4, 1, [4]), (2, 2, 9, [])],
)  # fmt: skip
def test_what_is_read_of_a_user(
    backend: JournalBackend, after: int, until: int, limit: int, offsets: list[int]
) -> None:
    backend.settle([event(f"e{n}", (1, None), at_ms=n) for n in range(4)])
    assert [m.offset for m in backend.read(1, after, until, limit)] == offsets


@pytest.mark.parametrize(("before", "goes"), [(1.0, 1), (1.5, 2), (0.0, 0), (99.0, 3)])
def test_what_is_old_enough_to_be_forgotten(
    backend: JournalBackend, before: float, goes: int
) -> None:
    """Before that time, not at it; of the orders as well."""
    backend.settle([event(f"e{n}", (1, n + 1), at_ms=n) for n in range(3)])
    assert backend.prune(before, 0.0, 99) == goes
    assert [m.offset for m in backend.read(1, goes, 9, 9)] == list(range(goes + 1, 4))
    assert backend.prune(0.0, before, 99) == goes
    assert backend.prune(0.0, 99.0, 99) == 3 - goes


def test_a_broadcast_goes_to_every_user_in_the_place_where_it_came(
    backend: JournalBackend,
) -> None:
    """Also to those of the same batch before it, and to those who are only known to be there."""
    backend.settle([event("a", (1, None)), event("b", (1, None))])
    backend.meet({1, 5})
    settled = backend.settle([event("c", (2, None)), to_all("n"), event("d", (2, None), (3, None))])
    assert numbers(settled.messages) == [(2, 1), (1, 3), (2, 2), (5, 1), (2, 3), (3, 1)]
    assert [m.body for m in backend.read(5, 0, 9, 9)] == ['"text":"x"']
    assert (backend.head(1), backend.head(5), backend.head(4)) == (3, 1, 0)


def test_a_broadcast_that_is_repeated_reaches_nobody_twice(backend: JournalBackend) -> None:
    backend.meet({1, 2})
    both = backend.settle([to_all("n"), to_all("n")])
    assert statuses(both) == ["accepted", "duplicate"]
    assert statuses(backend.settle([to_all("n")])) == ["duplicate"]
    other, private = to_all("n", "y"), event("n", (1, None))
    assert [s.split()[0] for s in statuses(backend.settle([other, private]))] == ["rejected"] * 2
    assert statuses(backend.settle([to_all("n", publisher="ops")])) == ["accepted"]
    assert (backend.head(1), backend.head(2)) == (2, 2)


def test_a_broadcast_to_nobody_is_kept_as_such(backend: JournalBackend) -> None:
    assert statuses(backend.settle([to_all("n")])) == ["accepted"]
    backend.meet({1})
    assert statuses(backend.settle([to_all("n")])) == ["duplicate"]
    assert backend.head(1) == 0


def test_users_and_broadcasts_survive_a_restart(tmp_path: Path) -> None:
    first = open_journal_backend(tmp_path / "j.db", now_ms=7)
    first.meet({1})
    first.settle([to_all("n")])
    first.close()
    second = open_journal_backend(tmp_path / "j.db", now_ms=9)
    assert numbers(second.read(1, 0, 9, 9)) == [(1, 1)]
    assert statuses(second.settle([to_all("n")])) == ["duplicate"]
    assert numbers(second.settle([to_all("m")]).messages) == [(1, 2)]
    second.close()


async def test_a_user_who_cannot_be_written_down_is_with_the_next_event(
    autojump_clock: trio.abc.Clock,
) -> None:
    class Full(MemoryJournalBackend):
        full = True

        def meet(self, users: Any) -> None:
            if self.full:
                raise JournalError("the disk is full")
            super().meet(users)

    backend, told = Full(1), list[PrivateMessage]()
    journal = Journal(backend, SETTINGS, in_threads=False, now_ms=lambda: 1e12, metrics=Metrics())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run, told.extend)
        journal.meet(1)
        await trio.sleep(1)
        backend.full = False
        journal.meet(2)
        await journal.append([to_all("n")])
        nursery.cancel_scope.cancel()
    assert numbers(told) == [(1, 1), (2, 1)]
