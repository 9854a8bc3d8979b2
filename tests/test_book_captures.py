"""Books from recordings of the real exchanges (exchanges.md section 7; absent elsewhere)."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.books import OKX, SPOT, USDM, checksum_ok
from support.recordings import parse_recording

from trio_feed.core.book import Book, BookPolicy, Outcome, State
from trio_feed.core.streams import BookRule
from trio_feed.model import BookUpdate, Level

CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "captures" / "cryptofeed"
BINANCE: list[tuple[str, BookRule]] = [
    ("BINANCE", SPOT),
    ("BINANCE_TR", SPOT),
    ("BINANCE_FUTURES", USDM),
]
DEPTHS = {"BINANCE": 177, "BINANCE_FUTURES": 764}


def frames(name: str) -> Iterator[tuple[float, dict[str, Any]]]:
    """The received frames of a recording with their time in unix seconds."""
    path = CAPTURES / f"{name}.ws.1.0"
    if not path.exists():
        pytest.skip(f"no recording at {path}")
    for at, text in parse_recording(path.read_text()).received:
        yield at, json.loads(text)


def levels(rows: list[list[str]]) -> tuple[Level, ...]:
    return tuple((Decimal(row[0]), Decimal(row[1])) for row in rows)


def depth_updates(name: str) -> list[tuple[float, BookUpdate]]:
    out = []
    for at, frame in frames(name):
        row = frame.get("data", frame)
        if row.get("e") == "depthUpdate":
            bids, asks = levels(row["b"]), levels(row["a"])
            ids = row["U"], row["u"], row.get("pu")
            out.append((at, BookUpdate(row["s"], *ids, bids, asks, event_ms=row["E"])))
    return out


def depth_snapshots(name: str) -> list[tuple[float, BookUpdate]]:
    """The REST answers, once per symbol."""
    out = []
    text = (CAPTURES / f"{name}.http.0.0").read_text()
    for symbol, at, body in re.findall(
        r"^\S+/depth\?symbol=(\w+)\S* -> ([\d.]+): (.*)$", text, re.M
    ):
        row = json.loads(body.partition(" header: ")[0])
        number, bids, asks = row["lastUpdateId"], levels(row["bids"]), levels(row["asks"])
        update = BookUpdate(symbol, number, number, None, bids, asks, snapshot=True)
        out.append((float(at), update))
    return out


@pytest.mark.parametrize("snapshots_last", [False, True], ids=["as recorded", "all buffered"])
@pytest.mark.parametrize(("name", "rule"), BINANCE)
def test_binance_books_stay_in_sequence(name: str, rule: BookRule, snapshots_last: bool) -> None:
    updates, snapshots = depth_updates(name), depth_snapshots(name)
    policy = BookPolicy(snapshot_levels=1000)
    books = {row.symbol: Book(row.symbol, rule, policy) for _, row in snapshots}
    assert {row.symbol for _, row in updates} <= books.keys()
    events = updates + snapshots if snapshots_last else sorted(updates + snapshots, key=_time)
    outcomes: Counter[Outcome] = Counter()
    for _, row in events:
        book = books[row.symbol]
        outcomes[(book.snapshot if row.snapshot else book.update)(row).outcome] += 1
        assert not book.crossed
    assert outcomes.keys() <= {Outcome.APPLIED, Outcome.BUFFERED, Outcome.IGNORED}
    assert {book.state for book in books.values()} == {State.LIVE}
    assert sum(book.counts.gaps for book in books.values()) == 0
    last = {row.symbol: row.last_id for _, row in updates}
    assert {symbol: books[symbol].last_id for symbol in last} == last
    assert sum(outcomes.values()) == len(updates) + len(snapshots)
    assert len(updates) == DEPTHS.get(name, len(updates))
    assert updates


def _time(event: tuple[float, BookUpdate]) -> float:
    return event[0]


@pytest.mark.parametrize(("name", "rule"), BINANCE)
def test_when_the_snapshot_came_makes_no_difference(name: str, rule: BookRule) -> None:
    updates, snapshots = depth_updates(name), depth_snapshots(name)
    for _, snapshot in snapshots:
        rows = [row for _, row in updates if row.symbol == snapshot.symbol]
        seen = set()
        for position in range(len(rows) + 1):
            book = Book(snapshot.symbol, rule)
            for row in rows[:position]:
                book.update(row)
            if book.snapshot(snapshot).outcome is Outcome.AGAIN:
                continue  # its first event is missing from the buffer
            assert [book.update(row).outcome for row in rows[position:]].count(Outcome.RESYNC) == 0
            seen.add((book.last_id, book.levels(10_000)))
        assert len(seen) == 1


def test_every_checksum_of_the_okx_recording_matches() -> None:
    books: dict[str, Book] = {}
    checked = 0
    deepest = 0
    for _, frame in frames("OKX"):
        arg = frame.get("arg", {})
        if arg.get("channel") != "books":
            continue
        book = books.setdefault(arg["instId"], Book(arg["instId"], OKX))
        for row in frame.get("data", []):
            update = _okx(arg["instId"], row, snapshot=frame["action"] == "snapshot")
            assert book.update(update).outcome is Outcome.APPLIED
            assert update.checksum
            assert checksum_ok(book, update)
            assert not book.crossed
            checked += 1
            deepest = max(deepest, *map(len, book.levels(10_000)))
    assert (checked, deepest, len(books)) == (290, 400, 3)
    assert sum(book.counts.gaps for book in books.values()) == 0


def test_okcoin_keeps_its_sequence_with_keep_alives() -> None:
    books: dict[str, Book] = {}
    outcomes: Counter[Outcome] = Counter()
    empty = 0
    for _, frame in frames("OKCOIN"):
        arg = frame.get("arg", {})
        for row in frame.get("data", []) if arg.get("channel") == "books" else []:
            book = books.setdefault(arg["instId"], Book(arg["instId"], OKX))
            update = _okx(arg["instId"], row, snapshot=frame["action"] == "snapshot")
            empty += not update.bids and not update.asks
            outcomes[book.update(update).outcome] += 1
            assert checksum_ok(book, update)
    assert outcomes.keys() == {Outcome.APPLIED}
    assert empty


def _okx(symbol: str, row: dict[str, Any], *, snapshot: bool) -> BookUpdate:
    number, previous = int(row.get("seqId", 0)), row.get("prevSeqId")
    return BookUpdate(
        symbol,
        number,
        number,
        previous,
        levels(row["bids"]),
        levels(row["asks"]),
        snapshot=snapshot,
        event_ms=int(row["ts"]),
        checksum=row.get("checksum"),
    )
