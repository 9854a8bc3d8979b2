"""The whole service under virtual time and one fault that clocks and assumptions cannot see: what
is stored and told equals the simulator's truth, or is marked, or waits.

``NOT_YET`` lists the scenarios that today's service fails.  Such a test asserts that it fails, so
that whoever mends it has to take it off the list.
"""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from attrs import evolve, frozen

from scripts import simulate
from scripts.simulate_judge import MUST_BE_ZERO
from scripts.simulate_run import BUILT, Run
from trio_feed.model import Interval
from trio_feed.simulator.faults.schedule import TRUTH_KINDS, Fault
from trio_feed.supervise import root_cause

M1, M5, H1 = Interval.M1, Interval.M5, Interval.H1
Result = dict[str, Any]
Script = Sequence[tuple[float, Fault]]


def content(_result: Result) -> list[str]:
    return []


@frozen
class Scenario:
    """``complaints``: what else is wrong with a result, in words."""

    run: Run
    complaints: Callable[[Result], list[str]] = content


def of(*script: tuple[float, Fault], hours: float = 0.25, **more: Any) -> Run:
    """Trades, 1s, 30s, 1m and 5m, fifteen minutes."""
    run = Run(1, hours, script=script, channels=("kline", "trade"), built=BUILT, intervals=(M1, M5))
    return evolve(run, **more)


def at_most(name: str, most: float) -> Callable[[Result], list[str]]:
    """``name`` of the result, or the largest of its values."""

    def check(result: Result) -> list[str]:
        value = result[name]
        values = [*value.values()] if isinstance(value, dict) else [value]
        return [f"{name} {value}, at most {most}" for v in values if not 0 <= v <= most][:1]

    return check


def logs_at_most(event: str, most: int) -> Callable[[Result], list[str]]:
    return lambda result: [
        f"{count} lines {name}"
        for name, count in result["logs"].items()
        if name == event and count > most
    ]


def fresh_arrives(result: Result) -> list[str]:
    """Soon after the listing, with updates of its first candles, at a fair price."""
    updates = result["fresh_updates"]
    silent = [name for name in ("1m", "1d", "1w", "1M") if not updates.get(name)]
    late = not 0 <= result["fresh_first_s"] <= 1_000
    return (
        [f"no updates of {silent}"] * bool(silent)
        + [f"first word after {result['fresh_first_s']} s"] * late
        + at_most("requests", 150)(result)
    )


def stored_whole(result: Result) -> list[str]:
    """Who asked before the exchange's time was known got less of the past."""
    result["lost"] = result["closed_expected"] - result["closed_in_store"]
    return []


def quietly(result: Result) -> list[str]:
    """A quiet market costs little and says little, whatever could be asked."""
    return at_most("requests", 150)(result) + at_most("log_lines", 20)(result) + calm(result)


def calm(result: Result) -> list[str]:
    """A quiet market is no reason to reconnect."""
    return at_most("reconnects", 2)(result) + at_most("stale", 0)(result)


def prompt(result: Result) -> list[str]:
    """After a halt the first word of every series comes soon."""
    return at_most("first_update_s", 150)(result)


def cut(at: float) -> tuple[float, Fault]:
    return at, Fault("tcp_reset")


def odd(form: int) -> Run:
    return of((200.0, Fault("odd_rows", form, times=2)), (500.0, Fault("odd_rows", form, times=1)))


TABLE = "exchanges.binance_usdm"
SCENARIOS: Mapping[str, Scenario] = {
    "nothing": Scenario(of()),
    "stall": Scenario(of((130.3, Fault("stall", 2.5)), (400.7, Fault("stall", 8.0)))),
    "stall_long": Scenario(of((400.7, Fault("stall", 25.0)))),
    "late_feed": Scenario(of((200.0, Fault("late_feed", 4.0, lasts_s=60)))),
    "late_feed_behind_a_minute": Scenario(of((170.0, Fault("late_feed", 12.0, lasts_s=60)))),
    "process_pause": Scenario(
        of((200.0, Fault("process_pause", 10.0)), (500.0, Fault("process_pause", 30.0)))
    ),
    "suspend": Scenario(of((300.0, Fault("suspend", 1800.0)))),
    "suspend_silent": Scenario(of((300.0, Fault("suspend", 1800.0, times=1)))),
    "clock_step": Scenario(of((200.0, Fault("clock_step", 600.0, lasts_s=300)))),
    "clock_step_back": Scenario(of((200.0, Fault("clock_step", -7200.0, lasts_s=300)))),
    "clock_drift": Scenario(of((100.0, Fault("clock_drift", 10.0, lasts_s=600)))),
    "clock_drift_back": Scenario(of((100.0, Fault("clock_drift", -10.0, lasts_s=600)))),
    "wrong_clock_at_start": Scenario(
        of((0.0, Fault("wrong_clock_at_start", -10_800.0, lasts_s=300))),
        at_most("latest_final_s", 400),
    ),
    "wrong_clock_ahead_at_start": Scenario(
        of((0.0, Fault("wrong_clock_at_start", 18_000.0, lasts_s=300))),
        at_most("latest_final_s", 400),
    ),
    "slow_clock_and_429": Scenario(
        of((60.0, Fault("clock_step", -5.0, lasts_s=800)), (301.0, Fault("rest_status", 429, 1))),
        logs_at_most("backfill.waits", 100),
    ),
    "fast_clock_and_ban": Scenario(
        of((60.0, Fault("clock_step", 600.0, lasts_s=800)), (301.0, Fault("rest_status", 418, 1))),
        at_most("latest_final_s", 200),
    ),
    "absurd_time_past": Scenario(of((200.0, Fault("absurd_time", 1990, lasts_s=120)))),
    "absurd_time_future": Scenario(of((200.0, Fault("absurd_time", 2090, lasts_s=120)))),
    "absurd_time": Scenario(of((200.0, Fault("absurd_time", 2, lasts_s=120)))),
    "trade_disorder": Scenario(
        of((200.0, Fault("trade_disorder", lasts_s=180)), trades_per_minute=240)
    ),
    "id_restart": Scenario(of((300.0, Fault("id_restart")))),
    "id_restart_while_cut": Scenario(of((300.0, Fault("id_restart")), cut(301.0))),
    "correction": Scenario(
        of((90.0, Fault("correction", 5.0)), (300.0, Fault("correction", 45.0)))
    ),
    "early_close_that_is_revised": Scenario(
        of((200.0, Fault("late_correction", 20.0)), settings=(f"{TABLE}.close=proven",))
    ),
    **{
        f"early_close_and_{name}": Scenario(
            of(fault, settings=(f"{TABLE}.close=proven", f"{TABLE}.audit_after_s=120"), **more)
        )
        for name, fault, more in (
            ("halt", (300.0, Fault("halt", lasts_s=200)), {}),
            ("halt_rolled_up", (300.0, Fault("halt", lasts_s=500)), {"rollups": (Interval.M3,)}),
            ("halt_all", (300.0, Fault("halt_all", lasts_s=200)), {}),
            ("off_grid", (300.0, Fault("off_grid", lasts_s=200)), {}),
            ("quiet", (300.0, Fault("quiet", lasts_s=200)), {}),
        )
    },
    **{
        f"history_under_a_clock_{hours:+g}h": Scenario(
            of(
                (0.0, Fault("wrong_clock_at_start", hours * 3600.0, lasts_s=200)),
                intervals=(M1, Interval.H1),
                built=(),
            ),
            stored_whole,
        )
        for hours in (5.0, -5.0, 30.0, 0.2)
    },
    **{
        f"quiet_where_built_candles_can_be_asked_for_{venue}": Scenario(
            of((321.0, Fault("quiet", lasts_s=1411)), intervals=(M1,), hours=0.5, venue=venue),
            quietly,
        )
        for venue in ("binance", "okx")
    },
    "correction_while_asleep": Scenario(
        of((230.0, Fault("correction", 12.0)), (279.9, Fault("suspend", 1200.0)))
    ),
    "late_correction": Scenario(
        of((90.0, Fault("late_correction", 5.0)), (400.0, Fault("late_correction", 45.0)))
    ),
    "late_correction_without_trades": Scenario(
        of((90.0, Fault("late_correction", 20.0)), built=(), channels=("kline",))
    ),
    "late_correction_rolled_up": Scenario(
        of((90.0, Fault("late_correction", 20.0)), intervals=(M1,), rollups=(Interval.M3, M5))
    ),
    # The minute is revised first, the longer candles follow from it; the audit finds nothing more.
    "correction_rolled_up": Scenario(
        of(
            (90.0, Fault("correction", 20.0)),
            (200.0, Fault("correction", 45.0)),
            intervals=(M1,),
            rollups=(Interval.M3, M5),
            hours=0.5,
        ),
        logs_at_most("candle.revised", 6),
    ),
    # Trading begins again in the middle of a longer candle, which opens there.
    "quiet_rolled_up": Scenario(
        of(
            (392.9, Fault("quiet", lasts_s=828)),
            intervals=(M1,),
            rollups=(Interval.M3, M5),
            hours=0.5,
        ),
        logs_at_most("candle.revised", 0),
    ),
    "late_correction_and_correction_in_a_quiet_time_rolled_up": Scenario(
        of(
            (92.0, Fault("quiet", lasts_s=220)),
            (230.0, Fault("late_correction", 20.0)),
            (502.0, Fault("quiet", lasts_s=350)),
            (770.0, Fault("correction", 20.0)),
            intervals=(M1,),
            rollups=(Interval.M3, M5),
            hours=0.5,
        )
    ),
    "correction_of_longer_candles": Scenario(
        of(
            (90.0, Fault("late_correction", 5.0)),
            (270.0, Fault("correction", 45.0)),
            intervals=(M1, M5, H1),
            hours=0.5,
        )
    ),
    "rest_behind": Scenario(
        of((100.0, Fault("rest_behind", 15.0, lasts_s=600)), cut(235.0), cut(415.0))
    ),
    # Seeds 38 and 67: the stream is subscribed again a moment after the first trade, and REST does
    # not know that trade yet.
    "rest_behind_when_trading_resumes": Scenario(
        of(
            (100.0, Fault("halt", lasts_s=317)),
            (300.0, Fault("rest_behind", 20.0, lasts_s=300)),
            hours=0.2,
        )
    ),
    # The stream is dead when trading begins again, which REST does not know yet.
    "rest_behind_after_a_quiet_time": Scenario(
        of(
            (60.0, Fault("quiet", lasts_s=140)),
            (80.0, Fault("rest_behind", 20.0, lasts_s=200)),
            (150.0, Fault("half_open")),
            intervals=(),
            built=(*BUILT, M1),
        )
    ),
    "late_correction_that_is_corrected": Scenario(
        of((90.0, Fault("late_correction", 5.0)), (92.0, Fault("correction", 30.0)))
    ),
    "odd_rows": Scenario(odd(0)),
    "odd_rows_wider": Scenario(odd(1)),
    "odd_rows_null_row": Scenario(odd(2)),
    "odd_rows_null_field": Scenario(odd(3)),
    "halt": Scenario(
        of((100.0, Fault("halt", lasts_s=317)), intervals=(M1, M5, H1), hours=0.5), prompt
    ),
    "halt_of_an_hour": Scenario(
        of((100.0, Fault("halt", lasts_s=4317)), intervals=(M1, M5, H1), hours=2.0, built=()),
        prompt,
    ),
    "halt_at_refresh": Scenario(
        of((1790.0, Fault("halt", lasts_s=120)), hours=0.8, built=()), prompt
    ),
    "halt_all": Scenario(of((100.0, Fault("halt_all", lasts_s=317)), hours=0.5), prompt),
    "off_grid": Scenario(of((100.0, Fault("off_grid", lasts_s=317)), hours=0.5)),
    "off_grid_and_back_at_the_hour": Scenario(
        of((3_000.0, Fault("off_grid", lasts_s=317)), hours=1.2)
    ),
    "new_listing": Scenario(
        of(
            (100.0, Fault("new_listing")),
            intervals=(M1, Interval.D1, Interval.W1, Interval.MO1),
            built=(),
            hours=0.75,
        ),
        fresh_arrives,
    ),
    "quiet": Scenario(of((100.0, Fault("quiet", lasts_s=1200)), hours=0.5), calm),
    "quiet_trades_only": Scenario(
        of(
            (100.0, Fault("quiet", lasts_s=1200)),
            intervals=(),
            built=(*BUILT, M1),
            hours=0.5,
        ),
        calm,
    ),
    "grid_of_three_days": Scenario(of(intervals=(M1, Interval.D3), built=())),
    "grid_of_three_days_elsewhere": Scenario(
        of(intervals=(M1, Interval.D3), built=(), venue="okx")
    ),
    "months": Scenario(
        of(
            intervals=(M1, Interval.MO1),
            built=(),
            channels=("kline",),
            settings=(f"{TABLE}.history_bars=1000",),
        )
    ),
    "cost_of_a_start": Scenario(
        of(symbols=60, built=(), channels=("kline",)), at_most("weight", 450)
    ),
}

_CLOCK_CLOSES = "1s and 30s are closed by our clock, a late trade goes into another candle"
NOT_YET: Mapping[str, str] = {}
"""What is wrong today, by scenario."""


_RUNAWAYS = {"absurd_time_future": 10}
"""Seconds of computing after which an endless loop is ended, which would eat all memory; others
take two."""


@contextmanager
def no_runaway(seconds: int) -> Iterator[None]:
    """Raises TimeoutError in the middle of an endless loop."""

    def give_up(*_args: object) -> None:
        raise TimeoutError(f"not done after {seconds} s of computing")

    before = signal.signal(signal.SIGVTALRM, give_up)  # a busy machine does not count
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def complaints(scenario: Scenario) -> list[str]:
    _, result = simulate.simulate(scenario.run)
    content = scenario.complaints(result)
    return [f"{name} {result[name]}" for name in MUST_BE_ZERO if result[name]] + content


@pytest.mark.parametrize("name", SCENARIOS)
def test_truth(name: str) -> None:
    try:
        with no_runaway(_RUNAWAYS.get(name, 600)):
            found = complaints(SCENARIOS[name])
    except Exception as error:
        if not isinstance(root_cause(error), TimeoutError):
            raise
        found = [str(root_cause(error))]
    if name in NOT_YET:
        assert found, f"{name} is mended: take it off NOT_YET"
    else:
        assert found == []


def test_every_kind_has_a_scenario() -> None:
    kinds = {fault.kind for s in SCENARIOS.values() for _, fault in s.run.faults()}
    assert kinds >= TRUTH_KINDS.keys()
    assert NOT_YET.keys() <= SCENARIOS.keys()
