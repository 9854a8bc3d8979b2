"""What every engine answers, as checks that run on each of them.

``tests/test_engine_memory.py`` runs them on memory in virtual time,
``tests/live/test_engine_live.py`` on real servers.
"""

from collections.abc import Awaitable, Callable

import trio
from attrs import frozen

from trio_feed.bus.engine.base import EMPTY, Append, Engine, Entry, EntryId

A, B = "binance_usdm.0", "binance_usdm.1"
LONG_S = 60.0


@frozen
class Kit:
    """Two clients of one engine, where nothing is yet."""

    engine: Engine
    other: Engine

    async def fill(
        self, number: int, *, shard: str = A, epoch: int = 7, every: int = 0, size: int = 1
    ) -> list[EntryId]:
        """Entries 1 to ``number`` of an empty log; of the first and each ``every``-th then a
        checkpoint."""
        ids = [(epoch, n) for n in range(1, number + 1)]
        appends = [
            append(
                previous, each, shard=shard, checkpoint=bool(every) and n % every == 0, size=size
            )
            for n, (previous, each) in enumerate(zip([EMPTY, *ids], ids, strict=False))
        ]
        assert await self.engine.append(appends) == ids
        return ids

    async def ids(self, shard: str = A, after: EntryId = EMPTY, limit: int = 1000) -> list[EntryId]:
        found = await self.other.read({shard: after}, wait_s=0, limit=limit)
        return [entry.entry_id for entry in found.get(shard, [])]


def body_of(entry_id: EntryId, size: int = 1) -> bytes:
    return b"\x00\xff\r\n%d-%d" % entry_id * size


def append(
    previous: EntryId, entry_id: EntryId, *, shard: str = A, checkpoint: bool = False, size: int = 1
) -> Append:
    return Append(shard, previous, entry_id, body_of(entry_id, size), checkpoint)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Nothing tells us of a lease that ends."""
    with trio.fail_after(20):
        while not await condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def an_empty_log(kit: Kit) -> None:
    assert await kit.engine.tail(A) == EMPTY == (0, 0)
    assert await kit.ids() == []
    assert await kit.engine.since_checkpoint(A) == []
    await kit.engine.trim(A, (5, 5))
    assert await kit.engine.bytes_of([A]) == {A: 0}


async def what_is_appended_is_read(kit: Kit) -> None:
    assert await kit.engine.append([append(EMPTY, (7, 1), checkpoint=True)]) == [(7, 1)]
    assert await kit.engine.append([append((7, 1), (7, 2))]) == [(7, 2)]
    assert await kit.other.read({A: EMPTY}, wait_s=0, limit=1000) == {
        A: [Entry((7, 1), body_of((7, 1)), True), Entry((7, 2), body_of((7, 2)), False)]
    }
    assert await kit.other.tail(A) == (7, 2)
    assert await kit.other.tail(B) == EMPTY


async def ids_are_as_large_as_milliseconds(kit: Kit) -> None:
    large = (1_790_000_000_123, 2**53 + 1)
    assert await kit.engine.append([append(EMPTY, large)]) == [large]
    assert await kit.engine.append([append(large, (large[0], large[1] + 1))]) == [
        (large[0], large[1] + 1)
    ]
    assert await kit.ids(after=large) == [(large[0], large[1] + 1)]


async def an_empty_body_is_one(kit: Kit) -> None:
    await kit.engine.append([Append(A, EMPTY, (7, 1), b"", True)])
    assert await kit.engine.since_checkpoint(A) == [Entry((7, 1), b"", True)]


async def a_retry_is_in_once(kit: Kit) -> None:
    first = append(EMPTY, (7, 1))
    assert await kit.engine.append([first]) == [(7, 1)]
    assert await kit.other.append([first]) == [(7, 1)]
    assert await kit.ids() == [(7, 1)]


async def what_does_not_follow_is_not_in(kit: Kit) -> None:
    await kit.fill(3)
    assert await kit.engine.append([append((7, 2), (7, 4))]) == [(7, 3)]  # one behind
    assert await kit.engine.append([append((7, 4), (7, 5))]) == [(7, 3)]  # one ahead
    assert await kit.engine.append([append((8, 3), (8, 4))]) == [(7, 3)]
    assert await kit.engine.append([append(EMPTY, (9, 1))]) == [(7, 3)]
    assert await kit.ids() == [(7, 1), (7, 2), (7, 3)]


async def an_owner_of_before_is_fenced(kit: Kit) -> None:
    await kit.fill(3)
    assert await kit.other.append([append((7, 3), (8, 1), checkpoint=True)]) == [(8, 1)]
    assert await kit.engine.append([append((7, 3), (7, 4))]) == [(8, 1)]
    assert await kit.ids() == [(7, 1), (7, 2), (7, 3), (8, 1)]


async def an_id_that_does_not_grow_is_not_taken(kit: Kit) -> None:
    await kit.fill(3)
    both = [append((7, 3), (7, 2)), append(EMPTY, (7, 2), shard=B), append((7, 3), (7, 3))]
    assert await kit.engine.append(both) == [None, (7, 2), None]
    assert await kit.ids() == [(7, 1), (7, 2), (7, 3)]


async def appends_of_one_call_are_in_order_and_apart(kit: Kit) -> None:
    assert await kit.engine.append([]) == []
    answers = await kit.engine.append(
        [
            append(EMPTY, (7, 1)),
            append((1, 1), (9, 2), shard=B),  # does not fit, and costs the others nothing
            append((7, 1), (7, 2)),
            append(EMPTY, (9, 1), shard=B),
        ]
    )
    assert answers == [(7, 1), EMPTY, (7, 2), (9, 1)]
    assert await kit.other.read({A: EMPTY, B: EMPTY}, wait_s=0, limit=1000) == {
        A: [Entry((7, n), body_of((7, n)), False) for n in (1, 2)],
        B: [Entry((9, 1), body_of((9, 1)), False)],
    }


async def reading_goes_on_behind_an_id(kit: Kit) -> None:
    ids = await kit.fill(10)
    assert await kit.ids(after=(7, 4)) == ids[4:]
    assert await kit.ids(limit=3) == ids[:3]
    assert await kit.ids(after=(7, 10)) == []
    assert await kit.ids(after=(6, 99)) == ids  # of an epoch before
    assert await kit.ids(after=(8, 0)) == []


async def reading_waits_for_any_of_its_shards(kit: Kit) -> None:
    await kit.fill(2)
    found = []

    async def read() -> None:
        found.append(await kit.other.read({A: (7, 2), B: EMPTY}, wait_s=LONG_S, limit=10))

    with trio.fail_after(LONG_S - 1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await kit.engine.append([append(EMPTY, (9, 1), shard=B)])
    assert found == [{B: [Entry((9, 1), body_of((9, 1)), False)]}]


async def reading_waits_for_no_longer_than_it_shall(kit: Kit) -> None:
    assert await kit.other.read({A: EMPTY}, wait_s=0.02, limit=10) == {}
    assert await kit.other.read({A: EMPTY}, wait_s=0, limit=10) == {}
    assert await kit.other.read({}, wait_s=0.02, limit=10) == {}


async def a_read_that_is_given_up_costs_nothing(kit: Kit) -> None:
    with trio.move_on_after(0.05) as scope:
        await kit.other.read({A: EMPTY}, wait_s=LONG_S, limit=10)
    assert scope.cancelled_caught
    await kit.fill(1)
    assert await kit.ids() == [(7, 1)]


async def reads_and_appends_do_not_wait_for_each_other(kit: Kit) -> None:
    with trio.fail_after(LONG_S - 1):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(
                    lambda: kit.engine.read({A: (7, 3)}, wait_s=LONG_S, limit=1),
                    name="reader",
                )
            await kit.fill(4)  # with the client that waits


async def since_the_last_checkpoint(kit: Kit) -> None:
    ids = await kit.fill(5)
    assert await kit.engine.since_checkpoint(A) == []
    await kit.engine.append([append((7, 5), (7, 6), checkpoint=True)])
    assert await kit.engine.since_checkpoint(A) == [Entry((7, 6), body_of((7, 6)), True)]
    await kit.engine.append([append((7, 6), (7, 7))])
    await kit.engine.append([append((7, 7), (8, 1))])
    assert await kit.other.since_checkpoint(A) == [
        Entry(each, body_of(each), each == (7, 6)) for each in [(7, 6), (7, 7), (8, 1)]
    ]
    assert await kit.ids() == [*ids, (7, 6), (7, 7), (8, 1)]


async def since_a_checkpoint_far_back(kit: Kit) -> None:
    ids = await kit.fill(1500, every=1000)
    found = await kit.other.since_checkpoint(A)
    assert [entry.entry_id for entry in found] == ids[1000:]
    assert [entry.checkpoint for entry in found] == [True] + [False] * 499


async def one_has_the_lease(kit: Kit) -> None:
    assert await kit.engine.holders([A, B]) == {A: "", B: ""}
    assert await kit.engine.take_lease(A, "one:1", LONG_S)
    assert not await kit.other.take_lease(A, "two:1", LONG_S)
    assert await kit.other.take_lease(B, "two:1", LONG_S)
    assert await kit.other.holders([A, B, "x.0"]) == {A: "one:1", B: "two:1", "x.0": ""}
    assert await kit.other.holders([]) == {}


async def a_lease_ends_by_itself(kit: Kit) -> None:
    assert await kit.engine.take_lease(A, "one", 0.05)
    await until(lambda: kit.other.take_lease(A, "two", LONG_S))
    assert await kit.engine.holders([A]) == {A: "two"}
    assert await kit.engine.renew_leases({A: "one"}, LONG_S) == {A: False}
    assert await kit.engine.holders([A]) == {A: "two"}


async def leases_are_renewed_where_they_are_ours(kit: Kit) -> None:
    assert await kit.engine.take_lease(A, "one", 2)
    assert await kit.engine.renew_leases({A: "one", B: "one"}, 0.05) == {A: True, B: False}

    async def gone() -> bool:
        return await kit.other.holders([A, B]) == {A: "", B: ""}

    await until(gone)  # the shorter time counts now: long before 2 s
    assert await kit.engine.renew_leases({A: "one"}, LONG_S) == {A: False}
    assert await kit.engine.renew_leases({}, LONG_S) == {}
    assert await kit.engine.holders([A]) == {A: ""}


async def a_lease_is_dropped_by_its_holder_only(kit: Kit) -> None:
    assert await kit.engine.take_lease(A, "one", LONG_S)
    await kit.other.drop_lease(A, "two")
    assert await kit.other.holders([A]) == {A: "one"}
    await kit.engine.drop_lease(A, "one")
    assert await kit.other.take_lease(A, "two", LONG_S)


async def trimming_takes_only_what_is_before(kit: Kit) -> None:
    ids = await kit.fill(1000, size=10)
    before = (await kit.engine.bytes_of([A, B]))[A]
    await kit.engine.trim(A, (7, 900))
    left = await kit.ids()
    assert left == ids[-len(left) :]
    assert 101 <= len(left) < 900, "as many as fit, but none that is not before"
    assert await kit.engine.tail(A) == (7, 1000)
    after = await kit.engine.bytes_of([A, B])
    assert 0 == after[B] < after[A] < before


async def a_log_that_was_trimmed_goes_on(kit: Kit) -> None:
    await kit.fill(300)
    await kit.engine.trim(A, (9, 0))
    assert (await kit.ids())[-1] == await kit.engine.tail(A) == (7, 300), "the last one stays"
    assert await kit.engine.append([append((7, 300), (7, 301))]) == [(7, 301)]
    assert (await kit.ids())[-1] == (7, 301)


async def nodes_say_how_they_stand(kit: Kit) -> None:
    assert await kit.engine.nodes() == {}
    await kit.engine.put_node("push-2", b"{}", LONG_S)
    await kit.engine.put_node("push-1", b"\x00\xff", 0.2)
    await kit.engine.put_node("push-2", b"later", LONG_S)
    assert list((await kit.other.nodes()).items()) == [
        ("push-1", b"\x00\xff"),
        ("push-2", b"later"),
    ]

    async def one_is_forgotten() -> bool:
        return await kit.other.nodes() == {"push-2": b"later"}

    await until(one_is_forgotten)
    await kit.engine.put_node("push-1", b"back", LONG_S)
    assert set(await kit.other.nodes()) == {"push-1", "push-2"}


async def values_are_kept(kit: Kit) -> None:
    assert await kit.engine.value("instruments:okx") is None
    await kit.engine.put_value("instruments:okx", b"\x00\xff")
    await kit.engine.put_value("other", b"")
    assert await kit.other.value("instruments:okx") == b"\x00\xff"
    assert await kit.other.value("other") == b""
    await kit.other.put_value("instruments:okx", b"new")
    assert await kit.engine.value("instruments:okx") == b"new"


async def the_first_says_what_the_cluster_is(kit: Kit) -> None:
    assert await kit.engine.cluster() is None
    assert await kit.engine.join(b"a") == b"a"
    assert await kit.other.join(b"b") == b"a"
    assert await kit.other.cluster() == b"a"
    assert await kit.engine.join(b"a") == b"a"


CHECKS = [
    an_empty_log,
    what_is_appended_is_read,
    ids_are_as_large_as_milliseconds,
    an_empty_body_is_one,
    a_retry_is_in_once,
    what_does_not_follow_is_not_in,
    an_owner_of_before_is_fenced,
    an_id_that_does_not_grow_is_not_taken,
    appends_of_one_call_are_in_order_and_apart,
    reading_goes_on_behind_an_id,
    reading_waits_for_any_of_its_shards,
    reading_waits_for_no_longer_than_it_shall,
    a_read_that_is_given_up_costs_nothing,
    reads_and_appends_do_not_wait_for_each_other,
    since_the_last_checkpoint,
    since_a_checkpoint_far_back,
    one_has_the_lease,
    a_lease_ends_by_itself,
    leases_are_renewed_where_they_are_ours,
    a_lease_is_dropped_by_its_holder_only,
    trimming_takes_only_what_is_before,
    a_log_that_was_trimmed_goes_on,
    nodes_say_how_they_stand,
    values_are_kept,
    the_first_says_what_the_cluster_is,
]
