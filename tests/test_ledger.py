import random
from collections.abc import Iterable

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from support.make import MINUTE, SERIES, T0, kline

from trio_feed.core.effects import CandleNews
from trio_feed.core.ledger import Ledger, Policy, open_ledger
from trio_feed.model import Hole


def ledger(*, fresh: bool = False, policy: Policy | None = None) -> Ledger:
    """A ledger that expects the candle at T0."""
    return Ledger(SERIES, T0 - MINUTE, fresh=fresh, policy=policy or Policy())


def see(book: Ledger, n: int, *, closed: bool, event_ms: int = 0) -> list[CandleNews]:
    row = kline(T0 + n * MINUTE, closed=closed, event_ms=event_ms)
    return book.observe(row, now=row.event_ms, received=row.event_ms)


def closes(messages: Iterable[CandleNews]) -> list[int]:
    return [(m.kline.open_ms - T0) // MINUTE for m in messages if m.kline.closed]


def test_updates_then_one_close_numbered_in_order() -> None:
    book = ledger()
    out = [*see(book, 0, closed=False), *see(book, 0, closed=False, event_ms=T0 + 2)]
    out += see(book, 0, closed=True)
    assert [m.update_count for m in out] == [1, 2, 3]
    assert [m.kline.closed for m in out] == [False, False, True]
    assert see(book, 1, closed=False)[0].update_count == 1


def test_a_second_close_and_a_late_update_go_nowhere() -> None:
    book = ledger()
    see(book, 0, closed=True)
    assert see(book, 0, closed=True) == []
    assert see(book, 0, closed=False) == []
    assert (book.counts.duplicates, book.counts.outdated) == (1, 1)


def test_a_changed_close_is_a_revision_not_a_second_close() -> None:
    book = ledger()
    see(book, 0, closed=False)
    book.observe(kline(T0, "100.50"), now=T0, received=T0)
    see(book, 1, closed=False)
    (again,) = book.observe(kline(T0, "100.60"), now=T0, received=T0)
    assert (again.kline.closed, again.revision) == (True, True)
    assert book.counts.revisions == 1
    assert book.observe(kline(T0, "100.60"), now=T0, received=T0) == []
    (update,) = see(book, 1, closed=False, event_ms=T0 + MINUTE + 2)
    assert (update.update_count, update.revision) == (2, False)


def test_an_older_state_of_a_closed_candle_is_no_revision() -> None:
    book = ledger()
    book.observe(kline(T0, "100.60", event_ms=T0 + MINUTE + 50), now=T0, received=T0)
    assert book.observe(kline(T0, "100.50", event_ms=T0 + MINUTE), now=T0, received=T0) == []
    assert book.counts.outdated == 1
    (again,) = book.observe(kline(T0, "100.70", event_ms=T0 + MINUTE + 99), now=T0, received=T0)
    assert again.revision


def test_a_slower_connection_does_not_take_a_revision_back() -> None:
    """OKX's candles say nothing of when; the second connection brings the old values late."""
    book = ledger()
    old, new = (evolve(kline(T0, close), event_ms=0) for close in ("100.50", "100.60"))
    assert len(book.observe(old, now=T0, received=T0)) == 1
    assert [m.revision for m in book.observe(new, now=T0, received=T0)] == [True]
    assert book.observe(old, now=T0, received=T0) == []
    assert book.observe(new, now=T0, received=T0) == []


def test_an_update_older_than_the_last_one_is_dropped() -> None:
    book = ledger()
    see(book, 0, closed=False, event_ms=T0 + 500)
    assert see(book, 0, closed=False, event_ms=T0 + 400) == []
    assert book.counts.outdated == 1


def test_the_same_update_over_a_second_connection_counts_once() -> None:
    book = ledger()
    first = kline(T0, "100.50", closed=False, volume="1")
    second = kline(T0, "100.40", closed=False, volume="2")  # of the same millisecond
    seen = [first, second, first, second]
    out = [m for row in seen for m in book.observe(row, now=T0, received=T0)]
    assert [m.kline for m in out] == [first, second]
    assert book.counts.outdated == 2


def test_live_candles_wait_behind_a_hole_and_follow_it_in_order() -> None:
    book = ledger()
    assert see(book, 1, closed=True) == []
    assert see(book, 3, closed=False) == []
    assert see(book, 2, closed=True) == []
    assert book.holding
    out = book.fill([kline(T0)], now=T0 + 3 * MINUTE)
    assert closes(out) == [0, 1, 2]
    assert out[-1].kline.open_ms == T0 + 3 * MINUTE
    assert not out[-1].kline.closed
    assert not book.holding


def test_a_close_that_never_came_is_due_after_the_grace() -> None:
    book = ledger()
    see(book, 0, closed=False)
    assert book.due_ms == T0 + MINUTE + 3_000
    row = kline(T0 + MINUTE, closed=False)
    assert book.observe(row, now=T0 + MINUTE + 100, received=0) == []
    assert book.due_ms == T0 + MINUTE + 100 + 3_000


def test_a_late_close_within_the_grace_needs_no_question() -> None:
    book = ledger()
    see(book, 0, closed=False)
    see(book, 1, closed=False)
    out = see(book, 0, closed=True)
    assert closes(out) == [0]
    assert out[-1].kline.open_ms == T0 + MINUTE
    assert book.due_ms == T0 + 2 * MINUTE + 3_000


def test_a_reconnect_that_crossed_an_end_asks_at_once() -> None:
    book = ledger()
    book.resumed(T0 + 30_000)
    assert book.due_ms == T0 + MINUTE + 3_000
    book.resumed(T0 + MINUTE + 1)
    assert book.due_ms == T0 + MINUTE + 1


def test_questions_without_progress_back_off() -> None:
    book = ledger()
    now = float(T0 + MINUTE)
    waits = []
    for _ in range(8):
        book.failed(now)
        waits.append(book.due_ms - now)
        now = book.due_ms
    assert waits == [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]


def test_pages_follow_each_other_without_waiting() -> None:
    book = ledger()
    now = float(T0 + 10 * MINUTE + 5)
    book.resumed(now)
    assert closes(book.fill([kline(T0), kline(T0 + MINUTE)], now=now)) == [0, 1]
    assert book.due_ms == now
    rest = [kline(T0 + n * MINUTE) for n in range(2, 10)]
    assert closes(book.fill([*rest, kline(T0 + 10 * MINUTE, closed=False)], now=now)) == [
        *range(2, 10)
    ]
    assert book.due_ms > now


def test_a_hole_of_the_exchange_is_believed_only_when_confirmed() -> None:
    book = ledger()
    now = float(T0 + 5 * MINUTE)
    rows = [kline(T0), kline(T0 + 3 * MINUTE), kline(T0 + 4 * MINUTE)]
    assert closes(book.fill(rows, now=now)) == [0]
    assert closes(book.fill(rows, now=now)) == []
    assert closes(book.fill(rows, now=now + 40_000)) == []
    assert closes(book.fill(rows, now=now + 50_000)) == [3, 4]
    assert book.holes == [Hole(T0 + MINUTE, T0 + 2 * MINUTE)]


def test_a_hole_is_not_believed_within_moments_however_often_it_is_seen() -> None:
    book = ledger()
    rows = [kline(T0 + MINUTE), kline(T0 + 2 * MINUTE)]
    for second in range(30):
        assert book.fill(rows, now=T0 + 5 * MINUTE + second * 1000) == []
    assert closes(book.fill(rows, now=T0 + 5 * MINUTE + 30_000)) == [1, 2]


def test_a_question_that_failed_confirms_no_hole() -> None:
    book = ledger()
    for _ in range(5):
        book.failed(now=T0 + 3 * MINUTE)
    assert book.fill([kline(T0 + MINUTE)], now=T0 + 3 * MINUTE) == []
    assert closes(book.fill([kline(T0), kline(T0 + MINUTE)], now=T0 + 3 * MINUTE)) == [0, 1]
    assert book.holes == []


def test_a_fresh_series_begins_where_the_history_begins() -> None:
    book = ledger(fresh=True)
    out = book.fill([kline(T0 + 7 * MINUTE), kline(T0 + 8 * MINUTE)], now=T0 + 9 * MINUTE)
    assert closes(out) == [7, 8]
    assert book.holes == []


def test_an_answer_that_is_empty_by_its_bounds_says_that_there_is_nothing() -> None:
    now, until = float(T0 + 100 * MINUTE), T0 + 30 * MINUTE
    book = ledger(fresh=True)
    assert book.fill([], now=now, until_ms=until) == []
    assert (book.expected, book.holes) == (until, [])
    book = ledger()
    for wait_ms in (0, 20_000, 30_000):
        book.fill([], now=now + wait_ms, until_ms=until)
        assert book.due_ms >= now
    assert book.expected == until
    assert book.holes == [Hole(T0, until - MINUTE)]
    book.fill([], now=now, until_ms=T0 + 100 * MINUTE)
    assert book.expected == until


def test_a_new_ledger_wants_its_history() -> None:
    now = T0 + 30_000
    book = open_ledger(SERIES, last_closed=None, history_bars=10, now=now, policy=Policy())
    assert book.expected == T0 - 10 * MINUTE
    assert book.due_ms < now
    again = open_ledger(SERIES, last_closed=T0 - MINUTE, history_bars=10, now=now, policy=Policy())
    assert again.expected == T0


def test_what_nobody_can_supply_is_skipped_and_recorded() -> None:
    book = ledger()
    book.skip(T0 + 2 * MINUTE)
    assert book.holes == [Hole(T0, T0 + MINUTE)]
    assert closes(see(book, 2, closed=True)) == [2]


def test_what_waits_is_bounded() -> None:
    book = ledger(policy=Policy(max_waiting=3))
    for n in range(1, 10):
        see(book, n, closed=True)
    out = book.fill([kline(T0)], now=T0 + 10 * MINUTE)
    assert closes(out) == [0, 1, 2, 3]
    assert book.due_ms <= T0 + 10 * MINUTE


@given(st.integers(0, 2**32))
def test_any_order_of_deliveries_gives_every_close_once_in_order(seed: int) -> None:
    chance = random.Random(seed)
    total = 30
    book = ledger()
    out: list[CandleNews] = []
    for n in range(total):
        for closed in (False, False, True):
            if chance.random() < 0.6:
                out += see(book, n, closed=closed)
        if chance.random() < 0.2:
            out += see(book, chance.randrange(n + 1), closed=chance.random() < 0.5)
        if chance.random() < 0.3:
            page = [kline(T0 + i * MINUTE) for i in range(n + 1)]
            page = [row for row in page if row.open_ms >= book.expected]
            out += book.fill(page[: chance.randrange(n + 2)], now=T0 + n * MINUTE)
    first = (book.expected - T0) // MINUTE
    rows = [kline(T0 + i * MINUTE) for i in range(first, total)]
    out += book.fill(rows, now=T0 + total * MINUTE)
    assert closes(out) == list(range(total))
    assert book.holes == []
