"""Faults that are no faults: what real markets do now and then."""

import math
from collections.abc import Callable, Iterable, Mapping

import trio

from ...model import Interval
from ..machinery.response_faults import ODD
from .context import FaultContext
from .schedule import Fault


def _from_now(context: FaultContext, fault: Fault) -> tuple[int, int]:
    """[start, end) in ms of the exchange; what happens in this very millisecond is past."""
    start = math.floor(context.exchange.now_ms()) + 1
    return start, start + int(fault.lasts_s * 1000)


def _stop(
    context: FaultContext, fault: Fault, symbols: Iterable[str], *, off_grid: bool = False
) -> None:
    start, end = _from_now(context, fault)
    if off_grid:
        end += 1_000 - end % 1_000
        end += 14_000 * (end % 60_000 == 0)
    for symbol in symbols:
        context.exchange.market.halt(symbol, start, end, off_grid=off_grid)
    context.returns_s.append(trio.current_time() + fault.lasts_s)


def _halt(context: FaultContext, fault: Fault) -> None:
    _stop(context, fault, [context.symbol])


def _halt_all(context: FaultContext, fault: Fault) -> None:
    _stop(context, fault, context.exchange.market.listings)


def _off_grid(context: FaultContext, fault: Fault) -> None:
    """Candles count from the moment of the return, for a while.  Only rows of Binance have shown
    that; at OKX it is a halt."""
    off_grid = context.exchange.off_grid_candles
    _stop(context, fault, [context.symbol], off_grid=off_grid)


def _quiet(context: FaultContext, fault: Fault) -> None:
    start, end = _from_now(context, fault)
    context.exchange.market.quiet(context.symbol, start, end)


def _new_listing(context: FaultContext, fault: Fault) -> None:
    """Once: it begins to be traded a moment from now, and nothing was before."""
    market = context.exchange.market
    if context.fresh not in market.listings:
        market.list_symbol(context.fresh, _from_now(context, fault)[0])


def _id_restart(context: FaultContext, fault: Fault) -> None:
    context.exchange.market.restart_ids(context.symbol, _from_now(context, fault)[0])


def _late_correction(context: FaultContext, fault: Fault) -> None:
    """A trade of the minute that runs now is booked when the minute has been closed for ``value``
    seconds: REST gives another 1m candle, and another of each longer interval; no stream says
    so."""
    exchange, symbol = context.exchange, context.symbol
    now = math.floor(exchange.now_ms())
    end = exchange.market.next_open(
        symbol, Interval.M1, exchange.market.open_of(symbol, Interval.M1, now)
    )

    async def reveal() -> None:
        await context.sleep_until_ms(end + fault.value * 1000)
        exchange.market.reveal(symbol, now)
        context.late_trades.append(now)

    context.nursery.start_soon(reveal)


def _odd_rows(context: FaultContext, fault: Fault) -> None:
    forms = [*ODD]
    context.exchange.faults.odd_rows(forms[int(fault.value) % len(forms)], fault.times)
    context.cut_all()


MARKET_FAULTS: Mapping[str, Callable[[FaultContext, Fault], None]] = {
    "halt": _halt,
    "halt_all": _halt_all,
    "off_grid": _off_grid,
    "quiet": _quiet,
    "new_listing": _new_listing,
    "id_restart": _id_restart,
    "late_correction": _late_correction,
    "odd_rows": _odd_rows,
}
