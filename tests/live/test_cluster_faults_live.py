"""A cluster round servers whose disks are full, or whose replica cannot be reached: what its nodes
say meanwhile, and that nothing is lost or comes twice (the judge is the soak's)."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, field
from support.postgres import postgres_server
from support.valkey import ValkeyCluster, valkey_server

from scripts import soak_cluster
from scripts.relay import Relay, open_relay
from scripts.soak_cluster import MUST_BE_ZERO, ClusterPlan
from scripts.soak_cluster_faults import Fault
from scripts.soak_cluster_nodes import NODES, Topology, why_not
from scripts.soak_cluster_wait import get
from scripts.valkey_server import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs servers of Linux")
_LEFT = 16 * 1024
"""Bytes that a full disk still has: less than one page of a table more."""


@define
class Disk:
    """Small, and of one's own."""

    folder: Path

    def fill(self) -> None:
        found = os.statvfs(self.folder)
        room = found.f_bavail * found.f_frsize - _LEFT
        with (self.folder / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, room)

    def free(self) -> None:
        (self.folder / "filler").unlink()


@pytest.fixture
def disk() -> Iterator[Disk]:
    folder = Path(tempfile.mkdtemp(prefix="trio_feed_disk_"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m,mode=777", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        done = subprocess.CompletedProcess(mount, 1, "", str(error))
    try:
        if done.returncode:
            pytest.skip(f"no disk of one's own can be made here: {done.stderr.strip()}")
        try:
            folder.chmod(0o777)  # the database runs as another user
            yield Disk(folder)
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    finally:
        folder.rmdir()


@define
class Said:
    """What the nodes said while something was wrong."""

    ready: dict[str, str] = field(factory=dict)
    """By node the body of /ready; empty: it is ready."""
    lines: list[dict[str, Any]] = field(factory=list)

    async def listen(self, topology: Topology) -> None:
        for name in NODES:
            status, body = await get(topology.address(name), "/ready")
            self.ready[name] = "" if status == 200 else body.decode()

    def told(self, event: str, words: str) -> bool:
        """Whether a node has said so, and none again and again."""
        found = [line for line in self.lines if line["event"] == event and words in line["problem"]]
        assert len(found) <= 2 * len(NODES), found
        return bool(found)


async def suffer(
    tmp_path: Path,
    said: Said,
    begin: Callable[[Topology], None],
    until: Callable[[Said], bool],
    end: Callable[[Topology], None],
    **servers: Any,
) -> dict[str, Any]:
    """Something is wrong from ``begin`` to ``end``, and goes on until that shows, and for three
    seconds more.  Returns what the soak counted."""
    if why := why_not():
        pytest.skip(why)

    async def strike(topology: Topology, victim: str) -> None:
        await trio.to_thread.run_sync(begin, topology)
        try:
            with trio.fail_after(25):
                while not until(said):
                    await said.listen(topology)
                    said.lines = [line for name in NODES for line in topology.log_lines(name)]
                    await trio.sleep(0.2)
            await trio.sleep(3)
            await said.listen(topology)
            said.lines = [line for name in NODES for line in topology.log_lines(name)]
        finally:
            print(json.dumps(said.ready))
            end(topology)

    plan = ClusterPlan(
        minutes=1, clients=4, every_s=2, lease_s=3, faults=("own",),
        more=(Fault("own", "", strike),),
    )  # fmt: skip
    with trio.fail_after(200):
        result = await soak_cluster.run(plan, tmp_path, **servers)
    print(json.dumps(result))
    assert {name: result[name] for name in MUST_BE_ZERO if result[name]} == {}
    assert result["faults"] == 1
    assert result["closed"] > 4 * 5
    assert result["private"] > 0
    return result


async def test_the_disk_of_the_engine_is_full(disk: Disk, tmp_path: Path) -> None:
    said = Said()

    @contextmanager
    def engine() -> Iterator[ValkeyCluster]:
        with valkey_server("redis", parent=disk.folder) as server:
            yield ValkeyCluster([server])

    await suffer(
        tmp_path,
        said,
        lambda _: disk.fill(),
        lambda said: all("MISCONF" in said.ready.get(name, "") for name in ("in1", "in2")),
        lambda _: disk.free(),
        engine=engine(),
    )
    assert said.told(
        "engine.lost", ": it refuses: MISCONF Errors writing to the AOF file: No space"
    )


@pytest.mark.parametrize("what", ["tables", "its log"])
async def test_the_disk_of_the_database_is_full(what: str, disk: Disk, tmp_path: Path) -> None:
    """Where its log (WAL) has no room it ends as a whole, and somebody has to start it again."""
    said = Said()

    def begin(topology: Topology) -> None:
        import psycopg

        disk.fill()
        if what == "its log":
            with suppress(psycopg.Error):
                while True:  # until the segments that it has are used up
                    topology.database.sql("SELECT pg_switch_wal()", "CHECKPOINT")

    def end(topology: Topology) -> None:
        disk.free()
        if not topology.database.takes_connections():
            topology.database.stop(signal.SIGKILL)
            topology.database.start()

    words = "No space left on device" if what == "tables" else ""
    await suffer(
        tmp_path,
        said,
        begin,
        lambda said: said.told("store.write_failed", words),
        end,
        database=postgres_server(parent=disk.folder),
    )
    failed = [line for line in said.lines if line["event"] == "store.write_failed"]
    if what == "tables":
        assert len(failed) <= 2, "a line of each node that feeds"
        assert {line["advice"] for line in failed} == {"make room on the server's disk"}


@pytest.mark.parametrize("how", ["cut", "silent"])
async def test_the_only_replica_is_cut_off(how: str, tmp_path: Path) -> None:
    said, relays = Said(), list[Relay]()

    @contextmanager
    def engine() -> Iterator[ValkeyCluster]:
        words = {"min_replicas_to_write": "1", "min_replicas_max_lag": "2"}
        with (
            valkey_server("redis", repl_diskless_sync_delay="0", **words) as primary,
            open_relay(primary.port) as relay,
            valkey_server("redis", replicaof=f"127.0.0.1 {relay.port}") as replica,
        ):
            relays.append(relay)
            wait_until(lambda: len(primary.ask("ROLE")[2]) == 1, primary.log)
            yield ValkeyCluster([primary, replica])

    def turn(state: Any) -> None:
        relays[0].state = state

    await suffer(
        tmp_path,
        said,
        lambda _: turn(how),
        lambda said: all("NOREPLICAS" in said.ready.get(name, "") for name in ("in1", "in2")),
        lambda _: turn("open"),
        engine=engine(),
    )
    assert said.told("engine.lost", ": it refuses: NOREPLICAS Not enough good replicas to write.")
