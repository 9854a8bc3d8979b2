"""One file per exchange, the same members in each; :func:`make_venue` knows them by name."""

from ..core.streams import BookRule, Data, Kind, KlineUpdate, Stream, TradeIds
from ..errors import SettingsError
from ..settings import ExchangeSettings
from .base import Ack, Event, Frame, GoingAway, Heartbeat, Ignored, Plan, Pong, RestQuestion, Venue
from .binance import spot, usdm
from .instruments import AnyInstrument, Instruments
from .okx import venue as okx
from .rows import Rows
from .spinpet import venue as spinpet

_MODULES: dict[str, Venue] = {venue.NAME: venue for venue in (spot, usdm, okx)}
NAMES = (*_MODULES, spinpet.NAME)
"""What ``[exchanges.<name>]`` may be called."""


def make_venue(name: str, settings: ExchangeSettings) -> Venue:
    """The venue of a settings table.  Raises SettingsError."""
    if name in _MODULES:
        return _MODULES[name]
    if name != spinpet.NAME:
        raise SettingsError(f"exchanges.{name}", f"not a venue; one of {', '.join(NAMES)}")
    solana = settings.solana
    try:
        return spinpet.SpinPet(
            solana.program_id,
            solana.commitment,
            solana.process_failed_transactions,
            chain=bool(solana.endpoints or settings.connection.rest_url),
        )
    except ValueError as error:
        raise SettingsError(f"exchanges.{name}.solana", str(error)) from None


__all__ = [
    "NAMES",
    "Ack",
    "AnyInstrument",
    "BookRule",
    "Data",
    "Event",
    "Frame",
    "GoingAway",
    "Heartbeat",
    "Ignored",
    "Instruments",
    "Kind",
    "KlineUpdate",
    "Plan",
    "Pong",
    "RestQuestion",
    "Rows",
    "Stream",
    "TradeIds",
    "Venue",
    "make_venue",
]
