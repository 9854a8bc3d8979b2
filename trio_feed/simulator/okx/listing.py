"""What OKX lists: each of the market's symbols as a spot pair and as a perpetual swap.

Both see the same trades and the same book.  A swap counts in contracts of ``ctVal`` base coins
(documented values for the known coins), a spot pair in base coins.  Row fields: www.okx.com
/docs-v5 "Get instruments" (2026-07), exchanges.md 5.5.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from attrs import frozen

from ...model import Kline, plain
from ..market.listing import LISTED_MS, Listing
from ..market.market import Market

_CONTRACT_DIGITS = {"BTC": -2, "ETH": -1, "SOL": 0, "BNB": -2, "XRP": 2}
"""ctVal as a power of ten, so that base -> contracts is exact."""


@frozen
class OkxInstrument:
    """One instId.  ``inst_type`` is SPOT or SWAP."""

    inst_id: str
    inst_type: str
    listing: Listing

    @property
    def symbol(self) -> str:
        """The market's name of it."""
        return self.listing.symbol

    @property
    def is_spot(self) -> bool:
        return self.inst_type == "SPOT"

    @property
    def contract_digits(self) -> int:
        """A unit of quantity is ``10 ** contract_digits`` base coins."""
        return 0 if self.is_spot else _CONTRACT_DIGITS.get(self.listing.base_asset, 0)

    def size(self, quantity: Decimal) -> str:
        """Base coins -> OKX's quantity, exactly."""
        return digits(quantity.scaleb(-self.contract_digits))

    def volumes(self, kline: Kline) -> tuple[str, str]:
        """``vol`` and ``volCcy``: base and quote for spot, contracts and base for a swap."""
        base = digits(kline.volume)
        return (
            (base, digits(kline.quote_volume)) if self.is_spot else (self.size(kline.volume), base)
        )

    def row(self, *, trading: bool) -> dict[str, Any]:
        """Its row of ``/api/v5/public/instruments``."""
        listing, spot = self.listing, self.is_spot
        family = f"{listing.base_asset}-{listing.quote_asset}"
        step = self.size(listing.step)
        return {
            "alias": "", "auctionEndTime": "", "baseCcy": listing.base_asset if spot else "",
            "category": "1", "contTdSwTime": "", "ctMult": "" if spot else "1",
            "ctType": "" if spot else "linear",
            "ctVal": "" if spot else digits(Decimal(1).scaleb(self.contract_digits)),
            "ctValCcy": "" if spot else listing.base_asset, "expTime": "",
            "futureSettlement": False, "groupId": "1", "instFamily": "" if spot else family,
            "instId": self.inst_id, "instIdCode": _code(self), "instType": self.inst_type,
            "lever": "10" if spot else "100", "listTime": str(LISTED_MS), "lotSz": step,
            "maxIcebergSz": "9999999999", "maxLmtAmt": "20000000", "maxLmtSz": "9999999999",
            "maxMktAmt": "1000000", "maxMktSz": "1000000", "maxStopSz": "1000000",
            "maxTriggerSz": "9999999999", "maxTwapSz": "9999999999", "minSz": step,
            "openType": "call_auction", "optType": "", "preMktSwTime": "",
            "quoteCcy": listing.quote_asset if spot else "", "ruleType": "normal",
            "settleCcy": "" if spot else listing.quote_asset,
            "state": "live" if trading else "suspend", "stk": "", "tickSz": digits(listing.tick),
            "tradeQuoteCcyList": [listing.quote_asset] if spot else [],
            "uly": "" if spot else family, "upcChg": [],
        }  # fmt: skip


def digits(value: Decimal) -> str:
    """Decimal -> OKX's digits: no exponent, no trailing zeros (``30236``, not ``30236.0``)."""
    text = plain(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def instruments_of(market: Market) -> Iterator[OkxInstrument]:
    """All of them, spot and swap of a symbol side by side; delisted ones too."""
    for listing in market.listings.values():
        yield from _both(listing)


def _both(listing: Listing) -> tuple[OkxInstrument, OkxInstrument]:
    pair = f"{listing.base_asset}-{listing.quote_asset}"
    return OkxInstrument(pair, "SPOT", listing), OkxInstrument(f"{pair}-SWAP", "SWAP", listing)


def find_instrument(market: Market, inst_id: str) -> OkxInstrument | None:
    """Names are case-sensitive; None for an unknown one."""
    symbol = "".join(inst_id.split("-")[:2])
    listing = market.listings.get(symbol)
    if listing is None:
        return None
    return next((each for each in _both(listing) if each.inst_id == inst_id), None)


def _code(instrument: OkxInstrument) -> int:
    return int.from_bytes(instrument.inst_id.encode()[-6:], "big") % 1_000_000
