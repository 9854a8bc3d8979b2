"""The parts of ``scripts/simulate`` that are others for Spin Pet: mints, a chain, prices."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from scripts.simulate_run import Run, exchange_settings
from trio_feed.model import Interval
from trio_feed.simulator.exchanges import spinpet_market
from trio_feed.simulator.faults.context import FaultContext
from trio_feed.simulator.faults.schedule import SOLANA_KINDS
from trio_feed.testing.judge import Stored
from trio_feed.testing.prices import bars_of, judge_prices, prices_of
from trio_feed.testing.record import Record

KINDS = (
    *SOLANA_KINDS,
    *("tcp_reset", "half_open", "server_close", "day_cut", "refuse_upgrade", "ack_lost"),
    *("rest_status", "rest_down", "rest_slow", "rest_timeout", "dial_refused"),
    *("proxy_down", "proxy_refuses", "proxy_hangs", "proxy_dies", "proxy_splits"),
    *("tls_failure", "garbage_before_101", "slow_handshake", "trickle", "missing_close"),
    *("malformed_json", "truncated_json", "unknown_frames"),
    *("duplicated_frames", "clock_skew", "clock_step", "clock_drift"),
    *("stall", "late_feed", "process_pause", "suspend", "wrong_clock_at_start", "rest_behind"),
)
"""What may happen to a node, to the way to it, and to time.  Not those of an exchange's candles,
trades and books; and no frame overtakes another: a notification does not say its place inside its
slot, so the order in which a node sends them is all that is known
(:mod:`trio_feed.core.chain_order`)."""
INTERVALS = (Interval.S1, Interval.S30, Interval.M5)


def mints_of(run: Run) -> tuple[str, ...]:
    return spinpet_market(exchange_settings(run)).mints


def settings_of(run: Run) -> list[str]:
    """Every mint; odd seeds listen to what may still vanish, which forks are shown to."""
    table = "exchanges.spinpet"
    return [
        f"{table}.symbols=['*']",
        f"{table}.solana.program_id={spinpet_market(exchange_settings(run)).program_id}",
        f"{table}.solana.commitment={'processed' if run.seed % 2 else 'confirmed'}",
    ]


def judge_solana(
    run: Run,
    context: FaultContext,
    record: Record,
    stored: Mapping[tuple[str, Interval], Stored],
    end_ms: int,
) -> dict[str, Any]:
    """The invariants, over all mints; see :func:`scripts.simulate_judge.judge`."""
    counts: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for mint in mints_of(run):
        prices = prices_of(context.exchange.chain, mint)
        for interval in run.origins:
            found = judge_prices(
                bars_of(prices, interval),
                interval,
                stored[(mint, interval)],
                record.of(mint, interval),
                end_ms,
            )
            counts.update(found)
            bad = ("lost", "wrong_complete", "invented", "duplicated", "out_of_order")
            wrong[interval.value] += sum(found[name] for name in bad)
    names = ("lost", "duplicated", "out_of_order", "wrong_complete", "invented", "marked")
    return {
        "closed_expected": counts["expected"],
        "closed_in_store": counts["in_store"],
        "closed_delivered": counts["delivered"],
        **{name: counts[name] for name in names},
        "right": counts["right"],
        "flat": counts["flat"],
        "wrong_values": 0,
        "wrong_by_interval": {name: count for name, count in wrong.items() if count},
        "trades_wrong": None,
        "book_mismatches": None,
        "max_detect_s": round(context.worst_silence_s(), 1),
        "stale": sum(series.statuses["stale"] for series in record.series.values()),
        "unrepairable": sum(s.statuses["unrepairable"] for s in record.series.values()),
    }
