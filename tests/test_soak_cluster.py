"""The judge of ``scripts/soak --cluster`` can be unhappy."""

from collections import Counter
from typing import Any

import pytest

from scripts.soak_cluster_judge import (
    BROKEN,
    TOLD_WITHIN_S,
    CandleWatch,
    PrivateWatch,
    Silence,
    TradeWatch,
)
from scripts.soak_cluster_values import Found, judge_values, truth
from trio_feed.simulator import Market

T0 = 1_760_000_000


def row(at: int, kind: str = "final", close: float = 1.5, *, complete: bool = True) -> Any:
    prices = {"open": 1.0, "high": 2.0, "low": 1.0, "close": close, "volume": 3.0}
    return {"time": T0 + at, "update_type": kind, "complete": complete, **prices}


def update(at: int, kind: str = "final", **more: Any) -> dict[str, Any]:
    return {"epoch": 7, "offset": at, "data": row(at, kind, **more)}


def candles(*updates: dict[str, Any], history: tuple[int, ...] = (0,)) -> Counter[str]:
    counts: Counter[str] = Counter()
    watch = CandleWatch(1, counts)
    watch.history([row(at) for at in history])
    for each in updates:
        watch.update(each)
    return counts


def broken(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in BROKEN if counts[name]}


def test_candles_one_after_the_other_are_good() -> None:
    counts = candles(update(1, "realtime"), update(1), update(2, "realtime"), update(2))
    assert broken(counts) == {}
    assert counts["closed"] == 3


@pytest.mark.parametrize(
    ("updates", "found"),
    [
        ([update(1), update(3)], {"closed_lost": 1}),
        ([update(1), update(1)], {"closed_duplicated": 1}),
        ([update(1), update(-3)], {"closed_out_of_order": 1}),
        ([update(1), update(1, "realtime")], {"closed_out_of_order": 1}),
    ],
)
def test_what_is_wrong_with_candles_is_counted(updates: Any, found: dict[str, int]) -> None:
    assert broken(candles(*updates)) == found


def test_a_fresh_history_may_repeat_and_must_not_leave_out_or_contradict() -> None:
    counts: Counter[str] = Counter()
    watch = CandleWatch(1, counts)
    watch.history([row(0)])
    watch.update(update(1))
    assert watch.opening()["since"] == {"epoch": 7, "offset": 1, "time": T0 + 1}
    watch.history([row(0), row(1), row(2)])
    assert broken(counts) == {}
    watch.history([row(4)])
    assert broken(counts) == {"closed_lost": 1}
    watch.history([row(4, close=1.6)])
    assert broken(counts) == {"closed_lost": 1, "closed_contradicted": 1}


def trade(first: int, last: int | None = None, **more: Any) -> dict[str, Any]:
    data = {"first_id": first, "last_id": first if last is None else last}
    return {"epoch": 7, "offset": first, "data": data, **more}


def test_trades_that_are_missing_have_to_be_told_soon() -> None:
    for told in (None, "before", "after"):
        counts: Counter[str] = Counter()
        watch = TradeWatch(counts)
        watch.update(trade(1, snapshot=True), 0.0)
        watch.update(trade(2, 4), 0.0)
        if told == "before":
            watch.tell()
        watch.update(trade(7), 1.0)
        if told == "after":
            watch.tell()
        watch.settle(1.0 + TOLD_WITHIN_S)
        assert broken(counts) == {}
        watch.settle(1.1 + TOLD_WITHIN_S)
        assert broken(counts) == ({} if told else {"trades_lost_silently": 2})
        assert counts["trades_told_missing"] == (2 if told else 0)
        watch.update(trade(7), 9.0)
        assert counts["trades_duplicated"] == 1


def test_private_events_come_once_and_in_order() -> None:
    counts: Counter[str] = Counter()
    watch = PrivateWatch(counts)
    for number in (0, 2, 1, 2):
        watch.update({"event_id": f"1001-{number}", "epoch": 1, "offset": number})
    assert broken(counts) == {"private_out_of_order": 1, "private_duplicated": 1}


def test_the_longest_silence_counts_to_the_moment_it_is_asked_for() -> None:
    silence = Silence(0.0)
    silence.note(3.0)
    silence.note(4.0)
    assert silence.take(4.5) == 3.0
    silence.note(5.0)
    assert silence.take(7.5) == 2.5


def test_values_and_rows_are_compared_with_the_market() -> None:
    market, key, at = Market(1, ("BTCUSDT",), 240), ("BTCUSDT", "1s"), T0
    right = {at + n: truth(market, *key, at + n) for n in range(4)}
    lines: list[str] = []
    stored: Found = {key: {**right}}
    good = judge_values(1, {key: {**right}}, stored, lines.append)
    assert (good["wrong_values"], good["store_missing"], good["told_not_stored"]) == (0, 0, 0)
    del stored[key][at + 2]
    stored[key][at] = (1.0, 1.0, 1.0, 1.0, 1.0)
    bad = judge_values(1, {key: {**right}}, stored, lines.append)
    assert (bad["wrong_values"], bad["store_missing"], bad["told_not_stored"]) == (1, 1, 1)
    assert len(lines) == 3
