"""Plays a fault script against a box: every kind of fault is one lever that is pulled at its time.

The levers at the door and on open connections are the box's own; what happens to frames and to
new byte streams is done by the gate before it, what happens to dialling by the memory network.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import trio
from attrs import define, field

from .faultscript import Fault
from .gate import Gate
from .memory import MemoryNetwork
from .tampers import TAMPERS

Endpoint = tuple[str, int]
_LAST_WORDS_S = 10.0
"""From ``serverShutdown`` to the end of the connections."""


@define
class Trial:
    """One box under fire.  ``skew_ms`` is to be added to the service's clock."""

    exchange: Any
    network: MemoryNetwork
    gate: Gate
    websocket: Endpoint
    rest: Endpoint
    skew_ms: float = 0.0
    injected: Counter[str] = field(factory=Counter)
    log: list[str] = field(factory=list)
    _down_until: dict[Endpoint, float] = field(factory=dict)

    async def play(self, script: Sequence[tuple[float, Fault]]) -> None:
        """Pull the levers in time (seconds of trio's clock).  Returns after the last one."""
        for at_s, fault in script:
            await trio.sleep_until(at_s)
            self.pull(fault)

    def pull(self, fault: Fault) -> None:
        """Now.  What it begins goes on by itself.  Raises KeyError for an unknown kind."""
        self.log.append(f"t={trio.current_time():.3f} fault {fault}")
        self.injected[fault.kind] += 1
        if fault.kind in TAMPERS:
            self.gate.tamper(partial(TAMPERS[fault.kind], fault.value), fault.lasts_s)
        else:
            _LEVERS[fault.kind](self, fault)

    def worst_silence_s(self) -> float:
        """The longest that a connection was kept which had gone silent, up to now."""
        now = trio.current_time()
        still = [now - s.silent_since for s in self.gate.streams if s.silent_since is not None]
        return max([*self.gate.silences_s, *still], default=0.0)

    def cut_all(self) -> None:
        for connection in [*self.exchange.connections]:
            connection.peer.stream.silent_since = None  # it is not noticed, it is told
            connection.abort()

    def refuse_dials(self, endpoint: Endpoint, lasts_s: float) -> None:
        """Nobody gets in there for ``lasts_s`` seconds, or as long as was said before."""
        until = trio.current_time() + lasts_s
        self._down_until[endpoint] = max(until, self._down_until.get(endpoint, 0.0))
        self.network.down.add(endpoint)
        self.gate.nursery.start_soon(self._admit_again, endpoint, until)

    async def _admit_again(self, endpoint: Endpoint, at: float) -> None:
        await trio.sleep_until(at)
        if self._down_until[endpoint] <= at:
            self.network.down.discard(endpoint)


def _half_open(trial: Trial, _fault: Fault) -> None:
    for connection in trial.exchange.connections:
        connection.mute()
        stream = connection.peer.stream
        if stream.silent_since is None:
            stream.silent_since = trio.current_time()


def _close(trial: Trial, fault: Fault) -> None:
    for connection in [*trial.exchange.connections]:
        connection.peer.stream.silent_since = None
        connection.close(int(fault.value), "simulated")


def _shutdown(trial: Trial, _fault: Fault) -> None:
    """Binance says serverShutdown and ends a little later; OKX says 64008 and does so itself."""
    if hasattr(trial.exchange, "announce_upgrade"):
        trial.exchange.announce_upgrade()
        return
    told = [*trial.exchange.connections]
    trial.exchange.announce_shutdown()

    async def end() -> None:
        await trio.sleep(_LAST_WORDS_S)
        for connection in told:
            connection.close(1001, "going away")

    trial.gate.nursery.start_soon(end)


def _refuse_upgrade(trial: Trial, fault: Fault) -> None:
    trial.exchange.refuse_upgrades(int(fault.value), fault.times)
    trial.cut_all()


def _rest_status(trial: Trial, fault: Fault) -> None:
    trial.exchange.rest_status(int(fault.value), fault.times)
    trial.cut_all()


def _rest_down(trial: Trial, fault: Fault) -> None:
    trial.refuse_dials(trial.rest, fault.lasts_s)
    trial.gate.cut_rest()


def _rest_slow(trial: Trial, fault: Fault) -> None:
    trial.gate.rest_delays_s.extend([fault.value] * fault.times)


def _dial_refused(trial: Trial, fault: Fault) -> None:
    trial.refuse_dials(trial.websocket, fault.lasts_s)
    _rest_down(trial, fault)
    trial.cut_all()


def _garbage(trial: Trial, fault: Fault) -> None:
    trial.gate.greetings.extend([None] * fault.times)
    trial.cut_all()


def _slow_handshake(trial: Trial, fault: Fault) -> None:
    trial.gate.greetings.extend([fault.value] * fault.times)
    trial.cut_all()


def _clock_skew(trial: Trial, fault: Fault) -> None:
    skew_ms = trial.skew_ms = fault.value * 1000

    async def put_right() -> None:
        await trio.sleep(fault.lasts_s)
        if trial.skew_ms == skew_ms:  # it was not set anew
            trial.skew_ms = 0.0

    trial.gate.nursery.start_soon(put_right)


_LEVERS: Mapping[str, Callable[[Trial, Fault], None]] = {
    "tcp_reset": lambda trial, _fault: trial.cut_all(),
    "half_open": _half_open,
    "server_close": _close,
    "server_shutdown": _shutdown,
    "refuse_upgrade": _refuse_upgrade,
    "rest_status": _rest_status,
    "rest_down": _rest_down,
    "rest_slow": _rest_slow,
    "dial_refused": _dial_refused,
    "garbage_before_101": _garbage,
    "slow_handshake": _slow_handshake,
    "clock_skew": _clock_skew,
}
LEVERS = frozenset(_LEVERS) | frozenset(TAMPERS)
"""Every kind that can be pulled."""
