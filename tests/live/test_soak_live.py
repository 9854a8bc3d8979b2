"""``scripts/soak``, short: the service on real sockets, killed and started again."""

import json
from pathlib import Path

import pytest
import trio

from scripts import soak
from scripts.soak import MUST_BE_ZERO
from scripts.soak_record import Plan
from scripts.soak_seeds import simulate_many


async def test_two_kills_cost_nothing(tmp_path: Path) -> None:
    """Spot has 1s candles of its own, so that there is something to lose in seconds."""
    plan = Plan(minutes=0.2, kill_every_s=3.0, venue="binance", symbols=("BTCUSDT",), built=False)
    with trio.fail_after(110):
        result = await soak.run(plan, tmp_path)
    assert {name: result[name] for name in MUST_BE_ZERO if result[name]} == {}
    assert result["kills"] >= 2
    assert result["connections"] >= 3
    assert result["closed_in_store"] == result["closed_delivered"] == result["closed_expected"] > 5


async def test_a_service_that_does_not_start_is_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "SETTLE_S", 0.1)
    (tmp_path / "candles.db").write_bytes(b"rubbish " * 1000)
    monkeypatch.setattr(soak, "read_store", lambda path: ({}, 0))
    with trio.fail_after(60):
        result = await soak.run(Plan(minutes=0.02, venue="binance"), tmp_path)
    assert result["crashes"] == 1
    assert result["lost"] == result["closed_expected"]


async def test_seeds_of_the_simulation_are_added_up() -> None:
    with trio.fail_after(100):
        result = await simulate_many(2, 7, ["--hours", "0.2", "--faults", "tcp_reset"])
    assert result["failed_seeds"] == []
    assert result["runs"] == 2
    assert result["closed_expected"] == 2 * (20 + 12)
    assert result["lost"] == 0
    json.dumps(result)
