"""Exchanges in a box, reached over the wire only: a seeded market, real dialects, fault levers."""

from .binance import SimulatedExchange, serve_binance
from .faults import Faults
from .market import Market
from .replay import Recording, parse_recording, serve_replay

__all__ = [
    "Faults",
    "Market",
    "Recording",
    "SimulatedExchange",
    "parse_recording",
    "serve_binance",
    "serve_replay",
]
