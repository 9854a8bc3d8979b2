"""The processes of ``scripts/soak --cluster``: exchange, engine with sentinels, database, nodes.

Everything is on ports and in a folder of its own, and ended with the context; where this process is
killed itself, a shell that waits for its end does it.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from attrs import define, field, frozen

from scripts import postgres_server, valkey_server
from scripts.child import Child, workers_of
from scripts.postgres_server import PostgresServer
from scripts.valkey_server import Kind, ValkeyCluster, ValkeyServer, valkey_cluster
from trio_feed.push.private.auth import PUBLISHER_KEY, USER_KEY, new_key

ROOT = Path(__file__).resolve().parent.parent
SYMBOLS = ("BTCUSDT", "ETHUSDT", "ADAUSDT", "DOGEUSDT")
"""One in each of four shards."""
NODES = {"in1": "ingest", "in2": "ingest", "push1": "push", "push2": "push"}
USERS = (1001, 1002, 1003, 1004)
TRADES_PER_MINUTE = 240
"""Of each symbol; the exchange's default."""
VENUE = "binance_usdm"


def why_not(kind: Kind | None = None) -> str:
    """What is missing here; empty: nothing."""
    return valkey_server.why_not(kind) or postgres_server.why_not()


@define(eq=False)
class Process:
    """One of ours, by its number.  ``expected``: that it has ended is no crash."""

    name: str
    command: Sequence[str]
    log: Path
    expected: bool = True
    starts: int = 0
    _child: Child | None = None

    def start(self) -> None:
        if self._child is not None:  # it may have ended by itself
            self._child.stop()
        self._child = Child.start(self.command, self.log, ROOT)
        self.expected = False
        self.starts += 1

    @property
    def runs(self) -> bool:
        return self._child is not None and self._child.runs

    @property
    def crashed(self) -> bool:
        return not self.expected and not self.runs

    @property
    def returncode(self) -> int | None:
        return None if self._child is None else self._child.returncode

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def pause(self, *, on: bool) -> None:
        if self._child is not None:
            self._child.pause(on=on)

    def end(self, how: int = signal.SIGKILL, within_s: float = 20.0) -> float:
        """Returns the seconds that it took."""
        self.expected = True
        began = time.monotonic()
        if self._child is not None:
            self._child.stop(how, within_s)
        return time.monotonic() - began

    def workers(self) -> list[int]:
        """The numbers of its worker processes, in the order of their starts."""
        return workers_of(self.pid)

    def cpu_s(self) -> float:
        """Seconds of CPU of this start; 0 where it does not run."""
        try:
            words = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@frozen
class Keys:
    """``users``: a token for each; ``settings``: what nodes know of them."""

    publisher: str = field(repr=False)
    users: dict[int, str] = field(repr=False)
    settings: str = field(repr=False)


def make_keys() -> Keys:
    publisher, digest = new_key(PUBLISHER_KEY)
    lines = [f"[[settlement.publishers]]\nname = 'soak'\nsha256 = '{digest}'"]
    users = {}
    for user in USERS:
        users[user], digest = new_key(USER_KEY)
        row = f"name = 'user {user}'\nuser_id = {user}\nsha256 = '{digest}'"
        lines.append(f"[[auth.api_keys]]\n{row}")
    return Keys(publisher, users, "\n".join(lines))


@define(eq=False)
class Topology:
    """Made by :func:`open_topology`; nodes are not started yet."""

    folder: Path
    seed: int
    lease_s: float
    standby: str
    database: PostgresServer
    engine: ValkeyCluster
    exchange: Process
    keys: Keys
    ports: dict[str, int]
    push_workers: int = 1
    """Of each node that serves."""
    nodes: dict[str, Process] = field(factory=dict)

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self.ports[name]}"

    def of_role(self, role: str) -> list[str]:
        return [name for name, own in NODES.items() if own == role]

    def primary(self) -> ValkeyServer:
        """Raises RuntimeError: sentinels name none that runs."""
        found = self.engine.primary()
        if found is None or not found.runs:
            raise RuntimeError("the sentinels name no primary that runs")
        return found

    def log_lines(self, name: str) -> list[dict[str, object]]:
        lines = []
        for line in self.nodes[name].log.read_text(errors="replace").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                lines.append({"event": "raw", "text": line})
        return lines

    def write_settings(self, name: str) -> Path:
        path = self.folder / f"{name}.toml"
        exchange = f"127.0.0.1:{self.ports['exchange']}"
        more = "\n".join(f"{k} = {json.dumps(v)}" for k, v in self.engine.of_node().items())
        path.write_text(
            f"""
[node]
name = "{name}"
roles = ["{NODES[name]}"]
[engine]
kind = "valkey"
urls = {json.dumps(self.engine.urls)}
lease_s = {self.lease_s}
timeout_s = {min(1.0, self.lease_s / 2.5)}
standby = "{self.standby}"
{more}
[store]
url = "{self.database.url()}"
path = {json.dumps(str(self.folder / name / "copies.db"))}
[server]
port = {self.ports[name]}
workers = {self.push_workers if NODES[name] == "push" else 1}
[logging]
format = "json"
[exchanges.{VENUE}]
symbols = {json.dumps(SYMBOLS)}
intervals = ["1m"]
trade_intervals = ["1s"]
channels = ["kline", "trade"]
history_bars = 60
[exchanges.{VENUE}.connection]
websocket_url = "ws://{exchange}"
rest_url = "http://{exchange}"
backoff_min_s = 0.1
{self.keys.settings}
"""
        )
        return path


@contextmanager
def open_topology(
    folder: Path,
    *,
    seed: int = 1,
    kind: Kind | None = None,
    lease_s: float = 3.0,
    standby: str = "cold",
    push_workers: int = 1,
    engine: AbstractContextManager[ValkeyCluster] | None = None,
    database: AbstractContextManager[PostgresServer] | None = None,
) -> Iterator[Topology]:
    """Exchange, database and engine run; they are others than usual where they are given.  Raises
    RuntimeError: :func:`why_not`."""
    if why := why_not(kind):
        raise RuntimeError(why)
    ports = dict(zip(("exchange", *NODES), _free_ports(1 + len(NODES)), strict=True))
    python = [sys.executable, "-m", "trio_feed"]
    exchange = Process(
        "exchange",
        [*python, "exchange", "--venue", VENUE, "--port", str(ports["exchange"]),
         "--seed", str(seed), "--symbols", ",".join(SYMBOLS), "--json"],
        folder / "exchange.log",
    )  # fmt: skip
    with (
        database or postgres_server.postgres_server() as store,
        engine or valkey_cluster(kind) as log,
    ):
        made = Topology(
            folder, seed, lease_s, standby, store, log, exchange, make_keys(), ports, push_workers
        )
        try:
            exchange.start()
            for name in NODES:
                command = [*python, "run", "--config", str(made.write_settings(name))]
                made.nodes[name] = Process(name, command, folder / f"{name}.log")
            yield made
        finally:
            for process in (*made.nodes.values(), exchange):
                process.end()


def _free_ports(number: int) -> list[int]:
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    found = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return found
