"""Exchanges in a box, reached over the wire only: a seeded market, real dialects, fault levers."""

from .binance.exchange import BINANCE_BOXES, SimulatedExchange, serve_binance, serve_binance_spot
from .machinery.response_faults import Faults
from .market.books import BookPath
from .market.market import Market
from .replay import Recording, parse_recording, serve_replay

__all__ = [
    "BINANCE_BOXES",
    "BookPath",
    "Faults",
    "Market",
    "Recording",
    "SimulatedExchange",
    "parse_recording",
    "serve_binance",
    "serve_binance_spot",
    "serve_replay",
]
