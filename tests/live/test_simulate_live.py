"""Many seeds of all faults, in two processes: the promise of ``scripts/simulate`` at length."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from scripts import simulate
from scripts.simulate_judge import MUST_BE_ZERO
from scripts.simulate_run import BUILT, CHANNELS, Run
from trio_feed.simulator.faults.schedule import KINDS, TRUTH_KINDS

_LONGEST_S = 1_200.0
"""For all of them; they take a minute and a half on two free cores."""
_VENUES = ("binance_usdm", "binance", "okx")


def results_of(runs: Sequence[Run], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Their results, after a look at what has to be zero."""
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # of the workers, as scripts/simulate has it
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, spawn) as workers:
        results = [*workers.map(_result_of, runs, timeout=_LONGEST_S)]
    broken = {
        (run.venue, run.seed): {name: result[name] for name in MUST_BE_ZERO if result[name]}
        for run, result in zip(runs, results, strict=True)
    }
    assert {key: names for key, names in broken.items() if names} == {}
    return results


def test_long_days_of_all_faults_of_wire_and_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = tuple(KINDS)
    runs = [Run(1, 8.0, kinds), Run(2, 8.0, kinds, "binance"), Run(3, 8.0, kinds, "okx")]
    results = results_of(runs, monkeypatch)
    assert all(result["closed_delivered"] == 500 for result in results)
    assert all(result["faults"].keys() == set(kinds) for result in results)
    assert max(result["max_detect_s"] for result in results) <= 90


def test_twenty_seeds_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks, grids and markets as well; trades, books, and candles built from trades."""
    kinds = (*KINDS, *TRUTH_KINDS)
    # What comes to light late is waited for, which takes longer than all the rest.
    prompt = tuple(kind for kind in kinds if kind != "late_correction")
    runs = [
        Run(
            seed,
            0.15,
            kinds if seed % 5 == 0 else prompt,
            _VENUES[seed % 3],
            CHANNELS[:3],
            built=BUILT,
        )
        for seed in range(1, 21)
    ]
    results_of(runs, monkeypatch)


def _result_of(run: Run) -> dict[str, Any]:
    _, result = simulate.simulate(run)
    return result
