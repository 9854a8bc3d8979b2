"""Judges the trades that a client received, each against the market's own.  Pure."""

from collections import Counter
from collections.abc import Sequence

from .judge import Case
from .record import ToldTrade

_ABSURD_MS = 3_600_000
"""Times that are further off are the exchange's own."""


def judge_trades(case: Case, told: Sequence[ToldTrade]) -> dict[str, int]:
    """``lost``: of those that happened after the first one received, up to the end;
    ``wrong``: another price, quantity or time than the market's, or there is none with this id;
    ``duplicated``; ``out_of_order``.

    Which trade it is does not follow from its time alone, because the exchange dates some
    absurdly: where ids began anew it is the one of that very time, else the next in order."""
    market, symbol = case.market, case.symbol
    end = market.first_id(symbol, case.end_ms)
    if not told:
        return {"lost": end, "wrong": 0, "duplicated": 0, "out_of_order": 0}
    seen: Counter[int] = Counter()
    wrong = disorder = before = 0
    for trade in told:
        last = _index_of(case, trade, before)
        if last is None:
            wrong += 1
            continue
        first = last - (trade.last_id - trade.first_id)
        seen.update(range(first, last + 1))
        disorder += last < before
        before = max(before, last)
        truth = [*market.trades_from(symbol, first, last + 1 - first)]
        quantity = float(sum(t.quantity for t in truth))
        off_ms = abs(trade.time_ms - truth[-1].time_ms) if first == last else 0
        wrong += (
            quantity != trade.quantity
            or float(truth[-1].price) != trade.price
            or 0 < off_ms < _ABSURD_MS
        )
    return {
        "lost": sum(index not in seen for index in range(min(seen), end)),
        "wrong": wrong,
        "duplicated": sum(count - 1 for count in seen.values()),
        "out_of_order": disorder,
    }


def _index_of(case: Case, trade: ToldTrade, before: int) -> int | None:
    """Which of the market's trades with this id; None: there is none."""
    market, symbol = case.market, case.symbol
    before = before or market.first_id(symbol, case.start_ms)
    places = market.indexes_of(symbol, trade.last_id)
    dated = [at for at in places if market.trade_time(symbol, at) == trade.time_ms]
    return min(dated or places, key=lambda at: abs(at - before), default=None)
