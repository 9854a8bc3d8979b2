"""Every simulated exchange by the settings' ``venue``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio
from attrs import evolve

from ..settings import ExchangeSettings, SimulatorSettings
from .binance.exchange import DIALECTS, binance_exchange
from .machinery.server import MarketExchange, SimulatedExchange, serve
from .market.market import Market
from .okx.exchange import okx_exchange
from .solana.node import solana_node
from .solana.spinpet import SpinPetMarket

_MAKERS: Mapping[str, Callable[..., MarketExchange[Any]]] = {
    **dict.fromkeys(DIALECTS, binance_exchange),
    "okx": okx_exchange,
}
VENUES = (*_MAKERS, "spinpet")
"""Venues that can be simulated."""
_MINTS = 3


def completed(settings: SimulatorSettings, exchange: ExchangeSettings) -> ExchangeSettings:
    """The venue's settings with what its simulator brings along: Spin Pet's program id."""
    if settings.venue != "spinpet":
        return exchange
    solana = evolve(exchange.solana, program_id=spinpet_market(settings).program_id)
    return evolve(exchange, solana=solana)


def spinpet_market(settings: SimulatorSettings) -> SpinPetMarket:
    """The mints and the program id of a simulated Spin Pet; the same for the same seed."""
    return SpinPetMarket(settings.seed, _MINTS, settings.trades_per_minute)


async def serve_exchange(
    settings: SimulatorSettings,
    *,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    now_ms: Callable[[], float],
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the exchange of ``settings.venue`` until cancelled; ``started`` gives it.  ``now_ms``
    is unix ms.  Closes the listeners."""
    exchange: SimulatedExchange[Any]
    if settings.venue in _MAKERS:
        market = Market(
            settings.seed,
            settings.symbols,
            settings.trades_per_minute,
            settings.book_levels,
            turning=settings.turning,
        )
        exchange = _MAKERS[settings.venue](market, now_ms, settings)
    else:
        exchange = solana_node(spinpet_market(settings), now_ms)
    await serve(exchange, listeners=listeners, task_status=task_status)
