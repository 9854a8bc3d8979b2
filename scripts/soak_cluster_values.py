"""Candles against the market, which is a function of seed and time: what clients of the cluster
were told, and what its database holds."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

from scripts.postgres_server import PostgresServer
from scripts.soak_cluster_clients import INTERVALS
from scripts.soak_cluster_nodes import SYMBOLS, TRADES_PER_MINUTE
from scripts.soak_record import VALUES, Values
from trio_feed.model import Interval
from trio_feed.simulator import Market

Found = dict[tuple[str, str], dict[int, Values | None]]
"""By (symbol, interval) and open time (unix seconds); None: it says that it is not complete."""


def read_stored(database: PostgresServer) -> Found:
    names = ", ".join(VALUES)
    rows = database.sql(
        f"SELECT symbol, interval, open_ms, complete, {names} FROM trio_feed.klines k"
        " JOIN trio_feed.series s ON s.id = k.series_id ORDER BY 1, 2, 3",
    )
    stored: Found = {}
    for symbol, name, open_ms, complete, *values in rows:
        kept = stored.setdefault((symbol, name), {})
        kept[open_ms // 1000] = tuple(map(float, values)) if complete else None
    return stored


def not_stored(told: Found, stored: Found) -> dict[tuple[str, str], list[int]]:
    """Open times of candles that clients were told of and the database has not (yet): a candle is
    told when it is on its way to the disk."""
    lacking = {key: sorted(rows.keys() - stored.get(key, {}).keys()) for key, rows in told.items()}
    return {key: opens for key, opens in lacking.items() if opens}


def judge_values(seed: int, told: Found, stored: Found, log: Callable[[str], None]) -> Counter[str]:
    """``told_not_stored``, ``store_missing``: candles between the first and the last one;
    ``wrong_values`` of complete ones."""
    counts: Counter[str] = Counter()
    for key, lacks in not_stored(told, stored).items():
        counts["told_not_stored"] += len(lacks)
        log(f"told, and not stored: {key} {lacks[:10]}")
    for key, candles in stored.items():
        step, opens = INTERVALS[key[1]], sorted(candles)
        gaps = [(a, b) for a, b in pairwise(opens) if b - a != step]
        counts["store_missing"] += sum((b - a) // step - 1 for a, b in gaps)
        if gaps:
            log(f"missing in the database: {key} {gaps[:10]}")
        counts["stored"] += len(opens)
        counts["stored_incomplete"] += sum(values is None for values in candles.values())
    market = Market(seed, SYMBOLS, TRADES_PER_MINUTE)
    for found in (told, stored):
        for (symbol, name), candles in found.items():
            for at, values in candles.items():
                if values is not None and values != truth(market, symbol, name, at):
                    counts["wrong_values"] += 1
                    log(f"wrong: {symbol} {name} {at} {values}")
    return counts


def truth(market: Market, symbol: str, name: str, at: int) -> Values:
    kline = market.candle(symbol, Interval(name), at * 1000)
    return tuple(float(getattr(kline, value)) for value in VALUES)
