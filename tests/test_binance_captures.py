"""Binance's recordings through the venue's own parsers: nothing unknown, nothing bad, books whole.

The recordings are of 2021 (BINANCE, BINANCE_FUTURES) and 2023 (BINANCE_TR).
"""

import re
from collections import Counter
from pathlib import Path

import pytest
from support.recordings import parse_recording

from trio_feed.core.book import Book, Outcome, State
from trio_feed.model import BookTop, BookUpdate, Trade
from trio_feed.venues import Ignored, Instruments, KlineUpdate, Venue
from trio_feed.venues.binance import spot as binance
from trio_feed.venues.binance import usdm as binance_usdm

CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "captures" / "cryptofeed"
RECORDINGS: list[tuple[str, Venue, dict[type, int]]] = [
    ("BINANCE", binance, {BookUpdate: 177, BookTop: 84, Trade: 2, KlineUpdate: 2}),
    ("BINANCE_FUTURES", binance_usdm, {BookUpdate: 764, BookTop: 613, Trade: 91, KlineUpdate: 67}),
    ("BINANCE_TR", binance, {}),
]


def read(name: str, suffix: str) -> str:
    path = CAPTURES / f"{name}.{suffix}"
    if not path.exists():
        pytest.skip(f"no recording at {path}")
    return path.read_text()


def table(name: str, venue: Venue) -> Instruments:
    found = re.search(r"exchangeInfo -> [\d.]+: (.*)", read(name, "0"))
    assert found is not None
    rows = venue.parse_instruments(found[1].encode())
    assert not rows.bad
    return Instruments(rows.good)


@pytest.mark.parametrize(("name", "venue", "counts"), RECORDINGS, ids=lambda v: str(v)[:16])
def test_every_frame_parses(name: str, venue: Venue, counts: dict[type, int]) -> None:
    instruments = table(name, venue)
    received = parse_recording(read(name, "ws.1.0")).received
    events = [event for _, text in received for event in venue.parse(text, instruments)]
    found = Counter(type(event) for event in events)
    assert len(events) == len(received) == {"BINANCE": 265, "BINANCE_TR": 139}.get(name, 1535)
    assert found[Ignored] == 0
    assert not counts or dict(found) == counts
    if name == "BINANCE_TR":
        assert any(isinstance(e, KlineUpdate) and e.kline.closed for e in events)


@pytest.mark.parametrize(("name", "venue", "counts"), RECORDINGS, ids=lambda v: str(v)[:16])
def test_books_stay_in_sequence_and_uncrossed(
    name: str, venue: Venue, counts: dict[type, int]
) -> None:
    """As recorded: each snapshot is answered while updates go on, buffered before it."""
    instruments, rule = table(name, venue), venue.BOOK_RULE
    assert rule is not None
    arrivals: list[tuple[float, bool, BookUpdate]] = []
    for symbol, at, body in re.findall(
        r"/depth\?symbol=(\w+)\S* -> ([\d.]+): (.*?)(?: header: .*)?$", read(name, "http.0.0"), re.M
    ):
        instrument = instruments.of_symbol(symbol)
        assert instrument is not None
        arrivals.append((float(at), True, venue.parse_book(body.encode(), instrument)))
    for at, text in parse_recording(read(name, "ws.1.0")).received:
        for event in venue.parse(text, instruments):
            if isinstance(event, BookUpdate):
                arrivals.append((at, False, event))
    books: dict[str, Book] = {}
    for _, is_snapshot, update in sorted(arrivals, key=lambda item: item[0]):
        book = books.setdefault(update.symbol, Book(update.symbol, rule))
        change = book.snapshot(update) if is_snapshot else book.update(update)
        assert change.outcome is not Outcome.RESYNC, change.reason
        assert not book.crossed
    live = [book for book in books.values() if book.state is State.LIVE]
    assert len(live) >= 3
    assert all(book.counts.gaps == 0 for book in books.values())
    assert sum(book.counts.applied for book in live) > 20
