"""The nodes of a simulated cluster, each the whole service, and what is done to them."""

import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Never

import trio
from attrs import define, field

from scripts.simulate_box import Dialling
from scripts.simulate_nodes_faults import SINGLE_CALLS, Reach
from scripts.simulate_nodes_run import TIMEOUT_S, NodesRun
from trio_feed import service
from trio_feed.bus.engine.base import Engine, EngineFault
from trio_feed.bus.engine.memory import EngineServer, MemoryEngine
from trio_feed.environment import Environment
from trio_feed.errors import StartError, StoreError
from trio_feed.settings import EngineSettings
from trio_feed.simulator.faults.context import FaultContext
from trio_feed.simulator.faults.schedule import Fault
from trio_feed.store import MemoryDatabase
from trio_feed.supervise import root_cause

_START_AGAIN_S = 1.0
_LEAVES_WITHIN_S = 30.0


@define(eq=False)
class SimulatedNode:
    """One of ``cluster``; started again whenever it has ended, not before ``down_until``."""

    name: str
    cluster: "Cluster"
    reach: Reach
    dialling: Dialling
    ready: service.Ready | None = None
    down_until: float = 0.0
    starts: int = 0
    _scope: trio.CancelScope = field(factory=trio.CancelScope)
    _send_signal: trio.MemorySendChannel[int] | None = None

    async def run(self) -> Never:
        while True:
            await trio.sleep_until(self.down_until)
            self._scope = trio.CancelScope()
            try:
                with self._scope:
                    await self._serve()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                cause = root_cause(error)
                refused = self.ready is None and isinstance(cause, StartError | StoreError)
                if not refused:  # it is started again
                    self.cluster.crashes.append(f"{self.name} {type(cause).__name__}: {cause}")
                    self.cluster.note(f"crash {self.cluster.crashes[-1]}")
            finally:
                self.ready, self._send_signal = None, None
            self.down_until = max(self.down_until, trio.current_time() + _START_AGAIN_S)

    async def _serve(self) -> None:
        self.starts += 1
        run, context = self.cluster.run, self.cluster.context
        chance = random.Random(f"{self.name} {self.starts} {run.seed}")
        environment = Environment(
            self.dialling.dial,
            context.network.listen,
            context.clocks.wall_ms,
            chance,
            signals=self._signals,
        )
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[service.Ready]) -> None:
                await service.run(
                    run.settings_of(self.name),
                    environment,
                    engine=self._engine,
                    database=self.cluster.database,
                    task_status=task_status,
                )

            self.ready = await nursery.start(serve)

    @contextmanager
    def _signals(self, *numbers: int) -> Iterator[AsyncIterator[int]]:
        send, receive = trio.open_memory_channel[int](1)
        if signal.SIGTERM in numbers:
            self._send_signal = send
        with send, receive:
            yield receive

    @asynccontextmanager
    async def _engine(self, _settings: EngineSettings, cluster: bytes) -> AsyncIterator[Engine]:
        engine = MemoryEngine(self.cluster.server, TIMEOUT_S, self.reach)
        try:
            await engine.join(cluster)
        except EngineFault as fault:
            raise StartError(str(fault)) from None
        yield engine

    def cut(self, *, is_cut: bool) -> None:
        """Its way to the engine and the database."""
        self.reach.is_cut = is_cut
        if self.ready is not None:
            self.ready.store.backend.is_cut = is_cut  # type: ignore[attr-defined]

    def kill(self, down_s: float) -> None:
        """As kill -9 does: what it had not written is lost."""
        self.down_until = max(self.down_until, trio.current_time() + down_s)
        if self.ready is not None:
            self.ready.store.backend.kill()  # type: ignore[attr-defined]
        self._scope.cancel()

    def leave(self, down_s: float) -> None:
        """As SIGTERM does; who does not end within a time is killed, as by systemd."""
        self.down_until = max(self.down_until, trio.current_time() + down_s)
        if self._send_signal is None or self.ready is None:
            self.kill(down_s)
        else:
            self._send_signal.send_nowait(signal.SIGTERM)
            self.cluster.context.nursery.start_soon(self._end_soon, self._scope)

    async def _end_soon(self, scope: trio.CancelScope) -> None:
        await trio.sleep(_LEAVES_WITHIN_S)
        if scope is self._scope and self.ready is not None:
            self.kill(0)


@define(eq=False)
class Cluster:
    """What nodes share, and they."""

    run: NodesRun
    context: FaultContext
    server: EngineServer = field(factory=EngineServer)
    database: MemoryDatabase = field(factory=MemoryDatabase)
    nodes: dict[str, SimulatedNode] = field(factory=dict)
    crashes: list[str] = field(factory=list)
    injected: Counter[str] = field(factory=Counter)
    _chance: random.Random = field(init=False)
    _lasting: dict[str, float] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self._chance = random.Random(f"cluster {self.run.seed}")
        for name in (*self.run.feeder_names, *self.run.server_names):
            chance = random.Random(f"reach {name} {self.run.seed}")
            self.nodes[name] = SimulatedNode(name, self, Reach(chance), Dialling(self.context))

    def note(self, line: str) -> None:
        self.context.log.append(f"t={trio.current_time():.3f} {line}")

    async def play(self) -> None:
        """What happens between nodes, each at its time."""
        for at_s, fault in self.run.engine_faults():
            await trio.sleep_until(at_s)
            self.inject(fault)

    def inject(self, fault: Fault) -> None:
        """Now.  What lasts ends by itself."""
        self.injected[fault.kind] += 1
        names = self.run.server_names if _is_of_readers(fault.kind) else self.run.feeder_names
        if fault.kind in ("calls_fail", *SINGLE_CALLS):
            names = tuple(self.nodes)
        if fault.kind.startswith("append"):
            names = self.run.feeder_names
        node = self.nodes[self._chance.choice(names)]
        self.note(f"fault {fault} {node.name if _is_of_a_node(fault.kind) else ''}".rstrip())
        if fault.kind in SINGLE_CALLS:
            node.reach.note(fault)
        else:
            _INJECTORS[fault.kind](self, node, fault)

    def lasts(self, what: str, fault: Fault, end: Callable[[], object]) -> None:
        """``end`` after its time, or later if the same is said again meanwhile."""
        until = trio.current_time() + fault.lasts_s
        self._lasting[what] = max(until, self._lasting.get(what, 0.0))

        async def wait() -> None:
            await trio.sleep_until(until)
            if self._lasting[what] <= until:
                end()

        self.context.nursery.start_soon(wait)

    def cut_log(self, keep: int) -> None:
        shards = sorted(self.shards)
        shard = self._chance.choice(shards)
        if len(self.server.entries(shard)) > 1:
            self.server.cut(shard, keep)

    @property
    def shards(self) -> list[str]:
        return [f"{self.run.one.venue}.{number}" for number in range(2)]


def _is_of_readers(kind: str) -> bool:
    return kind.startswith(("push_", "reader_"))


def _is_of_a_node(kind: str) -> bool:
    return not kind.startswith(("database", "commit", "engine", "failover", "log"))


def _away(cluster: Cluster, _node: SimulatedNode, fault: Fault) -> None:
    cluster.server.stop()
    cluster.lasts("engine", fault, cluster.server.start)


def _paused(cluster: Cluster, node: SimulatedNode, fault: Fault) -> None:
    node.cut(is_cut=True)
    cluster.lasts(f"cut {node.name}", fault, lambda: node.cut(is_cut=False))


def _shaky(cluster: Cluster, node: SimulatedNode, fault: Fault) -> None:
    node.reach.is_shaky = True
    cluster.lasts(f"shaky {node.name}", fault, lambda: setattr(node.reach, "is_shaky", False))


def _of_database(name: str, value: Callable[[Fault], object], after: object) -> "_Injector":
    def inject(cluster: Cluster, _node: SimulatedNode, fault: Fault) -> None:
        setattr(cluster.database, name, value(fault))
        cluster.lasts(name, fault, lambda: setattr(cluster.database, name, after))

    return inject


def _unheard(cluster: Cluster, _node: SimulatedNode, fault: Fault) -> None:
    cluster.database.unanswered += fault.times


_Injector = Callable[[Cluster, SimulatedNode, Fault], None]
_INJECTORS: Mapping[str, _Injector] = {
    "calls_fail": _shaky,
    "failover": lambda cluster, _node, fault: cluster.server.fail_over(int(fault.value)),
    "engine_emptied": lambda cluster, _node, _fault: cluster.server.empty(),
    "log_trimmed": lambda cluster, _node, fault: cluster.cut_log(int(fault.value)),
    "engine_away": _away,
    "owner_paused": _paused,
    "reader_cut": _paused,
    "database_lags": _of_database("lag_s", lambda fault: fault.value, 0.0),
    "commit_slow": _of_database("commit_s", lambda fault: fault.value, 0.0),
    "database_away": _of_database("away", lambda _fault: True, False),
    "database_unheard": _unheard,
    "ingest_killed": lambda _cluster, node, fault: node.kill(fault.lasts_s),
    "push_killed": lambda _cluster, node, fault: node.kill(fault.lasts_s),
    "ingest_leaves": lambda _cluster, node, fault: node.leave(fault.lasts_s),
    "push_leaves": lambda _cluster, node, fault: node.leave(fault.lasts_s),
}
