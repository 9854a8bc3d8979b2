"""A Solana RPC node: WebSocket and HTTP, with the transactions of a simulated Spin Pet.

Transactions happen at random times whether anybody listens or not, and are never sent again: what
a client misses while it is away it has to ask for (:mod:`.chain`).  All commitments are sent at
once, but for forks, which only ``processed`` shows.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Never

import msgspec
import trio
from attrs import define, evolve, field

from ..machinery.connection import Connection
from ..machinery.response_faults import ResponseFaults
from ..machinery.server import SimulatedExchange
from ..machinery.wire import Request, Response, WebSocketPeer, http_date, text_frame
from .chain import SolanaChain, slot_at
from .control import LogSubscriptions
from .spinpet import SpinPetMarket, Transaction

_TOO_MANY = b'{"jsonrpc":"2.0","error":{"code":429,"message":"Too many requests"},"id":null}'

_ROUNDING_MS = 0.001


@define(eq=False)
class SolanaConnection(Connection):
    subscriptions: LogSubscriptions

    def notify(self, transaction: Transaction, slot: int, *, settled: bool = True) -> None:
        """Send it to every subscription that it concerns; dropped while muted.  Not ``settled``:
        to those of ``processed`` only."""
        for number in self.subscriptions.asking_for(transaction.mentions, settled=settled):
            self.offer(text_frame(notification(transaction, slot, number)))

    async def run(self) -> None:
        await self.queue.run(self._read)

    async def _read(self) -> None:
        while True:
            incoming = await self.peer.receive()
            if incoming.kind == "text":
                self.queue.put(text_frame(self.subscriptions.handle(incoming.data).encode()))


@define(eq=False)
class SolanaNode(SimulatedExchange[SolanaConnection]):
    """``chain`` is what happened."""

    market: SpinPetMarket
    chain: SolanaChain = field(factory=SolanaChain)
    _truncated: int = 0
    _lost: int = 0
    _quiet_until_ms: float = 0.0
    _next_ms: float = math.inf
    """When the next transaction happens."""
    _changed: trio.Event = field(factory=trio.Event)
    _subscription_ids: Iterator[int] = field(factory=lambda: count(24_040))

    def truncate_logs(self, times: int) -> None:
        """The next ``times`` notifications have their logs cut behind the first event."""
        self._truncated += times

    def lose_notifications(self, times: int) -> None:
        """Nobody is notified of the program's next ``times`` transactions."""
        self._lost += times

    def be_quiet(self, lasts_s: float) -> None:
        """Nobody calls the program for so long; strangers go on."""
        self._quiet_until_ms = max(self._quiet_until_ms, self.now_ms() + lasts_s * 1000)

    def push(self, transaction: Transaction, at_ms: float | None = None) -> None:
        """A transaction happens, in this moment's slot or that of ``at_ms``; notify every
        connection."""
        now_ms = self.now_ms() if at_ms is None else at_ms
        for landed in self.chain.land_again(now_ms):
            self._notify(landed, now_ms, settled=True)
        self._notify(transaction, now_ms, settled=self.chain.happens(transaction, now_ms))

    def _notify(self, transaction: Transaction, now_ms: float, *, settled: bool) -> None:
        if self.market.program_id in transaction.mentions:
            if self._lost:
                self._lost -= 1
                return
            if self._truncated:
                self._truncated -= 1
                transaction = evolve(transaction, logs=_truncated(transaction.logs))
        slot = slot_at(now_ms)
        for connection in [*self.connections]:
            connection.notify(transaction, slot, settled=settled)

    async def run(self) -> Never:
        """Let transactions happen for ever."""
        self._next_ms = self.now_ms() + self.market.gap_s() * 1000
        while True:
            with trio.move_on_after(max(0.0, self._next_ms - self.now_ms()) / 1000):
                await self._changed.wait()
            self._changed = trio.Event()
            self.run_ahead(self.now_ms() + _ROUNDING_MS)

    def run_ahead(self, until_ms: float) -> None:
        """What happens up to ``until_ms`` happens, as if each were at its time."""
        while self._next_ms <= until_ms:
            at_ms, self._next_ms = self._next_ms, self._next_ms + self.market.gap_s() * 1000
            transaction = self.market.next_transaction()
            quiet = at_ms < self._quiet_until_ms
            if quiet and self.market.program_id in transaction.mentions:
                self.market.recent.pop()  # it did not happen
            else:
                self.push(transaction, at_ms)

    def clock_changed(self) -> None:
        """``now_ms`` made a leap."""
        self._changed.set()

    def answer(self, request: Request, now_ms: int) -> Response:
        """Each with a ``Date``, as every HTTP server gives one (agave's is hyper)."""
        date = {"Date": http_date(now_ms)}
        if request.method != "POST":
            said = b"Used HTTP Method is not allowed. POST or OPTIONS is required\n"
            return Response(405, said, date)
        status = self.faults.next_rest()
        if status is not None:
            again = {"Retry-After": "10"} if status == 429 else {}
            return Response(status, _TOO_MANY, {**date, **again})
        return Response(200, self.chain.answer(request.body, now_ms - self.faults.behind_ms), date)

    def refusal(self, status: int) -> Response:
        return Response(status)

    def admit(self, request: Request) -> Callable[[WebSocketPeer], SolanaConnection]:
        return lambda peer: SolanaConnection(peer, LogSubscriptions(self._subscription_ids))


def _truncated(logs: Sequence[str]) -> tuple[str, ...]:
    """Behind the first event the lines are missing."""
    at = next((n for n, line in enumerate(logs) if line.startswith("Program data")), 0)
    return (*logs[: at + 1], "Log truncated")


def notification(transaction: Transaction, slot: int, subscription: int) -> bytes:
    """A logsNotification."""
    value = {"signature": transaction.signature, "err": transaction.err, "logs": transaction.logs}
    result = {"context": {"slot": slot}, "value": value}
    params = {"result": result, "subscription": subscription}
    return msgspec.json.encode({"jsonrpc": "2.0", "method": "logsNotification", "params": params})


def solana_node(
    market: SpinPetMarket, now_ms: Callable[[], float], faults: ResponseFaults | None = None
) -> SolanaNode:
    """For :func:`..machinery.server.serve`.  ``now_ms`` is unix ms, for slots only; ``faults`` are
    there before the first client comes."""
    return SolanaNode(now_ms, ResponseFaults() if faults is None else faults, market)
