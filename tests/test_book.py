import random
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zlib import crc32

import pytest
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st
from support.books import OKX, SPOT, USDM, checksum_ok
from support.make import T0

from trio_feed.core.book import (
    Book,
    BookPolicy,
    Outcome,
    Place,
    State,
    place,
)
from trio_feed.core.streams import BookRule
from trio_feed.model import BookUpdate, Level, plain

APPLIED, IGNORED, BUFFERED = Outcome.APPLIED, Outcome.IGNORED, Outcome.BUFFERED
RESYNC, AGAIN = Outcome.RESYNC, Outcome.AGAIN
OLD, NEXT, GAP = Place.OLD, Place.NEXT, Place.GAP
Sides = tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]
RULES: tuple[BookRule, ...] = (SPOT, USDM, OKX)


def levels(text: str) -> tuple[Level, ...]:
    """``"10.5:2 11:0"`` -> levels."""
    pairs = (pair.split(":") for pair in text.split())
    return tuple((Decimal(price), Decimal(size)) for price, size in pairs)


def update(
    first: int, last: int, previous: int | None = None, bids: str = "", asks: str = ""
) -> BookUpdate:
    times = T0 + last
    return BookUpdate("BTCUSDT", first, last, previous, levels(bids), levels(asks), event_ms=times)


def whole(last: int, bids: str = "10:1 9:1", asks: str = "11:1 12:1") -> BookUpdate:
    """A snapshot by REST."""
    return BookUpdate("BTCUSDT", last, last, None, levels(bids), levels(asks), snapshot=True)


def okx(previous: int, last: int, bids: str = "", asks: str = "") -> BookUpdate:
    first = previous == -1
    row = update(last, last, previous, bids, asks)
    return evolve(row, snapshot=first, bids=row.bids or levels("10:1") if first else row.bids)


def live(rule: BookRule, at: int, policy: BookPolicy | None = None) -> Book:
    """A book whose snapshot and first update after it are in, up to id ``at``."""
    book = Book("BTCUSDT", rule, policy or BookPolicy())
    assert book.snapshot(whole(at - 1)).outcome is APPLIED
    assert book.update(update(at, at, at - 1)).outcome is APPLIED
    return book


@pytest.mark.parametrize(
    ("rule", "first", "row", "expected"),
    [
        # the first update after a snapshot that ends at 100: first..last, previous
        (SPOT, True, (90, 99), OLD),
        (SPOT, True, (90, 100), OLD),
        (SPOT, True, (90, 101), NEXT),
        (SPOT, True, (101, 101), NEXT),
        (SPOT, True, (101, 110), NEXT),
        (SPOT, True, (102, 110), GAP),
        (USDM, True, (90, 99, 80), OLD),
        (USDM, True, (90, 100, 80), NEXT),
        (USDM, True, (100, 100, 80), NEXT),
        (USDM, True, (100, 110, 99), NEXT),
        (USDM, True, (105, 110, 100), NEXT),
        (USDM, True, (105, 110, 99), NEXT),
        (USDM, True, (105, 110, 101), GAP),
        (OKX, True, (99, 99, 90), OLD),
        (OKX, True, (100, 100, 90), OLD),
        (OKX, True, (110, 110, 90), NEXT),
        (OKX, True, (110, 110, 100), NEXT),
        (OKX, True, (3, 3, 100), NEXT),
        (OKX, True, (110, 110, 105), GAP),
        # every other one
        (SPOT, False, (90, 100), OLD),
        (SPOT, False, (101, 105), NEXT),
        (SPOT, False, (95, 105), NEXT),
        (SPOT, False, (102, 105), GAP),
        (USDM, False, (90, 100, 80), OLD),
        (USDM, False, (105, 110, 100), NEXT),
        (USDM, False, (105, 110, 99), GAP),
        (USDM, False, (105, 110, 101), GAP),
        (OKX, False, (100, 100, 99), OLD),
        (OKX, False, (101, 101, 100), NEXT),
        (OKX, False, (100, 100, 100), NEXT),
        (OKX, False, (3, 3, 100), NEXT),
        (OKX, False, (3, 3, 105), GAP),
        (OKX, False, (110, 110, 99), GAP),
        (OKX, False, (110, 110, 105), GAP),
    ],
)
def test_the_rules(rule: BookRule, first: bool, row: tuple[Any, ...], expected: Place) -> None:
    assert place(rule, 100, update(*row), first=first) is expected


@pytest.mark.parametrize("rule", RULES)
def test_updates_before_the_snapshot_are_buffered_and_replayed(rule: BookRule) -> None:
    book = Book("BTCUSDT", rule)
    assert book.top() is None
    assert book.levels(5) == ((), ())
    early = [update(5, 6, 4, "8:1"), update(7, 8, 6, "9:0 10:5"), update(9, 9, 8, asks="11:2")]
    assert [book.update(row).outcome for row in early] == [BUFFERED] * 3
    assert book.snapshot(whole(6, "10:1 9:1 8:1")).outcome is APPLIED
    assert book.state is State.LIVE
    assert book.levels(9) == (levels("10:5 8:1"), levels("11:2 12:1"))
    assert book.last_id == 9
    assert book.update(update(10, 11, 9, "10:0")).outcome is APPLIED


@pytest.mark.parametrize("rule", RULES)
def test_a_snapshot_older_than_the_buffer_is_asked_for_again(rule: BookRule) -> None:
    book = Book("BTCUSDT", rule)
    book.update(update(5, 6, 4))
    refused = book.snapshot(whole(3))
    assert (refused.outcome, book.state) == (AGAIN, State.WAITING)
    assert refused.reason == "snapshot 3 ends before update 5 begins"
    assert book.wants_snapshot
    assert book.snapshot(whole(4)).outcome is APPLIED
    assert (book.last_id, book.counts.refused) == (6, 1)


@pytest.mark.parametrize("rule", RULES)
def test_a_snapshot_newer_than_the_buffer_waits_for_the_stream(rule: BookRule) -> None:
    book = Book("BTCUSDT", rule)
    book.update(update(5, 6, 4, "10:7"))
    assert book.snapshot(whole(20)).outcome is APPLIED
    assert book.levels(1)[0] == levels("10:1")
    assert book.update(update(7, 12, 6, "10:7")).outcome is IGNORED
    assert book.update(update(13, 24, 12, "10:8")).outcome is APPLIED
    assert book.update(update(25, 26, 24, "10:9")).outcome is APPLIED
    assert book.levels(1)[0] == levels("10:9")


@pytest.mark.parametrize("rule", RULES)
def test_the_old_book_stays_readable_and_stale_until_the_resync(rule: BookRule) -> None:
    book = live(rule, 100)
    change = book.update(update(105, 106, 104, "10:3"))
    assert change.outcome is RESYNC
    assert change.reason == "expected what follows 100, got 105..106 after 104"
    assert book.stale
    assert book.wants_snapshot
    assert book.levels(1) == (levels("10:1"), levels("11:1"))
    assert book.update(update(107, 108, 106, "10:4")).outcome is BUFFERED
    assert book.snapshot(whole(103)).outcome is AGAIN
    assert book.stale
    assert book.snapshot(whole(105)).outcome is APPLIED
    assert (book.stale, book.wants_snapshot, book.last_id) == (False, False, 108)
    assert book.levels(1)[0] == levels("10:4")
    assert (book.counts.gaps, book.counts.resyncs) == (1, 1)


def test_the_wider_rule_is_for_the_first_update_only() -> None:
    for rule in (USDM, OKX):
        book = Book("BTCUSDT", rule)
        book.snapshot(whole(100))
        assert book.update(update(98, 102, 97)).outcome is APPLIED
        assert book.update(update(103, 104, 101)).outcome is RESYNC


def test_the_documented_example_of_okx() -> None:
    book = Book("BTC-USDT", OKX)
    pairs = [(-1, 10), (10, 15), (15, 15), (15, 3), (3, 5)]
    assert [book.update(okx(*pair)).outcome for pair in pairs] == [APPLIED] * 5
    assert (book.last_id, book.counts.resets, book.counts.gaps) == (5, 1, 0)
    assert book.update(okx(15, 16)).outcome is RESYNC


def test_okx_waits_for_the_snapshot_of_its_stream() -> None:
    book = Book("BTC-USDT", OKX)
    assert book.due_ms is None
    book.update(okx(-1, 10))
    assert book.update(okx(11, 12)).outcome is RESYNC
    assert book.due_ms is not None
    assert book.update(okx(12, 13)).outcome is BUFFERED
    assert book.update(okx(-1, 20, "7:1")).outcome is APPLIED
    assert (book.stale, book.levels(2)[0]) == (False, levels("7:1"))
    assert book.update(okx(20, 21)).outcome is APPLIED


def test_okx_is_asked_by_rest_when_its_stream_begins_with_an_update() -> None:
    book = Book("BTC-USDT", OKX)
    book.update(okx(10, 12, "8:1"))
    assert book.wants_snapshot
    book.update(okx(12, 15, "8:2"))
    assert book.snapshot(whole(13)).outcome is APPLIED
    assert book.levels(3)[0] == levels("10:1 9:1 8:2")
    assert book.update(okx(15, 16)).outcome is APPLIED


def test_a_reset_while_okx_is_buffered_begins_a_new_buffer() -> None:
    book = Book("BTC-USDT", OKX)
    for pair in [(100, 105), (105, 3), (3, 5), (5, 7)]:
        assert book.update(okx(*pair, "8:1")).outcome is BUFFERED
    assert book.snapshot(whole(4)).outcome is APPLIED
    assert book.last_id == 7


def test_a_repeated_snapshot_of_a_stream_does_not_turn_the_book_back() -> None:
    book = Book("BTC-USDT", OKX)
    book.update(okx(-1, 10))
    book.update(okx(10, 15, "9:1"))
    assert book.update(okx(-1, 10)).outcome is IGNORED
    assert book.update(okx(15, 16)).outcome is APPLIED


def test_recordings_without_ids_are_taken_in_order() -> None:
    book = Book("BTC-USDT", OKX)
    bare = BookUpdate("BTC-USDT", 0, 0, None, levels("10:1"), ())
    assert book.update(bare).outcome is BUFFERED
    assert book.update(evolve(bare, snapshot=True)).outcome is APPLIED
    assert book.update(evolve(bare, bids=levels("10:0 8:1"))).outcome is APPLIED
    assert book.levels(3)[0] == levels("8:1")


@pytest.mark.parametrize("rule", RULES)
def test_ids_that_begin_again_are_noticed_by_the_time(rule: BookRule) -> None:
    book = live(rule, 1_000_000)
    lower = evolve(update(5, 6, 4), event_ms=book.event_ms + 9_000)
    assert book.update(lower).outcome is IGNORED
    change = book.update(evolve(lower, event_ms=book.event_ms + 11_000))
    assert change.outcome is RESYNC
    assert change.reason.startswith("the ids began again")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gap", [False, True])
def test_what_a_snapshot_without_a_time_holds_does_not_begin_again(
    rule: BookRule, gap: bool
) -> None:
    """Spot's snapshots have no time, and may be ahead of the stream: the book's last time is that
    of before it was lost."""
    book = live(rule, 100)
    if gap:
        assert book.update(update(150, 150, 149)).outcome is RESYNC
    else:
        book.interrupt()
    assert book.snapshot(whole(200)).outcome is APPLIED
    later = book.event_ms + 20_000
    overlap = evolve(update(198, 199, 197), event_ms=later)
    assert book.update(overlap).outcome is IGNORED
    assert book.update(evolve(update(201, 201, 200), event_ms=later + 100)).outcome is APPLIED
    assert not book.stale


@pytest.mark.parametrize("rule", RULES)
def test_ids_that_begin_again_are_noticed_after_a_snapshot_without_a_time(rule: BookRule) -> None:
    book = Book("BTCUSDT", rule)
    assert book.snapshot(whole(1_000_000)).outcome is APPLIED
    lower = evolve(update(5, 6, 4), event_ms=T0)
    assert book.update(lower).outcome is IGNORED
    assert book.update(evolve(lower, event_ms=T0 + 9_000)).outcome is IGNORED
    assert book.update(evolve(lower, event_ms=T0 + 11_000)).outcome is RESYNC


@pytest.mark.parametrize("rule", RULES)
def test_a_gap_in_the_buffer_leaves_only_what_is_of_use(rule: BookRule) -> None:
    book = Book("BTCUSDT", rule)
    for row in [update(5, 6, 4), update(5, 6, 4), update(9, 9, 8), update(10, 10, 9)]:
        book.update(row)
    assert book.counts.ignored == 1
    assert book.snapshot(whole(6)).outcome is AGAIN
    assert book.snapshot(whole(8)).outcome is APPLIED
    assert book.last_id == 10


def test_the_buffer_is_bounded_and_keeps_the_newest() -> None:
    book = Book("BTCUSDT", SPOT, BookPolicy(max_buffered=3))
    for n in range(1, 11):
        book.update(update(n, n))
    assert book.snapshot(whole(6)).outcome is AGAIN
    assert book.snapshot(whole(7)).outcome is APPLIED
    assert book.last_id == 10


def test_an_interrupted_book_is_stale_until_its_next_snapshot() -> None:
    book = live(SPOT, 100)
    book.interrupt()
    assert book.stale
    assert book.update(update(101, 101, bids="10:7")).outcome is BUFFERED
    assert book.snapshot(whole(100)).outcome is APPLIED
    assert (book.stale, book.last_id, book.counts.gaps) == (False, 101, 0)
    streamed = Book("BTC-USDT", OKX)
    streamed.update(okx(-1, 10))
    streamed.interrupt()
    assert streamed.due_ms is None  # the next connection brings one


def test_questions_are_asked_at_once_then_ever_later() -> None:
    book = Book("BTCUSDT", SPOT)
    now = float(T0)
    assert book.due_ms is not None
    assert book.due_ms <= now
    waits = []
    for _ in range(8):
        book.asked(now)
        assert book.due_ms is not None
        waits.append(book.due_ms - now)
        now = book.due_ms
    assert waits == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]


def test_a_book_that_breaks_after_every_snapshot_makes_no_storm() -> None:
    book = Book("BTCUSDT", SPOT)
    now, questions = 0.0, []
    for n in range(100, 100_000, 100):  # every 100 ms another gap
        book.update(update(n, n))
        now += 100
        if book.due_ms is not None and book.due_ms <= now:
            questions.append(now)
            book.asked(now)
            assert book.snapshot(whole(n)).outcome is APPLIED
    assert questions == [100, 1_100, 3_100, 7_100, 15_100, 31_100, 63_100]
    book.asked(now + 200_000)  # after a quiet time
    assert book._next_ask_ms == now + 201_000


def test_a_crossed_book_has_no_top_and_asks_for_a_snapshot_while_live() -> None:
    book = live(SPOT, 100)
    book.update(update(101, 101, bids="11.5:1"))
    assert book.crossed
    assert book.top() is None
    assert (book.state, book.wants_snapshot) == (State.LIVE, True)
    book.asked(T0)
    book.update(update(102, 102, bids="9.5:1"))
    assert book.snapshot(whole(99)).outcome is AGAIN
    assert book.last_id == 102
    assert book.snapshot(whole(101)).outcome is APPLIED
    top = book.top()
    assert top is not None
    assert (top.bid, top.ask) == (Decimal(10), Decimal(11))
    assert (top.update_id, book.counts.refreshes) == (102, 1)


def test_an_unasked_snapshot_does_not_turn_a_live_book_back() -> None:
    book = live(SPOT, 100)
    refused = book.snapshot(whole(98))
    assert (refused.outcome, book.last_id) == (AGAIN, 100)
    assert refused.reason == "snapshot 98 is older than the live book 100"


def test_digits_go_out_as_they_came_in() -> None:
    book = Book("X", SPOT)
    book.snapshot(whole(1, "0.00000010:5.000 0.1:1", "0.20:3.10"))
    book.update(update(2, 2, bids="0.10:2.0"))
    bids, asks = book.levels(5)
    assert [tuple(map(plain, level)) for level in bids] == [
        ("0.10", "2.0"),
        ("0.00000010", "5.000"),
    ]
    assert [tuple(map(plain, level)) for level in asks] == [("0.20", "3.10")]
    top = book.top()
    assert top is not None
    assert plain(top.bid or Decimal(0)) == "0.10"


def test_an_empty_side_and_unknown_deletes() -> None:
    book = Book("X", SPOT)
    book.snapshot(whole(1, "10:1 9:0 8:2", ""))
    book.update(update(2, 2, bids="10:0 7:0"))
    top = book.top()
    assert top is not None
    assert (top.bid, top.bid_size, top.ask, top.ask_size) == (Decimal(8), Decimal(2), None, None)


def test_partial_books_are_refused() -> None:
    with pytest.raises(ValueError, match="partial"):
        Book("X", OKX).update(evolve(whole(1), partial=True))


def test_checksums_are_verified_only_where_there_is_one() -> None:
    book = Book("X", OKX)
    row = whole(1, "3366.1:7 3366:6", "3366.8:9 3368:8 3372:8")
    book.update(row)
    text = "3366.1:7:3366.8:9:3366:6:3368:8:3372:8"  # the documented form, one side shorter
    value = crc32(text.encode())
    for signed in (value, value - 2**32):
        assert checksum_ok(book, evolve(row, checksum=signed))
        assert not checksum_ok(book, evolve(row, checksum=signed + 1))
    assert checksum_ok(book, row)
    assert checksum_ok(book, evolve(row, checksum=0))


def test_a_snapshot_that_is_cut_off_says_how_far_it_is_exact() -> None:
    policy = BookPolicy(snapshot_levels=4, depth_exact=2)
    book = Book("X", SPOT, policy)
    book.snapshot(whole(1, "10:1 9:1 8:1 7:1", "11:1 12:1 13:1"))
    book.update(update(2, 2, bids="3:1 6:1"))
    assert book.exact_levels == (4, 3)
    assert len(book.levels(9)[0]) == 6
    assert not book.wants_snapshot
    book.update(update(3, 3, bids="10:0 9:0 8:0"))
    assert book.exact_levels == (1, 3)
    assert (book.wants_snapshot, book.stale) == (True, False)
    book.snapshot(whole(3, "7:1 6:1 5:1", "11:1 12:1 13:1 14:1"))
    assert (book.exact_levels, book.wants_snapshot) == ((3, 4), False)
    book.update(update(4, 4, asks="15:1 11:0 12:0 13:0"))
    assert (book.exact_levels, book.wants_snapshot) == ((3, 1), True)


def test_the_levels_kept_are_bounded_and_the_best_stay_exact() -> None:
    chance = random.Random(3)
    book = Book("X", SPOT, BookPolicy(depth_kept=20, depth_exact=5))
    book.snapshot(whole(1, "", ""))
    truth: Sides = ({}, {})
    for n in range(2, 3_000):
        row = update(n, n, bids=_random(chance, 100, 200), asks=_random(chance, 201, 300))
        if n % 200 == 0:  # a fall: many of the best bids go at once
            gone = tuple((price, Decimal(0)) for price, _ in _sorted(truth)[0][:17])
            row = evolve(row, bids=gone)
        book.update(row)
        _change(truth, row)
        assert max(map(len, book.levels(1_000))) <= 22
        for side, model, exact in zip(
            book.levels(1_000), _sorted(truth), book.exact_levels, strict=True
        ):
            assert side[:exact] == model[:exact]
        if book.wants_snapshot:
            book.snapshot(evolve(whole(n), bids=_sorted(truth)[0], asks=_sorted(truth)[1]))
            assert min(book.exact_levels) >= 18
    assert book.counts.refreshes > 5


def _random(chance: random.Random, low: int, high: int) -> str:
    rows = range(chance.randrange(4))
    return " ".join(f"{chance.randrange(low, high)}:{chance.choice('00123')}" for _ in rows)


def _change(sides: Sides, row: BookUpdate) -> None:
    """The naive model: two dicts."""
    for side, changes in zip(sides, (row.bids, row.asks), strict=True):
        for price, size in changes:
            side[price] = size
            if not size:
                del side[price]


def _sorted(sides: Sides) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
    bids, asks = sides
    return tuple(sorted(bids.items(), reverse=True)), tuple(sorted(asks.items()))


@define
class Exchange:
    """An exchange's truth: the book after every single change, and the updates that it sends,
    each of some changes, with ids as the rule has them."""

    rule: BookRule
    chance: random.Random
    ids: list[int] = field(factory=lambda: [10**8])
    books: dict[int, tuple[tuple[Level, ...], tuple[Level, ...]]] = field(factory=dict)
    sent: list[BookUpdate] = field(factory=list)
    _sides: Sides = field(factory=lambda: ({}, {}))

    def __attrs_post_init__(self) -> None:
        self.books[self.ids[0]] = _sorted(self._sides)
        self.send()

    def send(self) -> BookUpdate:
        """Some changes happen, and are sent together."""
        before = number = self.ids[-1]
        if self.rule == OKX and self.chance.random() < 0.02:
            number -= 100_000  # maintenance
        numbers: list[int] = []
        bids: tuple[Level, ...] = ()
        asks: tuple[Level, ...] = ()
        for _ in range(self.chance.randrange(1, 4)):
            number += 1 if self.rule == SPOT else self.chance.randrange(1, 9)
            row = update(0, 0, 0, _random(self.chance, 1, 15), _random(self.chance, 15, 30))
            _change(self._sides, row)
            self.books[number] = _sorted(self._sides)
            bids, asks, numbers = bids + row.bids, asks + row.asks, [*numbers, number]
        self.ids += numbers
        previous = None if self.rule == SPOT else before
        time_ms = T0 + 100 * len(self.sent)
        self.sent.append(
            BookUpdate("X", numbers[0], number, previous, bids, asks, event_ms=time_ms)
        )
        return self.sent[-1]

    def snapshot(self, back: int = 0) -> BookUpdate:
        """What REST answers, as of ``back`` changes ago; on futures its number may be one that
        the whole exchange counts, between two of this symbol."""
        at = max(0, len(self.ids) - 1 - back)
        number = self.ids[at]
        bids, asks = self.books[number]
        if self.rule == USDM and at + 1 < len(self.ids):
            number = self.chance.randrange(number, self.ids[at + 1])
            self.books[number] = bids, asks
        return BookUpdate("X", number, number, None, bids, asks, snapshot=True)


def _deliver(exchange: Exchange, chance: random.Random, rows: int) -> list[BookUpdate]:
    """What comes out of a bad line: some lost, some twice, some late, some merged."""
    line = [exchange.send() for _ in range(rows)]
    if exchange.rule == SPOT and chance.random() < 0.2:
        line += [_merged(a, b) for a, b in pairwise(line) if chance.random() < 0.3]
    line = [row for row in line if chance.random() < 0.97]
    if chance.random() < 0.2:
        line += chance.choices(exchange.sent[-20:], k=3)
    if chance.random() < 0.2:
        chance.shuffle(line)
    return line


def _merged(a: BookUpdate, b: BookUpdate) -> BookUpdate:
    """Two updates in one, as another connection may have them."""
    return evolve(b, first_id=a.first_id, bids=a.bids + b.bids, asks=a.asks + b.asks)


@settings(deadline=None)
@given(st.sampled_from(RULES), st.integers(0, 2**32))
def test_a_live_book_is_the_true_one(rule: BookRule, seed: int) -> None:
    chance = random.Random(seed)
    exchange = Exchange(rule, chance)
    book = Book("BTCUSDT", rule)
    seen = 0

    def check() -> None:
        nonlocal seen
        if book.state is State.LIVE:
            seen += 1
            assert book.levels(1_000) == exchange.books[book.last_id], repr(book)

    for _ in range(60):
        for row in _deliver(exchange, chance, chance.randrange(4)):
            book.update(row)
            check()
        if rule == OKX and chance.random() < 0.05:
            newest = exchange.sent[-1].event_ms
            book.update(evolve(exchange.snapshot(), previous_id=-1, event_ms=newest))
        elif chance.random() < 0.4 and (book.wants_snapshot or chance.random() < 0.2):
            book.asked(T0)
            late = exchange.snapshot(chance.choice([0, 0, 1, 3, 10]))
            for row in _deliver(exchange, chance, chance.randrange(3)):
                book.update(row)
                check()
            book.snapshot(late)
        check()
    book.interrupt()
    book.update(exchange.send())
    book.snapshot(exchange.snapshot())
    check()
    for _ in range(5):
        assert book.update(exchange.send()).outcome is APPLIED
        check()
    assert book.last_id == exchange.ids[-1]
    assert seen >= 6  # the last snapshot and what followed it


def test_it_shows_how_many_levels_it_has() -> None:
    book = Book("BTCUSDT", USDM)
    assert " 0x0 " in repr(book)
    book.update(update(1, 2, 0, bids="10:1"))
    book.snapshot(whole(1, bids="10:1 9:1", asks="11:1"))
    assert " 2x1 " in repr(book)
