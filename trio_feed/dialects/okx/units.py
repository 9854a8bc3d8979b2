"""What OKX counts in, and how it names what is traded.  Pure.

Quantities of derivatives are contracts of ``contract_size`` there, and base currency here; of an
inverse contract, which is so many units of the quote currency, sizes are quote currency here.
"""

from decimal import Decimal

from ...model import EXACT, Instrument, Interval, Kline, Trade, plain

BARS = {
    "1s": Interval.S1,
    "1m": Interval.M1,
    "3m": Interval.M3,
    "5m": Interval.M5,
    "15m": Interval.M15,
    "30m": Interval.M30,
    "1H": Interval.H1,
    "2H": Interval.H2,
    "4H": Interval.H4,
    "6Hutc": Interval.H6,
    "12Hutc": Interval.H12,
    "1Dutc": Interval.D1,
    "3Dutc": Interval.D3,
    "1Wutc": Interval.W1,
    "1Mutc": Interval.MO1,
}
"""By OKX's notation.  From 6H on the names without ``utc`` open on days of UTC+8, which are not
kept here; those of UTC would be wrong data under their name."""


def other_days(bar: str) -> str:
    """Why a bar of OKX's own days is not served; empty: it is no such."""
    if f"{bar}utc" not in BARS:
        return ""
    return f"{bar} opens on days of UTC+8, which are not kept here: ask for {bar}utc"


_TYPES = {"spot": "SPOT", "perpetual": "SWAP", "future": "FUTURES", "option": "OPTION"}


def inst_type(instrument: Instrument) -> str:
    """``instType``."""
    return _TYPES.get(instrument.kind.removeprefix("inverse_"), "")


def is_inverse(instrument: Instrument) -> bool:
    return instrument.kind.startswith("inverse_")


def family(instrument: Instrument) -> str:
    """``BTC-USDT`` of ``BTC-USDT-SWAP``; also of a spot pair, which has itself as such."""
    return "-".join(instrument.native.split("-")[:2])


def contracts(instrument: Instrument, quantity: Decimal) -> str:
    """Base currency (inverse: quote) -> what OKX counts, with the digits that it had."""
    if instrument.contract_size == 1:
        return plain(quantity)
    return plain(EXACT.divide(quantity, instrument.contract_size))


def trade_size(instrument: Instrument, trade: Trade) -> str:
    """``sz``.  The base currency of an inverse trade is rounded, its worth is not."""
    quantity = trade.quantity
    if is_inverse(instrument) and trade.quote_quantity is not None:
        quantity = trade.quote_quantity
    return contracts(instrument, quantity)


def volumes(instrument: Instrument, kline: Kline) -> tuple[str, str]:
    """``vol`` and ``volCcy``: base and quote of spot, contracts and base of a derivative."""
    if instrument.kind == "spot":
        return plain(kline.volume), plain(kline.quote_volume)
    counted = kline.quote_volume if is_inverse(instrument) else kline.volume
    return contracts(instrument, counted), plain(kline.volume)
