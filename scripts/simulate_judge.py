"""What a run came to: the store and the client's record against the simulated market.  Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from scripts.simulate_client import Record, Values, values_of
from scripts.simulate_run import MINUTE_MS, NEWCOMER, START_MS, SYMBOL, Run
from trio_feed.model import Interval, Kline
from trio_feed.simulator.trial import Trial

MUST_BE_ZERO = (
    "lost", "duplicated", "out_of_order", "wrong_values", "crashes", "limit_violations", "bypassed",
)  # fmt: skip
Stored = Mapping[int, Kline]
"""By open time."""


def judge(run: Run, trial: Trial, record: Record, stored: Mapping[str, Stored]) -> dict[str, Any]:
    """The invariants.  A candle is lost that the store or the client has not got."""
    mine, expected = stored[SYMBOL], run.expected
    delivered = Counter(at for at, _ in record.finals if at in expected)
    opens = [at for at, _ in record.finals]
    return {
        "closed_expected": len(expected),
        "closed_in_store": sum(at in mine for at in expected),
        "closed_delivered": len(delivered),
        "lost": sum(at not in mine or at not in delivered for at in expected),
        "duplicated": sum(count - 1 for count in delivered.values()),
        "out_of_order": sum(b < a for a, b in pairwise(opens)),
        "wrong_values": _wrong_values(run, trial, record, stored),
        "trades_lost": _trades_lost(run, trial, record) if "trade" in run.channels else None,
        "book_mismatches": record.books.mismatches if "book" in run.channels else None,
        "books_checked": record.books.checked if "book" in run.channels else None,
        "max_detect_s": round(trial.worst_silence_s(), 1),
    }


def _wrong_values(run: Run, trial: Trial, record: Record, stored: Mapping[str, Stored]) -> int:
    """Candles of which the store or the client's last word is not what it should be.

    A candle that the exchange corrected afterwards: the new values where a good connection was
    told, the old or the new where none was; the client may well have been told the old ones first.
    """
    finals = dict(record.finals)
    wrong = 0
    for at in run.expected:
        known, wanted = _truths(run, trial, at)
        told = [values_of(kline) for kline in wanted]
        first: list[Values] = [values_of(kline) for kline in known]
        fine = at not in stored[SYMBOL] or _is_one_of(stored[SYMBOL][at], wanted)
        if at in finals:
            fine = fine and finals[at] in first and record.revised.get(at, finals[at]) in told
        wrong += not fine
    market = trial.exchange.market
    for at, kline in stored[NEWCOMER].items():
        wrong += not _is_one_of(kline, [market.candle(NEWCOMER, Interval.M1, at)])
    return wrong


def _truths(run: Run, trial: Trial, open_ms: int) -> tuple[Sequence[Kline], Sequence[Kline]]:
    """What a candle may have been said to be at first, and what it may be in the end."""
    correction = trial.corrections.get(open_ms)
    if correction is not None:
        return correction.known, correction.final
    truth = run.truth(trial.exchange.market.candle(SYMBOL, Interval.M1, open_ms))
    return [truth], [truth]


def _is_one_of(stored: Kline, truths: Sequence[Kline]) -> bool:
    return stored.closed and any(stored.same_values(truth) for truth in truths)


def _trades_lost(run: Run, trial: Trial, record: Record) -> int:
    """Of those that happened after the client's first one, in the hours."""
    end_ms = START_MS + run.hours * 60 * MINUTE_MS
    market, told = trial.exchange.market, record.trades
    first, end = min(told, default=0), market.first_id(SYMBOL, end_ms)
    return sum(number not in told for number in range(first, end)) if told else end
