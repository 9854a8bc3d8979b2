"""One file per exchange, the same members in each; :data:`VENUES` lists them by settings name."""

from . import binance, binance_usdm
from .base import (
    Ack,
    BookRule,
    Data,
    Event,
    Frame,
    GoingAway,
    Heartbeat,
    Ignored,
    Kind,
    KlineUpdate,
    Plan,
    Pong,
    RestQuestion,
    Stream,
    Venue,
)
from .instruments import AnyInstrument, Instruments

VENUES: dict[str, Venue] = {venue.NAME: venue for venue in (binance, binance_usdm)}

__all__ = [
    "VENUES",
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
    "Stream",
    "Venue",
]
