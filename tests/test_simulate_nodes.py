"""``scripts/simulate --nodes``: several nodes hold under every fault, and the check can fail."""

import json
from functools import cache
from typing import Any

import pytest
from attrs import evolve
from support import broken_rules

from scripts import simulate
from scripts.simulate_nodes import simulate_nodes
from scripts.simulate_nodes_faults import ENGINE_KINDS, parse_engine_kinds
from scripts.simulate_nodes_judge import MUST_BE_ZERO
from scripts.simulate_nodes_run import NodesRun
from trio_feed.model import Interval
from trio_feed.simulator.faults.schedule import KINDS, Fault

_HOURS = 8 / 60


def run_of(seed: int, *, exchange: bool = False, hours: float = _HOURS, **more: Any) -> NodesRun:
    kinds = tuple(KINDS) if exchange else ()
    return NodesRun(evolve(NodesRun().one, seed=seed, hours=hours, kinds=kinds), **more)


def broken(result: dict[str, Any]) -> dict[str, Any]:
    """The promises that were not kept."""
    return {name: result[name] for name in MUST_BE_ZERO if result[name]}


@cache
def outcome(seed: int) -> tuple[list[str], dict[str, Any]]:
    """Of one seed with all faults between nodes."""
    lines, result = simulate_nodes(run_of(seed))
    del result["wall_s"]
    return lines, result


@pytest.mark.parametrize("seed", [1, 2])
def test_every_client_has_every_candle_once(seed: int) -> None:
    lines, result = outcome(seed)
    assert broken(result) == {}, lines
    # Of 3 symbols 8 minutes and 20 before, at each of 4 clients.
    assert result["delivered"] == result["expected"] == result["in_store"] == 3 * 4 * 28
    assert result["faults"].keys() == ENGINE_KINDS.keys()
    assert result["recovered"] > 20
    assert result["standby"] == ("hot" if seed % 2 else "cold")


def test_with_the_faults_of_the_exchange() -> None:
    lines, result = simulate_nodes(run_of(4, exchange=True))
    assert broken(result) == {}, lines
    assert result["faults"].keys() == ENGINE_KINDS.keys() | KINDS.keys()


def test_candles_made_of_trades_and_of_minutes_are_right_across_owners() -> None:
    """Of those that the exchange did not give the trades of within a minute clients are told."""
    run = run_of(4, exchange=True)
    made = evolve(run, one=evolve(run.one, built=(Interval.S30,), rollups=(Interval.M3,)))
    lines, result = simulate_nodes(made)
    assert broken(result) == {}, lines
    assert result["made_delivered"] == result["made_in_store"] > 150
    assert result["made_expected"] - result["made_delivered"] <= result["made_marked"] < 40


def test_the_same_seed_gives_the_same_result() -> None:
    lines, result = simulate_nodes(run_of(1))
    del result["wall_s"]
    assert (lines, result) == outcome(1)


@pytest.mark.parametrize(
    ("rule", "seed", "names"),
    [
        (broken_rules.guard, 8, {"told_candles"}),
        (broken_rules.repair, 1, {"lost"}),
        (broken_rules.checkpoint, 1, {"silent_gaps"}),
        (broken_rules.jump, 1, {"silent_gaps"}),
    ],
)
def test_a_rule_that_is_switched_off_is_noticed(
    rule: broken_rules.Break, seed: int, names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert broken(outcome(seed)[1]) == {}
    rule(monkeypatch)
    assert broken(simulate_nodes(run_of(seed))[1]).keys() >= names


@cache
def promises(run: NodesRun) -> tuple[list[str], dict[str, Any]]:
    """Those that were not kept with every rule in force; two rules are tried on one run."""
    lines, result = simulate_nodes(run)
    return lines, broken(result)


def killed(kind: str, *moments_s: float, lasts_s: float) -> list[tuple[float, Fault]]:
    return [(at, Fault(kind, lasts_s=lasts_s)) for at in moments_s]


LAGS_LONG = (60.0, Fault("database_lags", 5.0, lasts_s=240))
LAGS = (60.0, Fault("database_lags", 3.0, lasts_s=240))
FORGETS = [(100.3, Fault("failover", 40)), (160.3, Fault("failover", 60))]
"""A moment after a minute has ended."""
KILLED_ALONE = tuple(killed("ingest_killed", 70.0, 100.0, 130.0, 160.0, 190.0, 220.0, lasts_s=1))
"""In hot standby who comes anew follows all at once; where the engine gives no answer then, it asks
for no trades of before."""


@pytest.mark.parametrize(
    ("rule", "script", "feeders", "standby", "name"),
    [
        (
            broken_rules.once,
            (LAGS, *sorted([*FORGETS, *killed("ingest_killed", 100.31, 160.31, lasts_s=2)],
                           key=lambda item: item[0])),
            1, "cold", "duplicated",
        ),
        (
            broken_rules.caught_up,
            (LAGS_LONG, *killed("push_killed", 98.0, 99.9, 101.5, 159.0, 161.0, 219.5, 221.5,
                                lasts_s=1)),
            2, "cold", "lost",
        ),
        (broken_rules.torn, KILLED_ALONE, 1, "hot", "silent_gaps"),
        (broken_rules.lost, KILLED_ALONE, 1, "hot", "silent_gaps"),
    ],
)  # fmt: skip
def test_a_rule_that_is_needed_in_one_moment(
    rule: broken_rules.Break,
    script: tuple[tuple[float, Fault], ...],
    feeders: int,
    standby: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if script is KILLED_ALONE:
        broken_rules.no_answer_at_the_start(monkeypatch)
    run = run_of(2, hours=5 / 60, script=script, feeders=feeders, clients=6, standby=standby)
    lines, kept = promises(run)
    assert kept == {}, lines
    rule(monkeypatch)
    assert broken(simulate_nodes(run)[1])[name]


@pytest.mark.parametrize("standby", ["hot", "cold"])
def test_what_the_exchange_corrects_between_two_owners_is_learned(standby: str) -> None:
    """20 s after the end of a minute that is stored; its owner was killed before."""
    correction, killed = (65.0, Fault("correction", 20.0)), Fault("ingest_killed", lasts_s=30)
    run = run_of(2, hours=4 / 60, script=((118.5, killed),), standby=standby)
    lines, result = simulate_nodes(evolve(run, one=evolve(run.one, script=[correction])))
    assert broken(result) == {}, lines
    assert result["faults"] == {"correction": 1, "ingest_killed": 1}


@pytest.mark.parametrize("standby", ["hot", "cold"])
def test_a_correction_that_an_owner_stored_and_could_not_say_is_told(standby: str) -> None:
    """It comes while the engine is away, and its owner dies before that is back."""
    correction = (65.0, Fault("correction", 20.0))
    script = (
        (105.0, Fault("engine_away", lasts_s=25)),
        (125.0, Fault("ingest_killed", lasts_s=30)),
    )
    run = run_of(3, hours=4 / 60, script=script, standby=standby)
    lines, result = simulate_nodes(evolve(run, one=evolve(run.one, script=[correction])))
    assert broken(result) == {}, lines


def test_a_takeover_needs_an_epoch_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    script = ((70.0, Fault("ingest_killed", lasts_s=600)),)
    run = run_of(1, hours=3 / 60, script=script)
    assert broken(simulate_nodes(run)[1]) == {}
    broken_rules.epoch(monkeypatch)
    monkeypatch.setattr("scripts.simulate_nodes.SETTLE_S", 60.0)
    assert broken(simulate_nodes(run)[1])


def test_faults_between_nodes_are_told_from_those_of_the_exchange() -> None:
    assert parse_engine_kinds("all,engine") == ("all", tuple(ENGINE_KINDS))
    assert parse_engine_kinds("failover,tcp_reset") == ("tcp_reset", ("failover",))
    assert parse_engine_kinds("engine") == ("none", tuple(ENGINE_KINDS))


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--nodes", "1x2", "--minutes", "2", "--faults", "push_killed", "--clients", "2"]
    assert simulate.main([*words, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert (result["nodes"], result["clients"], result["faults"]["push_killed"]) == ("1x2", 2, 2)
    with pytest.raises(SystemExit):
        simulate.main(["--nodes", "2"])
    assert "'2' is not like 2x2" in capsys.readouterr().err
