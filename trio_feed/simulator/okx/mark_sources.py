"""What OKX's channels ``mark-price`` and ``funding-rate`` push and when: pure, time is an argument.

Rows as of www.okx.com/docs-v5 "Mark price channel" and "Funding rate channel" (2026-07).  A swap is
marked a little off the last trade, on the side of those who pay; the rate of each eight hours is
seeded like the market itself.
"""

from decimal import Decimal
from typing import Any

from attrs import define

from ..market import prices
from ..market.books import fingerprint
from ..market.market import Market
from ..market.prices import HOUR_MS
from .listing import OkxInstrument, digits
from .rows import last_trade, push
from .sources import ChannelSource

FUNDING_MS = 8 * HOUR_MS
_MARK_MS = 1_000
"""OKX: 200 ms where it changes, 10 s where it does not."""
_FUNDING_PUSH_MS = 60_000
"""OKX: 30 to 90 s."""
_TEN = Decimal(1).scaleb(-10)


def funding_rate(market: Market, symbol: str, period: int) -> Decimal:
    """Of the eight hours with this number since 1970; at most 0.01 % either way."""
    number = prices.number(fingerprint(market, symbol), "okx funding", period)
    return Decimal(number % 2_000_001 - 1_000_000) * _TEN


def mark_row(market: Market, instrument: OkxInstrument, now_ms: int) -> dict[str, Any] | None:
    """None before the first trade."""
    last = last_trade(market, instrument.symbol, now_ms)
    if last is None:
        return None
    rate = funding_rate(market, instrument.symbol, now_ms // FUNDING_MS)
    mark = (last.price * (1 + rate)).quantize(last.price)
    return {
        "instType": instrument.inst_type, "instId": instrument.inst_id, "markPx": digits(mark),
        "ts": str(now_ms),
    }  # fmt: skip


def funding_row(market: Market, instrument: OkxInstrument, now_ms: int) -> dict[str, Any]:
    """``fundingTime`` is the next one, ``settFundingRate`` what was paid last."""
    symbol, period = instrument.symbol, now_ms // FUNDING_MS
    rate = funding_rate(market, symbol, period)
    return {
        "formulaType": "noRate", "fundingRate": digits(rate),
        "fundingTime": str((period + 1) * FUNDING_MS), "impactValue": "", "instId":
        instrument.inst_id, "instType": instrument.inst_type, "interestRate": "0",
        "maxFundingRate": "0.00375", "method": "current_period", "minFundingRate": "-0.00375",
        "nextFundingRate": "", "nextFundingTime": str((period + 2) * FUNDING_MS),
        "premium": digits(rate), "prevFundingTime": str(period * FUNDING_MS),
        "settFundingRate": digits(funding_rate(market, symbol, period - 1)),
        "settState": "settled", "ts": str(now_ms),
    }  # fmt: skip


@define(eq=False)
class MarkSource(ChannelSource):
    """``mark-price`` and ``funding-rate``, at even times."""

    def __attrs_post_init__(self) -> None:
        self._plan()

    def snapshot(self) -> list[bytes]:
        return self._messages(self.pushed_ms)

    def news(self, now_ms: int) -> list[bytes]:
        self.pushed_ms = now_ms
        self._plan()
        return self._messages(now_ms)

    def _messages(self, now_ms: int) -> list[bytes]:
        make = mark_row if self._marks else funding_row
        row = make(self.data.market, self.instrument, now_ms)
        return [] if row is None else [push(self.channel, [row])]

    def _plan(self) -> None:
        every_ms = _MARK_MS if self._marks else _FUNDING_PUSH_MS
        self.due_ms = (self.pushed_ms // every_ms + 1) * every_ms

    @property
    def _marks(self) -> bool:
        return self.channel.name == "mark-price"
