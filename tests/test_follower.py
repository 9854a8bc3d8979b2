"""The guard of a series: each closed candle once, in order, whatever the log lost or has again."""

import random
from collections.abc import Sequence

import pytest

from trio_feed.bus.follower import Guard, Missing
from trio_feed.bus.wire import Candle, Flags

M = 60_000
A = 1


def item(k: int, offset: int, *, epoch: int = 1, closed: bool = True, more: int = 0) -> Candle:
    flags = (Flags.CLOSED if closed else 0) | more
    return Candle(A, epoch, offset, k * M, (k - 1) * M, flags, 1, 0.0, 0.0, b"")


def follower(closed: int | None = 0, offset: int = 1) -> Guard:
    return Guard(None if closed is None else closed * M, (1, offset))


def minutes(items: Sequence[Candle]) -> list[int]:
    return [each.open_ms // M for each in items]


def test_what_follows_passes_and_what_was_there_does_not() -> None:
    node = follower()
    assert minutes(node.take(item(1, 2, closed=False), 0)) == [1]
    assert minutes(node.take(item(1, 3), 0)) == [1]
    assert minutes(node.take(item(1, 3, epoch=2), 0)) == []
    assert minutes(node.take(item(1, 9, closed=False), 0)) == []
    assert minutes(node.take(item(1, 4, more=Flags.REVISION), 0)) == [1]
    assert minutes(node.take(item(2, 5), 0)) == [2]
    assert not node.missing


def test_what_is_missing_is_named_and_comes_first() -> None:
    node = follower()
    assert not node.take(item(4, 8, closed=False), 10.0)
    assert not node.take(item(4, 9), 10.0)
    assert node.missing == Missing(0, 3 * M, (1, 7))
    assert minutes(node.repair([item(1, 3)], 10.5)) == [1]  # the store is behind
    assert node.missing == Missing(1 * M, 3 * M, (1, 7))
    rows = [item(0, 1), item(1, 3), item(2, 5), item(3, 7), item(4, 9)]
    out = node.repair(rows, 11.0)
    assert [(row.open_ms // M, row.offset) for row in out] == [(2, 5), (3, 7), (4, 8), (4, 9)]
    assert not node.missing
    assert not node.repair(rows, 11.0)
    assert minutes(node.take(item(5, 10), 11.0)) == [5]


def test_numbers_without_a_hole_say_that_nothing_is_missing() -> None:
    """Silent candles of a sparse series are stored and never published."""
    node = follower(0, 1)
    assert minutes(node.take(item(9, 2), 0)) == [9]
    other = follower(0, 1)
    assert not other.take(item(9, 2, epoch=2), 0)
    assert other.missing


def test_a_series_that_is_not_known_begins_anywhere() -> None:
    node = follower(None)
    assert minutes(node.take(item(7, 40), 0)) == [7]
    assert not node.take(item(9, 44), 0)


def test_what_is_ephemeral_passes_at_any_time() -> None:
    node = follower()
    assert not node.take(item(4, 9), 0)
    assert minutes(node.take(item(5, 9, closed=False, more=Flags.EPHEMERAL), 0)) == [5]


@pytest.mark.parametrize("too_much", [True, False])
def test_a_series_that_waits_too_long_is_overdue(too_much: bool) -> None:
    node = follower()
    for n in range(1_100 if too_much else 2):
        node.take(item(4, 9 + n, closed=False), 5.0)
    assert node.overdue(5.0 if too_much else 15.0)
    assert too_much or not node.overdue(14.9)
    out = node.settle([], 15.0)
    assert (len(out), node.missing) == (1_000 if too_much else 2, None)
    assert not node.overdue(99.0)


def test_silent_candles_of_a_sparse_series_are_not_waited_for() -> None:
    node = follower()
    assert not node.take(item(9, 8), 0)
    assert minutes(node.settle([item(4, 3)], 0)) == [4, 9]
    assert not node.missing


def test_a_checkpoint_says_what_should_be_there() -> None:
    node = follower()
    node.want(0, (1, 1), 0.0)
    assert not node.missing
    node.want(2 * M, (1, 3), 0.0)
    node.want(3 * M, (1, 4), 9.0)
    node.want(1 * M, (1, 2), 9.0)
    assert node.missing == Missing(0, 3 * M, (1, 4))
    assert node.overdue(10.0)
    assert minutes(node.repair([item(k, k + 1) for k in (1, 2, 3)], 9.0)) == [1, 2, 3]


def revision(k: int, offset: int) -> Candle:
    return item(k, offset, more=Flags.REVISION)


def numbered(items: Sequence[Candle]) -> list[tuple[int, int]]:
    return [(each.open_ms // M, each.offset) for each in items]


def test_revisions_of_a_jump_come_in_their_place_and_once() -> None:
    node = follower(5, 20)
    waits = [item(8, 31, closed=False), item(8, 32), revision(7, 33), item(9, 34, closed=False)]
    for each in waits:
        assert not node.take(each, 0)
    rows = [
        revision(3, 22),
        item(6, 24),
        item(7, 26),
        revision(5, 28),
        item(8, 32),
        revision(7, 33),
    ]
    assert numbered(node.settle(rows, 0)) == [
        *[(3, 22), (6, 24), (7, 26), (5, 28)],
        *[(8, 31), (8, 32), (7, 33), (9, 34)],
    ]
    assert not node.take(revision(7, 33), 0)


def test_a_revision_alone_is_missing_too() -> None:
    node = follower(5, 20)
    node.want(5 * M, (1, 30), 0.0, (1, 20))
    assert not node.missing, "it was handed out"
    node.want(5 * M, (1, 30), 0.0, (1, 25))
    assert node.missing == Missing(5 * M, 5 * M, (1, 30), (1, 25))
    assert not node.take(revision(5, 31), 0)
    rows = [revision(2, 22), revision(4, 25), revision(5, 31)]
    assert numbered(node.settle(rows, 0)) == [(2, 22), (4, 25), (5, 31)]
    assert not node.missing


def test_no_number_is_older_than_what_clients_have() -> None:
    """The failover lost the seal of epoch 5, and an owner of before appended once more."""
    node = Guard(5 * M, (5, 3))
    node.want(7 * M, (9, 0), 0.0)
    rows = [item(6, 54, epoch=2), item(7, 55, epoch=2)]
    out = node.settle(rows, 0)
    assert [(row.open_ms // M, row.epoch, row.offset) for row in out] == [(6, 8, 1), (7, 8, 2)]
    assert minutes(node.take(item(8, 1, epoch=9), 0)) == [8]


def test_a_second_jump_while_it_waits() -> None:
    """What came before it waits; what the store has of both is handed out once, in order."""
    node = follower(5, 20)
    assert not node.take(item(7, 30, closed=False), 0)
    node.want(7 * M, (1, 30), 0.0, (1, 29))
    assert node.missing == Missing(5 * M, 6 * M, (1, 29)), "it is waiting"
    node.want(9 * M, (1, 50), 0.0, (1, 45))
    assert node.missing == Missing(5 * M, 9 * M, (1, 50), (1, 45))
    assert not node.take(item(10, 51, closed=False), 0)
    rows = [item(6, 25), item(7, 33), item(8, 40), revision(6, 45), item(9, 48)]
    assert numbered(node.settle(rows, 0)) == [
        *[(6, 25), (7, 33), (8, 40), (6, 45), (9, 48), (10, 51)],
    ]


def test_what_waited_is_handed_out_when_the_rest_is_given_up() -> None:
    node = follower(5, 20)
    waits = [item(8, 31, closed=False), item(8, 32), revision(7, 33), item(9, 34, closed=False)]
    for each in waits:
        node.take(each, 0)
    node.want(8 * M, (1, 34), 0.0, (1, 33))
    assert node.overdue(10.0)
    assert numbered(node.give_up(10.0)) == [(8, 31), (8, 32), (7, 33), (9, 34)]
    assert not node.missing
    assert numbered(node.take(item(9, 35), 11.0)) == [(9, 35)]


def test_what_was_given_up_is_not_wanted_again() -> None:
    node = follower(5, 20)
    node.want(7 * M, (1, 30), 0.0, (1, 29))
    assert not node.give_up(10.0)
    node.want(7 * M, (1, 30), 11.0, (1, 29))
    assert not node.missing
    assert numbered(node.take(item(8, 31), 11.0)) == [(8, 31)]


@pytest.mark.parametrize("seed", range(200))
def test_any_log_that_forgets_and_repeats_gives_each_candle_once(seed: int) -> None:
    chance, node, got = random.Random(seed), follower(), [0]
    log = [item(k, 2 * k - 1 + c, closed=bool(c)) for k in range(1, 20) for c in (0, 1)]
    table = {row.open_ms // M: row for row in log if row.flags & Flags.CLOSED}

    def hand_out(items: Sequence[Candle]) -> None:
        for each in items:
            if each.flags & Flags.CLOSED:
                got.append(each.open_ms // M)
            else:
                assert each.open_ms // M == got[-1] + 1

    at = 0
    while at < len(log):
        hand_out(node.take(log[at], 0))
        at += chance.choice([1, 1, 1, 1, 2, 5, -3]) if at > 3 else 1
        if chance.random() < 0.3 and node.missing:
            behind = chance.randrange(3)
            upto = node.missing.until_ms // M - behind
            hand_out(node.repair([table[k] for k in sorted(table) if k <= upto], 0))
    while node.missing:
        hand_out(node.repair(list(table.values()), 0))
    assert got == list(range(got[-1] + 1))
    assert got[-1] > 15
