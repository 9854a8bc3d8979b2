"""The whole service under virtual time with Spin Pet's chain and its faults: what is stored and
told equals the chain, or is marked."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from attrs import evolve, frozen
from support.slow import but_slow

from scripts import simulate
from scripts.simulate_judge import MUST_BE_ZERO
from scripts.simulate_run import Run
from scripts.simulate_solana import INTERVALS, KINDS
from trio_feed.simulator.faults.schedule import SOLANA_KINDS, Fault, write_schedule

Result = dict[str, Any]
PROCESSED, CONFIRMED = 1, 2
"""Seeds: odd ones listen to what may still vanish."""


def content(_result: Result) -> list[str]:
    return []


@frozen
class Scenario:
    """``complaints``: what else is wrong with a result, in words."""

    run: Run
    complaints: Callable[[Result], list[str]] = content


def of(*script: tuple[float, Fault], seed: int = CONFIRMED, **more: Any) -> Run:
    # No fault of these lasts beyond the twelve minutes, but for clocks that stay wrong: nodes
    # have said everything long before five minutes more are over.
    run = Run(
        seed, 0.2, script=script, venue="spinpet", intervals=(), built=INTERVALS, chain_s=300.0
    )
    return evolve(run, **more)


def logs(event: str) -> Callable[[Result], list[str]]:
    """It has happened at all."""
    return lambda result: [] if result["logs"].get(event) else [f"no {event}"]


def calm(result: Result) -> list[str]:
    """A quiet program is no reason to reconnect."""
    return [f"{n} reconnects" for n in [result["reconnects"]] if n > 2]


def delivers_again(result: Result) -> list[str]:
    return [] if result["reconnects"] > 1 else ["the dead connection was kept"]


def never_counted(result: Result) -> list[str]:
    """What vanished again was in no candle that had closed."""
    revised = result["logs"].get("candle.revised", 0)
    return logs("chain.retracted")(result) + [f"{revised} revised"] * bool(revised)


def right_at_once(result: Result) -> list[str]:
    """No candle was closed wrong and revised later."""
    revised = result["logs"].get("candle.revised", 0)
    return [f"{revised} revised"] * bool(revised)


def stored_whole(result: Result) -> list[str]:
    """Who had subscribed to a mint has to do so again, so the client lacks what came later."""
    result["lost"] = result["closed_expected"] - result["closed_in_store"]
    return logs("symbol.retired")(result) + [f"lost {result['lost']}"] * bool(result["lost"])


TWICE = (100.0, 300.7)
ONCE = (100.0,)

WAYS = [kind for kind in KINDS if kind not in SOLANA_KINDS]
"""What may happen to any connection; a third of them in each run."""


SCENARIOS: Mapping[str, Scenario] = {
    **{
        f"ways_{n}": Scenario(
            of(*write_schedule(n, 0.5, WAYS[n::3]), hours=0.5, seed=n + 3, chain_s=900.0)
        )
        for n in range(3)
    },
    "nothing": Scenario(of()),
    "fork": Scenario(
        of((100.0, Fault("fork", times=20)), (500.0, Fault("fork", times=7)), seed=PROCESSED),
        never_counted,
    ),
    **{
        f"{kind}_{value:g}_{name}": Scenario(
            of(*((at, Fault(kind, value, lasts_s=60)) for at in times), seed=seed),
            right_at_once,
        )
        for kind, value, times in (
            ("stall", 2.5, TWICE),
            ("stall", 8.0, TWICE),
            ("late_feed", 4.0, TWICE),
            ("late_feed", 12.0, TWICE),
            ("process_pause", 10.0, TWICE),
            ("process_pause", 40.0, TWICE),
            ("suspend", 60.0, TWICE),
            ("suspend", 1800.0, ONCE),
            ("rest_behind", 9.0, TWICE),
            ("clock_step", -7200.0, TWICE),
            ("clock_step", 7200.0, TWICE),
        )
        for name, seed in (("processed", PROCESSED), ("confirmed", CONFIRMED))
    },
    **{
        f"wrong_clock_at_start_{hours}": Scenario(
            of((0.0, Fault("wrong_clock_at_start", hours * 3600.0, lasts_s=lasts_s))),
            right_at_once,
        )
        for hours, lasts_s in ((-8, 300), (12, 400), (-3, 9_000), (5, 9_000))
    },
    "nobody_says_the_time": Scenario(
        of((100.3, Fault("rest_down", lasts_s=240.0))), logs("chain.times_unknown")
    ),
    "nobody_says_the_time_of_what_vanishes": Scenario(
        of(
            (100.3, Fault("rest_down", lasts_s=240.0)),
            (200.0, Fault("fork", times=9)),
            seed=PROCESSED,
        ),
        logs("chain.times_unknown"),
    ),
    "wrong_clock_and_no_node": Scenario(
        of(
            (0.0, Fault("wrong_clock_at_start", -7200.0, lasts_s=9_000)),
            (0.0, Fault("rest_down", lasts_s=100.0)),
        ),
        right_at_once,
    ),
    "stalled_for_long": Scenario(of((100.0, Fault("stall", 25.0)), (400.0, Fault("stall", 60.0)))),
    "late_for_long": Scenario(of((100.0, Fault("late_feed", 30.0, lasts_s=100)))),
    "rest_far_behind": Scenario(of((100.0, Fault("rest_behind", 40.0, lasts_s=200)))),
    "fork_unseen": Scenario(of((100.0, Fault("fork", times=20)))),
    "log_truncated": Scenario(of((100.0, Fault("log_truncated", times=20)))),
    "lost_notifications": Scenario(
        of((100.0, Fault("lost_notifications", times=20))), logs("chain.missed")
    ),
    "quiet_program": Scenario(of((100.0, Fault("quiet_program", lasts_s=500.0))), calm),
    "tcp_reset": Scenario(
        of((100.0, Fault("tcp_reset")), (300.3, Fault("tcp_reset")), (420.0, Fault("tcp_reset")))
    ),
    "half_open": Scenario(
        of((100.0, Fault("half_open"))), lambda r: delivers_again(r) + logs("chain.missed")(r)
    ),
    "rest_429_while_cut": Scenario(of((200.0, Fault("rest_status", 429, times=3)))),
    "rest_503_while_cut": Scenario(of((200.0, Fault("rest_status", 503, times=4)))),
    "everything_away": Scenario(of((200.0, Fault("dial_refused", lasts_s=90.0)))),
    "a_fork_while_cut": Scenario(
        of((100.0, Fault("fork", times=9)), (103.0, Fault("tcp_reset")), seed=PROCESSED)
    ),
    "idle_mints_come_back": Scenario(
        of(
            (100.0, Fault("quiet_program", lasts_s=400.0)),
            settings=("exchanges.spinpet.idle_s=90",),
        ),
        stored_whole,
    ),
}


MILDER = {
    "stall_2.5_processed": "stall_8_processed",
    "late_feed_4_processed": "late_feed_12_processed",
    "process_pause_10_processed": "process_pause_40_processed",
    "suspend_60_processed": "suspend_1800_processed",
    "wrong_clock_at_start_-8": "wrong_clock_at_start_12",
    "wrong_clock_at_start_5": "wrong_clock_at_start_-3",
    "nobody_says_the_time": "nobody_says_the_time_of_what_vanishes",
}
"""And which one is always run."""


def is_slow(name: str) -> bool:
    """What is confirmed has less to fear than what may vanish, and the same is done to both; two
    thirds of the long ones; and where there is a harder one of the kind, the milder."""
    is_milder = name.endswith("_confirmed") and name.replace("confirmed", "processed") in SCENARIOS
    return is_milder or name in ("ways_0", "ways_1", *MILDER)


@pytest.mark.parametrize(
    "name", but_slow(SCENARIOS, quick=[name for name in SCENARIOS if not is_slow(name)])
)
def test_truth(name: str) -> None:
    scenario = SCENARIOS[name]
    _, result = simulate.simulate(scenario.run)
    found = scenario.complaints(result)
    assert found + [f"{each} {result[each]}" for each in MUST_BE_ZERO if result[each]] == []
    assert result["closed_expected"] > 50
    assert result["right"] > result["marked"]


def test_every_kind_has_a_scenario() -> None:
    kinds = {fault.kind for s in SCENARIOS.values() for _, fault in s.run.faults()}
    assert kinds >= set(KINDS)
    assert MILDER.keys() <= SCENARIOS.keys()
    assert not any(is_slow(harder) for harder in MILDER.values())
    assert {*MILDER.values()} <= SCENARIOS.keys()
