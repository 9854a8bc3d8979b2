"""The connections of one venue: which there are, each restarted by itself and rotated in time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Never
from urllib.parse import urlsplit

import structlog
import trio
from attrs import define, evolve, field
from trio_util import AsyncValue

from ..environment import Environment, mono
from ..errors import NetworkError, NoProxyAvailable
from ..instants import Mono
from ..metrics import Metrics
from ..net.route import Route
from ..settings import ConnectionSettings
from ..supervise import supervise
from ..venues import Instruments, Plan, Stream, Venue
from .connection import Connection, ConnectionContext, ConnectionState
from .driver import Driver
from .intake import Outlet
from .read_pace import ReadPace
from .rotation import Generation, Rotation, keep

PART_S = 60.0
"""How often lanes that share an exit look for another one."""


@define(eq=False)
class Slot:
    """One plan and the connections that carry it: one on each lane, two while that is rotated."""

    plan: Plan
    states: list[ConnectionState] = field(factory=list)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    demanded: bool = False
    """It carries symbols that clients asked for, and others join them."""
    since_ms: float = 0.0
    carrying: int = 0
    carried: dict[Stream, set[int]] = field(factory=dict)
    """The connections, by id, that each stream of the plan comes over now."""
    rotate: dict[int, Callable[[str], None]] = field(factory=dict)
    """Lane -> asks for a successor of the newest connection of that lane, and says why."""

    @property
    def live(self) -> bool:
        return any(state.status == "live" for state in self.states)

    @property
    def shared_exit(self) -> str:
        """The exit that several lanes leave by; empty: they are apart, or not all live."""
        live = {(state.lane, state.exit) for state in self.states if state.status == "live"}
        exits = {exit_ for _lane, exit_ in live}
        return exits.pop() if len(live) > len(exits) == 1 else ""

    @property
    def name(self) -> str:
        """For people: its newest connection, and how that stands."""
        if not self.states:
            return "a connection that is about to be opened"
        return f"connection {self.states[-1].id} ({self.states[-1].status})"

    @property
    def last_message_ms(self) -> float | None:
        times = [s.last_message_ms for s in self.states if s.last_message_ms is not None]
        return max(times, default=None)


class Pool:
    """Tells the driver when a plan's streams deliver, and when nothing carries them any more.

    ``carrying``: how many plans deliver.
    """

    def __init__(
        self,
        venue: Venue,
        settings: ConnectionSettings,
        *,
        route: Route,
        environment: Environment,
        metrics: Metrics,
        driver: Driver,
    ) -> None:
        self.slots: list[Slot] = []
        self.instruments = Instruments()
        self.carrying = AsyncValue(0)
        self._venue, self._settings, self._route = venue, settings, route
        self._environment, self._metrics, self._driver = environment, metrics, driver
        self._log = structlog.get_logger().bind(venue=venue.NAME)
        self._turn, self._pace = trio.Lock(), ReadPace(settings.read_batch_us / 1e6)
        self._made = 0
        self._lanes = settings.redundancy
        if self._lanes > 1 and not self._has_two_ways:
            self._log.warning(
                "redundancy.one_way",
                problem="two connections carry each stream, but there is one way out for both; "
                "list two proxies for two",
            )

    def __repr__(self) -> str:
        live = sum(slot.live for slot in self.slots)
        return f"{live}/{len(self.slots)} connections live"

    @property
    def _has_two_ways(self) -> bool:
        return self._route.egress is not None and len(self._route.egress) > 1

    @property
    def states(self) -> list[ConnectionState]:
        return [state for slot in self.slots for state in slot.states]

    def apply(
        self,
        wanted: dict[Stream, None],
        nursery: trio.Nursery,
        outlet: Outlet,
    ) -> None:
        """Make the connections fit: new streams get new connections; a connection that carries a
        stream which is gone is succeeded by one without it, so that the others miss nothing.

        What clients ask for has connections of its own, so that they cannot make those of other
        streams change."""
        base_url = self._settings.websocket_url or self._venue.WEBSOCKET_URL
        most = self._settings.streams_per_connection
        kept: set[Stream] = set()
        for slot in list(self.slots):
            left = [stream for stream in slot.plan.streams if stream in wanted]
            kept.update(left)
            if len(left) == len(slot.plan.streams):
                continue
            gone = [stream.name for stream in slot.plan.streams if stream not in wanted]
            for stream in set(slot.carried).difference(left):
                del slot.carried[stream]
            self._log.info("streams.gone", connection=slot.name, streams=gone)
            if left:
                (slot.plan,) = self._venue.plan(base_url, left, most)
                for rotate in slot.rotate.values():
                    rotate("streams gone")
            else:
                self.slots.remove(slot)
                slot.scope.cancel()
        demanded = self._driver.demanded
        new = [stream for stream in wanted if stream not in kept]
        plans = self._venue.plan(base_url, [s for s in new if s.symbol not in demanded], most)
        slots = [Slot(plan) for plan in plans]
        for plan in self._venue.plan(base_url, [s for s in new if s.symbol in demanded], most):
            rest = self._join(base_url, plan.streams, most)
            slots += [Slot(p, demanded=True) for p in self._venue.plan(base_url, rest, most)]
        for slot in slots:
            slot.since_ms = self._environment.now_ms()
            self.slots.append(slot)
            nursery.start_soon(self._keep, slot, outlet, name=f"{self._venue.NAME} connection slot")

    def _join(self, base_url: str, new: Sequence[Stream], most: int) -> Sequence[Stream]:
        """Streams that clients asked for join others of the kind: whose connection has room is
        succeeded by one that carries them too.  Returns those for which there is none."""
        for slot in self.slots:
            there = slot.plan.streams
            joining = new[: max(0, most - len(there))]
            if not slot.demanded or not joining:
                continue
            plans = self._venue.plan(base_url, [*there, *joining], most)
            if len(plans) == 1:  # else they cannot share one, whatever the room
                (slot.plan,) = plans
                new = new[len(joining) :]
                for rotate in slot.rotate.values():
                    rotate("streams added")
        return new

    def rotate(self, stream: Stream, why: str) -> None:
        """Replace what carries a stream, lane by lane; nothing where that is under way."""
        for slot in self.slots:
            newest = slot.states[-1].status if slot.states else ""
            if stream in slot.plan.streams and newest == "live":
                for rotate in slot.rotate.values():
                    rotate(why)

    async def part(self) -> Never:
        """Lanes that had to share an exit part again once there is another one that works."""
        while True:
            await trio.sleep(PART_S)
            shared = [slot for slot in self.slots if slot.shared_exit]
            if not self._has_two_ways or not shared:
                continue
            exit_ = await self._try_exit(shared[0].plan.url)
            for slot in shared:
                if exit_ and slot.shared_exit not in ("", exit_):
                    slot.rotate[self._lanes - 1]("exits shared")

    async def _try_exit(self, url: str) -> str:
        """Where the highest lane would leave now, tried out; empty: nowhere."""
        exits: list[str] = []
        parts = urlsplit(url)
        tls = parts.scheme == "wss"
        port = parts.port or (443 if tls else 80)
        way = evolve(self._route, lane=self._lanes - 1, opened=exits.append)
        try:
            stream = await way.tunnel(parts.hostname or "", port, tls=tls)
        except NetworkError:
            return ""
        await trio.aclose_forcefully(stream)
        return exits[0]

    async def _keep(self, slot: Slot, outlet: Outlet) -> None:
        with slot.scope:
            async with trio.open_nursery() as nursery:
                for lane in range(self._lanes):
                    nursery.start_soon(self._keep_lane, slot, lane, outlet, name=f"lane {lane}")

    async def _keep_lane(self, slot: Slot, lane: int, outlet: Outlet) -> None:
        settings = self._settings
        rotation = Rotation(
            settings.max_age_s,
            settings.open_timeout_s + settings.silence_timeout_s,
            self._turn,
            self._environment.random.random,
        )
        make = partial(self._make, slot, lane, outlet)
        spans = self._metrics.spans
        await keep(make, rotation, retired=slot.states.remove, log=self._log, spans=spans)

    def _make(
        self,
        slot: Slot,
        lane: int,
        outlet: Outlet,
        generation: Generation,
    ) -> "_Carrier":
        self._made += 1
        state = ConnectionState(self._made, slot.plan, lane)
        slot.states.append(state)
        slot.rotate[lane] = generation.leave
        venue, now_ms = self._venue, self._environment.now_ms
        context = ConnectionContext(
            venue, self._settings, outlet, now_ms, self._metrics, self._pace
        )
        route = evolve(self._route, lane=lane, opened=partial(setattr, state, "exit"))
        carrier = _Carrier(self, slot, state, generation)
        carrier.connection = Connection(state, context, route, carrier)
        return carrier

    def is_quiet(self, plan: Plan) -> bool:
        """Whether the exchange has confirmed that a plan's streams have nothing to say."""
        return self._driver.is_quiet(plan.streams)

    async def supervise(self, carrier: "_Carrier") -> Never:
        """Run a connection again and again."""
        connection = carrier.connection
        await supervise(
            connection.run,
            backoff=connection.backoff,
            chance=self._environment.random,
            on_lost=partial(self._lost, carrier),
        )

    def up(self, slot: Slot, state: ConnectionState) -> None:
        """This connection delivers."""
        slot.carrying += 1
        if slot.carrying == 1:
            self.carrying.value += 1
        wanted, new = set(slot.plan.streams), []
        for stream in state.plan.streams:
            if stream in wanted:  # the plan may have changed since it was opened
                carriers = slot.carried.setdefault(stream, set())
                if not carriers:
                    new.append(stream)
                carriers.add(state.id)
        self._driver.up(new)

    def down(self, slot: Slot, state: ConnectionState) -> None:
        """It does not any more."""
        slot.carrying -= 1
        if slot.carrying == 0:
            self.carrying.value -= 1
        for carriers in slot.carried.values():
            carriers.discard(state.id)
        lost = [stream for stream, carriers in slot.carried.items() if not carriers]
        for stream in lost:
            del slot.carried[stream]
        self._driver.down(lost)

    def reconnected(self, carrier: "_Carrier") -> None:
        """It delivers again: how long that took, from the first loss on."""
        if carrier.lost is not None:
            since, reason = carrier.lost
            carrier.lost = None
            self._metrics.spans.add(
                "reconnect", mono() - since, venue=self._venue.NAME, connection=carrier.state.id,
                reason=reason, exit=carrier.state.exit,
            )  # fmt: skip

    def _lost(self, carrier: "_Carrier", error: NetworkError, delay_s: float) -> None:
        state, name, reason = carrier.state, self._venue.NAME, type(error).__name__
        carrier.lost = carrier.lost or (mono(), reason)
        state.status, state.problem = "waiting", str(error)
        self._metrics.connections_lost.labels(name, reason).inc()
        # That the whole pool is down has been said by the route, once for all.
        log = self._log.debug if isinstance(error, NoProxyAvailable) else self._log.warning
        log(
            "connection.lost",
            connection=state.id,
            reason=reason,
            problem=str(error),
            retry_s=round(delay_s, 3),
        )


@define(eq=False)
class _Carrier:
    """A generation of a lane: its connection, supervised, and for whom that reads."""

    pool: Pool
    slot: Slot
    state: ConnectionState
    generation: Generation
    connection: Connection = field(init=False)
    lost: tuple[Mono, str] | None = None
    """Since when, and for which reason first; None: it is not."""

    @property
    def instruments(self) -> Instruments:
        return self.pool.instruments

    def up(self) -> None:
        self.pool.up(self.slot, self.state)
        self.pool.reconnected(self)

    def down(self) -> None:
        self.pool.down(self.slot, self.state)

    def delivered(self) -> None:
        self.generation.delivered.set()

    def leaving(self) -> None:
        self.generation.leave("announced")

    def is_quiet(self) -> bool:
        return self.pool.is_quiet(self.state.plan)

    async def run(self) -> Never:
        await self.pool.supervise(self)
