"""One file per exchange, the same members in each; :func:`make_venue` knows them by name."""

from ..core.streams import BookRule, Data, Kind, KlineUpdate, Stream, TradeIds
from ..errors import SettingsError
from ..settings import ExchangeSettings
from .base import Ack, Event, Frame, GoingAway, Heartbeat, Ignored, Plan, Pong, RestQuestion, Venue
from .instruments import AnyInstrument, Instruments
from .rows import Rows

NAMES = ("binance", "binance_usdm", "okx", "spinpet")
"""What ``[exchanges.<name>]`` may be called."""


def make_venue(name: str, settings: ExchangeSettings) -> Venue:
    """The venue of a settings table; its file is imported when it is asked for.  Raises
    SettingsError."""
    match name:
        case "binance":
            from .binance import spot

            return spot
        case "binance_usdm":
            from .binance import usdm

            return usdm
        case "okx":
            from .okx import venue as okx

            return okx
        case "spinpet":
            return _spinpet(name, settings)
    raise SettingsError(f"exchanges.{name}", f"not a venue; one of {', '.join(NAMES)}")


def _spinpet(name: str, settings: ExchangeSettings) -> Venue:
    from .spinpet import venue as spinpet

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
