"""One file per exchange, the same members in each; :data:`VENUES` lists them by settings name."""

from . import binance
from .base import Ack, Event, GoingAway, Ignored, KlineUpdate, Plan, RestQuestion, Stream, Venue

VENUES: dict[str, Venue] = {binance.NAME: binance}

__all__ = [
    "VENUES",
    "Ack",
    "Event",
    "GoingAway",
    "Ignored",
    "KlineUpdate",
    "Plan",
    "RestQuestion",
    "Stream",
    "Venue",
]
