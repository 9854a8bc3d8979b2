"""The forms of OKX's messages and answers; fields that nothing uses are left out.

Sources: see :mod:`.messages`.  All numbers but the sequence ids come as strings; an empty string
says nothing.  Fields with a default are absent in recordings of 2022 and 2023.
"""

from typing import Annotated, Literal

import msgspec

from ...model import INT_MAX

NOTHING = msgspec.Raw()


class Form(msgspec.Struct):
    """Base of the wire forms."""


class Arg(Form):
    channel: str
    instId: str = ""


class Envelope(Form):
    event: str | None = None
    arg: Arg | None = None
    action: str | None = None
    data: msgspec.Raw = NOTHING
    code: str = ""
    msg: str = ""


class TradeRow(Form):
    tradeId: str
    px: str
    sz: str
    side: Literal["buy", "sell"]
    ts: str
    count: str = "1"


class TickerRow(Form):
    last: str
    ts: str
    open24h: str = ""
    high24h: str = ""
    low24h: str = ""
    vol24h: str = ""
    volCcy24h: str = ""
    bidPx: str = ""
    bidSz: str = ""
    askPx: str = ""
    askSz: str = ""
    lastSz: str = ""
    sodUtc0: str = ""
    sodUtc8: str = ""


class MarkPriceRow(Form):
    markPx: str
    ts: str


class FundingRow(Form):
    fundingRate: str
    fundingTime: str
    ts: str
    nextFundingTime: str = ""
    prevFundingTime: str = ""
    settFundingRate: str = ""
    premium: str = ""
    interestRate: str = ""
    minFundingRate: str = ""
    maxFundingRate: str = ""


class CandleRow(msgspec.Struct, array_like=True):
    ts: str
    o: str
    h: str
    l: str  # noqa: E741 - the exchange's name
    c: str
    vol: str
    volCcy: str
    volCcyQuote: str
    confirm: Literal["0", "1"]


class LevelRow(msgspec.Struct, array_like=True):
    px: str
    sz: str


_Sequence = Annotated[int, msgspec.Meta(ge=-1, le=INT_MAX)]


class BookRow(Form):
    asks: list[LevelRow]
    bids: list[LevelRow]
    ts: str
    seqId: _Sequence = 0
    prevSeqId: _Sequence | None = None
    checksum: int | None = None


class Answer(Form):
    code: str
    msg: str = ""
    data: msgspec.Raw = NOTHING


class Listed(Form):
    instType: str
    instId: str
    state: str
    baseCcy: str = ""
    quoteCcy: str = ""
    instFamily: str = ""
    uly: str = ""
    ctVal: str = ""
    ctMult: str = ""
    ctValCcy: str = ""
    tickSz: str = ""
    lotSz: str = ""


class OpenInterestRow(Form):
    oiCcy: str
    ts: str
    oiUsd: str = ""


decode_trades = msgspec.json.Decoder(list[TradeRow]).decode
decode_trade = msgspec.json.Decoder(TradeRow).decode
decode_candles = msgspec.json.Decoder(list[CandleRow]).decode
decode_candle = msgspec.json.Decoder(CandleRow).decode
decode_books = msgspec.json.Decoder(list[BookRow]).decode
decode_tickers = msgspec.json.Decoder(list[TickerRow]).decode
decode_marks = msgspec.json.Decoder(list[MarkPriceRow]).decode
decode_fundings = msgspec.json.Decoder(list[FundingRow]).decode
decode_envelope = msgspec.json.Decoder(Envelope).decode
decode_answer = msgspec.json.Decoder(Answer).decode
decode_open_interest = msgspec.json.Decoder(list[OpenInterestRow]).decode
decode_listed = msgspec.json.Decoder(list[Listed]).decode
decode_listed_row = msgspec.json.Decoder(Listed).decode
