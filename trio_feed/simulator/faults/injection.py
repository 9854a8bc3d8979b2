"""Carries out a fault schedule: every kind of fault is one function of context and fault."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial

import trio
from attrs import evolve

from ...model import Interval
from ..machinery.connect_proxy import ProxyFault
from .context import Correction, FaultContext
from .frames import FRAME_FAULTS, acknowledges, updates_a_book
from .market import MARKET_FAULTS
from .proxy import GARBAGE, TLS_ALERT, FrameFault
from .schedule import Fault
from .solana import SOLANA_FAULTS
from .timing import TIMING_FAULTS

_SHUTDOWN_S = 10.0
"""From ``serverShutdown`` to the end of the connections."""
_LOSS_S = 120.0
"""Frames that are to be lost are waited for this long."""
_UNCHANGED_S = 15.0
"""So long after the last active no frame is under way that was held back."""
_RECEIVED_S = 3.0
"""A frame that was sent has been taken by a connection that is still there after this."""
_NEVER_S = 600.0
"""Longer than anybody waits for an answer."""

Injector = Callable[[FaultContext, Fault], None]


async def run_schedule(context: FaultContext, script: Sequence[tuple[float, Fault]]) -> None:
    """Inject each fault at its time (seconds of trio's clock).  Returns after the last one."""
    for at_s, fault in script:
        await trio.sleep_until(at_s)
        inject(context, fault)


def inject(context: FaultContext, fault: Fault) -> None:
    """Now.  What it begins goes on by itself.  Raises KeyError for an unknown kind."""
    context.log.append(f"t={trio.current_time():.3f} fault {fault}")
    context.injected[fault.kind] += 1
    if fault.kind in FRAME_FAULTS:
        context.fault_proxy.change_frames(
            partial(FRAME_FAULTS[fault.kind], fault.value), fault.lasts_s
        )
    else:
        _INJECTORS[fault.kind](context, fault)


def _half_open(context: FaultContext, _fault: Fault) -> None:
    for connection in context.exchange.connections:
        connection.mute()
        stream = connection.peer.stream
        if stream.silent_since is None:
            stream.silent_since = trio.current_time()


def _close(context: FaultContext, fault: Fault) -> None:
    connections = [*context.exchange.connections]
    context.ended_openly(connections)
    for connection in connections:
        connection.close(int(fault.value), "simulated")


def _shutdown(context: FaultContext, _fault: Fault) -> None:
    """Binance says serverShutdown and ends a little later; OKX says 64008 and does so itself."""
    if hasattr(context.exchange, "announce_upgrade"):
        context.exchange.announce_upgrade()
        return
    connections = [*context.exchange.connections]
    context.exchange.announce_shutdown()

    async def end() -> None:
        await trio.sleep(_SHUTDOWN_S)
        for connection in connections:
            connection.close(1001, "going away")

    context.nursery.start_soon(end)


def _day_cut(context: FaultContext, fault: Fault) -> None:
    """Everything that was opened together ends together, and then everybody asks at once."""
    _close(context, evolve(fault, value=1001))
    context.exchange.rest_status(429, fault.times)


def _refuse_upgrade(context: FaultContext, fault: Fault) -> None:
    context.exchange.refuse_upgrades(int(fault.value), fault.times)
    context.cut_all()


def _rest_status(context: FaultContext, fault: Fault) -> None:
    context.exchange.rest_status(int(fault.value), fault.times)
    context.cut_all()


def _rest_down(context: FaultContext, fault: Fault) -> None:
    context.refuse_dials(context.rest, fault.lasts_s)
    context.fault_proxy.cut_rest()


def _rest_slow(context: FaultContext, fault: Fault) -> None:
    context.fault_proxy.rest_delays_s.extend([fault.value] * fault.times)


def _rest_timeout(context: FaultContext, fault: Fault) -> None:
    context.fault_proxy.rest_delays_s.extend([_NEVER_S] * fault.times)
    context.cut_all()


def _rest_stale(context: FaultContext, fault: Fault) -> None:
    context.exchange.faults.rest_stale(fault.value, fault.times)
    context.cut_all()


def _rest_missing_row(context: FaultContext, fault: Fault) -> None:
    context.exchange.faults.rest_missing_row(fault.times)
    context.cut_all()


def _dial_refused(context: FaultContext, fault: Fault) -> None:
    context.refuse_dials(context.websocket, fault.lasts_s)
    _rest_down(context, fault)
    context.cut_all()


def _proxy_down(context: FaultContext, fault: Fault) -> None:
    context.refuse_dials(context.proxy_endpoint, fault.lasts_s)
    context.cut_everything()


def _connect_fails(how: ProxyFault | None = None) -> Injector:
    """The next clients of the CONNECT proxy get this fault; None: the status of the fault."""

    def inject(context: FaultContext, fault: Fault) -> None:
        context.proxy.fail_next(int(fault.value) if how is None else how, fault.times)
        context.cut_everything()

    return inject


def _tls_failure(context: FaultContext, fault: Fault) -> None:
    """The handshake is answered with an alert, or with the end."""
    for number in range(fault.times):
        handshake = TLS_ALERT if number % 2 else b""
        context.fault_proxy.handshakes.append(handshake)
        context.fault_proxy.rest_handshakes.append(handshake)
    context.cut_everything()


def _garbage(context: FaultContext, fault: Fault) -> None:
    context.fault_proxy.handshakes.extend([GARBAGE] * fault.times)
    context.cut_all()


def _slow_handshake(context: FaultContext, fault: Fault) -> None:
    context.fault_proxy.handshakes.extend([fault.value] * fault.times)
    context.cut_all()


def _ack_lost(context: FaultContext, fault: Fault) -> None:
    context.fault_proxy.change_frames(_lose(fault.times, acknowledges), _LOSS_S)
    context.cut_all()


def _book_gap(context: FaultContext, fault: Fault) -> None:
    context.fault_proxy.change_frames(_lose(fault.times, updates_a_book), _LOSS_S)


def _book_reset(context: FaultContext, fault: Fault) -> None:
    """OKX may count from lower on; Binance has no such thing, so there it is a gap."""
    if hasattr(context.exchange, "reset_books"):
        listing = context.exchange.market.listings[context.symbol]
        context.exchange.reset_books(f"{listing.base_asset}-{listing.quote_asset}")
    else:
        _book_gap(context, evolve(fault, times=1))


def _lose(count: int, what: Callable[[bytes], bool]) -> Callable[[], FrameFault]:
    """The next ``count`` such frames are lost, whichever connections they are on."""
    left = count

    def change_frames(payload: bytes) -> Iterator[tuple[float, bytes]]:
        nonlocal left
        if left and what(payload):
            left -= 1
        else:
            yield 0.0, payload

    return lambda: change_frames


def _correction(context: FaultContext, fault: Fault) -> None:
    """The minute that runs now is changed when it has been closed for ``value`` seconds, and every
    longer candle with it."""
    exchange = context.exchange
    open_ms = exchange.market.open_of(context.symbol, Interval.M1, int(exchange.now_ms()))
    end_ms = exchange.market.next_open(context.symbol, Interval.M1, open_ms)

    async def correct() -> None:
        await context.sleep_until_ms(end_ms + fault.value * 1000)
        try:
            old = exchange.market.candle(context.symbol, Interval.M1, open_ms)
        except ValueError:
            return  # trading was halted meanwhile: there is nothing to correct
        volume = old.volume * 2 or Decimal(1)  # one more trade has a volume
        new = evolve(old, volume=volume, close=old.high, trades=old.trades + 1)
        unchanged = context.fault_proxy.frames_changed_until + _UNCHANGED_S < trio.current_time()
        subscribers = exchange.correct(context.symbol, new)
        before = context.corrections.get(open_ms, Correction((old,), (old,)))
        context.corrections[open_ms] = before.then(new, told=False)
        await trio.sleep(_RECEIVED_S)
        if not unchanged or exchange.market.candle(context.symbol, Interval.M1, open_ms) != new:
            return
        told = [
            interval
            for interval, connections in subscribers.items()
            if any(c in exchange.connections and not c.muted for c in connections)
        ]
        context.corrections[open_ms] = before.then(new, told=Interval.M1 in told, longer=told)

    context.nursery.start_soon(correct)


def _listing(context: FaultContext, fault: Fault) -> None:
    market, until = context.exchange.market, trio.current_time() + fault.lasts_s
    market.list_symbol(context.newcomer)
    context.listed_until = max(context.listed_until, until)

    async def delist() -> None:
        await trio.sleep_until(until)
        if context.listed_until <= until:
            market.delist(context.newcomer)

    context.nursery.start_soon(delist)


_INJECTORS: Mapping[str, Injector] = {
    "tcp_reset": lambda context, _fault: context.cut_all(),
    "half_open": _half_open,
    "server_close": _close,
    "server_shutdown": _shutdown,
    "day_cut": _day_cut,
    "refuse_upgrade": _refuse_upgrade,
    "ack_lost": _ack_lost,
    "rest_status": _rest_status,
    "rest_down": _rest_down,
    "rest_slow": _rest_slow,
    "rest_timeout": _rest_timeout,
    "rest_stale": _rest_stale,
    "rest_missing_row": _rest_missing_row,
    "dial_refused": _dial_refused,
    "proxy_down": _proxy_down,
    "proxy_refuses": _connect_fails(),
    "proxy_hangs": _connect_fails("hang"),
    "proxy_dies": _connect_fails("die"),
    "proxy_splits": _connect_fails("split"),
    "tls_failure": _tls_failure,
    "garbage_before_101": _garbage,
    "slow_handshake": _slow_handshake,
    "correction": _correction,
    "book_gap": _book_gap,
    "book_reset": _book_reset,
    "listing": _listing,
    **TIMING_FAULTS,
    **MARKET_FAULTS,
    **SOLANA_FAULTS,
}
INJECTABLE = frozenset(_INJECTORS) | frozenset(FRAME_FAULTS)
"""Every kind that can be injected."""
