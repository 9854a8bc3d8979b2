"""Token buckets and log samplers on a time that is an argument."""

from trio_feed.push.edge.throttle import RequestLimits, TokenBucket, Verdict
from trio_feed.push.sampling import Sampler

SERVE, REFUSE, FLOOD = Verdict.SERVE, Verdict.REFUSE, Verdict.FLOOD


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(per_s=2, burst=3, debt=100)
    assert [bucket.take(10) for _ in range(4)] == [SERVE] * 3 + [REFUSE]
    assert bucket.take(10.9) is REFUSE  # the refused one left a debt of a token
    assert bucket.take(11.5) is SERVE
    assert [bucket.take(1000) for _ in range(4)] == [SERVE] * 3 + [REFUSE]


def test_who_goes_on_floods_and_who_waits_does_not() -> None:
    bucket = RequestLimits(per_s=1, burst=2, flood=3).bucket()
    assert [bucket.take(0) for _ in range(5)] == [SERVE, SERVE, REFUSE, REFUSE, FLOOD]
    patient = RequestLimits(per_s=1, burst=2, flood=3).bucket()
    verdicts = [patient.take(at / 2) for at in range(8)]
    assert FLOOD not in verdicts
    assert [patient.take(100.0 + at) for at in range(20)] == [SERVE] * 20


def test_a_clock_set_back_gives_nothing() -> None:
    bucket = TokenBucket(per_s=1, burst=1, debt=9)
    assert bucket.take(100) is SERVE
    assert bucket.take(50) is REFUSE
    assert repr(bucket) == "<TokenBucket -1 of 1 left>"


def test_sampler_leaves_out_and_counts() -> None:
    sampler = Sampler(most=2, window_s=60)
    assert [sampler.admit(at) for at in (5, 6, 7, 8)] == [0, 0, None, None]
    assert sampler.admit(64.9) is None
    assert [sampler.admit(at) for at in (65, 66, 67)] == [3, 0, None]
