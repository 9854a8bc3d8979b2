"""Plays a fault script against a trial: every kind of fault is one lever, pulled at its time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import trio
from attrs import evolve

from ...model import Interval
from .frames import TAMPERS, acknowledges, updates_a_book
from .market import MARKET_LEVERS
from .proxy import GARBAGE, TLS_ALERT, Tamper
from .run import Correction, Trial
from .schedule import Fault
from .solana import SOLANA_LEVERS
from .timing import TIME_LEVERS

_LAST_WORDS_S = 10.0
"""From ``serverShutdown`` to the end of the connections."""
_OWED_S = 120.0
"""Frames that are to be lost are waited for this long."""
_CALM_S = 15.0
"""So long after the last tampering no frame is under way that was held back."""
_TAKEN_S = 3.0
"""A frame that was sent has been taken by a connection that is still there after this."""
_NEVER_S = 600.0
"""Longer than anybody waits for an answer."""

Lever = Callable[[Trial, Fault], None]


async def play(trial: Trial, script: Sequence[tuple[float, Fault]]) -> None:
    """Pull the levers in time (seconds of trio's clock).  Returns after the last one."""
    for at_s, fault in script:
        await trio.sleep_until(at_s)
        pull(trial, fault)


def pull(trial: Trial, fault: Fault) -> None:
    """Now.  What it begins goes on by itself.  Raises KeyError for an unknown kind."""
    trial.log.append(f"t={trio.current_time():.3f} fault {fault}")
    trial.injected[fault.kind] += 1
    if fault.kind in TAMPERS:
        trial.gate.tamper(partial(TAMPERS[fault.kind], fault.value), fault.lasts_s)
    else:
        _LEVERS[fault.kind](trial, fault)


def _half_open(trial: Trial, _fault: Fault) -> None:
    for connection in trial.exchange.connections:
        connection.mute()
        stream = connection.peer.stream
        if stream.silent_since is None:
            stream.silent_since = trio.current_time()


def _close(trial: Trial, fault: Fault) -> None:
    connections = [*trial.exchange.connections]
    trial.told(connections)
    for connection in connections:
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

    trial.nursery.start_soon(end)


def _day_cut(trial: Trial, fault: Fault) -> None:
    """Everything that was opened together ends together, and then everybody asks at once."""
    _close(trial, evolve(fault, value=1001))
    trial.exchange.rest_status(429, fault.times)


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


def _rest_timeout(trial: Trial, fault: Fault) -> None:
    trial.gate.rest_delays_s.extend([_NEVER_S] * fault.times)
    trial.cut_all()


def _rest_stale(trial: Trial, fault: Fault) -> None:
    trial.exchange.faults.rest_stale(fault.value, fault.times)
    trial.cut_all()


def _rest_missing_row(trial: Trial, fault: Fault) -> None:
    trial.exchange.faults.rest_missing_row(fault.times)
    trial.cut_all()


def _dial_refused(trial: Trial, fault: Fault) -> None:
    trial.refuse_dials(trial.websocket, fault.lasts_s)
    _rest_down(trial, fault)
    trial.cut_all()


def _proxy_down(trial: Trial, fault: Fault) -> None:
    trial.refuse_dials(trial.way_out, fault.lasts_s)
    trial.cut_everything()


def _proxy_refuses(trial: Trial, fault: Fault) -> None:
    trial.proxy.owe(int(fault.value), fault.times)
    trial.cut_everything()


def _proxy_hangs(trial: Trial, fault: Fault) -> None:
    trial.proxy.owe("hang", fault.times)
    trial.cut_everything()


def _proxy_dies(trial: Trial, fault: Fault) -> None:
    trial.proxy.owe("die", fault.times)
    trial.cut_everything()


def _proxy_splits(trial: Trial, fault: Fault) -> None:
    trial.proxy.owe("split", fault.times)
    trial.cut_everything()


def _tls_failure(trial: Trial, fault: Fault) -> None:
    """The handshake is answered with an alert, or with the end."""
    for number in range(fault.times):
        greeting = TLS_ALERT if number % 2 else b""
        trial.gate.greetings.append(greeting)
        trial.gate.rest_greetings.append(greeting)
    trial.cut_everything()


def _garbage(trial: Trial, fault: Fault) -> None:
    trial.gate.greetings.extend([GARBAGE] * fault.times)
    trial.cut_all()


def _slow_handshake(trial: Trial, fault: Fault) -> None:
    trial.gate.greetings.extend([fault.value] * fault.times)
    trial.cut_all()


def _ack_lost(trial: Trial, fault: Fault) -> None:
    trial.gate.tamper(_lose(fault.times, acknowledges), _OWED_S)
    trial.cut_all()


def _book_gap(trial: Trial, fault: Fault) -> None:
    trial.gate.tamper(_lose(fault.times, updates_a_book), _OWED_S)


def _book_reset(trial: Trial, fault: Fault) -> None:
    """OKX may count from lower on; Binance has no such thing, so there it is a gap."""
    if hasattr(trial.exchange, "reset_books"):
        listing = trial.exchange.market.listings[trial.symbol]
        trial.exchange.reset_books(f"{listing.base_asset}-{listing.quote_asset}")
    else:
        _book_gap(trial, evolve(fault, times=1))


def _lose(count: int, what: Callable[[bytes], bool]) -> Callable[[], Tamper]:
    """The next ``count`` such frames are lost, whichever connections they are on."""
    left = count

    def tamper(payload: bytes) -> Iterator[tuple[float, bytes]]:
        nonlocal left
        if left and what(payload):
            left -= 1
        else:
            yield 0.0, payload

    return lambda: tamper


def _correction(trial: Trial, fault: Fault) -> None:
    """The candle that runs now is changed when it has been closed for ``value`` seconds."""
    exchange = trial.exchange
    open_ms = exchange.market.open_of(trial.symbol, Interval.M1, int(exchange.now_ms()))
    end_ms = exchange.market.next_open(trial.symbol, Interval.M1, open_ms)

    async def correct() -> None:
        await trio.sleep((end_ms - exchange.now_ms()) / 1000 + fault.value)
        try:
            old = exchange.market.candle(trial.symbol, Interval.M1, open_ms)
        except ValueError:
            return  # trading was halted meanwhile: there is nothing to correct
        new = evolve(old, volume=old.volume * 2, close=old.high, trades=old.trades + 1)
        calm = trial.gate.tampered_until + _CALM_S < trio.current_time()
        takers = exchange.correct(trial.symbol, Interval.M1, new)
        before = trial.corrections.get(open_ms, Correction((old,), (old,)))
        trial.corrections[open_ms] = before.then(new, told=False)
        await trio.sleep(_TAKEN_S)
        taken = any(c in exchange.connections and not c.muted for c in takers)
        if calm and taken and exchange.market.candle(trial.symbol, Interval.M1, open_ms) == new:
            trial.corrections[open_ms] = before.then(new, told=True)

    trial.nursery.start_soon(correct)


def _listing(trial: Trial, fault: Fault) -> None:
    market, until = trial.exchange.market, trio.current_time() + fault.lasts_s
    market.list_symbol(trial.newcomer)
    trial.listed_until = max(trial.listed_until, until)

    async def delist() -> None:
        await trio.sleep_until(until)
        if trial.listed_until <= until:
            market.delist(trial.newcomer)

    trial.nursery.start_soon(delist)


_LEVERS: Mapping[str, Lever] = {
    "tcp_reset": lambda trial, _fault: trial.cut_all(),
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
    "proxy_refuses": _proxy_refuses,
    "proxy_hangs": _proxy_hangs,
    "proxy_dies": _proxy_dies,
    "proxy_splits": _proxy_splits,
    "tls_failure": _tls_failure,
    "garbage_before_101": _garbage,
    "slow_handshake": _slow_handshake,
    "correction": _correction,
    "book_gap": _book_gap,
    "book_reset": _book_reset,
    "listing": _listing,
    **TIME_LEVERS,
    **MARKET_LEVERS,
    **SOLANA_LEVERS,
}
LEVERS = frozenset(_LEVERS) | frozenset(TAMPERS)
"""Every kind that can be pulled."""
