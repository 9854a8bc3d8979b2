"""``scripts/soak``, short: the service on real sockets, killed and started again."""

import json
import resource
from pathlib import Path

import pytest
import trio

from scripts import soak
from scripts.soak import MUST_BE_ZERO
from scripts.soak_record import Plan, read_store
from scripts.soak_seeds import simulate_many
from trio_feed.model import Interval

SECONDS = ("BTCUSDT", Interval.S1)


async def test_two_kills_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spot has 1s candles of its own, so that there is something to lose in seconds."""
    # What is lost stays lost however long one waits; a machine that others use too repairs late.
    monkeypatch.setattr(soak, "SETTLE_S", 60.0)
    plan = Plan(minutes=0.2, kill_every_s=3.0, venue="binance", symbols=("BTCUSDT",), built=False)
    with trio.fail_after(300):
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


async def test_a_service_whose_disk_takes_nothing_serves_on(tmp_path: Path) -> None:
    """As a quota would do: no file of the service can grow for a while."""
    plan = Plan(venue="binance", symbols=("BTCUSDT",), built=False)
    with trio.fail_after(100):
        async with (
            soak.open_soak(plan, tmp_path) as (run, settings),
            trio.open_nursery() as nursery,
        ):
            died = trio.Event()
            process = await soak.start_service(run, settings, nursery, died)
            assert process is not None
            limit = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            while SECONDS not in (written := read_store(run.store)[0]):
                await trio.sleep(0.1)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, limit[1]))
            until_ms = max(written[SECONDS]) + 6_000  # on a busy machine those of before come late
            while max(run.record.told[SECONDS], default=0) < until_ms:
                await run.record.next_final(plan.keys)
            stored, _ = read_store(run.store)
            assert len(stored[SECONDS]) <= len(written[SECONDS]) + 1  # a write under way
            assert max(run.record.told[SECONDS]) >= max(stored[SECONDS]) + 4_000
            assert await soak.is_ready(run.address)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limit)
            result = await soak.judge(run)
            assert {name: result[name] for name in MUST_BE_ZERO if result[name]} == {}
            process.terminate()
            await died.wait()
    log = [json.loads(line) for line in (tmp_path / "service.log").read_text().splitlines()]
    (failed,) = [line for line in log if line["event"] == "store.write_failed"]
    assert failed["path"] == str(run.store)
    assert "quotas" in failed["advice"]
    assert any(line["event"] == "store.write_recovered" for line in log)
    assert process.returncode == 0
