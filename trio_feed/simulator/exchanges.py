"""Which exchange is in the box: the settings' ``venue`` decides."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import trio

from ..settings import SimulatorSettings
from .binance.exchange import BINANCE_BOXES
from .market.market import Market
from .okx.exchange import serve_okx
from .solana.node import serve_spinpet
from .solana.spinpet import SpinPetMarket

_MARKETS: dict[str, Callable[..., Any]] = {**BINANCE_BOXES, "okx": serve_okx}
VENUES = (*_MARKETS, "spinpet")
"""Venues that there is a box for."""
_MINTS = 3


def spinpet_market(settings: SimulatorSettings) -> SpinPetMarket:
    """The mints and the program id of a spinpet box; the same for the same seed."""
    return SpinPetMarket(settings.seed, _MINTS, settings.trades_per_minute)


async def serve_box(
    settings: SimulatorSettings,
    *,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    now_ms: Callable[[], float],
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the box of ``settings.venue`` until cancelled; ``started`` gives its levers.  Closes
    the listeners."""
    if settings.venue in _MARKETS:
        market = Market(
            settings.seed, settings.symbols, settings.trades_per_minute, settings.book_levels
        )
        serve: Any = partial(_MARKETS[settings.venue], market, settings=settings)
    else:
        serve = partial(serve_spinpet, spinpet_market(settings))
    await serve(listeners=listeners, now_ms=now_ms, task_status=task_status)
