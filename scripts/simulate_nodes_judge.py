"""What a run of several nodes came to, as the line of JSON of ``scripts/simulate --nodes``.  Pure;
each client is judged as the one of a single service is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from scripts.simulate_judge import corrections_of
from scripts.simulate_nodes_client import Client
from scripts.simulate_nodes_run import NodesRun
from scripts.simulate_run import HISTORY_BARS, START_MS, SYMBOL
from trio_feed.model import Interval
from trio_feed.simulator.faults.context import FaultContext
from trio_feed.testing.judge import Case, Stored, judge_series
from trio_feed.testing.judge_trades import judge_trades

MUST_BE_ZERO = (
    "lost", "duplicated", "out_of_order", "wrong_values", "wrong_complete", "invented",
    "told_candles", "incomplete_in_store", "silent_gaps", "trades_wrong", "out_of_step",
    "odd_updates", "crashes", "bypassed",
)  # fmt: skip
_OF_MADE = ("expected", "delivered", "in_store", "marked", "waiting")
_TELLING = ("recovered", "not_recovered", "moves", "dropped", "asked_again", "old_numbers")


def judge(
    run: NodesRun,
    context: FaultContext,
    clients: Sequence[Client],
    stored: Mapping[tuple[str, Interval], Stored],
    end_ms: int,
) -> tuple[dict[str, Any], list[str]]:
    """The sums over all clients, and a line for each client where something is wrong.
    ``stored``: all that the common database has.  ``wrong_complete`` and ``made_...`` count
    candles that were made here."""
    sums, lines = Counter[str](), list[str]()
    cases = {symbol: _case(run, context, symbol, end_ms) for symbol in run.followed}
    for client in clients:
        counts = Counter[str](client.counts)
        made = Counter[str]()
        for (symbol, interval), candles in client.candles.items():
            mine = {each: stored.get((symbol, each), {}) for each in run.one.origins}
            found = judge_series(cases[symbol], interval, candles.record, mine)
            found["wrong_values"] += found.pop("wrong_first", 0)
            (counts if candles.given else made).update(found)
        counts["wrong_complete"] = made.pop("wrong_values", 0)
        counts.update({f"made_{name}": made.pop(name, 0) for name in _OF_MADE})
        counts += made
        trades = judge_trades(cases[client.traded], client.record.trades)
        counts["trades_wrong"] = trades["wrong"] + trades["duplicated"] + trades["out_of_order"]
        counts["trades_lost"] = trades["lost"]
        silent = client.trades.silent_gaps()
        counts["silent_gaps"], counts["gaps"] = len(silent), len(client.trades.gaps)
        wrong = {name: counts[name] for name in MUST_BE_ZERO if counts[name]}
        if wrong:
            lines.append(f"{client.name}: {wrong} {silent[:3]}")
        sums += counts
    for symbol in run.followed:
        rows = stored.get((symbol, Interval.M1), {}).values()
        sums["incomplete_in_store"] += sum(not row.complete for row in rows)
    names = ("expected", "delivered", "in_store", "marked", "waiting", "gaps", "trades_lost")
    told = [*MUST_BE_ZERO, *names, *_TELLING]
    if run.one.built or run.one.rollups:
        told += [f"made_{name}" for name in _OF_MADE]
    return {name: sums[name] for name in told}, lines


def _case(run: NodesRun, context: FaultContext, symbol: str, end_ms: int) -> Case:
    mine = symbol == SYMBOL
    return Case(
        context.exchange.market,
        symbol,
        START_MS,
        end_ms,
        run.one.origins,
        HISTORY_BARS,
        corrections_of(run.one, context) if mine else {},
        context.late_trades if mine else (),
    )
