"""Who feeds which shard."""

import pytest

from trio_feed.bus.engine.lease import Lease, Plan, Shares

FOUR = ["a.0", "a.1", "a.2", "a.3"]


def held(**by: str) -> dict[str, str]:
    return {shard: by.get(shard.replace(".", ""), "") for shard in FOUR}


def test_a_lease_is_sure_for_less_than_its_time() -> None:
    lease = Lease(3.0, 10.0)
    assert lease.is_sure(12.3)
    assert not lease.is_sure(12.4)
    lease.confirm(11.0)
    lease.confirm(10.5)  # an answer that came late
    assert lease.is_sure(13.3)
    assert not lease.is_sure(13.4)


def test_a_node_that_is_alone_takes_all() -> None:
    assert Shares(1.5).plan([], held(), ["one"], 0.0) == Plan(tuple(FOUR))


def test_two_nodes_take_half_each_and_the_rest_is_not_free_for_long() -> None:
    shares = Shares(1.5)
    assert shares.plan([], held(), ["one", "two"], 0.0) == Plan(tuple(FOUR[:2]))
    mine = held(a0="one", a1="one")
    assert shares.plan(FOUR[:2], mine, ["one", "two"], 0.1) == Plan()
    assert shares.plan(FOUR[:2], mine, ["one", "two"], 1.6) == Plan(tuple(FOUR[2:]))


def test_a_node_that_comes_later_is_given_one_after_a_while() -> None:
    shares, all_mine = Shares(1.5), held(a0="one", a1="one", a2="one", a3="one")
    assert shares.plan(FOUR, all_mine, ["one"], 0.0) == Plan()
    assert shares.plan(FOUR, all_mine, ["one", "two"], 5.0) == Plan()
    assert shares.plan(FOUR, all_mine, ["one", "two"], 16.9) == Plan()
    assert shares.plan(FOUR, all_mine, ["one", "two"], 17.0) == Plan((), "a.3")
    assert shares.plan(FOUR, all_mine, ["one", "two"], 17.1) == Plan(), "one at a time"


def test_nothing_is_given_to_a_node_that_has_gone_again() -> None:
    shares, all_mine = Shares(1.5), held(a0="one", a1="one", a2="one", a3="one")
    shares.plan(FOUR, all_mine, ["one", "two"], 0.0)
    shares.plan(FOUR, all_mine, ["one"], 6.0)
    assert shares.plan(FOUR, all_mine, ["one", "two"], 13.0) == Plan()


@pytest.mark.parametrize("nodes", [3, 5])
def test_more_nodes_than_fit_evenly_are_left_alone(nodes: int) -> None:
    names = [f"n{number}" for number in range(nodes)]
    holders = dict(zip(FOUR, (names * 2)[: len(FOUR)], strict=True))
    shares = Shares(1.5)
    own = [shard for shard, holder in holders.items() if holder == "n0"]
    assert shares.plan(own, holders, names, 0.0) == Plan()
    assert shares.plan(own, holders, names, 99.0) == Plan()


def test_how_long_a_shard_has_been_free() -> None:
    shares = Shares(1.5)
    shares.plan([], held(a0="x"), ["one"], 5.0)
    assert not shares.is_free_for("a.1", 3.0, 7.9)
    assert shares.is_free_for("a.1", 3.0, 8.0)
    assert not shares.is_free_for("a.0", 3.0, 99.0)
