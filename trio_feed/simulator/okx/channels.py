"""OKX's channels by path: names, and the source of each."""

from collections.abc import Callable

from .bars import BARS
from .book_sources import BookSource, TopFiveSource
from .data import MarketData
from .listing import OkxInstrument, find_instrument
from .mark_sources import MarkSource
from .rows import Channel
from .sources import CandleSource, ChannelSource, TopSource, TradesSource

MakeSource = Callable[[Channel, OkxInstrument, MarketData, int, int], ChannelSource]
PUBLIC: dict[str, MakeSource] = {
    "bbo-tbt": TopSource,
    "books": BookSource,
    "books5": TopFiveSource,
    "tickers": TopSource,
    "trades": TradesSource,
    "mark-price": MarkSource,
    "funding-rate": MarkSource,
}
"""Channels of ``/public``, in OKX's fixed order of pushes."""
BUSINESS: dict[str, MakeSource] = {
    "trades-all": TradesSource,
    **{f"candle{name}": CandleSource for name in BARS},
}
_ALL = {**PUBLIC, **BUSINESS}
_RANKS = {name: rank for rank, name in enumerate(_ALL)}


def source_of(data: MarketData, channel: Channel, now_ms: int) -> ChannelSource | None:
    """What tells this channel from ``now_ms`` on; None for an unknown instrument."""
    instrument, name = find_instrument(data.market, channel.inst_id), channel.name
    if instrument is None:
        return None
    return _ALL[name](channel, instrument, data, _RANKS[name], now_ms)


def exists(data: MarketData, channel: Channel) -> bool:
    """Whether such a channel can be subscribed to now."""
    instrument = find_instrument(data.market, channel.inst_id)
    if instrument is None or instrument.symbol in data.market.delisted:
        return False
    return channel.name in _ALL and not (channel.name == "funding-rate" and instrument.is_spot)
