"""The candle file without threads (those: tests/live): its SQL in memory, and how it is opened."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.make import MINUTE, SERIES, T0, kline, message
from support.old_stores import SCHEMAS

from trio_feed.errors import StartError, StoreError
from trio_feed.model import Hole, Interval, Kline, Series
from trio_feed.store.base import Entry, HoleEntry, LostEntry
from trio_feed.store.sqlite import file, open_sqlite, reader
from trio_feed.store.sqlite.file import advice, set_up
from trio_feed.store.sqlite.reader import SqliteReader
from trio_feed.store.sqlite.rows import NAMES, from_row, to_row
from trio_feed.store.sqlite.schema import (
    VERSION,
    create_or_migrate,
    is_clustered,
    transaction,
    version_of,
)
from trio_feed.store.sqlite.writer import SqliteWriter

HOUR = Series("okx", "ETHUSDT", Interval.H1)
OTHER = Series("binance_usdm", "ETHUSDT", Interval.M1)


def at(n: int) -> int:
    return T0 + n * MINUTE


def put(
    n: int,
    offset: int,
    close: str = "100.50",
    *,
    series: Series = SERIES,
    epoch: int = 7,
    **more: Any,
) -> Entry:
    row = kline(at(n), close)
    row = evolve(row, last_stream_id=more.pop("stream_id", 0))
    return evolve(message(row, series, epoch=epoch, offset=offset), **more)


class Table:
    """Writer and reader of one database in memory."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        set_up(self.db)
        assert create_or_migrate(self.db) == 0
        self.db.execute("INSERT INTO epochs VALUES (7, 0)")
        self.writer, self.reader = SqliteWriter(self.db), SqliteReader(self.db)

    def write(self, *entries: Entry) -> None:
        self.writer.write(entries)

    def opens(self, series: Series = SERIES, **where: Any) -> list[int]:
        where = {"limit": 500, "start_ms": None, "end_ms": None, **where}
        return [(k.open_ms - T0) // MINUTE for k in self.reader.history(series, **where)]

    def after(
        self, offset: int, *, epoch: int = 7, limit: int = 100, exact: bool = True,
        closed: int | None = None,
    ) -> list[tuple[int, int, str, bool]] | None:  # fmt: skip
        closed_ms = None if closed is None else at(closed)
        found = self.reader.after(SERIES, epoch, offset, closed_ms, limit, exact=exact)
        if found is None:
            return None
        return [
            ((m.kline.open_ms - T0) // MINUTE, m.offset, str(m.kline.close), m.revision)
            for m in found
        ]

    def ends(self) -> tuple[Any, ...]:
        """Of SERIES: minutes of first, last and settled; candles; forgotten number."""
        row = self.db.execute(
            "SELECT first_open_ms, last_open_ms, settled_ms, candles, forgotten_epoch,"
            " forgotten_offset FROM ends JOIN series ON id = series_id WHERE symbol = 'BTCUSDT'"
        ).fetchone()
        minutes = [None if ms is None else (ms - T0) // MINUTE for ms in row[:3]]
        return (*minutes, row[3], row[4:])


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table()
    with closing(made.db):
        yield made


# ---------------------------------------------------------------- transactions


class Connection:
    """A connection whose COMMIT fails; ``ends`` says whether the transaction ends with it."""

    def __init__(self, *, ends: bool) -> None:
        self.ends, self.in_transaction = ends, False
        self.log: list[str] = []

    def execute(self, text: str) -> None:
        self.log.append(text)
        self.in_transaction = True
        if text == "COMMIT":
            self.in_transaction = not self.ends
            raise sqlite3.OperationalError("database or disk is full")

    def rollback(self) -> None:
        assert self.in_transaction
        self.log.append("ROLLBACK")
        self.in_transaction = False


@pytest.mark.parametrize(("ends", "then"), [(False, ["ROLLBACK"]), (True, [])])
def test_a_commit_that_fails_leaves_no_transaction_open(ends: bool, then: list[str]) -> None:
    connection: Any = Connection(ends=ends)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        with transaction(connection):
            pass
    assert connection.log == ["BEGIN IMMEDIATE", "COMMIT", *then]
    assert not connection.in_transaction


def test_what_fails_in_the_middle_leaves_nothing(table: Table) -> None:
    table.write(put(0, 1))
    huge = put(1, 2**63)  # refused by the database itself
    with pytest.raises((OverflowError, sqlite3.Error)):
        table.write(put(5, 2, series=OTHER), huge)
    assert not table.db.in_transaction
    assert (table.opens(), table.opens(OTHER)) == ([0], [])
    # The series that was rolled back has no key that is remembered.
    table.write(put(6, 3, series=OTHER))
    assert table.opens(OTHER) == [6]
    assert table.db.execute("SELECT count(*) FROM series").fetchone() == (2,)


# ---------------------------------------------------------------- the schema


@pytest.mark.parametrize(
    ("meta", "version"),
    [
        ({"schema": "3"}, 3),
        ({}, 0),
        ({"schema": "x"}, 0),
        ({"schema": "\u0663"}, 0),
        ({"schema": "-1"}, 0),
    ],
)
def test_versions(meta: dict[str, str], version: int) -> None:
    assert (version_of(meta), VERSION) == (version, 3)


def test_a_second_start_finds_its_own_version_and_keeps_all(table: Table) -> None:
    table.write(put(0, 1), HoleEntry(SERIES, Hole(at(3), at(9))))
    before = table.ends()
    assert create_or_migrate(table.db) == VERSION
    assert (table.opens(), table.ends()) == ([0], before)
    assert table.db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() == ("3",)


def test_ends_of_an_old_file_are_what_a_scan_says(table: Table) -> None:
    table.write(put(0, 1), put(1, 2, stream_id=5), put(4, 3, series=OTHER))
    table.write(HoleEntry(SERIES, Hole(at(3), at(9))), HoleEntry(SERIES, Hole(at(5), at(6))))
    expected = table.db.execute("SELECT * FROM ends ORDER BY 1").fetchall()
    table.db.execute("DROP TABLE ends")
    table.db.execute("DELETE FROM meta")
    assert create_or_migrate(table.db) == 0
    assert table.db.execute("SELECT * FROM ends ORDER BY 1").fetchall() == expected


def test_a_row_and_back() -> None:
    row = evolve(kline(), complete=False, first_trade_id=3, last_trade_id=9, last_stream_id=11)
    assert from_row(to_row(row)) == row
    assert dict(zip(NAMES, to_row(row), strict=True))["complete"] == 0


# ---------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({}, [0, 1, 2, 5]),
        ({"limit": 2}, [2, 5]),
        ({"limit": 2, "start_ms": at(1)}, [1, 2]),
        ({"start_ms": at(1) + 1}, [2, 5]),
        ({"limit": 2, "end_ms": at(2)}, [0, 1]),
        ({"limit": 2, "end_ms": at(2) + 1}, [1, 2]),
        ({"limit": 1, "start_ms": at(0), "end_ms": at(5)}, [2]),
        ({"start_ms": 0, "end_ms": 0}, []),
    ],
)
def test_history_by_range(table: Table, where: dict[str, int], found: list[int]) -> None:
    table.write(put(0, 1), put(1, 2), put(2, 3), put(5, 4), put(1, 1, series=OTHER))
    assert table.opens(**where) == found


def test_ends_by_venue_and_symbol(table: Table) -> None:
    table.write(put(0, 1), put(0, 1, series=HOUR), put(3, 1, series=OTHER))
    table.write(HoleEntry(Series("okx", "BTCUSDT", Interval.M1), Hole(at(0), at(1))))
    ends = table.reader.ends

    def names(venue: str | None, symbols: list[str] | None) -> set[tuple[str, str]]:
        return {(series.venue, series.symbol) for series in ends(venue, symbols)}

    assert len(names(None, None)) == 4
    assert names(None, ["ETHUSDT"]) == {("okx", "ETHUSDT"), ("binance_usdm", "ETHUSDT")}
    assert names("okx", None) == {("okx", "ETHUSDT"), ("okx", "BTCUSDT")}
    assert names("okx", ["ETHUSDT"]) == {("okx", "ETHUSDT")}
    hole_only = ends("okx", ["BTCUSDT"])[Series("okx", "BTCUSDT", Interval.M1)]
    assert (hole_only.kline, hole_only.settled_ms, hole_only.first_open_ms) == (None, at(1), None)
    whole = ends("binance_usdm", ["ETHUSDT"])[OTHER]
    assert whole.kline == kline(at(3))
    assert (whole.first_open_ms, whole.last_open_ms, whole.settled_ms) == (at(3),) * 3


def test_first_open(table: Table) -> None:
    assert table.reader.first_open(SERIES) is None
    table.write(put(3, 1), put(1, 2))
    assert table.reader.first_open(SERIES) == at(1)


def test_rows_are_counted_by_interval(table: Table) -> None:
    table.write(put(0, 1), put(1, 2), put(0, 3), put(0, 1, series=HOUR), put(3, 1, series=OTHER))
    assert table.reader.rows_by_interval() == {Interval.M1: 3, Interval.H1: 1}
    (size,) = table.db.execute("PRAGMA page_size").fetchone()
    assert table.reader.free_bytes() % size == 0


def test_a_question_leaves_no_transaction_and_no_deadline(table: Table) -> None:
    table.write(put(0, 1))
    with pytest.raises(sqlite3.Error):
        with table.reader._snapshot():
            table.db.execute("SELECT nonsense")
    assert not table.db.in_transaction
    assert table.opens() == [0]


def test_a_question_has_three_seconds(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(reader.time, "monotonic", lambda: now[0])
    long = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 60000)"

    def answer() -> Any:
        with table.reader._snapshot():
            now[0] += spent
            return table.db.execute(f"{long} SELECT count(*) FROM n").fetchone()

    spent = 2.9
    assert answer() == (60000,)
    spent = 3.1
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        answer()
    assert not table.db.in_transaction
    now[0] += 50  # nothing is left of the deadline
    assert table.db.execute(f"{long} SELECT count(*) FROM n").fetchone() == (60000,)


# ---------------------------------------------------------------- after a number


def test_after_in_this_epoch(table: Table) -> None:
    table.write(put(0, 3), put(1, 7), put(2, 9), put(1, 12, "7.5", revision=True))
    rest = [(1, 7, "7.5", False), (2, 9, "100.50", False), (1, 12, "7.5", True)]
    assert table.after(6) == rest
    assert table.after(7) == rest[1:]
    assert table.after(12) == []
    assert table.after(6, limit=3) == rest
    assert table.after(6, limit=2) is None
    assert table.after(7, limit=2) == rest[1:]
    assert table.after(7, limit=1) is None
    assert table.after(9, limit=0) is None


@pytest.mark.parametrize("exact", [True, False])
def test_after_for_a_series_that_is_not_there(exact: bool) -> None:
    with closing(Table().db) as db:
        found = SqliteReader(db).after(SERIES, 7, 0, None, 5, exact=exact)
    assert found == ([] if exact else None)


def test_after_across_an_epoch_that_ended_well(table: Table) -> None:
    table.write(put(0, 3), put(1, 7))
    table.writer.end_epoch(7)
    table.db.execute("INSERT INTO epochs VALUES (8, 0)")
    table.write(put(2, 1, epoch=8))
    every = [(0, 3, "100.50", False), (1, 7, "100.50", False), (2, 1, "100.50", False)]
    assert table.after(2, exact=False) == every
    assert table.after(7, exact=False) == every[2:]
    assert table.after(99, exact=False) == every[2:]  # updates of an open candle had numbers too
    assert table.after(2, exact=False, limit=2) is None
    assert table.after(0, epoch=6, exact=False) is None  # nobody knows that epoch
    assert table.after(0, epoch=6, exact=False, closed=0) == every[1:]


def test_after_across_an_epoch_that_was_killed(table: Table) -> None:
    """Up to the last number that was written it is known; beyond, the open time decides."""
    table.write(put(0, 3), put(1, 7))
    table.db.execute("INSERT INTO epochs VALUES (8, 0)")
    table.write(put(2, 1, epoch=8))
    rest = [(1, 7, "100.50", False), (2, 1, "100.50", False)]
    assert table.after(3, exact=False) == rest
    assert table.after(7, exact=False) == rest[1:]
    assert table.after(8, exact=False) is None
    assert table.after(8, exact=False, closed=0) == rest
    assert table.after(8, exact=False, closed=1) == rest[1:]
    assert table.after(8, exact=False, closed=5) is None  # which candle that is, nobody knows
    assert table.after(8, exact=False, closed=0, limit=1) is None
    table.write(put(-2, 0), put(-1, 0))  # history that was fetched later
    # An answer would leave out the one behind it: whoever gets it is told that nobody has that.
    assert table.after(8, exact=False, closed=-2) is None
    table.write(put(0, 9, "7.5", revision=True))
    assert table.after(9, exact=False) == rest[1:]  # a revision was written as well
    table.write(put(3, 0), put(4, 2, epoch=8))  # and a silent candle of a chain
    assert table.after(10, exact=False, closed=3) == [(4, 2, "100.50", False)]


def test_what_was_lost_late_or_put_again_makes_earlier_numbers_unknown(table: Table) -> None:
    table.write(put(0, 1), put(2, 2))
    assert table.ends() == (0, 2, 2, 2, (-1, -1))
    table.write(put(2, 2, "7.5"))  # the very same message again is nothing new
    assert table.ends() == (0, 2, 2, 2, (-1, -1))
    table.write(put(1, 3))
    assert table.ends() == (0, 2, 2, 3, (7, 3))
    assert (table.after(2), table.after(3)) == (None, [])
    table.write(put(2, 4))
    assert table.ends() == (0, 2, 2, 3, (7, 4))
    table.write(put(2, 5, revision=True))
    assert table.ends() == (0, 2, 2, 3, (7, 4))
    table.write(LostEntry(SERIES, 7, 9), LostEntry(SERIES, 7, 8))
    assert table.ends()[4] == (7, 9)
    table.write(put(0, 6, epoch=6), put(-3, 10, revision=True))
    assert table.ends() == (-3, 2, 2, 4, (7, 9))


def test_revisions_by_range(table: Table) -> None:
    table.write(put(0, 1), put(1, 2))
    table.write(put(1, 3, "7.5", revision=True, received_ms=5.5))
    table.write(put(0, 4, "8.5", revision=True), put(4, 5, revision=True))
    ask = table.reader.revisions
    found = ask(SERIES, 0, None, 9)
    assert [(r.open_ms, r.epoch, r.offset) for r in found] == [
        (at(0), 7, 4),
        (at(1), 7, 3),
        (at(4), 7, 5),
    ]
    assert (found[1].learned_ms, found[1].before) == (5, kline(at(1)))
    assert found[2].before is None
    assert ask(SERIES, 0, None, 1) == found[:1]
    assert ask(SERIES, at(1), None, 9) == found[1:]
    assert ask(SERIES, 0, at(1), 9) == found[:1]
    assert ask(OTHER, 0, None, 9) == []


# ---------------------------------------------------------------- retention


KEEP = {Interval.M1: 2.0 * MINUTE}


def filled(table: Table) -> None:
    table.write(*(put(n, n + 1) for n in range(6)), put(5, 1, series=HOUR))
    table.write(put(1, 8, "7.5", revision=True), put(4, 9, "8.5", revision=True))
    table.write(HoleEntry(SERIES, Hole(at(0), at(1))), HoleEntry(SERIES, Hole(at(2), at(8))))


def test_what_is_too_old_goes_with_its_revisions_and_holes(table: Table) -> None:
    filled(table)
    assert table.writer.prune(KEEP, float(at(99)), 100) == 3
    assert table.opens() == [3, 4, 5]
    assert table.ends() == (3, 5, 8, 3, (7, 8))
    assert [r.offset for r in table.reader.revisions(SERIES, 0, None, 9)] == [9]
    holes = table.db.execute("SELECT first_ms, last_ms FROM holes").fetchall()
    assert holes == [(at(2), at(8))]
    assert table.opens(HOUR) == [5]
    assert table.writer.prune(KEEP, float(at(99)), 100) == 0


@pytest.mark.parametrize(("limit", "goes"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3)])
def test_in_steps_the_oldest_first(table: Table, limit: int, goes: int) -> None:
    filled(table)
    assert table.writer.prune(KEEP, float(at(99)), limit) == goes
    assert table.opens() == [*range(goes, 6)]
    assert table.ends()[0] == goes


def test_a_step_is_shared_by_all_series(table: Table) -> None:
    filled(table)
    table.write(*(put(n, n + 1, series=OTHER) for n in range(6)))
    assert table.writer.prune(KEEP, float(at(99)), 4) == 4
    assert len(table.opens()) + len(table.opens(OTHER)) == 8


def test_age_counts_from_the_newest_or_our_clock(table: Table) -> None:
    filled(table)
    assert table.writer.prune(KEEP, float(at(3)), 100) == 1  # our clock says minute 3
    assert table.opens() == [*range(1, 6)]


def test_the_last_candle_stays(table: Table) -> None:
    table.write(put(0, 1), put(1, 2), put(99, 1, series=OTHER))
    assert table.writer.prune(KEEP, float(at(99)), 100) == 1
    assert (table.opens(), table.ends()) == ([1], (1, 1, 1, 1, (7, 1)))
    assert table.writer.prune(KEEP, float(at(99)), 100) == 0
    assert table.writer.prune({}, float(at(99)), 100) == 0


def test_nothing_to_prune_in_an_empty_store(table: Table) -> None:
    assert table.writer.prune(KEEP, float(at(99)), 100) == 0


# ---------------------------------------------------------------- free pages


class Pages:
    """Answers PRAGMAs, notes what is vacuumed."""

    def __init__(self, free: int, pages: int, mode: int = 2) -> None:
        self.answers = {"freelist_count": free, "page_count": pages, "auto_vacuum": mode}
        self.scripts: list[str] = []

    def execute(self, text: str) -> Any:
        value = self.answers[text.removeprefix("PRAGMA ")]

        class Row:
            def fetchone(self) -> tuple[int]:
                return (value,)

        return Row()

    def executescript(self, text: str) -> None:
        self.scripts.append(text.removeprefix("PRAGMA incremental_vacuum"))


@pytest.mark.parametrize(
    ("free", "pages", "mode", "script", "more"),
    [
        (64, 100, 2, [], False),
        (65, 100, 2, ["(1)"], False),
        (100, 1600, 2, [], False),
        (101, 1600, 2, ["(1)"], False),
        (564, 100, 2, ["(500)"], False),
        (565, 100, 2, ["(500)"], True),
        (565, 100, 0, [], False),
    ],
)
def test_pages_beyond_the_slack_are_given_back(
    free: int, pages: int, mode: int, script: list[str], more: bool
) -> None:
    db: Any = Pages(free, pages, mode)
    assert SqliteWriter(db).shrink() is more
    assert db.scripts == script


# ---------------------------------------------------------------- what is said of errors


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SQLITE_FULL", "make room"),
        ("SQLITE_IOERR_WRITE", "the disk does not take it"),
        ("SQLITE_READONLY_DBMOVED", "writable"),
        ("SQLITE_BUSY", "another process"),
        ("SQLITE_LOCKED_SHAREDCACHE", "another process"),
        ("SQLITE_PROTOCOL", "another process"),
        ("SQLITE_CANTOPEN", "folder"),
        ("SQLITE_CORRUPT_INDEX", "damaged"),
        ("SQLITE_NOTADB", "another file"),
        ("SQLITE_MISUSE", "permissions"),
        ("", "permissions"),
    ],
)
def test_advice(name: str, words: str) -> None:
    error = sqlite3.OperationalError("x")
    if name:
        error.sqlite_errorname = name  # type: ignore[misc]
    assert words in advice(error)


def test_sizes_of_the_file_module() -> None:
    assert (file._CHECKED_BYTES, file._WAL_LIMIT_BYTES) == (64 << 20, 16 << 20)


def test_set_up_is_wal_and_shrinkable(table: Table) -> None:
    def pragma(name: str) -> Any:
        return table.db.execute(f"PRAGMA {name}").fetchone()[0]

    assert pragma("auto_vacuum") == 2
    assert pragma("synchronous") == 1
    assert pragma("journal_size_limit") == 16 << 20


def test_a_kline_is_closed() -> None:
    assert from_row(to_row(kline())).closed
    assert isinstance(from_row(to_row(kline())), Kline)


# ---------------------------------------------------------------- a file (without threads)


@contextmanager
def opened(path: Path, now_ms: float = 1000.5, *, simulated: bool = False) -> Iterator[Any]:
    backend = open_sqlite(path, simulated=simulated, now_ms=now_ms)
    try:
        yield backend
    finally:
        backend._close(True)


def pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_a_new_file_is_set_up(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.db"
    with opened(path) as backend:
        writer = backend.writer.connection
        names = ("journal_mode", "synchronous", "auto_vacuum")
        assert [pragma(writer, name) for name in names] == ["wal", 1, 2]
        assert (backend.epoch, len(backend.readers), backend.place) == (1000, 5, str(path))
        assert len({id(reader.connection) for reader in backend.readers} | {id(writer)}) == 6
        meta = dict(writer.execute("SELECT key, value FROM meta"))
        assert meta == {"schema": "3", "kind": "real", "epoch": "1000"}
        assert writer.execute("SELECT * FROM epochs").fetchall() == [(1000, 0)]
        assert not writer.in_transaction
        assert backend.file.is_empty() is False


@pytest.mark.parametrize(
    ("now_ms", "epoch"), [(1001.9, 1001), (1000.0, 1001), (5.0, 1001), (2000.0, 2000)]
)
def test_the_next_epoch_is_larger(tmp_path: Path, now_ms: float, epoch: int) -> None:
    with opened(tmp_path / "a.db"):
        pass
    with opened(tmp_path / "a.db", now_ms) as backend:
        assert backend.epoch == epoch
        rows = backend.writer.connection.execute("SELECT * FROM epochs ORDER BY 1").fetchall()
        assert rows == [(1000, 1), (epoch, 0)]


@pytest.mark.parametrize("simulated", [False, True])
def test_the_two_kinds_share_no_file(tmp_path: Path, simulated: bool) -> None:
    with opened(tmp_path / "a.db", simulated=simulated):
        pass
    with opened(tmp_path / "a.db", simulated=simulated):
        pass
    with pytest.raises(StartError, match=r"a\.db holds (real|simulated) candles and this run has"):
        open_sqlite(tmp_path / "a.db", simulated=not simulated, now_ms=1)


def test_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with opened(path) as backend:
        backend.writer.connection.execute("UPDATE meta SET value = '4' WHERE key = 'schema'")
    before = path.read_bytes()
    with pytest.raises(StartError, match=r"newer version of trio_feed \(schema 4, .* up to 3\)"):
        open_sqlite(path, simulated=False, now_ms=1)
    assert path.read_bytes() == before


@pytest.mark.parametrize("tables", [("klines",), ("meta",), ("something",)])
def test_the_database_of_something_else(tmp_path: Path, tables: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        for name in tables:
            db.execute(f"CREATE TABLE {name} (key, value)")
    with pytest.raises(StartError, match="is the database of something else"):
        open_sqlite(tmp_path / "a.db", simulated=False, now_ms=1)


@pytest.mark.parametrize("content", [b"", None])
def test_nothing_there_is_as_good_as_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.db"
    if content is not None:
        path.write_bytes(content)
    with opened(path) as backend:
        assert backend.epoch == 1000


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.db").mkdir()
    with pytest.raises(
        StartError, match=r"store\.path: .*a\.db cannot be opened for writing"
    ) as error:
        open_sqlite(tmp_path / "a.db", simulated=False, now_ms=1)
    assert "\n" not in str(error.value)


def test_a_file_in_the_place_of_another_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with opened(path) as backend:
        path.rename(tmp_path / "b.db")
        assert backend.file.is_empty()
        path.write_bytes(b"x")
        with pytest.raises(StoreError, match="another file has taken the place"):
            backend.file.is_empty()


def test_a_deleted_file_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with opened(path) as backend:
        backend.writer.write([put(0, 1)])
        old = [backend.writer.connection, *(reader.connection for reader in backend.readers)]
        path.unlink()
        writer, readers = backend.file.put_back(old[0], old[1:])
        assert (len(readers), backend.file.is_empty()) == (5, False)
        assert writer.execute("SELECT count(*) FROM klines").fetchone() == (1,)
        for connection in old:
            with pytest.raises(sqlite3.ProgrammingError, match="closed"):
                connection.execute("SELECT 1")
        assert not path.with_name("a.db.part").exists()
        backend.writer, backend.readers = SqliteWriter(writer), [SqliteReader(r) for r in readers]


def test_the_size_of_the_log(tmp_path: Path) -> None:
    assert file.wal_bytes(tmp_path / "a.db") == 0
    (tmp_path / "a.db-wal").write_bytes(bytes(77))
    assert file.wal_bytes(tmp_path / "a.db") == 77


def test_a_start_does_not_wait_for_the_candles_of_a_very_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.executescript(SCHEMAS["2 with ids"])
        create_or_migrate(db)
        size = path.stat().st_size
        for limit, clustered in ((size - 1, False), (size, True)):
            monkeypatch.setattr(file, "_CLUSTERED_BYTES", limit)
            assert file.write_anew(db, path) == ""
            assert is_clustered(db) == clustered


@pytest.mark.parametrize(("free", "fits"), [(3.19, False), (3.21, True)])
def test_a_file_of_old_is_written_anew_where_there_is_place(
    tmp_path: Path, free: float, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(SCHEMAS["2 with ids"])
        create_or_migrate(db)
        db.execute("CREATE TABLE t (x)")
        db.execute("INSERT INTO t VALUES (zeroblob(3000000))")
        size = path.stat().st_size
        usage = type("Usage", (), {"free": int(size * free)})
        monkeypatch.setattr(file.shutil, "disk_usage", lambda _folder: usage)
        why = file.write_anew(db, path)
        assert pragma(db, "auto_vacuum") == (2 if fits else 0)
        assert is_clustered(db) == fits
        problem = f"{size >> 20} MiB have to be written anew, and the disk has no place for that"
        assert why == ("" if fits else problem)
        assert file.write_anew(db, path) == why
