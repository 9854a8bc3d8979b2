"""Judges a run over prices of a simulated chain: what candles were, computed from the chain.  Pure.

A candle opens at the price before it, an interval without a price has none or a flat one.  A price
counts in the second of its block, of which all intervals are multiples.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import pairwise

from attrs import frozen

from ..model import Interval, Kline
from ..simulator.solana.chain import SolanaChain
from .record import SeriesRecord, Values, Word, stored_values

_LENGTH_MS = {Interval.S1: 1_000, Interval.S30: 30_000, Interval.M1: 60_000, Interval.M5: 300_000}
_DECIMALS = 28
LENGTHS = frozenset(_LENGTH_MS)
"""Intervals that can be judged."""


@frozen
class Bar:
    """One candle with prices.  ``number`` of them."""

    values: Values
    number: int


def prices_of(chain: SolanaChain, mint: str) -> list[tuple[int, float]]:
    """(unix ms of the block, price), in the order of the chain."""
    return [
        (landed.time_s * 1000, float(Decimal(quote.price).scaleb(-_DECIMALS)))
        for landed in chain.landed
        for quote in landed.transaction.quotes
        if quote.mint == mint
    ]


def bars_of(prices: Iterable[tuple[int, float]], interval: Interval) -> dict[int, Bar]:
    """By open time."""
    groups: dict[int, list[float]] = {}
    for time_ms, price in prices:
        groups.setdefault(time_ms // _LENGTH_MS[interval] * _LENGTH_MS[interval], []).append(price)
    bars: dict[int, Bar] = {}
    before: float | None = None
    for at, group in groups.items():
        opens = group[0] if before is None else before
        before = group[-1]
        all_ = (opens, *group)
        bars[at] = Bar((opens, max(all_), min(all_), before, 0.0, 0.0), len(group))
    return bars


def judge_prices(
    bars: Mapping[int, Bar],
    interval: Interval,
    stored: Mapping[int, Kline],
    record: SeriesRecord,
    end_ms: int,
) -> Counter[str]:
    """Counts of one series, in the words of :mod:`.judge`; what ended before ``end_ms`` must have
    come."""
    counts: Counter[str] = Counter()
    finals = dict(record.finals)
    opens = [at for at, _ in record.finals]
    counts["duplicated"] = len(opens) - len(finals)
    counts["out_of_order"] = sum(after < before for before, after in pairwise(opens))
    if not stored:
        counts["lost"] = len(bars)
        return counts
    told_from = min(finals, default=end_ms)
    for at, bar in bars.items():
        if at < min(stored) or at + _LENGTH_MS[interval] > end_ms:
            continue
        counts["expected"] += 1
        counts["in_store"] += at in stored
        told = at in finals or at in record.revised
        counts["delivered"] += told
        if at not in stored or (not told and at > told_from):
            gone = any(first <= at <= last for first, last in record.holes)
            counts["marked" if gone else "lost"] += 1
            continue
        right = not stored[at].complete or stored[at].trades == bar.number
        counts["wrong_complete"] += not right
    for at in {*stored, *finals, *record.revised}:
        words = []
        if at in stored:
            words.append(Word(stored_values(stored[at]), stored[at].complete))
        last = record.revised.get(at) or ([finals[at]] if at in finals else [])
        words += last[-1:]
        counts[_verdict(bars, at, words)] += 1
    return counts


def _verdict(bars: Mapping[int, Bar], at: int, words: list[Word]) -> str:
    certain = [word.values for word in words if word.complete]
    if not certain:
        return "marked"
    if at in bars:
        return "right" if set(certain) == {bars[at].values} else "wrong_complete"
    before = max((other for other in bars if other < at), default=None)
    if before is None:
        return "invented"
    flat = (*[bars[before].values[3]] * 4, 0.0, 0.0)
    return "flat" if set(certain) == {flat} else "invented"
