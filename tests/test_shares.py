"""Who takes which shard, and when."""

import pytest

from trio_feed.bus.engine.lease import Shares

SHARDS = ["v.0", "v.1", "v.2", "v.3"]


def held(*names: str) -> dict[str, str]:
    return dict(zip(SHARDS, names, strict=True))


def test_the_shards_of_who_dies_or_leaves_are_taken_at_once() -> None:
    shares = Shares(grace_s=1.5)
    own = SHARDS[:2]
    assert shares.plan(own, held("a", "a", "b", "b"), ["a", "b"], 0.0).take == ()
    # It says for seconds more that it is there.
    assert shares.plan(own, held("a", "a", "", ""), ["a", "b"], 0.1).take == (*SHARDS[2:],)


def test_who_gives_one_away_is_still_there() -> None:
    shares = Shares(grace_s=1.5)
    shares.plan(SHARDS[:1], held("a", "b", "b", "b"), ["a", "b", "c"], 0.0)
    # a has its share of 2 with this one, c has none: both may have it.
    assert shares.plan(SHARDS[:1], held("a", "", "b", "b"), ["a", "b", "c"], 0.1).take == ("v.1",)
    full = Shares(grace_s=1.5)
    full.plan(SHARDS[:2], held("a", "a", "b", "b"), ["a", "b", "c"], 0.0)
    nothing = full.plan(SHARDS[:2], held("a", "a", "b", ""), ["a", "b", "c"], 0.1)
    assert nothing.take == ()
    late = full.plan(SHARDS[:2], held("a", "a", "b", ""), ["a", "b", "c"], 1.6)
    assert late.take == ("v.3",)


@pytest.mark.parametrize("away_s", [0.1, 2.0])
def test_an_engine_that_was_away_or_forgot_says_nothing_of_nodes(away_s: float) -> None:
    shares = Shares(grace_s=1.5)
    own = SHARDS[:2]
    shares.plan(own, held("a", "a", "b", "b"), ["a", "b"], 0.0)
    ours = "" if away_s < 0.5 else "a"  # it forgot them; or we were back first
    assert shares.plan(own, held(ours, ours, "", ""), ["a", "b"], away_s).take == ()
    # The other one has its time to say that they are its own.
    assert shares.plan(own, held("a", "a", "", ""), ["a", "b"], away_s + 0.1).take == ()
    late = shares.plan(own, held("a", "a", "", ""), ["a", "b"], away_s + 1.6)
    assert late.take == (*SHARDS[2:],)
