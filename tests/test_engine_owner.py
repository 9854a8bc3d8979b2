"""The writing side of a shard against a log that loses, repeats and forgets."""

import random
from itertools import pairwise

import pytest

from trio_feed.bus import wire
from trio_feed.bus.engine.base import EMPTY, Append, EntryId
from trio_feed.bus.engine.owner import Owner, Told

SHARD = "binance.0"
NOTHING = wire.Checkpoint(False, [], [], {}, [], [])
OPENING = wire.Checkpoint(True, [], [], {}, [], [])


def closed(number: int) -> wire.Closed:
    return wire.Closed(number)


def owner(epoch: int = 5, previous: EntryId = EMPTY, **more: float) -> Owner:
    made = Owner(SHARD, epoch, previous, lambda: NOTHING, **more)  # type: ignore[arg-type]
    made.start(OPENING)
    return made


def items(append: Append) -> list[wire.Item]:
    return wire.read_entry(append.body)


def appended(of: Owner) -> Append:
    found = of.next_append()
    assert found is not None
    return found


def test_it_begins_with_how_things_stand_and_one_append_is_under_way() -> None:
    shard = owner(previous=(4, 9))
    shard.put(closed(1))
    first = appended(shard)
    assert (first.previous, first.entry_id, first.checkpoint) == ((4, 9), (5, 1), True)
    assert items(first) == [OPENING, closed(1)]
    shard.put(closed(2))
    assert shard.next_append() is first, "the same again until it was answered"
    assert shard.answered((5, 1), 0.0) is Told.DONE
    second = appended(shard)
    assert (second.previous, second.entry_id, items(second)) == ((5, 1), (5, 2), [closed(2)])
    assert not second.checkpoint
    assert shard.answered((5, 2), 0.0) is Told.DONE
    assert shard.next_append() is None
    assert shard.is_empty


def test_before_its_start_nothing_is_said() -> None:
    shard = Owner(SHARD, 5, EMPTY, lambda: NOTHING)
    shard.put(closed(1))
    assert shard.next_append() is None


def test_a_checkpoint_comes_behind_what_was_put_before_it() -> None:
    shard = owner()
    shard.answered(appended(shard).entry_id, 0.0)
    shard.put(closed(1))
    shard.ask_checkpoint()
    found = appended(shard)
    assert found.checkpoint
    assert items(found) == [closed(1), NOTHING]


def test_a_sign_of_life_is_for_a_shard_that_says_nothing() -> None:
    shard = owner()
    shard.beat()
    shard.answered(appended(shard).entry_id, 0.0)
    assert shard.next_append() is None
    shard.beat()
    assert items(appended(shard)) == []


@pytest.mark.parametrize("last", [(6, 1), (5, 2), (5, 9)])
def test_another_owner_is_seen_by_its_entries(last: EntryId) -> None:
    shard = owner()
    appended(shard)
    assert shard.answered(last, 0.0) is Told.FENCED


def test_what_was_put_before_the_seal_is_still_said_and_nothing_else() -> None:
    shard = owner()
    shard.answered(appended(shard).entry_id, 0.0)
    shard.put(closed(1))
    shard.ask_checkpoint()
    shard.seal()
    shard.put(closed(2))
    shard.ask_checkpoint()
    shard.beat()
    found = appended(shard)
    assert (items(found), found.checkpoint) == ([closed(1)], False)
    shard.answered(found.entry_id, 0.0)
    assert shard.next_append() is None


def told_until(shard: Owner, count: int, now: float = 0.0) -> list[Append]:
    done = []
    for number in range(count):
        shard.put(closed(number))
        done.append(appended(shard))
        assert shard.answered(done[-1].entry_id, now) is Told.DONE
    return done


def test_what_a_log_forgot_is_appended_again_under_the_same_ids() -> None:
    shard = owner(previous=(4, 9))
    done = told_until(shard, 5)
    shard.put(closed(99))
    under_way = appended(shard)
    assert shard.answered((5, 2), 0.0) is Told.AGAIN
    again = []
    while (found := appended(shard)) is not under_way:
        again.append(found)
        assert shard.answered(found.entry_id, 0.0) is Told.DONE
    assert again == done[2:]
    assert shard.answered(under_way.entry_id, 0.0) is Told.DONE


@pytest.mark.parametrize("last", [EMPTY, (3, 3)])
def test_a_log_that_forgot_more_than_is_known_wants_a_new_epoch(last: EntryId) -> None:
    shard = owner(previous=(4, 9))
    told_until(shard, 3)
    shard.put(closed(99))
    appended(shard)
    assert shard.answered(last, 0.0) is Told.FORGOTTEN


def test_what_is_appended_again_goes_together_and_its_answer_may_be_lost() -> None:
    shard = owner(previous=(4, 9))
    done = told_until(shard, 250)
    shard.put(closed(99))
    appended(shard)
    assert shard.answered((5, 10), 0.0) is Told.AGAIN
    first = shard.next_appends()
    assert first == done[10:110], "a hundred at most"
    # All of them are in, and nobody heard it; then they are tried once more.
    assert shard.answered((5, 110), 0.0) is Told.DONE
    assert not any(map(shard.is_tried, first[1:]))
    assert shard.next_appends() == done[110:210]
    assert shard.answered((6, 1), 0.0) is Told.FENCED


def test_a_log_whose_end_was_deleted_wants_a_new_epoch() -> None:
    """It takes no id that it has had, so that what is missing cannot be appended again."""
    shard = owner()
    told_until(shard, 3)
    shard.put(closed(99))
    appended(shard)
    assert shard.answered(None, 0.0) is Told.FORGOTTEN


def test_who_goes_on_in_a_new_epoch_knows_what_it_has_not_said() -> None:
    shard = owner(previous=(4, 9))
    told_until(shard, 3)
    shard.put(closed(97))
    appended(shard)
    shard.put(closed(98))
    shard.answered(EMPTY, 0.0)
    shard.forgotten = True
    assert shard.next_append() is None
    first, second = (Owner(SHARD, epoch, EMPTY, lambda: NOTHING) for epoch in (6, 7))
    first.follow(shard)
    first.put(closed(99))  # it could not begin, and is tried again
    second.follow(first)
    second.put(closed(100))
    assert second.take_held() == [closed(number) for number in (97, 98, 99, 100)]
    second.start(OPENING)
    assert items(appended(second)) == [OPENING]


@pytest.mark.parametrize("how", ["overflown", "sealed", "overflown since", "it had none"])
def test_who_does_not_know_all_of_it_says_so(how: str) -> None:
    shard = owner(buffer_bytes=1000)
    shard.answered(appended(shard).entry_id, 0.0)
    for number in range(10 if how == "overflown" else 1):
        shard.put(closed(number))
    if how == "sealed":
        shard.seal()
    after = Owner(SHARD, 6, EMPTY, lambda: NOTHING, buffer_bytes=1000)
    after.follow(None if how == "it had none" else shard)
    for number in range(10 if how == "overflown since" else 1):
        after.put(closed(number))
    assert after.take_held() is None


@pytest.mark.parametrize("bound", ["time", "bytes"])
def test_what_is_kept_is_bounded(bound: str) -> None:
    shard = owner(previous=EMPTY, **({"keep_bytes": 20} if bound == "bytes" else {}))
    told_until(shard, 5)
    told_until(shard, 1, now=0.0 if bound == "bytes" else 31.0)
    shard.put(closed(99))
    appended(shard)
    assert shard.answered((5, 1), 0.0) is Told.FORGOTTEN


def test_an_owner_that_waits_too_long_for_its_engine_begins_again() -> None:
    shard = owner(buffer_bytes=1000)
    appended(shard)
    for number in range(10):
        shard.put(closed(number))
    assert shard.overflown
    assert shard.next_append() is None


@pytest.mark.parametrize("seed", range(50))
def test_any_losses_leave_a_chain(seed: int) -> None:
    """A log that takes, loses answers and forgets its end has each item once, in order."""
    chance, shard = random.Random(seed), owner(keep_s=1e9)
    log: list[Append] = []
    put = 0
    while put < 100 or not shard.is_empty:
        if put < 100 and chance.random() < 0.6:
            shard.put(closed(put))
            put += 1
        if (several := shard.next_appends()) and chance.random() < 0.8:
            heard = chance.random() < 0.8
            for tried in several:
                last = log[-1].entry_id if log else EMPTY
                if last == tried.previous:
                    log.append(tried)
                    last = tried.entry_id
                if heard and shard.is_tried(tried):
                    assert shard.answered(last, 0.0) in (Told.DONE, Told.AGAIN)
        if put < 100 and chance.random() < 0.05:
            del log[max(0, len(log) - chance.randrange(4)) :]
    said = [item for append in log for item in items(append)]
    assert said == [OPENING, *(closed(number) for number in range(100))]
    for before, after in pairwise(log):
        assert after.previous == before.entry_id
