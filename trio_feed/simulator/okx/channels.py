"""OKX's channels by path: names, and the line behind each."""

from collections.abc import Callable

from .bars import BARS
from .book_sources import BooksLine, TopFiveLine
from .channel_sources import CandleLine, Line, TopLine, TradesLine
from .data import Sources
from .listing import OkxInstrument
from .rows import Channel

MakeLine = Callable[[Channel, OkxInstrument, Sources, int], Line]
PUBLIC: dict[str, MakeLine] = {
    "bbo-tbt": TopLine,
    "books": BooksLine,
    "books5": TopFiveLine,
    "tickers": TopLine,
    "trades": TradesLine,
}
"""Channels of ``/public``, in OKX's fixed order of pushes."""
BUSINESS: dict[str, MakeLine] = {
    "trades-all": TradesLine,
    **{f"candle{name}": CandleLine for name in BARS},
}
RANKS = {name: rank for rank, name in enumerate((*PUBLIC, *BUSINESS))}
