"""Faults that are no faults: what real markets do now and then."""

import math
from collections.abc import Callable, Iterable, Mapping

import trio

from ...model import Interval
from ..machinery.response_faults import ODD
from .run import Trial
from .schedule import Fault


def _from_now(trial: Trial, fault: Fault) -> tuple[int, int]:
    """[start, end) in ms of the exchange; what happens in this very millisecond is past."""
    start = math.floor(trial.exchange.now_ms()) + 1
    return start, start + int(fault.lasts_s * 1000)


def _stop(trial: Trial, fault: Fault, symbols: Iterable[str], *, off_grid: bool = False) -> None:
    start, end = _from_now(trial, fault)
    if off_grid:
        end += 1_000 - end % 1_000
        end += 14_000 * (end % 60_000 == 0)
    for symbol in symbols:
        trial.exchange.market.halt(symbol, start, end, off_grid=off_grid)
    trial.returns_s.append(trio.current_time() + fault.lasts_s)


def _halt(trial: Trial, fault: Fault) -> None:
    _stop(trial, fault, [trial.symbol])


def _halt_all(trial: Trial, fault: Fault) -> None:
    _stop(trial, fault, trial.exchange.market.listings)


def _off_grid(trial: Trial, fault: Fault) -> None:
    """Candles count from the moment of the return, for a while.  Only rows of Binance have shown
    that; at OKX it is a halt."""
    at_binance = hasattr(trial.exchange, "ticker")
    _stop(trial, fault, [trial.symbol], off_grid=at_binance)


def _quiet(trial: Trial, fault: Fault) -> None:
    start, end = _from_now(trial, fault)
    trial.exchange.market.quiet(trial.symbol, start, end)


def _new_listing(trial: Trial, fault: Fault) -> None:
    """Once: it begins to be traded a moment from now, and nothing was before."""
    market = trial.exchange.market
    if trial.fresh not in market.listings:
        market.list_symbol(trial.fresh, _from_now(trial, fault)[0])


def _id_restart(trial: Trial, fault: Fault) -> None:
    trial.exchange.market.restart_ids(trial.symbol, _from_now(trial, fault)[0])


def _late_correction(trial: Trial, fault: Fault) -> None:
    """A trade of the minute that runs now is booked when the minute has been closed for ``value``
    seconds: REST gives another 1m candle, and another of each longer interval; no stream says
    so."""
    exchange, symbol = trial.exchange, trial.symbol
    now = math.floor(exchange.now_ms())
    end = exchange.market.next_open(
        symbol, Interval.M1, exchange.market.open_of(symbol, Interval.M1, now)
    )

    async def reveal() -> None:
        await trio.sleep((end - now) / 1000 + fault.value)
        exchange.market.reveal(symbol, now)
        trial.late_trades.append(now)

    trial.nursery.start_soon(reveal)


def _odd_rows(trial: Trial, fault: Fault) -> None:
    forms = [*ODD]
    trial.exchange.faults.odd_rows(forms[int(fault.value) % len(forms)], fault.times)
    trial.cut_all()


MARKET_LEVERS: Mapping[str, Callable[[Trial, Fault], None]] = {
    "halt": _halt,
    "halt_all": _halt_all,
    "off_grid": _off_grid,
    "quiet": _quiet,
    "new_listing": _new_listing,
    "id_restart": _id_restart,
    "late_correction": _late_correction,
    "odd_rows": _odd_rows,
}
