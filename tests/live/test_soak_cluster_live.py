"""``scripts/soak --cluster``, short: two ingest and two push nodes as processes round a real engine
with sentinels and PostgreSQL; one of each kind is killed, in cold standby with workers, too."""

import json
import sys
from pathlib import Path

import pytest
import trio

from scripts import soak_cluster
from scripts.soak_cluster import MUST_BE_ZERO, ClusterPlan
from scripts.soak_cluster_nodes import why_not
from scripts.valkey_server import KINDS, Kind

FAULTS = ("kill ingest", "kill push", "kill engine", "stop ingest")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and servers of Linux")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("standby", ["hot", "cold"])
async def test_kills_cost_no_client_anything(kind: Kind, standby: str, tmp_path: Path) -> None:
    if why := why_not(kind):
        pytest.skip(why)
    if (kind, standby) == ("valkey", "cold"):
        pytest.skip("the kind of standby is nothing that servers differ in")
    push_workers, faults = 1, FAULTS
    if standby == "cold":
        push_workers, faults = 2, (*FAULTS, "kill worker")
    plan = ClusterPlan(
        minutes=2, clients=8, every_s=1, lease_s=1.5, kind=kind, standby=standby,
        push_workers=push_workers, faults=faults,
    )  # fmt: skip
    with trio.fail_after(240):
        result = await soak_cluster.run(plan, tmp_path)
    print(json.dumps(result))
    assert {name: result[name] for name in MUST_BE_ZERO if result[name]} == {}
    assert result["faults"] == len(faults)
    assert result["resumed"] > 0
    if standby == "hot":
        assert result["told_stale"]["stop ingest"] == 0, "an orderly handover is nothing to see"
    assert result["closed"] > 8 * 10
    assert result["private"] > 0
    assert result["trades"] > 0
