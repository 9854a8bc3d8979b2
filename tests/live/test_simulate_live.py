"""Twenty days of all faults, in two processes: the promise of ``scripts/simulate`` at length."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from scripts import simulate
from scripts.simulate_judge import MUST_BE_ZERO
from scripts.simulate_run import Run
from trio_feed.simulator.faultscript import KINDS

_LONGEST_S = 300.0
"""For all of them; they take half a minute on two free cores."""
_VENUES = {5: "binance", 10: "okx", 15: "binance", 20: "okx"}


def test_twenty_days_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = tuple(KINDS)
    runs = [
        Run(seed, 24.0, kinds, venue=_VENUES.get(seed, "binance_usdm")) for seed in range(1, 21)
    ]
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # of the workers, as scripts/simulate has it
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, spawn) as workers:
        results = [*workers.map(_result_of, runs, timeout=_LONGEST_S)]
    broken = {
        (run.venue, run.seed): {name: result[name] for name in MUST_BE_ZERO if result[name]}
        for run, result in zip(runs, results, strict=True)
    }
    assert {key: names for key, names in broken.items() if names} == {}
    assert all(result["closed_delivered"] == 1460 for result in results)
    assert all(result["faults"].keys() == set(kinds) for result in results)
    assert max(result["max_detect_s"] for result in results) <= 90


def _result_of(run: Run) -> dict[str, int]:
    _, result = simulate.simulate(run)
    return result
