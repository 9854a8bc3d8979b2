"""A Solana RPC node in a box: WebSocket and HTTP, with the transactions of a simulated Spin Pet.

Transactions happen at random times whether anybody listens or not, and are never sent again: what
a client misses while it is away it has to ask for (:mod:`.solana_chain`).  All commitments are sent
at once, but for forks, of which only ``processed`` is told.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count

import msgspec
import trio
from attrs import define, evolve, field

from ...errors import ConnectionLost
from ..machinery.response_faults import Faults
from ..machinery.wire import OnOpen, Request, Response, WebSocketPeer, serve_stream, text_frame
from .chain import SolanaChain, slot_at
from .control import LogSubscriptions
from .spinpet import SpinPetMarket, Transaction

_QUEUE_FRAMES = 4096
_REFUSED = b'{"jsonrpc":"2.0","error":{"code":429,"message":"Too many requests"},"id":null}'


@define(eq=False)
class SolanaConnection:
    """One open WebSocket.  The levers ``abort``, ``close``, ``mute`` never wait."""

    peer: WebSocketPeer
    subscriptions: LogSubscriptions
    muted: bool = False
    too_slow: bool = False
    """It was dropped because its queue was full."""
    _scope: trio.CancelScope = field(factory=trio.CancelScope)
    _outbox: trio.MemorySendChannel[bytes | tuple[int, str]] = field(init=False)
    _queued: trio.MemoryReceiveChannel[bytes | tuple[int, str]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._outbox, self._queued = trio.open_memory_channel[bytes | tuple[int, str]](
            _QUEUE_FRAMES
        )

    def offer(self, transaction: Transaction, slot: int, *, settled: bool = True) -> None:
        """Send it to every subscription that it concerns; dropped while muted.  Not ``settled``:
        to those of ``processed`` only."""
        if not self.muted:
            for number in self.subscriptions.asking_for(transaction.mentions, settled=settled):
                self._put(text_frame(notification(transaction, slot, number)))

    def abort(self) -> None:
        """Cut the TCP connection: no close frame, and a reset where there is TCP."""
        self.peer.abort_on_close()
        self._scope.cancel()

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Start the close handshake; the rest of the queue goes out first."""
        self._put((code, reason))

    def mute(self) -> None:
        """From now on requests are answered and nothing is pushed."""
        self.muted = True

    async def run(self) -> None:
        """Serve it to its end, whoever ends it.  The stream is the caller's to close."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                for job in (self._read, self._write):
                    nursery.start_soon(_first_to_end, job, nursery.cancel_scope, name=job)

    async def _read(self) -> None:
        while True:
            incoming = await self.peer.receive()
            if incoming.kind == "text":
                self._put(text_frame(self.subscriptions.handle(incoming.data).encode()))

    async def _write(self) -> None:
        while True:
            item = await self._queued.receive()
            if not isinstance(item, bytes):
                await self.peer.close(*item)
                await trio.sleep(self.peer.limits.close_s)
                return
            await self.peer.send_frames(item)

    def _put(self, item: bytes | tuple[int, str]) -> None:
        try:
            self._outbox.send_nowait(item)
        except trio.WouldBlock:
            self.too_slow = True
            self.abort()


@define(eq=False)
class SimulatedSolana:
    """A running box: what fault scripts and tests hold.

    ``connections`` are the WebSockets that are open now, oldest first.  ``faults`` are the levers
    at the door.  ``dials`` counts accepted byte streams, ``upgrades`` WebSockets let in,
    ``requests`` HTTP requests, ``slow_clients`` those dropped for not reading.  ``chain`` is what
    happened.
    """

    market: SpinPetMarket
    now_ms: Callable[[], float]
    faults: Faults
    connections: list[SolanaConnection] = field(factory=list)
    dials: int = 0
    upgrades: int = 0
    requests: int = 0
    slow_clients: int = 0
    chain: SolanaChain = field(factory=SolanaChain)
    _cut: int = 0
    _lost: int = 0
    _quiet_until: float = 0.0
    _subscription_ids: Iterator[int] = field(factory=lambda: count(24_040))

    def refuse_upgrades(self, status: int, times: int = 1) -> None:
        """The next WebSocket upgrades get this HTTP status."""
        self.faults.refuse_upgrades(status, times)

    def rest_status(self, status: int, times: int = 1) -> None:
        """The next HTTP requests get this status."""
        self.faults.rest_status(status, times)

    def truncate_logs(self, times: int) -> None:
        """The next ``times`` notifications have their logs cut behind the first event."""
        self._cut += times

    def lose_notifications(self, times: int) -> None:
        """The next ``times`` transactions of the program are told to nobody."""
        self._lost += times

    def be_quiet(self, lasts_s: float) -> None:
        """Nobody calls the program for so long; strangers go on."""
        self._quiet_until = max(self._quiet_until, trio.current_time() + lasts_s)

    def push(self, transaction: Transaction) -> None:
        """A transaction happens, in this moment's slot, and every connection is told."""
        now_ms = self.now_ms()
        for landed in self.chain.land_again(now_ms):
            self._tell(landed, settled=True)
        self._tell(transaction, settled=self.chain.happens(transaction, now_ms))

    def _tell(self, transaction: Transaction, *, settled: bool) -> None:
        if self.market.program_id in transaction.mentions:
            if self._lost:
                self._lost -= 1
                return
            if self._cut:
                self._cut -= 1
                transaction = evolve(transaction, logs=_cut(transaction.logs))
        slot = slot_at(self.now_ms())
        for connection in [*self.connections]:
            connection.offer(transaction, slot, settled=settled)

    async def run(self) -> None:
        """Let transactions happen for ever."""
        while True:
            await trio.sleep(self.market.gap_s())
            transaction = self.market.next_transaction()
            quiet = trio.current_time() < self._quiet_until
            if quiet and self.market.program_id in transaction.mentions:
                self.market.recent.pop()  # it did not happen
            else:
                self.push(transaction)

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """One accepted connection, to its end.  Closes it."""
        self.dials += 1
        await serve_stream(stream, self._on_request, self._on_upgrade)

    def _on_request(self, request: Request) -> Response:
        self.requests += 1
        if request.method != "POST":
            said = b"Used HTTP Method is not allowed. POST or OPTIONS is required\n"
            return Response(405, said)
        status = self.faults.next_rest()
        if status is not None:
            return Response(status, _REFUSED, {"Retry-After": "10"} if status == 429 else {})
        return Response(200, self.chain.answer(request.body, self.now_ms()))

    def _on_upgrade(self, request: Request) -> Response | OnOpen:
        status = self.faults.next_upgrade()
        return self._serve_websocket if status is None else Response(status)

    async def _serve_websocket(self, peer: WebSocketPeer) -> None:
        connection = SolanaConnection(peer, LogSubscriptions(self._subscription_ids))
        self.upgrades += 1
        self.connections.append(connection)
        try:
            await connection.run()
        finally:
            self.connections.remove(connection)
            self.slow_clients += connection.too_slow


def _cut(logs: Sequence[str]) -> tuple[str, ...]:
    """Behind the first event the lines are missing."""
    at = next((n for n, line in enumerate(logs) if line.startswith("Program data")), 0)
    return (*logs[: at + 1], "Log truncated")


def notification(transaction: Transaction, slot: int, subscription: int) -> bytes:
    """A logsNotification."""
    value = {"signature": transaction.signature, "err": transaction.err, "logs": transaction.logs}
    result = {"context": {"slot": slot}, "value": value}
    params = {"result": result, "subscription": subscription}
    return msgspec.json.encode({"jsonrpc": "2.0", "method": "logsNotification", "params": params})


async def _first_to_end(job: Callable[[], Awaitable[None]], others: trio.CancelScope) -> None:
    with suppress(ConnectionLost):  # how most connections end
        await job()
    others.cancel()


async def serve_spinpet(
    market: SpinPetMarket,
    *,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    now_ms: Callable[[], float],
    control: Faults | None = None,
    task_status: trio.TaskStatus[SimulatedSolana] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the box until cancelled.  Closes the listeners.

    ``now_ms`` is unix time in ms, for slots only.  ``control`` may owe faults before the first
    client comes.  ``task_status.started`` gives the SimulatedSolana.
    """
    box = SimulatedSolana(market, now_ms, control if control is not None else Faults())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.run, name="simulator.transactions")
        await nursery.start(
            trio.serve_listeners, box.serve_stream, [*listeners], name="simulator.listen"
        )
        task_status.started(box)
