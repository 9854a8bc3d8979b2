"""OKX's channels by path: names, and the line behind each."""

from collections.abc import Callable

from .okx_bars import BARS
from .okx_book_lines import BooksLine, TopFiveLine
from .okx_forms import Channel
from .okx_lines import CandleLine, Line, TopLine, TradesLine
from .okx_listing import OkxInstrument
from .okx_sources import Sources

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
