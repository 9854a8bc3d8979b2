"""What a run came to, as the line of JSON of ``scripts/simulate``.  Pure; the judging itself is in
:mod:`trio_feed.testing.judge`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, evolve, field

from scripts.simulate_run import FRESH, HISTORY_BARS, NEWCOMER, START_MS, SYMBOL, Run, as_it_was
from trio_feed.model import Interval
from trio_feed.simulator.faults.context import Correction, FaultContext
from trio_feed.testing.judge import (
    Case,
    Stored,
    first_updates_s,
    judge_series,
    judge_stored,
    latest_finals_s,
)
from trio_feed.testing.judge_trades import judge_trades
from trio_feed.testing.record import Record

MUST_BE_ZERO = (
    "lost", "duplicated", "out_of_order", "wrong_values", "crashes", "limit_violations", "bypassed",
    "wrong_complete", "invented", "trades_wrong", "book_mismatches",
)  # fmt: skip


@define
class Felt:
    """What the service did to get there, and what its users and operators felt of it."""

    logs: Counter[str] = field(factory=Counter)
    """Log lines by event."""
    turns: int = 0
    """Of trio's loop."""


_ONLY_BUILT = {
    "binance_usdm": frozenset({Interval.S1, Interval.S30}),
    "binance": frozenset({Interval.S30}),
    "okx": frozenset({Interval.S30}),
}
"""Candles that are built from trades because the exchange has none of them."""
_THREES_MS = {"okx": 0}
"""Where the box's 3d candles open: data-facts.md has no row of OKX's."""


def judge(
    run: Run,
    context: FaultContext,
    record: Record,
    stored: Mapping[tuple[str, Interval], Stored],
    end_ms: int,
    resumed_s: Sequence[float],
) -> dict[str, Any]:
    """The invariants.  ``wrong_values`` counts minutes and what the exchange's own candles say,
    ``wrong_complete`` those that were made here; ``resumed_s``: when trading began again."""
    market = context.exchange.market
    case = Case(
        market, SYMBOL, START_MS, end_ms, run.origins, HISTORY_BARS,
        corrections_of(run, context), context.late_trades, _ONLY_BUILT[run.venue],
        threes_ms=_THREES_MS.get(run.venue),
    )  # fmt: skip
    mine = {interval: stored.get((SYMBOL, interval), {}) for interval in run.origins}
    by_interval = {
        interval: judge_series(case, interval, record.of(SYMBOL, interval), mine)
        for interval in run.origins
    }
    others: Counter[str] = Counter()
    for symbol in (NEWCOMER, *([FRESH] if FRESH in market.listings else [])):
        other = evolve(case, symbol=symbol)
        for interval, origin in run.origins.items():
            if origin == "exchange":
                others += judge_stored(other, interval, stored.get((symbol, interval), {}))
    given, made = Counter[str](), Counter[str]()
    for interval, counts in by_interval.items():
        (given if run.origins[interval] == "exchange" else made).update(counts)
    both = given + made
    books = record.books if "book" in run.channels else None
    trades = judge_trades(case, record.trades) if "trade" in run.channels else None
    return {
        "closed_expected": both["expected"],
        "closed_in_store": both["in_store"],
        "closed_delivered": both["delivered"],
        "lost": both["lost"],
        "duplicated": both["duplicated"],
        "out_of_order": both["out_of_order"],
        "wrong_values": given["wrong_values"] + given["wrong_first"] + others["wrong_values"],
        "wrong_complete": made["wrong_values"] + made["wrong_first"],
        "invented": both["invented"] + others["invented"],
        "waiting": both["waiting"],
        "marked": both["marked"],
        "wrong_by_interval": _wrong(by_interval),
        "trades_lost": trades and trades["lost"],
        "trades_wrong": trades and trades["wrong"] + trades["duplicated"] + trades["out_of_order"],
        "book_mismatches": books and books.mismatches,
        "books_checked": books and books.checked,
        "max_detect_s": round(context.worst_silence_s(), 1),
        "latest_final_s": latest_finals_s(case, record),
        "stale": sum(series.statuses["stale"] for series in record.series.values()),
        "first_update_s": first_updates_s(record, SYMBOL, resumed_s) if resumed_s else {},
        "fresh_updates": {
            interval.value: series.updates
            for (name, interval), series in record.series.items()
            if name == FRESH
        },
        "fresh_first_s": min(
            (
                series.arrivals[0]
                for (name, _), series in record.series.items()
                if name == FRESH and series.arrivals
            ),
            default=-1.0,
        ),
    }


def _wrong(by_interval: Mapping[Interval, Counter[str]]) -> dict[str, int]:
    """Where it is that something is not as it should be."""
    names = ("lost", "wrong_values", "wrong_first", "invented", "duplicated", "out_of_order")
    sums = {
        interval.value: sum(counts[name] for name in names)
        for interval, counts in by_interval.items()
    }
    return {name: count for name, count in sums.items() if count}


def corrections_of(run: Run, context: FaultContext) -> Mapping[int, Correction]:
    """Of minutes; those that a test of the check holds to be otherwise as well."""
    if run.truth is as_it_was:
        return context.corrections
    told = dict(context.corrections)
    for open_ms in run.expected:
        kline = context.exchange.market.candle(SYMBOL, Interval.M1, open_ms)
        if (other := run.truth(kline)) != kline:
            told[open_ms] = Correction((other,), (other,))
    return told
