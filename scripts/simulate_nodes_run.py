"""What one run of ``scripts/simulate --nodes`` is: the nodes, the clients, what happens to them."""

from attrs import evolve, field, frozen

from scripts.simulate_nodes_faults import ENGINE_KINDS, write_engine_schedule
from scripts.simulate_run import NEWCOMER, PUSH, START_MS, Run, service_settings
from trio_feed.settings import Settings
from trio_feed.simulator.faults.schedule import Fault

LEASE_S = 3.0
TIMEOUT_S = 1.0
"""Of the engine's calls."""
_SYMBOLS = 4
_TRADES_PER_MINUTE = 12


def _one() -> Run:
    return Run(channels=("kline", "trade"), symbols=_SYMBOLS, trades_per_minute=_TRADES_PER_MINUTE)


@frozen
class NodesRun:
    """``one``: the exchange and its faults, and the settings of every node.  ``feeders`` nodes
    feed, ``servers`` serve ``clients``.  ``script`` None: written from the seed."""

    one: Run = field(factory=_one)
    feeders: int = 2
    servers: int = 2
    clients: int = 4
    kinds: tuple[str, ...] = tuple(ENGINE_KINDS)
    standby: str = ""
    """Empty: by the seed."""
    script: tuple[tuple[float, Fault], ...] | None = None

    @property
    def seed(self) -> int:
        return self.one.seed

    @property
    def is_hot(self) -> bool:
        return self.standby == "hot" or (not self.standby and self.seed % 2 == 1)

    @property
    def followed(self) -> tuple[str, ...]:
        """The symbols that clients take: not the one that comes and goes."""
        return tuple(symbol for symbol in self.one.listed if symbol != NEWCOMER)

    @property
    def server_names(self) -> tuple[str, ...]:
        return tuple(f"push{number}" for number in range(1, self.servers + 1))

    @property
    def feeder_names(self) -> tuple[str, ...]:
        return tuple(f"ingest{number}" for number in range(1, self.feeders + 1))

    def engine_faults(self) -> tuple[tuple[float, Fault], ...]:
        if self.script is not None:
            return self.script
        return write_engine_schedule(self.seed, self.one.hours, self.kinds, start_ms=START_MS)

    def settings_of(self, name: str) -> Settings:
        """Of one node."""
        role = "push" if name in self.server_names else "ingest"
        own = (
            f"server.host={name}",
            "store.url=postgresql://database/feed",
            "engine.kind=valkey",
            "engine.urls=['valkey://engine:6379']",
            "engine.shards=2",
            f"engine.lease_s={LEASE_S}",
            f"engine.standby={'hot' if self.is_hot else 'cold'}",
            f"node.name={name}",
            f"node.roles=['{role}']",
        )
        return service_settings(evolve(self.one, settings=(*own, *self.one.settings)))


def endpoint_of(name: str) -> tuple[str, int]:
    return name, PUSH[1]
