"""Fault scripts: a seed decides everything, every kind comes, nothing comes before its time."""

from collections import Counter

import pytest

from trio_feed.simulator.faults.injection import INJECTABLE
from trio_feed.simulator.faults.schedule import (
    ALL_KINDS,
    KINDS,
    SOLANA_KINDS,
    TRUTH_KINDS,
    Fault,
    parse_kinds,
    write_schedule,
)

START_MS = 1_760_000_000_000


def test_the_same_seed_writes_the_same_script() -> None:
    one = write_schedule(7, 24, KINDS, start_ms=START_MS)
    assert one == write_schedule(7, 24, KINDS, start_ms=START_MS)
    assert one != write_schedule(8, 24, KINDS, start_ms=START_MS)


def test_a_script_is_known_word_for_word() -> None:
    """Python promises the same numbers of the same seed; a change here changes every result."""
    first = write_schedule(1, 6, KINDS, start_ms=START_MS)[:2]
    assert first == [
        (338.719, Fault("unknown_frames", lasts_s=192)),
        (1036.028, Fault("listing", lasts_s=4972)),
    ]


@pytest.mark.parametrize("hours", [0.5, 6.0, 24.0])
def test_every_kind_comes_and_in_time(hours: float) -> None:
    script = write_schedule(3, hours, KINDS, start_ms=START_MS)
    times = [at for at, _ in script]
    assert times == sorted(times)
    assert times[0] >= 60.0
    assert times[-1] <= hours * 3600
    counts = Counter(fault.kind for _, fault in script)
    assert counts.keys() == KINDS.keys()
    assert max(counts.values()) - min(counts.values()) <= 1


def test_half_of_the_faults_come_when_a_minute_ends() -> None:
    script = write_schedule(1, 1000, ["tcp_reset"], start_ms=START_MS)
    near = sum((at + START_MS / 1000 + 3.001) % 60 < 6.002 for at, _ in script)
    assert 0.5 < near / len(script) < 0.6


def test_without_kinds_nothing_happens() -> None:
    assert write_schedule(1, 24, ()) == []


def test_there_is_a_lever_for_every_kind() -> None:
    assert ALL_KINDS.keys() | SOLANA_KINDS.keys() == INJECTABLE


def test_everything_is_more_than_all() -> None:
    assert parse_kinds("everything") == (*KINDS, *TRUTH_KINDS)
    assert not KINDS.keys() & TRUTH_KINDS.keys()


@pytest.mark.parametrize("kind", TRUTH_KINDS)
def test_every_kind_can_come_alone(kind: str) -> None:
    script = write_schedule(5, 2, [kind], start_ms=START_MS)
    assert script == write_schedule(5, 2, [kind], start_ms=START_MS)
    assert {fault.kind for _, fault in script} == {kind}
    at_start = {at for at, _ in script} == {0.0}
    assert at_start == (kind == "wrong_clock_at_start")


def test_kinds_are_named_with_commas() -> None:
    assert parse_kinds("all") == tuple(KINDS)
    assert parse_kinds("none") == ()
    assert parse_kinds("half_open, tcp_reset,half_open") == ("half_open", "tcp_reset")
    with pytest.raises(ValueError, match="no such fault: flood; there are tcp_reset"):
        parse_kinds("tcp_reset,flood")


def test_a_fault_reads_as_a_line() -> None:
    assert str(Fault("tcp_reset")) == "tcp_reset"
    assert str(Fault("rest_status", 418, times=3)) == "rest_status 418 x3"
    assert str(Fault("late_close", 2.5, lasts_s=90)) == "late_close 2.5 for 90 s"
